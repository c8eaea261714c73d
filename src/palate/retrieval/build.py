"""Build an index: choose its kind, tune its effort to a target recall, measure it, and restore it from a bundle.

    recall@k = mean over queries of |exact k best and those found| / k

Half of the queries tune. Their best items set the range of the codes' levels and the number of candidates for each item
that is wanted; then effort grows until their recall, less twice its standard error, reaches the target. The other
half measures the recorded recall, so the number is not flattered by the tuning.

Shape legend: I items, D width, Q queries, C items whose scores are checked, K list length.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from palate.base import Model, Query, Vectors, reads_ratings
from palate.data.dataset import History
from palate.errors import BundleError, ModelError
from palate.retrieval.approximate import EXACT_ABOVE_LENGTH, OVERSAMPLING, OVERSAMPLINGS, Approximate
from palate.retrieval.exact import Exact
from palate.retrieval.faiss_index import EFFORT, Codes, hnsw, ivf, read
from palate.retrieval.index import Index, IndexInfo, as_vectors

Kind = Literal["auto", "exact", "ivf", "hnsw"]
KINDS: tuple[Kind, ...] = get_args(Kind)
EXACT_UP_TO = 100_000
QUERIES = 2000  # at most, to tune and measure with
OVERSAMPLING_QUERIES = 200  # they search all cells, which is slow
EFFORT_STEPS = 32  # effort is tuned to within a 32nd
CODE_LOSS = 0.25  # of the items a search may miss, the share that may be missed because the codes are coarse
LINKS, EF_CONSTRUCTION = 16, 40
CHECKED = 16  # users and items whose scores must be the dot products of their vectors


def build_index(
    vectors_ID: Tensor,
    kind: Kind = "auto",
    *,
    queries_QD: Tensor | None = None,
    recall: float = 0.98,
    k: int = 100,
    seed: int = 0,
    exact_up_to: int = EXACT_UP_TO,
) -> Index:
    """An index of items' vectors, with its measured recall in ``info``.

    Args:
        vectors_ID: the vectors of all items, row by row of the catalog.
        kind: "exact"; "ivf"; "hnsw", which takes several times as long to build; or "auto": exact for small catalogs
            and ivf for large ones.
        queries_QD: queries like those to come, such as vectors of users. Default: a sample of the items' own vectors,
            which are easier to search for.
        recall: target of the mean recall@k, below 1.
        k: the list length that recall is tuned and measured at.
        seed: of the sample and of k-means.
        exact_up_to: number of items up to which "auto" is exact. Default: 100,000.

    Raises:
        ModelError: the vectors are not numbers, an argument is out of range, or FAISS is not installed.
    """
    begin = time.perf_counter()
    if kind not in KINDS:
        raise ModelError(f"kind={kind!r}: choose one of {', '.join(KINDS)}")
    if not 0 < recall < 1 or k < 1:
        raise ModelError(f"recall={recall}, k={k}: give a recall between 0 and 1 and a list length of at least 1")
    exact = Exact.of(vectors_ID)
    items, dim = exact.vectors.shape
    if kind == "exact" or (kind == "auto" and items <= exact_up_to):
        return exact
    if items < 2:
        raise ModelError(f"{items} items are too few for kind={kind!r}: build an exact index")
    queries = exact.vectors if queries_QD is None else as_vectors(queries_QD, dim, "queries")
    if not len(queries):
        raise ModelError("no query to measure with: give vectors of users, or leave queries_QD out")
    chosen = np.random.default_rng(seed).permutation(len(queries))[:QUERIES]
    queries = queries[torch.from_numpy(chosen).to(queries.device)].to(exact.vectors.device)
    # Longer lists would be answered exactly, and tune nothing.
    k = max(1, min(k, int(items / (EXACT_ABOVE_LENGTH * OVERSAMPLINGS[-1]))))
    truth_QK, half = exact.search(queries, k).items, max(1, len(queries) // 2)
    parameters: dict[str, float]
    if kind == "hnsw":
        codes = hnsw(exact.vectors, LINKS, EF_CONSTRUCTION, seed)
        parameters = {"M": LINKS, "efConstruction": EF_CONSTRUCTION, "max_norm": codes.max_norm}
        parameters["oversampling"] = OVERSAMPLING
    else:
        finer = 2 if items > EXACT_UP_TO else 1  # many items pay for looking at more centers
        cells = 2 ** round(math.log2(finer * math.sqrt(items)))
        codes = ivf(exact.vectors, cells, truth_QK[:half], seed)
        look = slice(0, min(half, OVERSAMPLING_QUERIES))
        oversampling = _oversampling(codes, queries[look], truth_QK[look], CODE_LOSS * (1 - recall))
        parameters = {"nlist": cells, "oversampling": oversampling}
    info = IndexInfo(codes.kind, items, dim, parameters, k=k, target_recall=recall)
    index = _tuned(Approximate(exact, codes, info), queries[:half], truth_QK[:half])
    held = slice(half if half < len(queries) else 0, None)
    recall_Q = _recall(index, queries[held], truth_QK[held])
    seconds = round(time.perf_counter() - begin, 3)
    measured = replace(index.info, recall=float(recall_Q.mean()), queries=len(recall_Q), build_seconds=seconds)
    return replace(index, info=measured)


def build_model_index(
    model: Model, seen: History, kind: Kind = "auto", *, recall: float = 0.98, k: int = 100, seed: int = 0
) -> Index:
    """An index of a model's item vectors, tuned on the vectors of its users.

    Args:
        model: a model whose score is the dot product of its vectors.
        seen: the training history, one per user row; vectors of a sample of these users tune and measure.
        kind, recall, k, seed: see ``build_index``.

    Raises:
        ModelError: the model has no vectors, or its scores are not their products; or as ``build_index``.
    """
    name = type(model).__name__
    if not isinstance(model, Vectors):
        raise ModelError(f"{name} has no item vectors to search: recommend without an index")
    cast(nn.Module, model).eval()
    every = reads_ratings(model)
    known = seen if every else seen.positives()
    users = np.random.default_rng(seed).permutation(np.flatnonzero(known.counts > 0))[:QUERIES]
    with torch.inference_mode():
        item_ID = model.item_vectors()
        query_QD = model.query_vectors(Query.of(users, seen.select(users), every_event=every).to(item_ID.device))
        # Some models have vectors for similarity only: a few scores show whether an index could search them.
        few = Query.of(users[:CHECKED], seen.select(users[:CHECKED]), every_event=every).to(item_ID.device)
        item_C = torch.linspace(0, len(item_ID) - 1, CHECKED, device=item_ID.device).round().to(torch.int64)
        score_QC = model.score(few, item_C.expand(len(few), -1))
        scale = float(score_QC.abs().max()) + 1e-6
        if query_QD.shape[1] != item_ID.shape[1] or not torch.allclose(
            score_QC / scale, query_QD[: len(few)] @ item_ID[item_C].T / scale, rtol=1e-3, atol=1e-3
        ):
            raise ModelError(
                f"scores of {name} are no dot products of its vectors, so no index can search them: "
                "recommend without an index"
            )
    # Clones: tensors of inference mode cannot be used outside of it.
    return build_index(item_ID.clone(), kind, queries_QD=query_QD.clone(), recall=recall, k=k, seed=seed)


def index_record(index: Index, model: Model) -> dict[str, Any]:
    """The fields of ``index.info``, for the manifest of a bundle; the vectors are those of the model.

    Raises:
        BundleError: the index is not over the model's item vectors, so it could not be restored.
    """
    exact = _exact(model)
    if exact.vectors.shape != index.vectors.shape or not torch.allclose(
        exact.vectors, index.vectors.to(exact.vectors.device), rtol=1e-4, atol=1e-6
    ):
        raise BundleError(
            f"the index holds {len(index):,} vectors that are not the {len(exact):,} item vectors of the model: "
            "build it over model.item_vectors()"
        )
    return asdict(index.info)


def index_of_record(record: Mapping[str, Any], model: Model, codes: Path | None) -> Index:
    """The index of a record, over the model's item vectors.

    Args:
        record: as returned by ``index_record``.
        model: the model of the bundle.
        codes: a file written by ``Codes.write``; None for an exact index.

    Raises:
        BundleError: the parts do not belong together.
        ModelError: FAISS is needed and not installed.
    """
    try:
        info = IndexInfo(**record)
    except TypeError as error:
        raise BundleError(f"the bundle's index cannot be read ({error}): upgrade palate or save it again") from None
    for name, value in info.parameters.items():
        if not (value > 0 if name == "max_norm" else value >= 1) or value >= 1 << 31:
            raise BundleError(f"the bundle's index has {name}={value:g}, which no search can use: save it again")
    exact = _exact(model)
    if info.kind == "exact":
        return exact
    if codes is None:
        raise BundleError(f"the bundle records an index ({info.kind}) whose file it lacks: save it again")
    index = Approximate(exact, read(codes, exact.vectors, info.parameters.get("max_norm", 0.0)), info)
    if index.codes.kind != info.kind or info.dim != exact.vectors.shape[1]:
        raise BundleError(
            f"{codes.name} holds {len(index.codes):,} items ({index.codes.kind}) but the model has {len(exact):,} of "
            f"width {exact.vectors.shape[1]}: save the bundle again"
        )
    return index


def _exact(model: Model) -> Exact:
    if not isinstance(model, Vectors):
        raise BundleError(f"{type(model).__name__} has no item vectors to search: save it without an index")
    with torch.inference_mode():
        return Exact.of(model.item_vectors())


def _oversampling(codes: Codes, query_QD: Tensor, truth_QK: Tensor, loss: float) -> float:
    """Candidates for each wanted item, so that a search of all cells would miss at most the share ``loss``."""
    k = truth_QK.shape[1]
    row_QF = codes.candidates(query_QD, min(len(codes), math.ceil(OVERSAMPLINGS[-1] * k)), codes.most)
    found_QF = torch.from_numpy(row_QF).to(truth_QK.device)
    for oversampling in OVERSAMPLINGS:
        if float(_shared(truth_QK, found_QF[:, : math.ceil(oversampling * k)]).mean()) >= 1 - loss:
            return oversampling
    return OVERSAMPLINGS[-1]


def _tuned(index: Approximate, query_QD: Tensor, truth_QK: Tensor) -> Approximate:
    """The index with the least effort, to within a 32nd, that reaches the target recall."""
    info, codes = index.info, index.codes

    def with_effort(effort: int) -> Approximate:
        return replace(index, info=replace(info, parameters={**info.parameters, EFFORT[codes.kind]: effort}))

    # A graph is never searched with less than the list it is asked for.
    low, high = 0 if codes.kind == "ivf" else math.ceil(OVERSAMPLING * info.k) - 1, codes.most
    # Bisection by the geometric mean: efforts span four orders of magnitude, and each trial searches all queries.
    while high - low > max(1, high // EFFORT_STEPS):
        middle = min(max(low + 1, math.isqrt(max(low, 1) * high)), high - 1)
        recall_Q = _recall(with_effort(middle), query_QD, truth_QK)
        error = float(recall_Q.std(correction=0)) / math.sqrt(len(recall_Q))
        enough = float(recall_Q.mean()) - 2 * error >= info.target_recall
        low, high = (low, middle) if enough else (middle, high)
    return with_effort(high)


def _recall(index: Approximate, query_QD: Tensor, truth_QK: Tensor) -> Tensor:
    """The share of each query's exact list that is found, (Q,)."""
    return _shared(truth_QK, index.search(query_QD, truth_QK.shape[1]).items)


def _shared(truth_QK: Tensor, found_QF: Tensor) -> Tensor:
    """The share of each row of the first that is in the row of the second, (Q,)."""
    both, _ = torch.cat([truth_QK, found_QF], 1).sort(1)
    return (both[:, 1:] == both[:, :-1]).sum(1) / truth_QK.shape[1]
