"""The whole comparison on small data: what it writes, that it goes on, that one failure takes nothing else along."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import palate
from boards import make_checkerboard
from palate.base import TrainOptions
from palate.data.splits.split import Split
from palate.errors import EvaluationError, RecipeError
from palate.evaluation.evaluate import evaluate
from palate.experiment import CompareOptions, Entry, compare
from palate.experiment.results import advice
from palate.models import make_recipe
from palate.models.popularity import Popularity
from palate.progress import ProgressEvent
from palate.recommend import Recommender
from palate.training.negative_sampling import draw_candidates

KNN = make_recipe("item-knn")
OPTIONS = CompareOptions(k=5, seeds=(0, 1), resamples=300, threads=1)
CONTRACT = {
    "palate", "created", "data", "split", "k", "lengths", "candidates", "seeds", "protocol", "models", "tests",
    "winner", "remarks", "failed", "audit",
}  # fmt: skip
ENTRY = {
    "name", "role", "recipe", "tuned", "train_seconds", "score_seconds", "peak_memory_mb", "curve", "full", "sampled",
    "ratings", "seeds", "examples", "findings", "stopped",
}  # fmt: skip


@pytest.fixture(scope="module")
def split():
    made = make_checkerboard()
    return made.with_candidates(draw_candidates(made, 5, seed=0))


@pytest.fixture(scope="module")
def done(split, tmp_path_factory):
    """Two recipes, one that fails, tuned baselines and somebody else's lists; every test below reads it."""
    folder = tmp_path_factory.mktemp("run") / "compare"
    lists = Recommender.of(Popularity().fit(split.train), split.train).recommend(list(range(39)), 5)
    recipes = [Entry("knn", KNN), make_recipe("gmf", {"epochs": 2, "dim": 4}), make_recipe("ease", {"max_items": 1})]
    told = []
    document = compare(
        split, recipes, folder, options=OPTIONS, with_baselines=True, lists={"theirs": lists},
        progress=lambda event: told.append(str(event)),
    ).document  # fmt: skip
    return folder, document, told, (recipes, lists)


def test_the_document_holds_what_the_report_needs(done, split):
    folder, document, _, _ = done
    assert set(document) == CONTRACT
    assert json.loads((folder / "comparison.json").read_text()) == document
    assert all(set(entry) == ENTRY for entry in document["models"])
    roles = {entry["name"]: entry["role"] for entry in document["models"]}
    assert roles["knn"] == "model"
    assert roles["theirs"] == "external"
    assert roles["ials (tuned)"] == roles["popularity"] == "baseline"
    assert document["split"]["fingerprint"] == split.fingerprint
    assert document["lengths"] == [1, 5, 10, 20, 50]
    data = dict(document["data"])
    assert data.pop("feedback")["min_rating"] is None
    assert data == {"name": "checkerboard", "rows": 800, "users": 40, "items": 40}


def test_a_time_limit_takes_cheap_baselines_first_and_says_what_was_left_out(split, tmp_path):
    options = CompareOptions(k=5, resamples=100, threads=1)
    begun: list[str] = []

    def slow(event: ProgressEvent) -> None:
        if event.stage == "compare" and event.message:
            begun.append(event.message)
            if event.message.startswith("item-knn"):
                time.sleep(3.5)  # the limit is over before ease, whatever the speed of the machine

    recipes = [make_recipe("bpr", {"epochs": 1}), "popularity"]
    found = compare(split, recipes, tmp_path, options=options, with_baselines=True, minutes=0.05, progress=slow)
    assert begun[0].startswith("popularity: training, ")
    assert begun[0].endswith(" s left")
    assert {one.name for one in found.outcomes} <= {"popularity", "item-knn (tuned)"}
    (said,) = [one for one in found.document["remarks"] if one.startswith("Left out after 0.05 minutes:")]
    assert "ials (tuned)" in said
    assert "bpr" in said
    with pytest.raises(RecipeError, match="minutes=0"):
        compare(split, recipes, minutes=0)


def test_the_same_settings_are_fitted_once_under_each_name(split, tmp_path):
    begun = []
    recipes = [
        Entry("one", KNN),
        Entry("two", replace(KNN)),
        Entry("one", KNN),
        Entry("three", make_recipe("popularity")),
    ]

    def said(event: ProgressEvent) -> None:
        if event.stage == "compare" and event.message:
            begun.append(event.message)

    for folder in (None, tmp_path / "run"):
        begun.clear()
        found = compare(split, recipes, folder, options=OPTIONS, progress=said)
        assert [text.split(",")[0] for text in begun[:-1]] == ["one", "one", "three", "three"]  # once per seed
        one, two, three = (named(found.document, name) for name in ("one", "two", "three"))
        assert one["full"]["measures"] == two["full"]["measures"] != three["full"]["measures"]
        assert (one["full"]["model"], two["full"]["model"]) == ("one", "two")
    with pytest.raises(RecipeError, match="one stands twice"):
        compare(split, [*recipes, Entry("one", replace(KNN, neighbors=4))])


@pytest.mark.slow
def test_a_comparison_that_ran_out_of_time_goes_on_with_the_entries_that_are_missing(split, tmp_path):
    options = CompareOptions(k=5, resamples=100, threads=1)
    recipes = [make_recipe("bpr", {"epochs": 1}), "popularity"]
    compare(split, recipes, tmp_path, options=options, with_baselines=True, minutes=0.02)
    later = compare(split, recipes, tmp_path, options=options, with_baselines=True, minutes=60)
    assert {"bpr", "ials (tuned)", "popularity"} <= {one.name for one in later.outcomes}
    assert not [one for one in later.document["remarks"] if one.startswith("Left out after")]


def test_who_is_told_when_people_come_back_is_said(tmp_path):
    fields = {"dim": 4, "hidden": 4, "n_layers": 1, "epochs": 1}
    recipes = [
        Entry(name, make_recipe("sasrec", {**fields, "request_time": reads}))
        for name, reads in (("told", True), ("blind", False))
    ]
    document = compare(make_checkerboard(), recipes, options=replace(OPTIONS, seeds=(0,))).document
    said = [line for line in document["remarks"] if "asked at the time" in line]
    assert said == ["told: each user asked at the time of the first held-out row; the other models do not read it"]


def test_every_model_stands_on_the_split_and_candidates_that_the_folder_keeps(done):
    folder, document, _, _ = done
    kept = Split.load(folder / "split")
    prints = kept.candidates.fingerprint(kept.train.users, kept.train.items)
    assert document["candidates"]["fingerprint"] == prints
    for entry in document["models"]:
        assert entry["full"]["fingerprints"] == {
            "train": kept.train.fingerprint.digest, "split": kept.fingerprint, "candidates": None,
            "relevant": None,
        }  # fmt: skip
        if entry["sampled"]:
            assert entry["sampled"]["fingerprints"]["candidates"] == prints


def test_numbers_are_means_over_the_seeds_and_the_tests_are_over_users(done):
    _, document, _, _ = done
    entry = next(one for one in document["models"] if one["name"] == "gmf")
    assert [one["seed"] for one in entry["seeds"]] == [0, 1]
    mean = sum(one["full"]["NDCG@5"] for one in entry["seeds"]) / 2
    measured = next(m for m in entry["full"]["measures"] if (m["metric"], m["k"]) == ("NDCG", 5))
    assert measured["value"] == pytest.approx(mean)
    assert measured["low"] <= mean <= measured["high"]
    rows = {(row["model"], row["ranking"]): row for row in document["tests"]}
    assert set(rows) == {("knn", "full"), ("knn", "sampled"), ("gmf", "full"), ("gmf", "sampled"), ("theirs", "full")}
    best = max((e for e in document["models"] if e["role"] == "baseline"), key=lambda e: value(e["full"]))
    assert {row["baseline"] for row in document["tests"] if row["ranking"] == "full"} == {best["name"]}
    assert rows["theirs", "full"]["difference"] == pytest.approx(
        value(named(document, "theirs")["full"]) - value(best["full"])
    )


def value(report, metric="NDCG", k=5):
    return next(m["value"] for m in report["measures"] if (m["metric"], m["k"]) == (metric, k))


def named(document, name):
    return next(one for one in document["models"] if one["name"] == name)


def test_processes_are_measured_and_curves_are_kept(done):
    _, document, _, _ = done
    gmf, knn = named(document, "gmf"), named(document, "knn")
    assert [point["epoch"] for point in gmf["curve"]] == [1, 2]
    assert knn["curve"] == []
    assert gmf["peak_memory_mb"] > knn["peak_memory_mb"] > 50
    assert gmf["train_seconds"] > 0
    assert named(document, "theirs")["train_seconds"] is None


def test_baselines_are_tuned_on_validation_rows_and_say_so(done):
    _, document, _, _ = done
    assert named(document, "ease (tuned)")["tuned"].startswith("regularization=")
    assert "validation rows" in named(document, "ease (tuned)")["tuned"]
    assert named(document, "popularity")["tuned"] == "nothing to choose"
    assert named(document, "gmf")["tuned"] is None


def test_what_fails_is_told_and_the_others_stand(done):
    _, document, _, _ = done
    (failed,) = document["failed"]
    assert failed["name"] == "ease"
    assert "40 items exceed max_items=1" in failed["why"]


def test_examples_show_histories_and_mark_hits(done, split):
    _, document, _, _ = done
    shown = named(document, "knn")["examples"]
    assert len(shown) == 5
    for example in shown:
        user = example["user"]
        assert [item["item"] for item in example["held_out"]] == [user]
        assert len(example["recommended"]) == 5
        assert {item["item"] for item in example["recommended"]}.isdisjoint(split.train.history.of(user).tolist())
        assert all(item["hit"] == (item["item"] == user) for item in example["recommended"])
    assert any(item["hit"] for example in shown for item in example["recommended"]), "the board is easy"
    assert len(named(document, "theirs")["examples"]) == 5


def test_somebody_elses_lists_are_measured_beside_them(done):
    _, document, _, _ = done
    theirs = named(document, "theirs")
    assert theirs["sampled"] is None
    assert theirs["recipe"] is None
    assert any("1 of 40 test users have no list" in line for line in theirs["full"]["notes"])
    assert 0 < value(theirs["full"], "HitRate") < 1


def test_a_second_run_does_nothing_again_and_says_the_same(done, split):
    folder, document, told, (recipes, lists) = done
    assert [line for line in told if line.startswith("gmf, seed 1: training: train gmf: epoch 2 of 2, loss")]
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "results").iterdir()}
    again = []
    second = compare(
        split, recipes, folder, options=OPTIONS, with_baselines=True, lists={"theirs": lists}, progress=again.append
    ).document
    assert [event.message for event in again] == ["ease, seed 0: training", "testing"], "only what failed is fitted"
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "results").iterdir()} == before
    assert {**second, "created": None} == {**document, "created": None} | {"models": second["models"]}
    for one, other in zip(second["models"], document["models"], strict=True):
        assert one["name"] == other["name"]
        assert one["full"]["measures"] == other["full"]["measures"]


def test_another_comparison_is_refused_and_fresh_begins_anew(done, split):
    folder, _, _, _ = done
    with pytest.raises(EvaluationError, match="k 5 there, 10 now"):
        compare(split, [KNN], folder, options=CompareOptions(seeds=(0, 1), resamples=300))
    with pytest.raises(EvaluationError, match="holds a result of gmf with other settings"):
        compare(split, [make_recipe("gmf", {"epochs": 3})], folder, options=OPTIONS)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"k": 0}, "field k=0: must be at least 1"),
        ({"seeds": ()}, r"field seeds=\(\): must hold at least 1"),
        ({"seeds": (0, -1)}, r"field seeds\[1\]=-1: must be at least 0"),
        ({"seeds": (1, 1)}, r"seeds=\[1, 1\]: give each once"),
        ({"resamples": 0}, "field resamples=0: must be at least 1"),
        ({"lengths": (5, 0)}, r"field lengths\[1\]=0: must be at least 1"),
    ],
)
def test_options_out_of_bounds_are_refused(fields, said):
    with pytest.raises(EvaluationError, match=said):
        CompareOptions(**fields)


@pytest.mark.parametrize("wrong", [TrainOptions(), CompareOptions()])
def test_options_in_the_place_of_the_folder_are_refused_with_the_right_call(split, wrong):
    with pytest.raises(EvaluationError, match=r"write compare\(split, recipes, options=palate\.CompareOptions"):
        compare(split, [KNN], wrong)


def test_a_process_that_is_killed_is_a_failure_of_its_model_alone(split, tmp_path):
    """What the system does when memory runs out."""
    killed = []

    def kill(event: ProgressEvent) -> None:
        if event.stage.startswith("slow: training: train") and not killed:
            worker = only_child(os.getpid())
            os.kill(only_child(worker), signal.SIGKILL)
            killed.append(worker)

    slow = Entry("slow", make_recipe("ials", {"epochs": 1_000_000}))
    document = compare(
        split, [slow, KNN], tmp_path / "run", options=CompareOptions(resamples=100), progress=kill
    ).document
    assert killed
    (failed,) = document["failed"]
    assert failed["name"] == "slow"
    assert "killed by SIGKILL" in failed["why"]
    assert [entry["name"] for entry in document["models"]] == ["item-knn"]
    assert document["tests"] == []
    assert document["winner"]["name"] is None


def only_child(process: int) -> int:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    # Another test of the same process may have left a child of another kind, such as a fork server.
    (child,) = [one for one in children if b"experiment.worker" in Path(f"/proc/{one}/cmdline").read_bytes()]
    return int(child)


@pytest.mark.slow
def test_patience_stops_what_is_trained_by_gradients_and_leaves_the_others_all_rows(split, tmp_path):
    slow = make_recipe("gmf", {"epochs": 50, "learning_rate": 1e-9})
    settings = CompareOptions(patience=1, resamples=100, k=5)
    document = compare(split, [slow, KNN], tmp_path / "run", options=settings).document
    assert 1 < len(named(document, "gmf")["curve"]) < 50
    model = KNN.fit(split.train)
    assert value(named(document, "item-knn")["full"]) == evaluate(model, split, k=5).value("NDCG", 5)


def test_mistakes_are_told_before_anything_is_trained(split, tmp_path):
    with pytest.raises(RecipeError, match="knn stands twice"):
        compare(split, [Entry("knn", KNN)], tmp_path / "a", lists={"knn": pl.DataFrame()})
    with pytest.raises(EvaluationError, match="no recipes were given"):
        compare(split, [], tmp_path / "b")
    for wrong in ({"k": 0}, {"seeds": ()}, {"seeds": (1, 1)}, {"resamples": 0}):
        with pytest.raises(EvaluationError, match=next(iter(wrong))):
            CompareOptions(**wrong)


def test_in_this_process_the_numbers_are_those_of_a_folder_and_the_models_stay(done, split):
    _, document, _, (recipes, lists) = done
    found = compare(split, recipes, options=OPTIONS, with_baselines=True, lists={"theirs": lists})
    assert [one["name"] for one in found.models] == [one["name"] for one in document["models"]]
    for one, other in zip(found.models, document["models"], strict=True):
        assert one["full"]["measures"] == other["full"]["measures"]
        assert (one["sampled"] or {}).get("measures") == (other["sampled"] or {}).get("measures")
        assert one["tuned"] == other["tuned"]
        assert one["curve"] == other["curve"]
    assert found.document["tests"] == document["tests"]
    assert found.failed == document["failed"]
    again = evaluate(found.fitted("knn").model, split, k=5)
    assert again.value("NDCG", 5) == found.report("knn").value("NDCG", 5)


def test_names_are_recipes_and_the_result_is_a_table():
    found = palate.compare(make_checkerboard(), ["ease", "popularity"], options=CompareOptions(k=5, resamples=50))
    frame = found.to_frame()
    assert frame.columns[:4] == ["model", "role", "ranking", "metric"]
    ease = frame.filter(model="ease", ranking="full", metric="NDCG", k=5)["value"].item()
    assert ease == found.report("ease").value("NDCG", 5)
    assert found.to_pandas().shape == frame.shape
    assert found.winner == "ease"
    assert repr(found).splitlines()[1].startswith("ease        NDCG@5 ")
    assert "<td>popularity" in found._repr_html_()


def test_without_a_winner_the_advice_names_the_cheapest_and_the_users_that_would_decide():
    test = {"model": "a", "difference": 0.01, "low": -0.01, "high": 0.03, "better": None}
    winner = {"name": None, "tests": [{**test, "baseline": "b"}, {**test, "baseline": "c", "better": True}]}
    models = [
        {"name": name, "train_seconds": train, "score_seconds": 1.0}
        for name, train in (("a", 90.0), ("b", 4.0), ("c", 0.0))
    ]
    text = advice(winner, models, 250)
    # The half width is twice the difference: four times the users.
    assert text == (
        "Of these 2 take b, the cheapest (5 seconds to train and score). "
        "A difference of 0.0100 would show with about 1,000 test users."
    )
    assert advice({**winner, "name": "a"}, models, 250) is None
    untested = {"name": None, "tests": [{**test, "low": None, "high": None, "baseline": "b"}]}
    assert advice(untested, models, 250) == "Of these 2 take b, the cheapest (5 seconds to train and score)."
    lists = [{**one, "train_seconds": None} for one in models]
    assert advice(winner, lists, 250) is None
