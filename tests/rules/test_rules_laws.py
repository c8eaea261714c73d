"""What rules promise, whatever the rules, scores and histories are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.dataset import History
from palate.data.ids import IdMap
from palate.rules import Catalog, CompiledRules, Reranked, Rules, compile_rules, rerank
from palate.top_k import top_k

ITEMS = 14
GENRES = [
    ["a"],
    ["a", "b"],
    ["b"],
    ["c"],
    [],
    ["a", "c"],
    None,
    ["b", "c"],
    ["a"],
    ["d"],
    ["a", "b", "c"],
    ["d"],
    ["b"],
    [],
]
MAKERS = ["x", "y", "x", None, "y", "x", "z", "x", "y", "y", "x", "z", "x", "y"]
FEATURES = pl.DataFrame({"genres": GENRES, "maker": MAKERS, "in_stock": [place % 5 != 3 for place in range(ITEMS)]})
VECTORS = torch.nn.functional.normalize(torch.randn(ITEMS, 3, generator=torch.Generator().manual_seed(1)), dim=1)


laws = settings(deadline=None, max_examples=40)


class Case(NamedTuple):
    rules: Rules
    compiled: CompiledRules
    scores: torch.Tensor
    history: History
    k: int
    pool: int

    def best(self, row, size):
        scores_BI = self.scores[torch.from_numpy(row)].clone()
        hidden = self.compiled.excluded(self.history).select(row)
        scores_BI[np.repeat(np.arange(len(row)), hidden.counts), hidden.items] = -torch.inf
        scores_BI[:, ~self.compiled.allowed_I] = -torch.inf
        return top_k(scores_BI, size)

    def lists(self, users: slice = slice(None), **options: int) -> Reranked:
        row = np.arange(len(self.scores))[users]
        return rerank(
            self.compiled,
            lambda part, size: self.best(row[part], size),
            len(row),
            self.k,
            excluded=self.compiled.excluded(self.history.select(row)),
            pin_values_BN=self.scores[row][:, self.compiled.pin_items],
            pool=max(self.pool, self.k) if self.compiled.reorders else None,
            **options,
        )

    def free(self, user: int) -> list[int]:
        """Items that neither rules nor history keep from a user, best first."""
        values, items = self.best(np.array([user]), ITEMS)
        return items[0][values[0] > -torch.inf].tolist()

    def counts(self, listed: list[int]) -> dict[tuple[str, str], int]:
        values = [value for item in listed for value in self.values(item)]
        return {value: values.count(value) for value in values}

    def values(self, item: int) -> list[tuple[str, str]]:
        of = {"genres": GENRES[item] or [], "maker": [MAKERS[item]] if MAKERS[item] else []}
        return [(column, value) for column in self.rules.caps for value in of[column]]

    def fits(self, item: int, listed: list[int]) -> bool:
        counts = self.counts(listed)
        return all(counts.get(value, 0) < self.rules.caps[value[0]] for value in self.values(item))


item_ids = st.lists(st.integers(0, ITEMS - 1), max_size=3, unique=True)
genre_lists = st.lists(st.sampled_from("abcd"), min_size=1, max_size=2, unique=True)


@st.composite
def rule_data(draw) -> dict:
    pinned = draw(item_ids)
    places = draw(st.lists(st.integers(1, 8), min_size=len(pinned), max_size=len(pinned), unique=True))
    optional = {
        "deny": st.fixed_dictionaries({}, optional={"item_id": item_ids, "genres": genre_lists}),
        "allow": st.fixed_dictionaries({}, optional={"genres": genre_lists, "maker": st.just(["x", "y"])}),
        "flags": st.just(["in_stock"]),
        "caps": st.fixed_dictionaries({}, optional={"genres": st.integers(1, 3), "maker": st.integers(1, 4)}),
        "diversity": st.sampled_from([0.0, 0.3, 1.0]),
        "exclude": st.sampled_from(["seen", "none"]),
    }
    data = draw(st.fixed_dictionaries({}, optional=optional))
    return data | {"pins": [{"item": item, "at": at} for item, at in zip(pinned, places, strict=True)]}


@st.composite
def cases(draw, data: st.SearchStrategy[dict] | None = None) -> Case:
    users = draw(st.integers(1, 3))
    # Few different scores, so that there are ties.
    numbers = st.lists(st.integers(-3, 3), min_size=users * ITEMS, max_size=users * ITEMS)
    scores_BI = torch.tensor(draw(numbers), dtype=torch.float32).view(users, ITEMS)
    had = [draw(st.lists(st.integers(0, ITEMS - 1), max_size=5)) for _ in range(users)]
    offsets = np.cumsum([0, *map(len, had)])
    history = History(
        offsets, np.array([item for one in had for item in one], np.int32), np.ones(offsets[-1], np.float32)
    )
    rules = Rules.of(draw(rule_data() if data is None else data))
    unit_items = draw(st.sampled_from([VECTORS, None]))
    compiled = compile_rules(rules, Catalog(IdMap.of(range(ITEMS)), FEATURES, seen=history, unit_items=unit_items))
    return Case(rules, compiled, scores_BI, history, draw(st.integers(1, 10)), draw(st.integers(1, ITEMS)))


def rows(lists: Reranked, user: int) -> list[int]:
    listed = lists.items_BK[user].tolist()
    end = listed.index(-1) if -1 in listed else len(listed)
    assert set(listed[end:]) <= {-1}, "an empty place before a filled one"
    return listed[:end]


def pins_of(case: Case, user: int) -> dict[int, int]:
    """The pins that stand, by place: allowed, not excluded, and within the caps that the pins before them left."""
    places: dict[int, int] = {}
    for pin in sorted(case.rules.pins, key=lambda pin: pin.at):
        if pin.at <= case.k and pin.item in case.free(user) and case.fits(pin.item, list(places.values())):
            places[pin.at] = pin.item
    return places


@laws
@given(cases())
def test_nothing_that_is_kept_out_is_listed_nothing_twice_and_no_cap_is_exceeded(case):
    lists = case.lists()
    for user in range(len(case.scores)):
        listed = rows(lists, user)
        assert len(set(listed)) == len(listed)
        assert set(listed) <= set(case.free(user))
        assert all(count <= case.rules.caps[column] for (column, _), count in case.counts(listed).items())
        assert lists.values_BK[user, : len(listed)].tolist() == case.scores[user, listed].tolist()


@laws
@given(cases())
def test_a_list_ends_early_only_if_no_item_can_be_added(case):
    lists = case.lists()
    for user in range(len(case.scores)):
        listed = rows(lists, user)
        assert bool(lists.short_B[user]) == (len(listed) < case.k)
        if len(listed) < case.k:
            assert not [item for item in case.free(user) if item not in listed and case.fits(item, listed)]


@laws
@given(cases())
def test_pins_stand_at_their_places_unless_history_or_a_cap_forbids_it(case):
    lists = case.lists()
    for user in range(len(case.scores)):
        listed = rows(lists, user)
        for at, item in pins_of(case, user).items():
            place = listed.index(item) + 1
            assert place == at or (place < at and len(listed) < case.k)


@laws
@given(cases(data=rule_data().map(lambda data: data | {"diversity": 0.0})))
def test_without_diversity_the_rows_that_are_not_pinned_keep_the_order_of_the_scores(case):
    lists = case.lists()
    pinned = {pin.item for pin in case.rules.pins}
    for user in range(len(case.scores)):
        free = case.free(user)
        ranks = [free.index(item) for item in rows(lists, user) if item not in pinned]
        assert ranks == sorted(ranks)


@laws
@given(
    cases(data=st.sampled_from([{}, {"diversity": 0.0}, {"exclude": "none"}, {"caps": {"genres": 99, "maker": 99}}]))
)
def test_rules_of_nothing_are_plain_top_k_without_a_trace(case):
    lists = case.lists()
    values, items = case.best(np.arange(len(case.scores)), case.k)
    filled = values > -torch.inf
    assert torch.equal(lists.values_BK, values)
    assert torch.equal(lists.items_BK[filled], items[filled])
    who, place = np.nonzero(filled.numpy())
    assert set(lists.trace(who, place)) <= {""}


@laws
@given(cases(), st.integers(1, 4000))
def test_the_answer_of_a_user_depends_on_nobody_else(case, chunk_bytes):
    together = case.lists()
    again = case.lists(chunk_bytes=chunk_bytes)
    for whole, part in zip(together, again, strict=True):
        assert torch.equal(whole, part)
    for user in range(len(case.scores)):
        alone = case.lists(slice(user, user + 1))
        assert rows(alone, 0) == rows(together, user)


@laws
@given(cases())
def test_each_place_holds_what_the_definition_puts_there(case):
    case = case._replace(pool=ITEMS)
    strength, similarity_ID = case.rules.diversity or 0.0, case.compiled.similarity_ID
    alike = (
        np.zeros((ITEMS, ITEMS)) if similarity_ID is None else (similarity_ID @ similarity_ID.T).clamp(min=0).numpy()
    )
    lists = case.lists()
    for user in range(len(case.scores)):
        free, score, pins = case.free(user), case.scores[user].tolist(), pins_of(case, user)
        low, high = (f([score[item] for item in free], default=0) for f in (min, max))
        before = list(pins.values())
        for item in rows(lists, user):
            if item in pins.values():
                continue
            able = [one for one in free if one not in before and case.fits(one, before)]
            gain = {
                one: (1 - strength) * (score[one] - low) / ((high - low) or 1)
                - strength * alike[one, before].max(initial=0)
                for one in able
            }
            assert gain[item] >= max(gain.values()) - 1e-5
            before.append(item)


@pytest.mark.parametrize("vectors", [VECTORS, None])
def test_more_diversity_gives_lists_of_less_similar_items(vectors):
    scores_BI = torch.randn(50, ITEMS, generator=torch.Generator().manual_seed(2))
    history = History(np.zeros(51, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    similarity_ID, mean = None, []
    for strength in (1.0, 0.6, 0.3, 0.0):
        rules = Rules(diversity=strength)
        compiled = compile_rules(rules, Catalog(IdMap.of(range(ITEMS)), FEATURES, seen=history, unit_items=vectors))
        similarity_ID = compiled.similarity_ID if similarity_ID is None else similarity_ID
        vector_BKD = similarity_ID[Case(rules, compiled, scores_BI, history, 4, ITEMS).lists().items_BK]
        mean.append(float((vector_BKD @ vector_BKD.transpose(1, 2)).mean()))
    assert mean == sorted(mean)
    assert mean[0] < mean[-1] - 0.1
