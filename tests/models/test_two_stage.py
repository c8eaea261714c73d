"""Two stages: what is a candidate, what stands above what, what the ranker may learn from, and that it learns."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boards import make_checkerboard
from palate.base import DataSpec, Query, TrainOptions
from palate.bundle import Bundle
from palate.data.dataset import Dataset, Interactions
from palate.data.feedback import Feedback
from palate.data.ids import IdMap
from palate.errors import RecipeError
from palate.evaluation.evaluate import evaluate
from palate.models import as_table, make_recipe
from palate.models.ease import EASE
from palate.models.ensemble import Ensemble, standardized
from palate.models.popularity import Newest
from palate.models.two_stage import TwoStage, TwoStageModel
from palate.models.two_stage.candidate_generation import Retrieval
from palate.models.two_stage.ranker_training import cut

DAY = 86_400.0
SMALL = ({"recipe": "ials", "epochs": 3, "dim": 8}, "popularity", "recent-popularity", "newest")
TRAIN = make_checkerboard().train


def recipe(**fields: Any) -> TwoStage:
    return TwoStage(**{"members": SMALL, "rounds": 30, "n_candidates": 4, **fields})


def fit(**fields: Any) -> TwoStageModel:
    return recipe(**fields).fit(TRAIN, TrainOptions(seed=1))


@pytest.fixture(scope="module")
def narrow() -> TwoStageModel:
    return fit()


def asked(users: list[int], at: float | None = None) -> Query:
    when = None if at is None else torch.full((len(users),), at, dtype=torch.float64)
    return Query.of(users, TRAIN.history.select(np.array(users)), when)


def score(model: TwoStageModel, query: Query) -> torch.Tensor:
    with torch.inference_mode():
        return model.score(query)


# Stage one.


class Fixed(torch.nn.Module):
    """A retriever with the same scores for everybody, (I,), who knows the first user."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.register_buffer("scores", torch.tensor(scores))

    def score(self, query: Query, items: torch.Tensor | None = None) -> torch.Tensor:
        return self.scores.expand(len(query), -1)

    def can_personalize(self, query: Query) -> torch.Tensor:
        return query.user == 0


def test_candidates_are_what_some_retriever_ranks_high_and_nothing_seen() -> None:
    members = Fixed(9, 8, 7, 6, 5, 4), Fixed(0, 0, 0.5, 0, 0, 7), Fixed(1, 1, 1, 1, 1, 1 + 1e-7)
    query = Query.of([0, 1, 1], TRAIN.history.select(np.array([-1, -1, -1])))
    query = dataclasses.replace(
        query, offsets=torch.tensor([0, 1, 2, 2]), items=torch.tensor([0, 5]), weights=None, times=None
    )
    found = Retrieval(members, 2, exclude_seen=True)(query)
    assert found.candidate[0].nonzero().flatten().tolist() == [1, 2, 5]  # without 0; nothing from the last, which ties
    assert found.rank[0, 0].tolist()[1:] == [1, 2, 3, 4, 5]
    assert found.rank[1, 0].tolist()[1:] == [5, 2, 5, 5, 1]
    assert (found.rank[2, 0, 1:] == 5).all()
    assert found.candidate[1].nonzero().flatten().tolist() == [0, 1, 2]  # tied places beyond the first two are none
    assert not found.candidate[2].any()  # of whom nothing is known
    assert Retrieval(members, 2, exclude_seen=False)(query).candidate[0].nonzero().flatten().tolist() == [0, 1, 2, 5]


def test_the_list_of_candidates_ends_in_minus_ones_and_is_empty_for_the_unknown(narrow: TwoStageModel) -> None:
    found = narrow.candidates(Query.new_users([[0, 2, 4, 6], []]))
    assert (found[0] >= 0).any()
    assert (found[1] == -1).all()
    ended = (found == -1).int().diff(dim=1)
    assert (ended >= 0).all()


def test_what_was_seen_is_a_candidate_where_people_come_back_to_things() -> None:
    model = fit(exclude_seen=False, n_candidates=40)
    assert (model.candidates(asked([0])) >= 0).all()
    assert model.candidates(asked([0])).shape == (1, 40)


def test_scorers_name_no_candidates_and_have_no_say_in_the_order_of_stage_one() -> None:
    members = Fixed(9, 8, 7, 6, 5, 4), Fixed(0, 0, 0, 0, 3, 7)
    query = Query.of([0])
    alone, both = (Retrieval(members[:many], 2, True, many - 1)(query) for many in (1, 2))
    assert both.candidate.tolist() == alone.candidate.tolist() == [[True, True, False, False, False, False]]
    assert torch.equal(both.fused, alone.fused)
    assert both.rank[1, 0].tolist() == [6, 6, 6, 6, 2, 1]
    model = fit(scorers=("ease",))
    assert torch.equal(model.candidates(asked([0, 3])), fit().candidates(asked([0, 3])))


# The scores.


def test_candidates_stand_above_the_others_which_keep_the_order_of_stage_one(narrow: TwoStageModel) -> None:
    query = asked([0, 3, 21])
    found = narrow.retrieval(query)
    scores = score(narrow, query)
    for row in range(3):
        chosen = found.candidate[row]
        assert 0 < chosen.sum() < 40
        assert scores[row, chosen].min() > scores[row, ~chosen].max()
        rest, fused = scores[row, ~chosen], found.fused[row, ~chosen]
        order = fused.argsort(stable=True)
        assert (rest[order].diff() >= -1e-5).all()
        torch.testing.assert_close(rest - rest.max(), fused - fused.max(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ranker", ["trees", "cross"])
def test_at_full_width_the_order_is_that_of_the_ranker_alone(ranker: str) -> None:
    model = fit(ranker=ranker, n_candidates=40, exclude_seen=False)
    query = asked([0, 5, 12, 39])
    every = torch.arange(40).repeat(4)
    rows = torch.arange(4).repeat_interleave(40)
    with torch.inference_mode():
        alone = model.ranker(model.inputs(query, model.retrieval(query), rows, every, model.retrieval.models))
    assert torch.equal(score(model, query), alone.view(4, 40))
    assert alone.std() > 0


def test_a_wider_first_stage_never_changes_what_the_ranker_says(narrow: TwoStageModel) -> None:
    wide = recipe(n_candidates=12).build(narrow.spec)
    wide.load_state_dict(narrow.state_dict())
    query = asked([0, 3, 21])
    kept = narrow.retrieval(query).candidate
    assert (wide.retrieval(query).candidate & kept).equal(kept)
    torch.testing.assert_close(score(wide.eval(), query)[kept], score(narrow, query)[kept])


def test_whoever_is_unknown_gets_what_is_popular(narrow: TwoStageModel) -> None:
    scores = score(narrow, Query.new_users([[]]))[0]
    counts = torch.from_numpy(np.bincount(TRAIN.interactions.item, minlength=40)).float()
    assert torch.equal(scores.argsort(stable=True), counts.argsort(stable=True))


def test_chunks_of_users_change_nothing(narrow: TwoStageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    query = asked(list(range(40)))
    whole = score(narrow, query)
    candidates = narrow.candidates(query)
    monkeypatch.setattr("palate.models.two_stage.model.CELLS", 2_000)
    assert len(list(narrow.chunks(query))) > 5
    torch.testing.assert_close(score(narrow, query), whole, rtol=1e-5, atol=1e-5)
    assert torch.equal(narrow.candidates(query), candidates)


def test_the_network_keeps_the_laws_too(tmp_path: Any) -> None:
    fields = recipe(ranker="cross")
    model, again = (fields.fit(TRAIN, TrainOptions(seed=1)) for _ in range(2))
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    Bundle.of(fields, model, TRAIN).save(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle").recommender.model
    query = asked(list(range(40)))
    assert torch.equal(loaded.score(query), score(model, query))
    held_out = score(model, query).diagonal()
    wrong = (torch.arange(40)[:, None] + torch.arange(40)) % 2 == 1
    assert (held_out > score(model, query).masked_fill(~wrong, -torch.inf).amax(1)).float().mean() >= 0.9


# What the ranker learns from.


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_slices_follow_what_lies_before_them(data: st.DataObject) -> None:
    n, slices = data.draw(st.integers(20, 120)), data.draw(st.integers(1, 3))
    share = data.draw(st.floats(0.05, 0.3))
    step = data.draw(st.just(share) | st.floats(0.02, 0.3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    time = rng.integers(0, 50, n).astype(np.float64) if data.draw(st.booleans()) else None
    rows = Interactions(
        rng.integers(0, 3, n).astype(np.int32), np.arange(n, dtype=np.int32), np.ones(n, np.float32), time
    )
    train = Dataset("rows", IdMap.of(np.arange(3)), IdMap.of(np.arange(n)), rows)
    try:
        parts = list(cut(train, share, slices, step, 0.0, 0))
    except RecipeError:
        return
    assert len(parts) == slices
    after = [set(part.after.interactions.item.tolist()) for part in parts]  # items are row numbers here
    if step >= share:
        assert len(set.union(*after)) == sum(map(len, after))
    for part in parts:
        known, then = part.before.interactions, part.after.interactions
        assert not set(known.item.tolist()) & set(then.item.tolist())
        assert set(then.user.tolist()) <= set(known.user.tolist())
        if known.time is not None and then.time is not None:
            assert known.time.max() <= then.time.min()


def test_slices_may_overlap_and_are_as_long_as_before() -> None:
    n = 100
    rows = Interactions(np.zeros(n, np.int32), np.arange(n, dtype=np.int32), np.ones(n, np.float32), np.arange(n) * DAY)
    train = Dataset("rows", IdMap.of([0]), IdMap.of(np.arange(n)), rows)

    def spans(slices: int, step: float) -> list[tuple[int, int, int]]:
        found = [part.after.interactions.item for part in cut(train, 0.2, slices, step, 0.0, 0)]
        return [(int(item.min()), int(item.max()), len(item)) for item in found]

    assert spans(3, 0.2) == [(40, 59, 20), (60, 79, 20), (80, 99, 20)]
    assert spans(3, 0.05) == [(70, 89, 20), (75, 94, 20), (80, 99, 20)]


def test_the_retrievers_and_scorers_that_teach_never_saw_the_slice() -> None:
    part = next(iter(cut(TRAIN, 0.15, 1, 0.15, 0.0, 1)))
    taught = fit(refit=False, scorers=("ease",))
    assert len(taught.retrieval.models) == len(SMALL) + 1
    for member in taught.retrieval.models:
        assert member.trained_on == part.before.fingerprint
    for member in fit().retrieval.models:
        assert member.trained_on == TRAIN.fingerprint
    assert taught.inputs.now == part.before.interactions.time.max()
    assert taught.trained_on == TRAIN.fingerprint


def test_only_rows_of_enough_weight_are_to_be_found() -> None:
    weight = np.where(np.arange(len(TRAIN)) % 3 == 0, -1.0, np.where(np.arange(len(TRAIN)) % 3 == 1, 3.0, 5.0))
    rated = TRAIN.with_rows(dataclasses.replace(TRAIN.interactions, weight=weight.astype(np.float32)))
    for min_rating, expected in ((-9.0, {3, 5}), (0.0, {3, 5}), (4.0, {5})):
        part = next(iter(cut(rated, 0.3, 1, 0.3, min_rating, 0)))
        assert set(part.after.interactions.weight.tolist()) == expected
        assert set(part.before.interactions.weight.tolist()) == {-1, 3, 5}
    with pytest.raises(RecipeError, match="weight 6 or more"):
        next(iter(cut(rated, 0.3, 1, 0.3, 6.0, 0)))


def test_without_times_the_slice_is_drawn_at_random() -> None:
    timeless = TRAIN.with_rows(dataclasses.replace(TRAIN.interactions, time=None))
    model = recipe(members=(SMALL[0], "popularity"), slices=2).fit(timeless, TrainOptions(seed=1))
    query = Query.of([0, 1], timeless.history.select(np.array([0, 1])))
    assert torch.isfinite(score(model, query)).all()
    with pytest.raises(RecipeError, match="no time"):
        recipe().fit(timeless)


def kinds(rng: np.random.Generator, users: int = 60, items: int = 40) -> Dataset:
    """Users of kind 0 touch items of kind 0, users of kind 1 those of kind 1; all items are about as popular."""
    user = np.repeat(np.arange(users), 12)
    item = np.concatenate(
        [rng.choice(np.arange(items // 2) * 2 + number % 2, 12, replace=False) for number in range(users)]
    )
    rows = Interactions(
        user.astype(np.int32), item.astype(np.int32), np.ones(len(user), np.float32), rng.random(len(user)) * 1e6
    )
    kind = pl.DataFrame({"kind": [["even"], ["odd"]] * (items // 2)})
    ids = IdMap.of(np.arange(users)), IdMap.of(np.arange(items))
    return Dataset("kinds", *ids, rows, item_features=kind)


@pytest.mark.parametrize("ranker", ["trees", "cross"])
def test_the_ranker_learns_from_features_what_no_retriever_can_personalize(ranker: str) -> None:
    train = kinds(np.random.default_rng(0))
    model = TwoStage(members=("popularity",), n_candidates=40, slice_size=0.3, ranker=ranker).fit(train)  # type: ignore[arg-type]
    query = Query.new_users([[0, 2, 4, 6], [1, 3, 5]])
    assert model.can_personalize(query).all()
    scores = score(model, query)
    even, odd = scores[:, 8::2], scores[:, 9::2]
    assert (even[0][:, None] > odd[0]).float().mean() > 0.97
    assert (odd[1][:, None] > even[1]).float().mean() > 0.97


@pytest.mark.parametrize("members", [("popularity",), ("popularity", {"recipe": "ials", "epochs": 1, "dim": 4})])
@pytest.mark.parametrize("features", [True, False])
def test_the_number_of_inputs_is_known_before_any_candidate_is_scored(members: Any, features: bool) -> None:
    train = kinds(np.random.default_rng(0))
    if features:
        of_items = {
            "kind": train.item_features["kind"],
            "price": np.linspace(1, 9, 40),
            "title": [*map(str, range(40))],
        }
        of_users = {"age": np.arange(60.0), "plan": ["a", "b", "c"] * 20}
        train = dataclasses.replace(train, item_features=pl.DataFrame(of_items), user_features=pl.DataFrame(of_users))
    else:
        train = dataclasses.replace(train, item_features=None)
    model = TwoStage(members=members, n_candidates=5, slice_size=0.3, ranker="cross").fit(train)
    query = Query.new_users([[0, 2, 4, 6], [1, 3, 5]])
    assert model.inputs.width(model.retrieval.models) == model.read(query, model.retrieval(query))[0].shape[1]
    with torch.device("meta"):  # which has no memory to score with
        recipe = TwoStage(members=members, n_candidates=5, slice_size=0.3, ranker="cross")
        assert recipe.build(model.spec).ranker.out.weight.shape == model.ranker.out.weight.shape


def test_the_ranker_learns_from_a_scorer_what_no_retriever_can_personalize(tmp_path: Any) -> None:
    train = dataclasses.replace(kinds(np.random.default_rng(0)), item_features=None)
    query = Query.of(np.arange(60), train.history)
    own = torch.arange(60)[:, None] % 2 == torch.arange(40) % 2
    seen = torch.zeros(60, 40, dtype=torch.bool)
    seen[train.interactions.user, train.interactions.item] = True

    def right(**fields: Any) -> float:
        """Of the five first unseen items of each user, the share that are of the user's kind."""
        chosen = TwoStage(members=("popularity",), n_candidates=40, slice_size=0.3, **fields)
        model = chosen.fit(train)
        Bundle.of(chosen, model, train).save(tmp_path / str(len(fields)))
        loaded = Bundle.load(tmp_path / str(len(fields))).recommender.model
        assert torch.equal(loaded.score(query), score(model, query))
        best = score(model, query).masked_fill(seen, -torch.inf).topk(5).indices
        return float(own.gather(1, best).float().mean())

    assert right() < 0.7
    assert right(scorers=({"recipe": "ease", "regularization": 10},)) > 0.97


def test_bags_are_rankers_of_other_seeds_averaged(tmp_path: Any) -> None:
    query = asked([0, 3, 21])
    whole, alone = fit(bags=3), fit()
    assert len(whole.ranker.boosters) == 3
    assert whole.ranker.boosters[0].model_to_string() == alone.ranker.boosters[0].model_to_string()
    input_NF, row_N, item_N = whole.read(query, whole.retrieval(query))
    with torch.inference_mode():
        mean_N = np.mean([one.predict(input_NF.numpy(), raw_score=True) for one in whole.ranker.boosters], axis=0)
    assert not np.allclose(mean_N, whole.ranker.boosters[0].predict(input_NF.numpy(), raw_score=True))
    torch.testing.assert_close(score(whole, query)[row_N, item_N], torch.from_numpy(mean_N).float())
    Bundle.of(recipe(bags=3), whole, TRAIN).save(tmp_path / "bundle")
    assert torch.equal(score(Bundle.load(tmp_path / "bundle").recommender.model, query), score(whole, query))


def test_bags_bring_the_lists_of_two_seeds_closer() -> None:
    train = kinds(np.random.default_rng(2))
    query = Query.of(np.arange(60), train.history)

    def apart(bags: int) -> float:
        fields = {"members": ("popularity",), "n_candidates": 40, "slice_size": 0.3, "bags": bags}
        one, other = (score(TwoStage(**fields).fit(train, TrainOptions(seed=seed)), query) for seed in (0, 100))  # type: ignore[arg-type]
        return float((one.argsort(1).argsort(1) - other.argsort(1).argsort(1)).abs().float().mean())

    assert apart(8) < apart(1)


def test_a_bundle_from_before_bags_and_scorers_still_loads() -> None:
    model = fit()
    text = model.ranker.boosters[0].model_to_string().encode()
    rebuilt = recipe().build(model.spec)
    rebuilt.load_state_dict(model.state_dict() | {"ranker._extra_state": torch.tensor(list(text), dtype=torch.uint8)})
    fields = {
        name: value
        for name, value in dataclasses.asdict(recipe()).items()
        if name not in ("bags", "scorers", "slice_step")
    }
    assert make_recipe("two-stage", fields) == recipe()
    query = asked([0, 3, 21])
    assert torch.equal(score(rebuilt.eval(), query), score(model, query))


def test_two_stages_may_be_a_member_of_a_blend(tmp_path: Any) -> None:
    blend = Ensemble(members=(as_table(recipe(bags=2)), "ease"), weights=(1, 0.3))
    model = blend.fit(TRAIN, TrainOptions(seed=1))
    query = asked([0, 3, 21])
    own, other = (standardized(score(one, query)) for one in (fit(bags=2), EASE().fit(TRAIN)))
    torch.testing.assert_close(score(model, query), own + 0.3 * other, rtol=1e-4, atol=1e-4)
    Bundle.of(blend, model, TRAIN).save(tmp_path / "bundle")
    assert torch.equal(score(Bundle.load(tmp_path / "bundle").recommender.model, query), score(model, query))


# What the ranker reads.


def test_ages_are_those_at_the_time_of_the_request(narrow: TwoStageModel) -> None:
    last = float(TRAIN.interactions.time.max())
    assert float(narrow.inputs.now) == last
    now, then, later = (
        narrow.read(query, narrow.retrieval(query))[0]
        for query in (asked([0, 3]), asked([0, 3], last), asked([0, 3], last + 30 * DAY))
    )
    assert torch.equal(now, then)
    changed = (now != later).any(0)
    assert 0 < changed.sum() <= 3  # days since the user's last event, and since the item's first and last
    assert (later[:, changed] > now[:, changed]).all()


def test_numbers_of_a_small_log() -> None:
    rows = Interactions(
        np.array([0, 0, 1, 1], np.int32), np.array([0, 1, 1, 2], np.int32), np.array([5, 3, 4, 1], np.float32),
        np.array([0.0, 10.0, 20.0, 30.0]) * DAY,
    )  # fmt: skip
    features = pl.DataFrame({"genres": [["a"], ["a", "b"], ["b"]], "year": [1990.0, 2000.0, 2010.0]})
    train = Dataset("log", IdMap.of([7, 8]), IdMap.of([1, 2, 3]), rows, Feedback("rating"), item_features=features)
    model = recipe(members=("popularity",), n_candidates=3, exclude_seen=False).build(
        DataSpec(2, 3, recipe(members=("popularity",))._schema(train))
    )
    model.inputs.learn(train)
    query = Query.of([0], train.history.select(np.array([0])))
    pair = torch.zeros(1, dtype=torch.int64), torch.tensor([2])
    read = model.inputs(query, model.retrieval(query), *pair, model.retrieval.models)[0].numpy()
    near = np.log1p
    for known in (
        near(2),  # events
        near(20), near(10),  # days since the last one, and between first and last
        4.0,  # mean rating of the history
        np.log(1.1 / (4.3 / 3)),  # share of the item's rows
        near(0), near(0),  # days since its first and its last row
        np.log(2 / 3),  # all of its rows came after the user's last event
        0.25, np.log(0.26 / (0.5 + 0.01)),  # weight of b in the history, and against the catalog
    ):  # fmt: skip
        assert np.isclose(read, known, atol=1e-4).any(), known


# Mistakes.


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fit()
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(RecipeError, match=r"needs LightGBM.*palate\[rank\].*ranker='cross'"):
        fit()
    with pytest.raises(RecipeError, match=r"needs LightGBM"):
        recipe().build(DataSpec(40, 40)).load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"members": ()}, r"members=\(\): must hold at least 1"),
        ({"members": ({"dim": 3},)}, "does not name its recipe"),
        ({"n_candidates": 0}, "n_candidates=0"),
        ({"slice_size": 0.5, "slices": 2}, "2 slices of slice_size=0.5 with slice_step=0.5 cover 1 of the rows"),
        (
            {"slice_size": 0.5, "slices": 3, "slice_step": 0.3},
            "3 slices of slice_size=0.5 with slice_step=0.3 cover 1.1 of the rows",
        ),
        ({"slice_step": 0.0}, "slice_step=0.0: must be above 0"),
        ({"scorers": ("eas",)}, "eas"),
        ({"learning_rate": 0.0}, "learning_rate=0"),
        ({"bags": 0}, "bags=0: must be at least 1"),
    ],
)
def test_senseless_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(**fields)


def test_where_nobody_comes_back_it_says_so() -> None:
    rows = Interactions(
        np.arange(20, dtype=np.int32), np.zeros(20, np.int32), np.ones(20, np.float32), np.arange(20) * DAY
    )
    once = Dataset("once", IdMap.of(np.arange(20)), IdMap.of([1]), rows)
    with pytest.raises(RecipeError, match="once: no user of slice 1 of 1"):
        recipe(members=("popularity",)).fit(once)


def test_a_retriever_may_read_features_of_its_own() -> None:
    train = kinds(np.random.default_rng(1))
    both = ({"recipe": "two-tower", "item_features": ["*"], "epochs": 2}, {"recipe": "two-tower", "epochs": 2})
    chosen = recipe(members=both)
    model = chosen.fit(train)
    rebuilt = chosen.build(model.spec)
    rebuilt.load_state_dict(model.state_dict())
    query = Query.of([0, 1], train.history.select(np.array([0, 1])))
    assert torch.equal(score(rebuilt.eval(), query), score(model, query))


# Newest.


def test_newest_is_ordered_by_the_first_row() -> None:
    rows = Interactions(
        np.arange(4, dtype=np.int32),
        np.array([0, 1, 1, 2], np.int32),
        np.ones(4, np.float32),
        np.array([1.0, 0, 9, 2]) * DAY,
    )
    model = Newest().fit(Dataset("rows", IdMap.of(np.arange(4)), IdMap.of(np.arange(4)), rows))
    assert model.counts.tolist() == [1, 0, 2, -1]
    assert not model.can_personalize(Query.of([0])).any()


# Real data.


def test_it_beats_its_retrievers_on_real_data(ml_100k: Dataset) -> None:
    from palate.data.splits.strategies import by_time

    split = by_time(ml_100k, test_size=0.2)
    model = make_recipe("two-stage", fast=True).fit(split.train, TrainOptions(seed=0))
    own = evaluate(model, split, k=10, resamples=0).value("NDCG", 10)
    alone = [evaluate(one, split, k=10, resamples=0).value("NDCG", 10) for one in model.retrieval.models]
    assert own > max(alone)
