"""`palate tune` as it is used: what it says and leaves behind; it never sees test rows and survives a kill."""

from __future__ import annotations

import os
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from terminal import board, mistake, palate, start

from palate.data.preprocessing import sample_users
from palate.data.readers import read_interactions
from palate.data.splits.strategies import leave_one_out
from palate.evaluation.evaluate import evaluate
from palate.experiment import validation_parts
from palate.models import make_recipe

KNN = ("tune", "item-knn", "clicks.csv", "--split", "leave-one-out")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clicks.csv").write_text(board())


def test_the_best_recipe_trains_from_its_file_and_the_values_are_shown(tmp_path):
    result = palate(*KNN, "--trials", 12).ok()
    assert "test rows are held out and not used" in result.err
    assert "trial 12 of 12" in result.err
    assert "0 (preset)" in result.out
    assert "measure it once on test rows" in result.out
    path = tmp_path / "studies" / "item-knn" / "best.toml"
    best = tomllib.loads(path.read_text())
    trained = palate("train", "--config", path, "clicks.csv", "--split", "leave-one-out", "--json").ok().json
    assert {"recipe": trained["recipe"], **trained["fields"]} == best
    for name in ("history.svg", "importance.svg"):
        picture = path.parent / name
        if picture.exists() or name == "history.svg":
            assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    assert palate("train", "item-knn", "clicks.csv", "--config", path, "--set", "neighbors=3").code == 0
    assert "of recipe 'item-knn', not 'ease'" in mistake(palate("train", "ease", "clicks.csv", "--config", path))


def test_json_tells_everything():
    told = palate(*KNN, "--trials", 3, "--search", "neighbors=1:9", "--json").ok().json
    assert told["space"] == {"neighbors": "1 to 9"}
    assert len(told["trials"]) == 3
    assert told["best"]["value"] >= told["preset"]["value"]
    assert told["best"] == max(told["trials"], key=lambda trial: trial["value"])
    assert told["config"].endswith("best.toml")
    assert "leave one out" in told["validation"][0]


def test_a_space_may_stand_in_a_file(tmp_path):
    (tmp_path / "space.toml").write_text('neighbors = "1:4"\n"shrinkage" = [0.0, 10.0]\n')
    told = palate(*KNN, "--trials", 4, "--space", "space.toml", "--search", "neighbors=2:3", "--json").ok().json
    assert told["space"] == {"neighbors": "2 to 3", "shrinkage": "0.0, 10.0"}


def test_parts_sampled_users_relevance_and_seen_items(tmp_path):
    lines = (tmp_path / "clicks.csv").read_text().splitlines()
    rated = [f"{lines[0]},rating", *(f"{line},{3 + n % 3}" for n, line in enumerate(lines[1:]))]
    (tmp_path / "rated.csv").write_text("\n".join(rated))
    command = ("tune", "item-knn", "rated.csv", "--trials", 1, "--seed", 3, "--split", "leave-one-out")
    result = palate(*command, "--parts", 2, "--sample", 0.5, "--relevant", 4, "--include-seen", "--json").ok()
    train = sample_users(leave_one_out(read_interactions(tmp_path / "rated.csv")).train, 0.5, 3)
    assert f"{train.n_users} users are sampled" in result.err
    parts = [part.relevant(4) for part in validation_parts(train, "leave-one-out", 2)]
    assert result.json["validation"] == [part.how for part in parts]
    assert result.json["candidates"] == ["all items, seen items left in"] * 2
    recipe = make_recipe("item-knn", result.json["preset"]["fields"])
    values = [
        evaluate(recipe.fit(part.train), part, exclude_seen=False, resamples=0).value("NDCG", 10) for part in parts
    ]
    assert result.json["preset"]["value"] == pytest.approx(np.mean(values))
    assert "and 1 more such parts" in palate(*command, "--parts", 2, "--out", "other").ok().out


def test_test_rows_change_nothing(tmp_path):
    whole = leave_one_out(read_interactions(tmp_path / "clicks.csv"))
    whole.save(tmp_path / "split")
    rows = whole.test.interactions
    moved = rows.take(np.arange(len(rows))[::-1])
    other = replace(whole, test=whole.test.with_rows(replace(moved, item=np.roll(moved.item, 3))))
    other.save(tmp_path / "other")
    values = []
    for data in ("split", "other"):
        told = palate("tune", "ease", data, "--trials", 4, "--out", f"study-{data}", "--json").ok().json
        values.append([trial["value"] for trial in told["trials"]])
    assert values[0] == values[1]


def test_a_killed_study_goes_on_and_its_workers_end(tmp_path):
    command = (*KNN, "--trials", 400, "--out", "study", "--workers", 2)
    process = start(*command, folder=tmp_path)
    journal = tmp_path / "study" / "journal.log"
    deadline = time.monotonic() + 300
    while ended(journal) < 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate()
    assert process.returncode == -9, "killed in the middle"
    assert len(workers) >= 2
    while any(alive(one) for one in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(alive(one) for one in workers)
    before = ended(journal)
    assert 5 <= before < 400
    told = palate(*KNN, "--trials", before + 3, "--out", "study", "--json").ok().json
    assert len(told["trials"]) == before + 3
    assert ended(journal) >= before + 3
    assert sum(trial["preset"] for trial in told["trials"]) == 1


def ended(journal: Path) -> int:
    """Trials with a value in the journal: operation 6 sets the state, 1 is complete."""
    lines = journal.read_bytes().splitlines() if journal.exists() else []
    return sum(b'"op_code":6' in line and b'"state":1' in line for line in lines)


def alive(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tune", "ese", "clicks.csv"), "did you mean ease"),
        (("tune", "popularity", "clicks.csv"), "nothing to tune"),
        ((*KNN, "--metric", "NDCG"), "choose one like"),
        ((*KNN, "--metric", "RMSE"), "has no ratings to predict"),
        ((*KNN, "--candidates", "some"), "write full, or a number"),
        ((*KNN, "--parts", "99"), "validation parts: ask for fewer"),
        (("tune", "item-knn", "clicks.csv", "--parts", "2"), "--sample need --split"),
        (("tune", "item-knn", "clicks.csv", "--sample", "0.5"), "--sample need --split"),
        ((*KNN, "--relevant", "99"), "lower min_rating"),
        ((*KNN, "--include-seen", "--candidates", "9"), "seen items are never sampled"),
        ((*KNN, "--search", "neighbors"), "is not field=low:high"),
        ((*KNN, "--search", "neighbours=1:5"), "no field 'neighbours'"),
        ((*KNN, "--space", "none.toml"), "--space none.toml cannot be read"),
    ],
)
def test_mistakes_end_with_one_line(words, message):
    assert message in mistake(palate(*words))


def test_without_the_extras_they_are_named(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "optuna", None)
        assert "pip install 'palate[tune]'" in mistake(palate(*KNN))
    monkeypatch.setitem(sys.modules, "altair", None)
    result = palate(*KNN, "--trials", 1).ok()
    assert "no plots: plots need an extra: pip install 'palate[report]'" in result.err
    assert not [name for name in os.listdir("studies/item-knn") if name.endswith(".svg")]
