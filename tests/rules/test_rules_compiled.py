"""Rules in a catalog: what each keeps out, what is an error and what is noted, and the words of a trace."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
import torch

from palate.data.dataset import History
from palate.data.ids import IdMap
from palate.errors import RuleError
from palate.rules import Catalog, Rules, compile_rules, rerank
from palate.rules.rerank import rerank_pool

DAY = 86_400
NOW = datetime(2026, 1, 31, tzinfo=UTC).timestamp()
FEATURES = pl.DataFrame(
    {
        "genres": [["Comedy"], ["Comedy", "Horror"], ["Drama"], None, ["War", "Drama"], ["Comedy"]],
        "year": [1994, 1995, 2026, 2024, None, 2025],
        "released": [date(2026, 1, 1), date(2025, 12, 31), None, date(2026, 1, 30), date(1999, 1, 1), date(2026, 2, 9)],
        "in_stock": [True, False, None, True, True, True],
        "pieces": [3, 0, 1, None, 5, 7],
        "maker": pl.Series(["x", "y", "x", "x", None, "y"], dtype=pl.Categorical),
    }
)
TITLES = pl.Series(["Alpha", "Beta", "Gamma", "Delta", "Epsilon", "Zeta"])
# Item 0 is touched today, item 1 ten days ago and long before, the others never.
SEEN = History(
    np.array([0, 2, 3]),
    np.array([1, 0, 1], np.int32),
    np.array([5, 3, 4], np.float32),
    np.array([NOW - 400 * DAY, NOW, NOW - 10 * DAY]),
)


def catalog_of(**more) -> Catalog:
    items = IdMap.of(["i0", "i1", "i2", "i3", "i4", "i5"])
    return Catalog(items, **{"features": FEATURES, "titles": TITLES, "seen": SEEN} | more)


def compiled_of(data: dict, now: float | None = None, **more):
    return compile_rules(Rules.of(data), catalog_of(**more), now)


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"deny": {"item_id": ["i1", "i4"]}}, [0, 2, 3, 5]),
        ({"deny": {"genres": ["Horror", "War"]}}, [0, 2, 3, 5]),
        ({"deny": {"genres": ["Horror"], "year": [1994]}}, [2, 3, 4, 5]),
        ({"deny": {"title": ["Gamma"]}}, [0, 1, 3, 4, 5]),
        ({"allow": {"genres": ["Comedy"]}}, [0, 1, 5]),
        ({"allow": {"genres": ["Comedy"], "maker": ["y"]}}, [1, 5]),
        ({"allow": [{"genres": ["Comedy"]}, {"genres": ["Horror"]}]}, [1]),
        ({"allow": {"year": ["1995"]}}, [1]),
        ({"allow": {"released": ["1999-01-01"]}}, [4]),
        ({"allow": {"in_stock": [False]}}, [1]),
        ({"flags": ["in_stock"]}, [0, 3, 4, 5]),
        ({"flags": ["pieces"]}, [0, 2, 4, 5]),
        ({"recency": [{"column": "released", "since": "2026-01-01"}]}, [0, 3, 5]),
        ({"recency": [{"column": "released", "days": 30}]}, [0, 3, 5]),
        ({"recency": [{"column": "released", "days": 31}]}, [0, 1, 3, 5]),
        ({"recency": [{"column": "year", "since": "2025-06-01"}]}, [2, 5]),
        ({"recency": [{"column": "year", "days": 365}]}, [2, 5]),
        ({"recency": [{"column": "last_event", "days": 1}]}, [0]),
        ({"recency": [{"column": "last_event", "days": 10}]}, [0, 1]),
        ({"recency": [{"column": "last_event", "since": "2026-01-02"}, {"column": "year", "days": 1}]}, []),
    ],
)
def test_each_rule_keeps_out_what_it_says(data, kept):
    compiled = compiled_of(data)
    assert compiled.allowed_I.nonzero().squeeze(1).tolist() == kept
    for item in range(6):
        assert bool(compiled.blocked_by(item)) == (item not in kept)


def test_days_are_counted_from_the_request_or_else_from_the_latest_event():
    data = {"recency": [{"column": "released", "days": 30}]}
    later = compiled_of(data, now=NOW + 20 * DAY)
    assert later.allowed_I.nonzero().squeeze(1).tolist() == [3, 5]
    with pytest.raises(RuleError, match="time of the request, which is not known"):
        compiled_of(data, seen=None)


def test_a_catalog_serves_requests_at_different_times():
    catalog = catalog_of()
    rules = Rules.of({"recency": [{"column": "last_event", "days": 10}], "caps": {"genres": 1}})
    now, later = (compile_rules(rules, catalog, time) for time in (NOW, NOW + DAY))
    assert now.allowed_I.nonzero().squeeze(1).tolist() == [0, 1]
    assert later.allowed_I.nonzero().squeeze(1).tolist() == [0]
    assert rules.reads_request_time
    assert not Rules(flags=("in_stock",)).reads_request_time


def test_flags_and_dates_may_be_texts_as_a_csv_file_has_them():
    features = pl.DataFrame(
        {
            "in_stock": ["true", "False", None, "yes", " TRUE", "no"],
            "released": ["2026-01-01", "2025-12-31", None, "2026-01-30T10:00:00Z", "1999-01-01", "2026-02-09"],
            "color": ["red", "true", "", "red", "red", "red"],
        }
    )
    data = {"flags": ["in_stock"], "recency": [{"column": "released", "since": "2026-01-01"}]}
    assert compiled_of(data, features=features).allowed_I.nonzero().squeeze(1).tolist() == [0, 3]
    with pytest.raises(RuleError, match="flag color: the column holds the text 'red': a flag is true or false"):
        compiled_of({"flags": ["color"]}, features=features)
    with pytest.raises(RuleError, match="recency color: the column holds the text 'red': a date begins like"):
        compiled_of({"recency": [{"column": "color", "days": 3}]}, features=features)


def test_the_rules_that_keep_an_item_out_have_names():
    compiled = compiled_of(
        {"deny": {"genres": ["Horror"]}, "flags": ["in_stock"], "recency": [{"column": "year", "days": 365}]}
    )
    assert compiled.blocked_by(1) == ["deny genres: Horror", "flag in_stock", "recency year: the last 365 days"]
    assert compiled.blocked_by(5) == []


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ({}, [1, 0, 1]),
        ({"exclude": "seen"}, [1, 0, 1]),
        ({"exclude": "bought", "bought_from": 4}, [1, 1]),
        ({"exclude": "none"}, []),
    ],
)
def test_excluded_keeps_the_events_of_the_users_own_items(exclude, left):
    excluded = compiled_of(exclude).excluded(SEEN)
    assert excluded.items.tolist() == left
    assert excluded.offsets.tolist() == [0, len(left) - (len(left) > 0), len(left)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"deny": {"genre": ["War"]}}, "deny genre: the items have no column 'genre': did you mean 'genres'?"),
        ({"allow": {"color": ["red"]}}, "allow color: the items have no column 'color': there are genres, year"),
        ({"allow": {"year": ["new"]}}, "allow year: the column holds Int64, and 'new' is none"),
        ({"deny": {"released": ["today"]}}, "deny released: the column holds Date, and 'today' is none"),
        ({"flags": ["maker"]}, "flag maker: the column holds Categorical"),
        ({"caps": {"color": 2}}, "cap on color: the items have no column"),
        ({"recency": [{"column": "maker", "days": 2}]}, "recency maker: the column holds Categorical"),
        (
            {"recency": [{"column": "pieces", "days": 2}]},
            "recency pieces: the column holds 0, which is no calendar year",
        ),
    ],
)
def test_a_wrong_column_or_kind_of_value_is_an_error(data, message):
    with pytest.raises(RuleError) as caught:
        compiled_of(data)
    assert message in str(caught.value)


def test_diversity_needs_something_to_compare_items_by():
    with pytest.raises(RuleError, match="no item vectors and the items no features"):
        compiled_of({"diversity": 0.5}, features=None)
    with pytest.raises(RuleError, match="have no column 'genres': there are none"):
        compiled_of({"caps": {"genres": 1}}, features=None)


@pytest.mark.parametrize(
    ("data", "note"),
    [
        ({"deny": {"item_id": ["i1", "gone"]}}, "deny item_id names what no item has (gone): 1 row"),
        ({"deny": {"genres": ["Horor"]}}, "deny genres names what no item has (Horor; did you mean 'Horror'?): 1 row"),
        ({"deny": {"genres": ["Horror"]}}, "items kept out by deny genres: Horror: 1 row"),
        (
            {"allow": {"item_id": ["i0", "i1"]}, "flags": ["in_stock"]},
            "items that allow names (i1) are kept out by flag in_stock: 1 row",
        ),
        ({"pins": [{"item": "i9", "at": 2}]}, "pin of i9 at 2 dropped (no such item): 1 row"),
        ({"pins": [{"item": "i2", "at": 1}], "flags": ["in_stock"]}, "pin of i2 at 1 dropped (flag in_stock): 1 row"),
        (
            {"pins": [{"item": "i1", "at": 3}, {"item": "i0", "at": 1}], "caps": {"genres": 1}},
            "pin of i1 at 3 dropped where the pins before it fill a cap (genres = Comedy at most 1): 1 row",
        ),
        ({"allow": {"genres": ["Western"]}}, "the rules keep out every item of the catalog: 6 rows"),
    ],
)
def test_what_may_become_untrue_as_the_catalog_changes_is_noted(data, note):
    assert note in [str(one) for one in compiled_of(data).notes]


def test_rules_without_effect_have_no_notes():
    assert compiled_of({}).notes == ()
    assert compiled_of({"caps": {"genres": 2}, "diversity": 0.2, "pins": [{"item": "i0", "at": 1}]}).notes == ()


def trace(data: dict, scores: list[float], k: int = 4) -> list[tuple[str, str]]:
    compiled = compiled_of(data)
    scores_BI = torch.tensor([scores]).masked_fill(~compiled.allowed_I, -torch.inf)
    values, items = scores_BI.sort(descending=True, stable=True)
    picked = rerank_pool(compiled, values, items, k)
    place = np.flatnonzero(picked.items_BK[0].numpy() >= 0)
    words = picked.trace(np.zeros_like(place), place)
    return list(zip(compiled.items.external(picked.items_BK[0, place].numpy()), words, strict=True))


def test_each_row_tells_what_brought_it_to_its_place():
    scores = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    assert trace({}, scores) == [("i0", ""), ("i1", ""), ("i2", ""), ("i3", "")]
    # Two comedies are one too many, so whatever is behind the second moves up.
    assert trace({"caps": {"genres": 1}}, scores) == [
        ("i0", ""),
        ("i2", "rank 3 by score, raised by caps"),
        ("i3", "rank 4 by score, raised by caps"),
    ]
    assert trace({"pins": [{"item": "i4", "at": 2}]}, scores) == [
        ("i0", ""),
        ("i4", "pinned at 2 (rank 5 by score)"),
        ("i1", "rank 2 by score, lowered by pins"),
        ("i2", "rank 3 by score, lowered by pins"),
    ]
    assert trace({"pins": [{"item": "i0", "at": 3}]}, scores, 3) == [
        ("i1", "rank 2 by score, raised by pins"),
        ("i2", "rank 3 by score, raised by pins"),
        ("i0", "pinned at 3 (rank 1 by score)"),
    ]
    words = dict(trace({"diversity": 0.9}, scores, 6))
    assert "raised by diversity" in " ".join(words.values())
    assert "lowered by diversity" in " ".join(words.values())


def test_a_pin_that_is_not_in_the_pool_has_the_score_it_is_given():
    compiled = compiled_of({"pins": [{"item": "i5", "at": 1}]})
    values, items = torch.tensor([[2.0, 1.0]]), torch.tensor([[3, 4]])
    without = rerank_pool(compiled, values, items, 3)
    assert without.items_BK.tolist() == [[5, 3, 4]]
    assert bool(without.values_BK[0, 0].isnan())
    assert without.trace(np.array([0, 0]), np.array([0, 1])).to_list() == [
        "pinned at 1",
        "rank 1 by score, lowered by pins",
    ]
    scored = rerank_pool(compiled, values, items, 3, pin_values_BN=torch.tensor([[0.5]]))
    assert scored.values_BK.tolist() == [[0.5, 2.0, 1.0]]


def test_no_user_gets_no_list():
    compiled = compiled_of({"caps": {"genres": 1}, "diversity": 0.5})
    picked = rerank_pool(compiled, torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), 2)
    assert picked.items_BK.shape == (0, 2)


def test_a_pool_that_runs_out_is_said_and_made_wider():
    compiled = compiled_of({"caps": {"genres": 1}})
    scores_BI = torch.tensor([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])
    values, items = scores_BI.sort(descending=True)
    assert rerank_pool(compiled, values[:, :2], items[:, :2], 2).short_B.tolist() == [True]
    asked = []

    def best(row, size):
        asked.append(size)
        return values[row, :size], items[row, :size]

    assert rerank(compiled, best, 1, 3).items_BK.tolist() == [[0, 2, 3]]
    assert asked == [6]
