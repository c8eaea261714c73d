"""Tuning: what is searched, that trials are worth what they say, and that a study survives what happens to it."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boards import make_checkerboard
from palate.base import TrainOptions
from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.data.splits.strategies import at_random, leave_one_out
from palate.errors import DataError, EvaluationError, PalateError, RecipeError
from palate.evaluation.evaluate import evaluate
from palate.evaluation.rating_prediction import evaluate_ratings
from palate.experiment import SPACES, Metric, Task, default_space, parse_space, recipe_toml, tune, validation_parts
from palate.experiment.search_space import Choice, Range, plain, put
from palate.experiment.tune import open_study, run_trial
from palate.models import RECIPES, make_recipe
from palate.models.ease import EASE
from palate.models.ensemble import Ensemble
from palate.training.negative_sampling import draw_candidates

NDCG = Metric("NDCG", 10)


@pytest.fixture(scope="module")
def halves() -> Split:
    return leave_one_out(make_checkerboard().train)


def ease_task(split: Split, **more: Any) -> Task:
    preset = EASE(regularization=20.0)
    return Task(
        preset, parse_space(preset, {"regularization": "0.1:1000:log", "floor": "0.0:1.0"}), (split,), NDCG, **more
    )


def external(data: Dataset) -> tuple[list[Any], list[Any]]:
    rows = data.interactions
    return data.users.external(rows.user).to_list(), data.items.external(rows.item).to_list()


# The space.


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_space_of_fields_that_it_has(name: str) -> None:
    assert name in SPACES, f"add {name} to palate.experiment.search_space.SPACES"
    for preset in (RECIPES[name](), RECIPES[name].fast()):
        if not SPACES[name]:
            with pytest.raises(RecipeError, match="nothing to tune"):
                default_space(preset)
            continue
        for path, dimension in default_space(preset).items():
            ends = (
                [dimension.low, dimension.high] if isinstance(dimension, Range) else map(json.loads, dimension.options)
            )
            for value in ends:
                fitting = int(value) if isinstance(dimension, Range) and dimension.whole else value
                assert put(preset, {path: fitting}).name == name


@pytest.mark.parametrize("name", [name for name in RECIPES if SPACES.get(name)])
def test_the_preset_lies_in_the_default_space(name: str, halves: Split) -> None:
    preset = RECIPES[name].fast().for_data(halves.train)
    assert Task(preset, default_space(preset), (halves,), NDCG).preset_values() is not None


def test_the_language_of_spaces() -> None:
    mlp = make_recipe("mlp")
    space = parse_space(
        mlp,
        {
            "epochs": "1:40",
            "learning_rate": "0.001:1:log",
            "dropout": "0:1",
            "layers": "[64,32],[32,16]",
            "batch_size": [256, 512],
        },
    )
    assert space == {
        "epochs": Range(1, 40, whole=True),
        "learning_rate": Range(0.001, 1, log=True),
        "dropout": Range(0, 1),
        "layers": Choice(("[64, 32]", "[32, 16]")),
        "batch_size": Choice(("256", "512")),
    }
    assert parse_space(make_recipe("ials"), {"weighting": "none,log"}) == {"weighting": Choice(('"none"', '"log"'))}
    blend = Ensemble(("ease", {"recipe": "ials", "dim": 8}))
    found = put(blend, {"weights.1": 0.25, "members.1.dim": 16})
    assert found == Ensemble(("ease", {"recipe": "ials", "dim": 16}), (1.0, 0.25))
    assert set(default_space(Ensemble(("ease", "ials", "popularity"), (1, 1, 1)))) == {"how", "weights.1", "weights.2"}


@pytest.mark.parametrize(
    ("field", "wish", "message"),
    [
        ("regularisation", "1:2", r"no field 'regularisation': it has regularization"),
        ("regularization", "5:1", "low below high"),
        ("regularization", "0:1:log", "low above 0"),
        ("regularization", "1:2:3", "no range"),
        ("regularization", "a:b", "no range"),
        ("regularization", "7", "is one value"),
        ("max_items", "1.5:9", "whole number"),
        ("floor.1", "0:1", "no field 'floor.1'"),
    ],
)
def test_mistakes_in_a_space_are_told(field: str, wish: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_space(EASE(), {field: wish})


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("fast", [False, True])
@settings(deadline=None, max_examples=3)
@given(data=st.data())
def test_a_recipe_comes_back_from_its_file(name: str, fast: bool, data: st.DataObject) -> None:
    recipe = make_recipe(name, fast=fast)
    if SPACES.get(name):
        path, dimension = data.draw(st.sampled_from(list(default_space(recipe).items())))
        if isinstance(dimension, Choice):
            recipe = put(recipe, {path: json.loads(data.draw(st.sampled_from(dimension.options)))})
        elif not dimension.whole:
            recipe = put(recipe, {path: data.draw(st.floats(dimension.low, dimension.high))})
    read = tomllib.loads(recipe_toml(recipe, "about"))
    assert read.pop("recipe") == name
    for start in (True, False):
        assert make_recipe(name, read, fast=start) == recipe


@pytest.mark.parametrize("text", ["NDCG", "NDCG@0", "ndcg@10", "RMSE@10", "F1@10"])
def test_unknown_metrics_are_told(text: str) -> None:
    with pytest.raises(EvaluationError, match=r"choose one like .*NDCG@10.*RMSE"):
        Metric.of(text)


# Values.


def test_values_are_those_of_the_recipes_and_the_best_is_not_below_the_preset(
    ml_100k_loo: Split, tmp_path: Path
) -> None:
    told = []
    halves, preset = leave_one_out(ml_100k_loo.train), make_recipe("recent-popularity", {"half_life": 1000.0})
    task = Task(preset, default_space(preset), (halves,), NDCG)
    found = tune(
        task, tmp_path, trials=12, progress=lambda event: told.append((event.values["number"], event.values["best"]))
    )
    assert [trial.number for trial in found.trials] == list(range(12)) == [number for number, _ in told]
    assert found.trials[0].preset
    assert found.trials[0].fields == plain(preset)
    assert found.best.value > found.preset.value
    assert [best for _, best in told] == sorted(best for _, best in told)
    for trial in found.trials[::3]:
        model = make_recipe(preset.name, trial.fields).fit(halves.train)
        assert evaluate(model, halves, resamples=0).value("NDCG", 10) == pytest.approx(trial.value)
    assert set(found.importance) == {"half_life", "by_rating"}
    assert sum(found.importance.values()) == pytest.approx(1)
    read = tomllib.loads((tmp_path / "best.toml").read_text())
    assert make_recipe(read.pop("recipe"), read) == found.recipe == make_recipe(preset.name, found.best.fields)
    json.dumps(found.to_dict())


def test_the_same_seed_proposes_the_same_and_another_does_not(halves: Split, tmp_path: Path) -> None:
    def values(folder: str, seed: int, steps: tuple[int, ...]) -> list[dict[str, Any]]:
        for trials in steps:
            found = tune(ease_task(halves, options=TrainOptions(seed=seed)), tmp_path / folder, trials=trials)
        return [trial.values for trial in found.trials]

    once = values("a", 0, (8,))
    assert values("b", 0, (3, 8)) == once, "stopping in between changes nothing"
    assert values("c", 1, (8,))[1:] != once[1:]


def test_a_preset_outside_the_space_is_still_the_first_trial(halves: Split, tmp_path: Path) -> None:
    preset = EASE(regularization=1e6)
    task = Task(preset, parse_space(preset, {"regularization": "1:50"}), (halves,), NDCG)
    found = tune(task, tmp_path, trials=4)
    assert found.preset.number == 0
    assert found.preset.fields["regularization"] == 1e6
    assert found.preset.values == {}
    assert all(1 <= trial.fields["regularization"] <= 50 for trial in found.trials[1:])


def test_importance_is_told_without_a_warning_about_a_preset_outside(ml_100k: Dataset, tmp_path: Path) -> None:
    preset = make_recipe("recent-popularity", {"half_life": 5000.0})
    task = Task(preset, default_space(preset), (validation_parts(ml_100k, "time")[0],), NDCG)
    assert set(tune(task, tmp_path, trials=13).importance) == {"half_life", "by_rating"}


def test_a_number_is_one_of_the_options_however_it_is_written() -> None:
    preset = EASE(half_life_events=5)
    space = parse_space(preset, {"half_life_events": "null,1,5"})
    task = Task(preset, space, (), NDCG)
    assert task.preset_values() == {"half_life_events": "5"}
    assert Task(EASE(), space, (), NDCG).preset_values() == {"half_life_events": "null"}
    flags = Choice(("true", "false"))
    assert flags.holds(True)
    assert not flags.holds(1)
    assert not Choice(("0", "1")).holds(True)


def test_sampled_candidates_and_other_metrics(halves: Split, tmp_path: Path) -> None:
    drawn = draw_candidates(halves, 10, 0)
    task = dataclasses.replace(ease_task(halves.with_candidates(drawn)), metric=Metric.of("HitRate@3"))
    found = tune(task, tmp_path, trials=2)
    model = task.preset.fit(halves.train)
    expected = evaluate(model, halves, k=3, candidates=drawn, resamples=0).value("HitRate", 3)
    assert found.preset.value == pytest.approx(expected)


def test_errors_of_ratings_are_made_smaller(ml_100k: Dataset, tmp_path: Path) -> None:
    split = at_random(ml_100k, test_size=0.2, seed=0)
    preset = make_recipe("user-item-means", {"user_damping": 50.0, "item_damping": 50.0})
    task = Task(preset, default_space(preset), (split,), Metric.of("RMSE"))
    found = tune(task, tmp_path, trials=8)
    assert found.best.value == min(trial.value for trial in found.trials if trial.value is not None)
    assert found.best.value < found.preset.value
    expected = evaluate_ratings(preset.fit(split.train), split, resamples=0).value("RMSE")
    assert found.preset.value == pytest.approx(expected)


def test_hopeless_trials_of_many_epochs_are_given_up_and_the_others_are_worth_their_last_epoch(tmp_path: Path) -> None:
    split = leave_one_out(make_checkerboard().train)
    preset = make_recipe("gmf", {"epochs": 6, "batch_size": 128, "learning_rate": 0.02})
    task = Task(preset, parse_space(preset, {"learning_rate": "1e-7,1e-6,0.01,0.02,0.03"}), (split,), NDCG)
    found = tune(task, tmp_path, trials=10)
    states = {trial.state for trial in found.trials}
    assert states == {"complete", "pruned"}
    given_up = [trial for trial in found.trials if trial.state == "pruned"]
    assert all(trial.fields["learning_rate"] < 1e-5 for trial in given_up)
    told = [len(one.intermediate_values) for one in open_study(task, tmp_path).trials if one.state.name == "PRUNED"]
    assert min(told) == 3, "from the third epoch on"
    model = make_recipe("gmf", found.best.fields).fit(split.train)
    assert evaluate(model, split, resamples=0).value("NDCG", 10) == pytest.approx(found.best.value)
    epochs: list[int] = []
    for prune in (True, False):
        dataclasses.replace(task, prune=prune).measure(preset, lambda epoch, value: epochs.append(epoch))
    assert epochs == list(range(1, 7)), "none is looked at where none is given up"


def test_members_of_a_blend_are_fitted_again_only_when_they_change(halves: Split, tmp_path: Path, monkeypatch) -> None:
    fits = []
    fit = EASE.fit
    monkeypatch.setattr(EASE, "fit", lambda self, *rest: fits.append(self) or fit(self, *rest))
    preset = Ensemble(("ease", "popularity"), (1.0, 0.5))
    found = tune(Task(preset, default_space(preset), (halves,), NDCG), tmp_path / "a", trials=6)
    assert len(fits) == 1
    assert found.best.value == pytest.approx(
        evaluate(found.recipe.fit(halves.train), halves, resamples=0).value("NDCG", 10)
    )
    fits.clear()
    space = parse_space(preset, {"members.0.regularization": "1.0:100.0:log"})
    tune(Task(preset, space, (halves,), NDCG), tmp_path / "b", trials=6)
    assert len(fits) == 6


# Several parts.


@pytest.mark.parametrize("how", ["leave-one-out", "time", "random"])
def test_parts_are_splits_of_training_rows_and_each_is_another(how: Any, ml_100k: Dataset) -> None:
    train = leave_one_out(ml_100k).train
    pairs = set(zip(*external(train), strict=True))
    parts = validation_parts(train, how, 3)
    assert parts[0].fingerprint == validation_parts(train, how)[0].fingerprint, "more parts do not change the first"
    assert len({part.fingerprint for part in parts}) == 3
    for part in parts:
        known, held = (set(zip(*external(side), strict=True)) for side in (part.train, part.test))
        assert not known & held
        assert known | held <= pairs


def test_the_parts_of_time_and_of_the_latest_rows_go_back_in_time(ml_100k: Dataset) -> None:
    time = ml_100k.interactions.time
    assert time is not None
    ends = [np.quantile(time, share) for share in (1, 0.9, 0.8)]
    for part, end in zip(validation_parts(ml_100k, "time", 3), ends, strict=True):
        held, known = part.test.interactions.time, part.train.interactions.time
        assert held is not None
        assert known is not None
        assert known.max() <= held.min()
        assert end - 86_400 < held.max() <= end  # the last rows are of new users, whom a split by time drops
    first, second = validation_parts(ml_100k, "leave-one-out", 2)
    assert second.train.fingerprint.rows == first.train.fingerprint.rows - 943
    latest, before = (part.test.interactions for part in (first, second))
    assert latest.time is not None
    assert before.time is not None
    assert (before.time[np.argsort(before.user)] <= latest.time[np.argsort(latest.user)]).all()


def test_too_many_parts_are_refused() -> None:
    train = make_checkerboard().train
    with pytest.raises(DataError, match=r"enough for \d+ of 1000 validation parts: ask for fewer"):
        validation_parts(train, "leave-one-out", 1000)
    with pytest.raises(DataError, match="parts=0: must be at least 1"):
        validation_parts(train, "random", 0)


def test_a_trial_is_worth_the_mean_of_its_parts_and_may_end_early(ml_100k: Dataset, tmp_path: Path) -> None:
    parts = tuple(validation_parts(ml_100k, "time", 4))
    preset = make_recipe("recent-popularity", {"half_life": 10.0})
    task = Task(preset, parse_space(preset, {"half_life": "1,5,10,100,1000,10000"}), parts, NDCG)
    steps: list[tuple[int, float]] = []
    value = task.measure(preset, lambda number, so_far: steps.append((number, so_far)))
    each = [evaluate(preset.fit(part.train), part, resamples=0).value("NDCG", 10) for part in parts]
    assert value == pytest.approx(np.mean(each))
    assert steps == [(n, pytest.approx(np.mean(each[:n]))) for n in (1, 2, 3)]
    found = tune(task, tmp_path, trials=16)
    assert {trial.state for trial in found.trials} == {"complete", "pruned"}
    pruned = [trial.value for trial in found.trials if trial.state == "pruned"]
    assert max(pruned) < found.best.value
    with pytest.raises(RecipeError, match=r"another study \(candidates, rows differ\)"):
        tune(dataclasses.replace(task, parts=parts[:2]), tmp_path, trials=17)


def test_blend_members_are_kept_for_each_part(halves: Split, tmp_path: Path, monkeypatch) -> None:
    fits = []
    fit = EASE.fit
    monkeypatch.setattr(EASE, "fit", lambda self, *rest: fits.append(self) or fit(self, *rest))
    preset = Ensemble(("ease", "popularity"), (1.0, 0.5))
    parts = tuple(validation_parts(halves.train, "random", 2))
    found = tune(Task(preset, default_space(preset), parts, NDCG), tmp_path, trials=4)
    assert len(fits) == 2
    values = [evaluate(found.recipe.fit(part.train), part, resamples=0).value("NDCG", 10) for part in parts]
    assert found.best.value == pytest.approx(np.mean(values))


def test_seen_items_may_stay_in_the_lists(halves: Split, tmp_path: Path) -> None:
    task = dataclasses.replace(ease_task(halves), exclude_seen=False)
    found = tune(task, tmp_path, trials=1)
    model = task.preset.fit(halves.train)
    expected = evaluate(model, halves, exclude_seen=False, resamples=0).value("NDCG", 10)
    assert found.preset.value == pytest.approx(expected)
    assert found.preset.value != pytest.approx(evaluate(model, halves, resamples=0).value("NDCG", 10))
    assert found.to_dict()["candidates"] == ["all items, seen items left in"]


# What happens to a study.


def test_a_trial_that_cannot_be_is_counted_as_failed_but_the_preset_must_work(halves: Split, tmp_path: Path) -> None:
    preset = EASE()
    space = parse_space(preset, {"max_items": "5,20000"})
    found = tune(Task(preset, space, (halves,), NDCG), tmp_path / "a", trials=8)
    failed = [trial for trial in found.trials if trial.state == "failed"]
    assert failed
    assert all("exceed max_items=5" in (trial.error or "") for trial in failed)
    assert len(found.trials) == 8
    small = EASE(max_items=5)
    with pytest.raises(RecipeError, match=r"the preset.* failed: 40 items exceed max_items=5"):
        tune(Task(small, space, (halves,), NDCG), tmp_path / "b", trials=3)


def test_what_a_killed_run_left_is_done_again(halves: Split, tmp_path: Path) -> None:
    task = ease_task(halves)
    before = tune(task, tmp_path, trials=3)
    study = open_study(task, tmp_path)
    cut_off = study.ask()
    values = task.suggest(cut_off)
    with (tmp_path / "journal.log").open("ab") as file:
        file.write(b'{"op_code":5,"worker_id":"a half wri')
    found = tune(task, tmp_path, trials=5)
    assert found.trials[:3] == before.trials
    assert len(found.trials) == 5
    assert [trial.values for trial in found.trials].count(values) == 1
    assert cut_off.number not in [trial.number for trial in found.trials]
    assert tune(task, tmp_path, trials=5).trials == found.trials, "enough: nothing is run"


def test_a_killed_preset_is_done_again(halves: Split, tmp_path: Path) -> None:
    task = ease_task(halves)
    study = open_study(task, tmp_path)
    study.enqueue_trial(task.preset_values() or {}, user_attrs={"preset": True})
    task.suggest(study.ask())
    found = tune(task, tmp_path, trials=2)
    assert found.preset.fields == plain(task.preset)
    assert sum(trial.preset for trial in found.trials) == 1


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"preset": EASE(regularization=21.0)}, "fields"),
        ({"metric": Metric("Recall", 10)}, "metric"),
        ({"options": TrainOptions(seed=1)}, "seed"),
        ({"space": {"floor": Range(0, 1)}}, "space"),
        ({"parts": (leave_one_out(leave_one_out(make_checkerboard().train).train),)}, "rows"),
    ],
)
def test_another_study_is_not_gone_on_with(change: dict[str, Any], what: str, halves: Split, tmp_path: Path) -> None:
    tune(ease_task(halves), tmp_path, trials=1)
    with pytest.raises(RecipeError, match=rf"holds another study \({what} differ\)"):
        tune(dataclasses.replace(ease_task(halves), **change), tmp_path, trials=2)


def test_two_runs_in_one_folder_do_not_mix(halves: Split, tmp_path: Path) -> None:
    def again(*_: object) -> None:
        with pytest.raises(PalateError, match="at work in"):
            tune(ease_task(halves), tmp_path, trials=2)

    assert len(tune(ease_task(halves), tmp_path, trials=1, progress=again).trials) == 1


def test_time_is_kept(halves: Split, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="before the first trial"):
        tune(ease_task(halves), tmp_path, trials=5, minutes=0)
    said: list[str] = []
    found = tune(
        ease_task(halves), tmp_path, trials=100_000, minutes=0.01, progress=lambda event: said.append(event.message)
    )
    assert 1 <= len(found.trials) < 1000
    assert all(text.endswith(" s left") for text in said)  # that of the limit, not of 100,000 trials
    more: list[str] = []
    tune(ease_task(halves), tmp_path, trials=len(said) + 2, progress=lambda event: more.append(event.message))
    assert " left" in more[0]
    assert " left" not in more[-1]


def test_without_optuna_the_extra_is_named(halves: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(RecipeError, match=r"pip install 'palate\[tune\]'"):
        tune(ease_task(halves), tmp_path, trials=1)


@pytest.mark.slow
def test_side_by_side_each_trial_is_run_once(halves: Split, tmp_path: Path) -> None:
    task = ease_task(halves)
    threads = os.environ.get("POLARS_MAX_THREADS")
    found = tune(task, tmp_path, trials=7, workers=2)
    assert os.environ.get("POLARS_MAX_THREADS") == threads
    assert len(found.trials) == 7
    assert len({json.dumps(trial.values) for trial in found.trials}) == 7
    assert found.preset.number == 0
    alone = run_trial(task, open_study(task, tmp_path), 99)
    assert alone == 7
    values = [trial.value for trial in found.trials]
    assert all(value is not None and np.isfinite(value) for value in values)
