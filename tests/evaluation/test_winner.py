"""What may be said: planted differences are found, luck is not, and the order is compared across rankings."""

from __future__ import annotations

import numpy as np
import pytest

from palate.evaluation.significance import Standing, against_baseline, order_remark, winner

USERS = 400


def standing(name, role, mean, seed, noise=0.2, sampled=None):
    rng = np.random.default_rng(seed)
    values = {"full": mean + noise * rng.normal(size=USERS)}
    if sampled is not None:
        values["sampled"] = sampled + noise * rng.normal(size=USERS)
    return Standing(name, role, values)


def test_a_clear_lead_makes_a_winner():
    field = [
        standing("net", "model", 0.5, 0),
        standing("ease", "baseline", 0.3, 1),
        standing("pop", "baseline", 0.1, 2),
    ]
    said = winner(field, 10, 2_000)
    assert said["name"] == "net"
    assert "better than each of the 2 others beyond luck" in said["why"]
    assert [(row["model"], row["baseline"]) for row in said["tests"]] == [("net", "ease"), ("net", "pop")]


def test_no_winner_where_the_lead_may_be_luck():
    shared = standing("ease", "baseline", 0.3, 1)
    close = Standing(
        "net", "model", {"full": shared.values["full"] + 0.001 * np.random.default_rng(3).normal(size=USERS)}
    )
    said = winner([shared, close, standing("pop", "baseline", 0.1, 2)], 10, 2_000)
    assert said["name"] is None
    assert "may be luck: corrected p" in said["why"]
    assert "No winner can be named" in said["why"]


def test_a_baseline_can_win_and_a_model_can_be_worse():
    field = [
        standing("net", "model", 0.2, 0),
        standing("ease", "baseline", 0.4, 1),
        standing("pop", "baseline", 0.1, 2),
    ]
    assert winner(field, 10, 2_000)["name"] == "ease"
    (row,) = against_baseline(field, 10, 2_000)
    assert (row["baseline"], row["better"]) == ("ease", False)
    assert row["difference"] == pytest.approx(-0.2, abs=0.05)


def test_models_meet_the_best_baseline_and_are_corrected_together():
    field = [
        standing("one", "model", 0.31, 0),
        standing("two", "external", 0.32, 1),
        standing("low", "baseline", 0.1, 2),
        standing("best", "baseline", 0.3, 3),
    ]
    rows = against_baseline(field, 10, 2_000)
    assert {row["baseline"] for row in rows} == {"best"}
    assert [row["model"] for row in rows] == ["two", "one"]
    first, second = sorted(row["p"] for row in rows)
    adjusted = sorted(row["p_holm"] for row in rows)
    assert adjusted == pytest.approx([min(1, 2 * first), min(1, max(2 * first, second))])


def test_rankings_are_tested_apart_and_a_changed_order_is_told():
    field = [
        standing("net", "model", 0.3, 0, sampled=0.9),
        standing("ease", "baseline", 0.4, 1, sampled=0.6),
        standing("theirs", "external", 0.2, 4),
    ]
    rows = against_baseline(field, 10, 2_000)
    assert [(row["ranking"], row["model"], row["better"]) for row in rows] == [
        ("full", "net", False),
        ("full", "theirs", False),
        ("sampled", "net", True),
    ]
    assert "Full ranking: ease, net. Sampled: net, ease." in order_remark(field, 10)
    same = [standing("a", "model", 0.9, 0, sampled=0.9), standing("b", "model", 0.1, 1, sampled=0.1)]
    assert order_remark(same, 10) is None


def test_nothing_to_compare():
    alone = winner([standing("net", "model", 0.3, 0)], 10, 100)
    assert (alone["name"], alone["why"]) == (None, "No winner can be named: only net was measured.")
    assert against_baseline([standing("net", "model", 0.3, 0)], 10, 100) == []
    one_user = [Standing(name, "model", {"full": np.array([value])}) for name, value in (("a", 1.0), ("b", 0.5))]
    said = winner(one_user, 10, 100)
    assert said["name"] is None
    assert "so few users" in said["why"]
    assert said["tests"][0]["p_holm"] is None


def test_equal_models_are_seldom_told_apart():
    """Twenty tables of six equal models: about one may name a winner by luck, never many."""
    named = 0
    for table in range(20):
        rng = np.random.default_rng(table)
        field = [Standing(str(n), "model", {"full": rng.random(60)}) for n in range(6)]
        named += winner(field, 10, 400)["name"] is not None
    assert named <= 1
