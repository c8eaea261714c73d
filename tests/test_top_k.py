"""Ranks and lists: hand-made cases, ties, and agreement with a slow, obvious version."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.top_k import candidate_ranks, head, head_ranks, pair_ranks, top_k

few_values = st.lists(st.lists(st.integers(-2, 2), min_size=6, max_size=6), min_size=1, max_size=4)


def test_top_k_orders_by_score_then_by_column() -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0, -2.0, 0.0], [-1.0, -1.0, -1.0, -5.0, -torch.inf]])
    values, index = top_k(scores, 4)
    assert index.tolist() == [[1, 2, 0, 4], [0, 1, 2, 3]]
    assert values.tolist() == [[3, 3, 1, 0], [-1, -1, -1, -5]]


def test_top_k_treats_both_zeros_alike_and_is_cut_to_the_columns() -> None:
    _, index = top_k(torch.tensor([[0.0, -0.0, 0.0]]), 9)
    assert index.tolist() == [[0, 1, 2]]


@settings(deadline=None, max_examples=60)
@given(few_values)
def test_top_k_equals_a_stable_sort(rows: list[list[int]]) -> None:
    scores = torch.tensor(rows, dtype=torch.float32)
    expected = [sorted(range(6), key=lambda c: (-row[c], c))[:4] for row in rows]
    assert top_k(scores, 4)[1].tolist() == expected


def worst_ranks(scores: list[int], relevant: list[int]) -> list[int]:
    """Sort with every relevant item behind the irrelevant ones of its score; relevant ties by column."""
    order = sorted(range(len(scores)), key=lambda c: (-scores[c], c in relevant, c))
    return [order.index(c) + 1 for c in relevant]


@settings(deadline=None, max_examples=80)
@given(few_values, st.sets(st.integers(0, 5), min_size=1, max_size=6))
def test_full_ranks_equal_the_slow_version(rows: list[list[int]], relevant: set[int]) -> None:
    items = sorted(relevant)
    scores = torch.tensor(rows, dtype=torch.float32)
    row_N = torch.arange(len(rows)).repeat_interleave(len(items))
    item_N = torch.tensor(items * len(rows))
    expected = [rank for row in rows for rank in worst_ranks(row, items)]
    assert pair_ranks(scores, row_N, item_N).tolist() == expected


@settings(deadline=None, max_examples=80)
@given(few_values, st.integers(1, 5))
def test_candidate_ranks_equal_the_slow_version(rows: list[list[int]], relevant: int) -> None:
    scores = torch.tensor(rows, dtype=torch.float32)
    expected = [worst_ranks(row, list(range(relevant))) for row in rows]
    assert candidate_ranks(scores[:, :relevant], scores[:, relevant:]).tolist() == expected


def test_padding_and_duplicates_do_not_count() -> None:
    positive = torch.tensor([[2.0, torch.nan], [2.0, 1.0]])
    negative = torch.tensor([[2.0, 5.0, 1.0], [2.0, 0.0, 0.0]])
    duplicate = torch.tensor([[True, False, False], [True, False, False]])
    assert candidate_ranks(positive, negative, duplicate).tolist() == [[2.0, np.inf], [1.0, 2.0]]


def test_an_item_that_is_no_candidate_is_never_found() -> None:
    scores = torch.tensor([[-torch.inf, 1.0]])
    assert pair_ranks(scores, torch.tensor([0]), torch.tensor([0])).tolist() == [np.inf]


@settings(deadline=None, max_examples=150)
@given(few_values, st.sets(st.integers(0, 5), min_size=1, max_size=6), st.integers(1, 7), st.integers(1, 12))
def test_ranks_in_the_head_equal_the_full_ranks(
    rows: list[list[int]], relevant: set[int], length: int, cells: int
) -> None:
    items = sorted(relevant)
    scores = torch.tensor(rows, dtype=torch.float32).masked_fill(torch.tensor(rows) == -2, -torch.inf)
    row_N = torch.arange(len(rows)).repeat_interleave(len(items))
    item_N = torch.tensor(items * len(rows))
    full = pair_ranks(scores, row_N, item_N)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("palate.top_k.PAIR_CELLS", cells)
        top = head(scores, length)
        found = head_ranks(scores, top, row_N, item_N)
    assert found.tolist() == torch.where(full <= length, full, torch.inf).tolist()
    expected = [sorted(range(6), key=lambda c: (-row[c], c))[:length] for row in scores.tolist()]
    assert top.columns.tolist() == expected


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_long_rows_with_many_ties_equal_a_stable_sort(k: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.choice(np.array([-np.inf, -0.0, 0.0, 1.0, 2.5, -3.0], np.float32)[: levels + 1], (5, 700))
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert (top_k(torch.from_numpy(scores), k)[1].numpy() == expected).all()
    same = top_k(torch.from_numpy(scores.astype(np.float64)), k)
    assert (same[1].numpy() == expected).all()
    assert same[0].dtype == torch.float64


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([1, 3]),
    st.sampled_from([5, 700, 16_384, 16_500]),
    st.integers(1, 130),
    st.integers(1, 20_000),
    st.integers(0, 99),
)
def test_rows_that_are_searched_one_by_one_equal_a_stable_sort(
    rows: int, columns: int, k: int, different: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, different, (rows, columns)).astype(np.float32)
    scores[rng.random((rows, columns)) < 0.2] = -np.inf
    values, index = top_k(torch.from_numpy(scores), k)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert (index.numpy() == expected).all()
    assert (values.numpy() == np.take_along_axis(scores, expected, 1)).all()


def test_a_nan_comes_first_in_one_row_as_in_many() -> None:
    scores = torch.randn(2, 500)
    scores[:, 321] = torch.nan
    for rows in (scores[:1], scores):
        assert top_k(rows, 3)[1][:, 0].tolist() == [321] * len(rows)
