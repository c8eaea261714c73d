"""Metrics against fractions worked out by hand."""

from __future__ import annotations

from math import log2

import pytest
import torch

from palate.metrics import METRICS, novelty

# One user per row; places 1 to 4. Relevant items in all: 2, 1, 5, 1.
HITS = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
RELEVANT = torch.tensor([2, 1, 5, 1])

EXPECTED = {
    "HitRate": [1, 1, 1, 0],
    "NDCG": [(1 + 1 / 2) / (1 + 1 / log2(3)), 1 / log2(5), 1, 0],
    "Recall": [2 / 2, 1 / 1, 4 / 5, 0],
    "Precision": [2 / 4, 1 / 4, 4 / 4, 0],
    "MRR": [1, 1 / 4, 1, 0],
    "MAP": [(1 / 1 + 2 / 3) / 2, (1 / 4) / 1, (1 + 1 + 1 + 1) / 4, 0],
}


@pytest.mark.parametrize("name", METRICS)
def test_hand_worked_fractions(name: str) -> None:
    assert METRICS[name](HITS, RELEVANT).tolist() == pytest.approx(EXPECTED[name])


@pytest.mark.parametrize("name", METRICS)
def test_a_shorter_list_uses_the_first_places_only(name: str) -> None:
    assert METRICS[name](HITS[:, :1], RELEVANT).tolist() == pytest.approx(
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
    value = METRICS["NDCG"](torch.tensor([[False, True]]), torch.tensor([3]))
    assert value.item() == pytest.approx((1 / log2(3)) / (1 + 1 / log2(3)))


def test_novelty_is_mean_self_information_over_filled_places() -> None:
    information = torch.tensor([1.0, 3.0, 8.0], dtype=torch.float64)
    lists = torch.tensor([[0, 1], [2, -1], [-1, -1]])
    assert novelty(lists, information).tolist() == [2.0, 8.0, 0.0]
