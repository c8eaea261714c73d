"""Index: exact equals brute force, and every kind gives k items wherever k are allowed, none of them forbidden."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from palate.base import Query
from palate.data.dataset import History
from palate.data.splits.split import Split
from palate.errors import BundleError, ModelError
from palate.models import RECIPES
from palate.retrieval import (
    KINDS,
    Approximate,
    Exact,
    Index,
    IndexInfo,
    SearchResult,
    build_index,
    build_model_index,
)
from palate.retrieval.faiss_index import Cells, ivf, read
from palate.top_k import top_k

APPROXIMATE = ("ivf", "hnsw")


def draw(items: int, queries: int = 200, dim: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Items in clusters of uneven size and length, and queries from the same clusters."""
    rng = np.random.default_rng(seed)
    center = rng.standard_normal((40, dim))
    share = np.arange(1, 41) ** -0.8 / (np.arange(1, 41) ** -0.8).sum()
    rows = center[rng.choice(40, items + queries, p=share)] + 0.5 * rng.standard_normal((items + queries, dim))
    rows[:items] *= np.exp(0.3 * rng.standard_normal((items, 1)))
    whole = torch.from_numpy(rows.astype(np.float32))
    return whole[:items], whole[items:]


def histories(lists: list[list[int]]) -> History:
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)
    items = np.array([item for one in lists for item in one], dtype=np.int32)
    return History(offsets, items, np.ones(len(items), np.float32))


def brute(
    vectors: Tensor, query: Tensor, k: int, exclude: History | None = None, allowed: Tensor | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted by score and row in float64: (values, items) with -inf and -1 behind the last."""
    score = query.numpy().astype(np.float64) @ vectors.numpy().astype(np.float64).T
    if allowed is not None:
        score[:, ~allowed.numpy()] = -np.inf
    for row in range(len(score)):
        if exclude is not None:
            hidden = exclude.of(row)
            score[row, hidden[(hidden >= 0) & (hidden < score.shape[1])]] = -np.inf
    order = np.argsort(-score, axis=1, kind="stable")[:, :k]
    value = np.take_along_axis(score, order, 1)
    return value, np.where(np.isinf(value), -1, order)


def same(found: SearchResult, expected: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(found.items.numpy(), expected[1])
    np.testing.assert_allclose(found.values.numpy(), expected[0], rtol=1e-4, atol=1e-4)


def shared(one: Tensor, two: Tensor) -> float:
    """The mean share of the rows of the first that is in the rows of the second."""
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(one.tolist(), two.tolist(), strict=True)]))


@pytest.fixture(scope="module")
def built() -> dict[str, Index]:
    vectors, queries = draw(4_000)
    return {kind: build_index(vectors, kind, queries_QD=queries) for kind in ("exact", *APPROXIMATE)}  # type: ignore[arg-type]


# Exact.


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_exact_is_brute_force_with_ties_by_lower_row(data: st.DataObject) -> None:
    items, queries = data.draw(st.integers(1, 400)), data.draw(st.integers(1, 4))
    k = data.draw(st.integers(1, 20))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    # Small whole numbers: dot products are exact, and full of ties.
    vectors = torch.from_numpy(rng.integers(-1, 2, (items, 3)).astype(np.float32))
    query = torch.from_numpy(rng.integers(-1, 2, (queries, 3)).astype(np.float32))
    exclude = histories([rng.integers(0, items + 3, rng.integers(0, 2 * items)).tolist() for _ in range(queries)])
    allowed = torch.from_numpy(rng.random(items) < data.draw(st.sampled_from([0.0, 0.1, 0.7, 1.0])))
    for hide in (None, exclude):
        for mask in (None, allowed):
            found = Exact.of(vectors).search(query, k, exclude=hide, allowed_I=mask)
            expected = brute(vectors, query, k, hide, mask)
            np.testing.assert_array_equal(found.items.numpy(), expected[1])
            np.testing.assert_array_equal(found.values.numpy(), expected[0])


def test_a_catalog_of_many_chunks_is_searched_like_one() -> None:
    vectors, queries = draw(3_000, 50)
    exclude = histories([list(range(row, 3_000, 7)) for row in range(50)])
    index = replace(Exact.of(vectors), max_scores=7 * 3_000)
    same(index.search(queries, 10, exclude=exclude), brute(vectors, queries, 10, exclude))


# The laws of every kind.


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["exact", *APPROXIMATE]), st.data())
def test_k_come_back_whenever_k_are_allowed_and_none_is_forbidden(
    built: dict[str, Index], kind: str, data: st.DataObject
) -> None:
    index, query = built[kind], draw(4_000)[1]
    rng = np.random.default_rng(data.draw(st.integers(0, 9_999)))
    queries, k = data.draw(st.integers(1, 6)), data.draw(st.sampled_from([1, 10, 100, 700, 5_000]))
    share = data.draw(st.sampled_from([0.0, 0.003, 0.04, 0.5, 1.0]))
    query = query[torch.from_numpy(rng.integers(0, len(query), queries))]
    allowed = torch.from_numpy(rng.random(4_000) < share)
    # What people have had is what they like best: the worst case for candidates that are found by being liked.
    liked = index.search(query, 4_000).items.tolist()
    lists = [
        [*one[: data.draw(st.sampled_from([0, 3, 60, 500, 3_999, 4_000]))], 4_000, 4_001, *one[:2]] for one in liked
    ]
    found = index.search(query, k, exclude=histories(lists), allowed_I=allowed)
    assert found.values.dtype == torch.float32
    assert found.items.dtype == torch.int64
    assert found.items.shape == found.values.shape == (queries, min(k, 4_000))
    for row, one in enumerate(lists):
        items = found.items[row][found.items[row] >= 0]
        left = set(allowed.nonzero().squeeze(1).tolist()) - set(one)
        assert len(items) == len(set(items.tolist())) == min(k, len(left))
        assert set(items.tolist()) <= left
        assert torch.equal(found.items[row] < 0, found.values[row] == -torch.inf)
        np.testing.assert_allclose(
            found.values[row, : len(items)], index.vectors[items] @ query[row], rtol=1e-4, atol=1e-4
        )
        value = found.values[row, : len(items)]
        assert bool((value[:-1] >= value[1:]).all())


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_what_is_found_is_nearly_what_exact_finds_whatever_is_hidden(built: dict[str, Index], kind: str) -> None:
    index, exact, query = built[kind], built["exact"], draw(4_000)[1]
    liked = exact.search(query, 80).items.tolist()
    allowed = torch.from_numpy(np.random.default_rng(0).random(4_000) < 0.3)
    for exclude in (None, histories(liked)):
        for mask in (None, allowed):
            found = index.search(query, 20, exclude=exclude, allowed_I=mask).items
            truth = exact.search(query, 20, exclude=exclude, allowed_I=mask).items
            shared = [len(set(a) & set(b)) / 20 for a, b in zip(found.tolist(), truth.tolist(), strict=True)]
            assert np.mean(shared) > 0.93


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_the_very_best_is_found_too(built: dict[str, Index], kind: str) -> None:
    query = draw(4_000)[1]
    for k in (1, 3):
        truth = built["exact"].search(query, k).items
        assert shared(truth, built[kind].search(query, k).items) > 0.97
        assert shared(truth, torch.cat([built[kind].search(one[None], k).items for one in query])) > 0.97


@pytest.mark.parametrize("kind", ["exact", *APPROXIMATE])
def test_new_items_get_the_next_rows_and_are_found_without_a_rebuild(built: dict[str, Index], kind: str) -> None:
    index, query = built[kind], draw(4_000)[1][:20]
    before = index.search(query, 5)
    longest = index.vectors.norm(dim=1).max()
    new = torch.nn.functional.normalize(query) * longest
    more = index.add(new)
    assert len(more) == len(index) + 20
    assert more.search(query, 1).items.squeeze(1).tolist() == list(range(4_000, 4_020))
    assert torch.equal(index.search(query, 5).items, before.items)  # the one that was there stays as it was
    twice = more.add(1.02 * new[:3])
    assert twice.search(query[:3], 1).items.squeeze(1).tolist() == [4_020, 4_021, 4_022]
    hide = histories([[4_020, 4_000], [4_021], []])
    assert twice.search(query[:3], 1, exclude=hide).items[1:].squeeze(1).tolist() == [4_001, 4_022]


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_the_recorded_recall_is_true(kind: str) -> None:
    vectors, queries = draw(6_000, 900)
    index = build_index(vectors, kind, queries_QD=queries[:500], recall=0.95, k=50)  # type: ignore[arg-type]
    info = index.info
    assert (info.kind, info.items, info.dim, info.k, info.queries) == (kind, 6_000, 16, 50, 250)
    found = index.search(queries[500:], 50).items.tolist()
    truth = brute(vectors, queries[500:], 50)[1].tolist()
    fresh = np.mean([len(set(a) & set(b)) / 50 for a, b in zip(found, truth, strict=True)])
    assert info.recall > 0.94
    assert fresh == pytest.approx(info.recall, abs=0.02)


def test_a_higher_target_takes_more_effort() -> None:
    vectors, queries = draw(6_000, 300)
    low, high = (build_index(vectors, "ivf", queries_QD=queries, recall=target).info for target in (0.7, 0.99))
    assert low.parameters["nprobe"] < high.parameters["nprobe"]
    assert low.recall < high.recall


def test_auto_is_exact_for_small_catalogs_and_approximate_for_large() -> None:
    vectors, _ = draw(3_000)
    assert build_index(vectors).info.kind == "exact"
    assert build_index(vectors, exact_up_to=2_000).info.kind == "ivf"
    assert set(KINDS) == {"auto", "exact", "ivf", "hnsw"}


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("items", [2, 3, 40])
def test_tiny_catalogs_can_be_indexed(kind: str, items: int) -> None:
    vectors, queries = draw(items, 5)
    index = build_index(vectors, kind)  # type: ignore[arg-type]
    same(index.search(queries, 10), brute(vectors, queries, 10))
    nothing = index.search(torch.zeros(1, 16), 1)
    assert nothing.values.item() == 0
    assert 0 <= nothing.items.item() < items


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_what_was_written_answers_the_same(built: dict[str, Index], kind: str, tmp_path: Path) -> None:
    index, query = built[kind], draw(4_000)[1]
    index.codes.write(tmp_path / "codes")  # type: ignore[attr-defined]
    codes = read(tmp_path / "codes", index.vectors, index.info.parameters.get("max_norm", 0.0))
    again = type(index)(Exact.of(index.vectors), codes, index.info)  # type: ignore[call-arg]
    for one, two in zip(index.search(query, 30), again.search(query, 30), strict=True):
        assert torch.equal(one, two)
    (tmp_path / "codes").write_bytes(b"text")
    with pytest.raises(BundleError, match="codes is no index"):
        read(tmp_path / "codes", index.vectors, 0.0)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_query_alone_gets_what_it_gets_among_others(built: dict[str, Index], kind: str) -> None:
    index, query = built[kind], draw(4_000)[1][:50]
    lists = [liked[row:20] for row, liked in enumerate(index.search(query, 20).items.tolist())]
    for exclude in (None, histories(lists)):
        among = index.search(query, 20, exclude=exclude)
        alone = [
            index.search(query[row : row + 1], 20, exclude=exclude and histories([lists[row]])) for row in range(50)
        ]
        items = torch.cat([one.items for one in alone])
        assert shared(items, among.items) > 0.97
        same_place = items == among.items
        values = torch.cat([one.values for one in alone])
        torch.testing.assert_close(values[same_place], among.values[same_place], rtol=1e-5, atol=1e-5)


def test_a_query_alone_gets_ties_by_lower_row() -> None:
    vectors, queries = draw(3_000)
    twice = torch.cat([vectors, vectors])  # everything ties with its double
    index = build_index(twice, "ivf", queries_QD=queries, recall=0.99)
    for row in range(20):
        found = index.search(queries[row : row + 1], 11)
        order = np.lexsort((found.items[0].numpy(), -found.values[0].numpy()))
        assert order.tolist() == list(range(11))


def test_levels_that_reach_the_best_items_find_more_of_them() -> None:
    rng = np.random.default_rng(0)
    vectors, queries = draw(6_000, 400)
    vectors = vectors * torch.from_numpy(rng.lognormal(0, 0.5, (6_000, 1)).astype(np.float32))  # a long tail
    truth = Exact.of(vectors).search(queries, 50).items
    random = torch.from_numpy(rng.permutation(6_000)[:500])
    shortest = vectors.norm(dim=1).argsort()[:500]
    found = [
        shared(truth[200:], torch.from_numpy(codes.candidates(queries[200:], 75, codes.most)))
        for codes in (ivf(vectors, 64, answers) for answers in (truth[:200], random, shortest))
    ]
    assert found[0] > 0.95
    assert found[0] > found[1] - 0.01
    assert found[0] > found[2] + 0.1


def test_a_lower_target_takes_fewer_candidates() -> None:
    vectors, queries = draw(6_000, 300)
    low, high = (build_index(vectors, "ivf", queries_QD=queries, recall=target).info for target in (0.7, 0.999))
    assert low.parameters["oversampling"] < high.parameters["oversampling"]


def test_of_two_cells_with_one_center_the_wide_one_is_looked_at_first() -> None:
    center_DC = np.array([[1.0, 1.0, 1.5, -2.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    query_BD = np.array([[1.0, 0.0], [10.0, 0.0]], np.float32)
    cells = Cells(center_DC, np.array([0.1, 0.9, 0.0, 0.0], np.float32))
    for probes, expected in [(1, {1}), (2, {1, 2}), (3, {0, 1, 2}), (4, {0, 1, 2, 3})]:
        cell_BP, score_BP = cells.best(query_BD, probes)
        assert [set(one) for one in cell_BP.tolist()] == [expected, expected]  # whatever the query's length
        np.testing.assert_array_equal(score_BP, np.take_along_axis(query_BD @ center_DC, cell_BP, 1))


def test_codes_of_eight_bits_that_older_versions_wrote_still_answer(tmp_path: Path) -> None:
    import faiss

    vectors, queries = draw(6_000)
    rows = vectors.numpy()
    kmeans = faiss.Kmeans(16, 64, niter=4, seed=0, min_points_per_centroid=1)
    kmeans.train(rows)
    centers, nearest = faiss.IndexFlatIP(16), faiss.IndexFlatL2(16)
    centers.add(kmeans.centroids)
    nearest.add(kmeans.centroids)
    eight_bits = faiss.ScalarQuantizer.QT_8bit_uniform
    old = faiss.IndexIVFScalarQuantizer(centers, 16, 64, eight_bits, faiss.METRIC_INNER_PRODUCT, False)
    old.train(np.repeat(np.float32([[rows.min()], [rows.max()]]), 16, axis=1))
    cell = nearest.search(rows, 1)[1].ravel()
    old.add_core(len(rows), faiss.swig_ptr(rows), None, faiss.swig_ptr(cell))
    faiss.write_index(old, str(tmp_path / "codes"))

    info = IndexInfo("ivf", 6_000, 16, {"nlist": 64, "nprobe": 40}, recall=0.98, k=50, queries=100, target_recall=0.98)
    index = Approximate(Exact.of(vectors), read(tmp_path / "codes", vectors, 0.0), info)
    truth = torch.from_numpy(brute(vectors, queries, 50)[1])
    assert shared(truth, index.search(queries, 50).items) > 0.97
    assert shared(truth[:1], index.search(queries[:1], 50).items) > 0.9
    more = index.add(2 * vectors[truth[:5, 0]])
    assert more.search(queries[:5], 1).items.squeeze(1).tolist() == list(range(6_000, 6_005))
    assert len(index) == len(index.codes) == 6_000
    with pytest.raises(BundleError, match=r"holds 6,000 items in width 16 but the model has 5,999"):
        read(tmp_path / "codes", vectors[1:], 0.0)


def test_threads_share_an_index_while_items_are_added(built: dict[str, Index]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    index, query = built["ivf"], draw(4_000)[1]
    expected = index.search(query, 10).items
    with ThreadPoolExecutor(4) as pool:
        added = [pool.submit(index.add, query[:5]) for _ in range(4)]
        found = [pool.submit(index.search, query, 10) for _ in range(12)]
        assert all(torch.equal(one.result().items, expected) for one in found)
        assert all(len(one.result()) == 4_005 for one in added)


# The index of a model.


def test_the_index_of_a_model_finds_what_it_scores_highest(checkerboard: Split) -> None:
    train = checkerboard.train
    for name, recipe in RECIPES.items():
        if name not in {"bpr", "ials", "mf", "two-tower", "sasrec", "gmf", "neumf", "item-knn", "popularity"}:
            continue
        model = recipe.fast().fit(train)
        if name in {"gmf", "neumf", "item-knn", "popularity"}:
            with pytest.raises(ModelError, match=r"no dot products|no item vectors"):
                build_model_index(model, train.history)
            continue
        index = build_model_index(model, train.history)
        query = Query.of(np.arange(train.n_users), train.history)
        with torch.inference_mode():
            expected = top_k(model.score(query), 5)
            found = index.search(model.query_vectors(query), 5)
        torch.testing.assert_close(found.values, expected[0], rtol=1e-4, atol=1e-5)


# Errors.


def test_what_does_not_fit_is_refused(built: dict[str, Index]) -> None:
    for index in built.values():
        query = torch.zeros(2, 16)
        with pytest.raises(ModelError, match=r"queries have shape \(2, 3\): give \(rows, 16\)"):
            index.search(torch.zeros(2, 3), 1)
        with pytest.raises(ModelError, match="queries hold NaN or infinity"):
            index.search(query.fill_(torch.nan), 1)
        with pytest.raises(ModelError, match="2 queries but 1 histories"):
            index.search(torch.zeros(2, 16), 1, exclude=histories([[]]))
        with pytest.raises(ModelError, match=r"of shape \(3,\) but the index holds 4,000 items"):
            index.search(torch.zeros(2, 16), 1, allowed_I=torch.ones(3, dtype=torch.bool))
        with pytest.raises(ModelError, match="new vectors hold NaN"):
            index.add(query)
    for wrong, message in [
        ({"kind": "tree"}, "kind='tree': choose one of auto, exact"),
        ({"recall": 1.0}, "recall=1.0"),
        ({"k": 0}, "k=0"),
        ({"kind": "ivf", "queries_QD": torch.zeros(0, 16)}, "no query to measure with"),
    ]:
        with pytest.raises(ModelError, match=message):
            build_index(draw(100)[0], **wrong)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="1 items are too few"):
        build_index(torch.ones(1, 4), "ivf")


WITHOUT = """
import sys
sys.modules["faiss"] = None  # as where the extra is not installed
import torch
from palate.errors import ModelError
from palate.retrieval import build_index
rows = torch.eye(8)
print(build_index(rows).search(rows, 1).items.squeeze(1).tolist())
try:
    build_index(rows, "ivf")
except ModelError as error:
    print(error)
"""


def test_without_the_extra_exact_works_and_the_rest_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, check=True, text=True)
    assert done.stdout.splitlines() == [
        "[0, 1, 2, 3, 4, 5, 6, 7]",
        "approximate search needs FAISS: pip install 'palate[index]'",
    ]
