"""Metrics against fractions worked out by hand."""

from __future__ import annotations

from fractions import Fraction
from math import log2

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.evaluation.metrics import METRICS

# One user per row; places 1 to 4. Relevant items in all: 2, 1, 5, 1.
HITS = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
RELEVANT = torch.tensor([2, 1, 5, 1])

EXPECTED = {
    "HitRate": [1, 1, 1, 0],
    "NDCG": [Fraction(3, 2) / Fraction(1 + 1 / log2(3)), Fraction(1 / log2(5)), 1, 0],
    "Recall": [Fraction(2, 2), Fraction(1, 1), Fraction(4, 5), 0],
    "Precision": [Fraction(2, 4), Fraction(1, 4), Fraction(4, 4), 0],
    "MRR": [1, Fraction(1, 4), 1, 0],
    "MAP": [(1 + Fraction(2, 3)) / 2, Fraction(1, 4), 1, 0],
}


@pytest.mark.parametrize("name", METRICS)
def test_hand_worked_fractions(name: str) -> None:
    value = METRICS[name](HITS, RELEVANT)
    assert value[:, -1].tolist() == pytest.approx([float(x) for x in EXPECTED[name]])
    assert value.dtype == torch.float64  # means over many users do not lose digits


@pytest.mark.parametrize("name", METRICS)
def test_a_shorter_list_uses_the_first_places_only(name: str) -> None:
    assert METRICS[name](HITS, RELEVANT)[:, 0].tolist() == pytest.approx(
        {
            "HitRate": [1, 0, 1, 0],
            "NDCG": [1, 0, 1, 0],
            "Recall": [1 / 2, 0, 1 / 5, 0],
            "Precision": [1, 0, 1, 0],
            "MRR": [1, 0, 1, 0],
            "MAP": [1, 0, 1, 0],
        }[name]
    )


def test_ndcg_is_normalised_by_the_best_possible_list() -> None:
    # One of three relevant items, in place 2 of 2: ideal is 1 + 1 / log2(3).
    value = METRICS["NDCG"](torch.tensor([[False, True]]), torch.tensor([3]))[0, -1]
    assert value.item() == pytest.approx((1 / log2(3)) / (1 + 1 / log2(3)))


def test_ndcg_is_a_fraction_where_the_logarithms_are_whole() -> None:
    # Places 1, 3 and 7 count 1 / log2 of 2, 4 and 8; the only relevant item of each user stands there.
    hits = torch.zeros(3, 7, dtype=torch.bool)
    hits[[0, 1, 2], [0, 2, 6]] = True
    value = METRICS["NDCG"](hits, torch.tensor([1, 1, 1]))
    assert value[:, -1].tolist() == pytest.approx([1, 1 / 2, float(Fraction(1, 3))])
    assert value[1].tolist() == pytest.approx([0, 0, 1 / 2, 1 / 2, 1 / 2, 1 / 2, 1 / 2])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4), st.integers(0, 3))
def test_every_cut_off_equals_the_metric_of_the_shorter_list(rows: list[list[bool]], unfound: int) -> None:
    hits = torch.tensor(rows)
    relevant = (hits.sum(1) + unfound).clamp(min=1)
    for name, metric in METRICS.items():
        whole = metric(hits, relevant)
        for k in range(1, 7):
            torch.testing.assert_close(metric(hits[:, :k], relevant)[:, -1], whole[:, k - 1], msg=f"{name}@{k}")
