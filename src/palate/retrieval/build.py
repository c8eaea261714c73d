"""Build an index: choose its kind, tune its effort to a wished recall, and measure what it finds.

    recall@k = mean over queries of |exact k best and those found| / k

Half of the queries tune. What they like best says where the levels of the codes must reach, and how many must be
nominated for each item that is wanted; then effort grows until their recall, less twice its standard error, reaches the
wish. The other half measures what is recorded, so the number is not flattered by the tuning.

Shape legend: I items, D width, Q queries, K list length.
"""

from __future__ import annotations

import math
import time
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from palate.errors import ModelError
from palate.retrieval.approximate import MANY, SPARE, SPARES, Approximate
from palate.retrieval.base import About, Index, vectors_of
from palate.retrieval.exact import Exact
from palate.retrieval.faiss_index import EFFORT, Codes, hnsw, ivf

__all__ = ["KINDS", "Kind", "build"]

Kind = Literal["auto", "exact", "ivf", "hnsw"]
KINDS: tuple[Kind, ...] = get_args(Kind)
EXACT_UP_TO = 100_000  # "auto" looks at every item of a catalog of this size
QUERIES = 2000  # of those given, at most so many tune and measure
LOOK_EVERYWHERE = 200  # queries that tune how many are nominated, from all cells
FINE = 32
LOST = 0.25  # of what a search may miss, the share that may be missed because the codes are coarse
LINKS, CONSTRUCTION = 16, 40


def build(
    vectors_ID: Tensor,
    kind: Kind = "auto",
    *,
    queries_QD: Tensor | None = None,
    recall: float = 0.98,
    k: int = 100,
    seed: int = 0,
) -> Index:
    """An index of items' vectors, with what it was measured to find in ``about``.

    Args:
        vectors_ID: the vectors of all items, row by row of the catalog.
        kind: "exact"; "ivf"; "hnsw", which takes several times as long to build; or "auto": exact
            up to 100,000 items and ivf beyond.
        queries_QD: what will be asked, such as vectors of users; a sample of the items' own where left out, which are
            easier to answer.
        recall: the mean recall@k wished for, below 1.
        k: the list length that recall is tuned and measured at.
        seed: of the sample and of k-means.

    Raises:
        ModelError: the vectors are not numbers, a wish makes no sense, or FAISS is not installed.
    """
    begin = time.perf_counter()
    if kind not in KINDS:
        raise ModelError(f"kind={kind!r}: choose one of {', '.join(KINDS)}")
    if not 0 < recall < 1 or k < 1:
        raise ModelError(f"recall={recall}, k={k}: wish for a recall between 0 and 1 at a list length of at least 1")
    exact = Exact.of(vectors_ID)
    items, dim = exact.vectors.shape
    if kind == "exact" or (kind == "auto" and items <= EXACT_UP_TO):
        return exact
    if items < 2:
        raise ModelError(f"{items} items are too few for kind={kind!r}: build an exact index")
    queries = _sample(exact.vectors if queries_QD is None else vectors_of(queries_QD, dim, "queries"), seed)
    queries = queries.to(exact.vectors.device)
    # Longer lists would be answered exactly, and tune nothing.
    k = max(1, min(k, int(items / (MANY * SPARES[-1]))))
    truth_QK, half = exact.search(queries, k).items, max(1, len(queries) // 2)
    parameters: dict[str, float]
    if kind == "hnsw":
        codes = hnsw(exact.vectors, LINKS, CONSTRUCTION, seed)
        parameters = {"links": LINKS, "construction": CONSTRUCTION, "longest": codes.longest, "spare": SPARE}
    else:
        finer = 2 if items > EXACT_UP_TO else 1  # many items pay for looking at more centres
        cells = 2 ** round(math.log2(finer * math.sqrt(items)))
        codes = ivf(exact.vectors, cells, truth_QK[:half], seed)
        look = slice(0, min(half, LOOK_EVERYWHERE))
        parameters = {"cells": cells, "spare": _spare(codes, queries[look], truth_QK[look], LOST * (1 - recall))}
    about = About(codes.kind, items, dim, parameters, k=k, wished=recall)
    return _tuned(exact, codes, about, queries, truth_QK, begin)


def _spare(codes: Codes, query_QD: Tensor, truth_QK: Tensor, lost: float) -> float:
    """How many to nominate for each wanted, so that a search of all cells would miss no larger share than ``lost``."""
    k = truth_QK.shape[1]
    nominated_QF = codes.nominate(query_QD, min(len(codes), math.ceil(SPARES[-1] * k)), codes.most)
    found_QF = torch.from_numpy(nominated_QF).to(truth_QK.device)
    for spare in SPARES:
        if float(_shared(truth_QK, found_QF[:, : math.ceil(spare * k)]).mean()) >= 1 - lost:
            return spare
    return SPARES[-1]


def _tuned(exact: Exact, codes: Codes, about: About, query_QD: Tensor, truth_QK: Tensor, begin: float) -> Approximate:
    """The index with the least effort, to within a 32nd, that finds the wished share."""
    half = max(1, len(query_QD) // 2)

    def with_effort(effort: int) -> Approximate:
        parameters = {**about.parameters, EFFORT[codes.kind]: effort}
        return Approximate(exact, codes, About(about.kind, about.items, about.dim, parameters, k=about.k))

    def enough(effort: int) -> bool:
        share_Q = _recall(with_effort(effort), query_QD[:half], truth_QK[:half])
        error = float(share_Q.std(correction=0)) / math.sqrt(len(share_Q))
        return float(share_Q.mean()) - 2 * error >= about.wished

    # A graph is never searched with less than the list it is asked for.
    low, high = 0 if codes.kind == "ivf" else math.ceil(SPARE * about.k) - 1, codes.most
    while high - low > max(1, high // FINE):
        middle = min(max(low + 1, math.isqrt(max(low, 1) * high)), high - 1)
        low, high = (low, middle) if enough(middle) else (middle, high)
    index = with_effort(high)
    held_QK = slice(half if half < len(query_QD) else 0, None)
    share_Q = _recall(index, query_QD[held_QK], truth_QK[held_QK])
    found = About(
        about.kind,
        about.items,
        about.dim,
        index.about.parameters,
        recall=float(share_Q.mean()),
        k=about.k,
        queries=len(share_Q),
        wished=about.wished,
        seconds=round(time.perf_counter() - begin, 3),
    )
    return Approximate(exact, codes, found)


def _recall(index: Approximate, query_QD: Tensor, truth_QK: Tensor) -> Tensor:
    """The share of each query's exact list that is found, (Q,)."""
    return _shared(truth_QK, index.search(query_QD, truth_QK.shape[1]).items)


def _shared(truth_QK: Tensor, found_QF: Tensor) -> Tensor:
    """The share of each row of the first that is in the row of the second, (Q,)."""
    both, _ = torch.cat([truth_QK, found_QF], 1).sort(1)
    return (both[:, 1:] == both[:, :-1]).sum(1) / truth_QK.shape[1]


def _sample(rows: Tensor, seed: int) -> Tensor:
    if not len(rows):
        raise ModelError("no query to measure with: give vectors of users, or leave queries_QD out")
    chosen = np.random.default_rng(seed).permutation(len(rows))[:QUERIES]
    return rows[torch.from_numpy(chosen).to(rows.device)]
