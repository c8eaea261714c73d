"""Markdown of reproduced figures: every number in its place, and verdicts only where they hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from palate.errors import EvaluationError
from palate.reproduce.markdown import cell, conclusions, markdown, table
from palate.reproduce.rows import Row, shared_fingerprints


def row(role: Any, metric: str, k: int | None, published: float | None, value: float | None, **more: Any) -> Row:
    given = {"low": None, "high": None, "users": 95, "seconds": 1.25, "candidates": "all 5 items", **more}
    return Row("X", "tiny", "by hand", role, f"{role} model", metric, k, published, value, **given)


HIGHER = [row("published", "NDCG", 10, 0.03, None), row("trivial", "NDCG", 10, None, 0.07, low=0.05, high=0.09)]
LOWER = [row("published", "MSE", None, 11.74, None), row("trivial", "MSE", None, None, 2.51)]


def test_a_published_figure_worse_than_a_trivial_one_is_named() -> None:
    assert conclusions(HIGHER) == ["NDCG@10: the published 0.03 is worse than trivial model (0.0700)."]
    assert conclusions(LOWER) == ["MSE: the published 11.74 is worse than trivial model (2.5100)."]


def test_a_better_published_figure_or_none_gives_no_verdict() -> None:
    assert conclusions([row("published", "NDCG", 10, 0.3, None), HIGHER[1]]) == []
    assert conclusions([HIGHER[1]]) == []
    assert conclusions([row("published", "MSE", None, 1.0, None), LOWER[1]]) == []


def test_the_table_holds_every_number_and_where_it_came_from() -> None:
    text = markdown(HIGHER + LOWER, "palate reproduce X")
    assert "| trivial | trivial model | 0.0700 (0.0500 to 0.0900) | 2.5100 | 95 |" in text
    assert "| published | published model | 0.03 | 11.74 | 95 |" in text
    assert "`palate reproduce X`, commit " in text
    assert "Candidates: all 5 items." in text


def test_rows_of_different_ground_are_refused_in_one_table() -> None:
    one, other = (row("best", "NDCG", 10, None, 0.1, fingerprints=f"split {name}") for name in ("aaa", "bbb"))
    with pytest.raises(EvaluationError, match="split aaa against split bbb"):
        markdown([HIGHER[0], one, other], "palate reproduce X")
    text = markdown([HIGHER[0], one], "palate reproduce X")
    assert "Candidates: all 5 items. Fingerprints: split aaa." in text
    elsewhere = replace(other, dataset="large")
    assert shared_fingerprints([one, elsewhere]) == "tiny: split aaa; large: split bbb"


def test_small_figures_can_be_read_and_several_fits_show_their_range() -> None:
    small = row("best", "Accuracy", 1, None, 0.00045, low=0.00031, high=0.0012)
    assert cell(small) == "0.00045 (0.00031 to 0.0012)"
    assert cell(replace(small, seeds=5, least=0.0004, most=0.0006)).endswith("; 5 fits: 0.00040 to 0.00060)")
    assert cell(replace(HIGHER[0], published=0.00045)) == "0.00045"


def test_each_request_time_has_a_line_of_its_own() -> None:
    held, last = (
        replace(HIGHER[1], request=f"{event} event", value=value)
        for event, value in (("held-out", 0.3), ("last known", 0.2))
    )
    text = table([held, last])
    assert "| trivial | trivial model | held-out event | 0.3000" in text
    assert "| trivial | trivial model | last known event | 0.2000" in text
