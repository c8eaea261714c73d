"""`palate compare`: one command from a CSV, what it prints, its exit code, and coming back after a kill."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from terminal import board, mistake, palate, start

FAST = ("--no-baselines", "--no-report", "--resamples", 200)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clicks.csv").write_text(board())
    (tmp_path / "long.toml").write_text('recipe = "ials"\nepochs = 200\ndim = 16\n')


def numbers(document):
    """Everything that must not depend on when and how often it was run."""
    fields = ("name", "role", "recipe", "tuned", "examples", "curve")
    models = [
        [one[field] for field in fields] + [one[ranking]["measures"] for ranking in ("full", "sampled") if one[ranking]]
        for one in document["models"]
    ]
    return models, document["tests"], document["winner"], document["split"], document["candidates"]


def test_one_command_makes_a_table_a_verdict_and_a_folder(tmp_path):
    result = palate("compare", "clicks.csv", "--recipes", "ials", "--negatives", 5, "--resamples", 500, "-k", 5).ok()
    assert "full" in result.out
    assert "sampled" in result.out
    for name in ("ials", "ease", "item-knn", "recent-popularity", "popularity"):
        assert name in result.out
    assert "(tuned) baseline" in result.out
    assert "winner" in result.out or "beyond luck" in result.out
    folder = tmp_path / "runs" / "compare-clicks"
    document = json.loads((folder / "comparison.json").read_text())
    assert document["split"]["fingerprint"] in result.out
    assert document["candidates"]["fingerprint"] in result.out
    assert document["winner"]["why"] in " ".join(result.out.split())
    assert (folder / "report.html").stat().st_size > 10_000
    assert (folder / "report.md").read_text().startswith("#")


def test_json_lists_and_seeds(tmp_path):
    (tmp_path / "theirs.csv").write_text("user_id,item_id,rank\n" + "".join(f"u{u},i{u % 2},1\n" for u in range(24)))
    command = ("compare", "clicks.csv", "--recipes", "item-knn", "--seeds", "0,7", *FAST)
    more = ("--lists", "theirs=theirs.csv", "--split", "leave-one-out", "--negatives", 0, "--json")
    document = palate(*command, *more).ok().json
    assert document["seeds"] == [0, 7]
    assert [report["model"] for report in document["reports"]] == [one["name"] for one in document["models"]]
    assert all(
        {"metric", "k", "value", "low", "high"} <= set(m) for one in document["reports"] for m in one["measures"]
    )
    assert document["candidates"] is None
    assert {one["name"]: one["role"] for one in document["models"]} == {"item-knn": "model", "theirs": "external"}
    assert not (tmp_path / "runs" / "compare-clicks" / "report.html").exists()


def test_what_cannot_be_had_is_told_and_the_exit_code_says_so(tmp_path):
    (tmp_path / "tiny.toml").write_text('recipe = "ease"\nmax_items = 2\n')
    command = ("compare", "clicks.csv", "--recipes", "tiny.toml,popularity", *FAST)
    result = palate(*command, "--seeds", 2, "--json")
    assert result.code == 1
    assert "failed: ease (tiny): 24 items exceed max_items=2" in " ".join(result.err.split())
    assert "no sampled candidates" in result.err, "a hundred are more than the catalog has"
    assert result.json["candidates"] is None
    assert result.json["seeds"] == [0, 1]
    assert [one["name"] for one in result.json["models"]] == ["popularity"]
    assert "--fresh" in mistake(palate(*command, "--seeds", 2, "-k", 3)), "other settings, same folder"
    (tmp_path / "clicks.csv").write_text(board(size=20))
    assert "split" in mistake(palate(*command, "--seeds", 2)), "other rows, same folder"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--recipes", "gfm"), "did you mean gmf"),
        (("--recipes", "none.toml"), "none.toml cannot be read"),
        (("--seeds", "many"), "write --seeds 3 or --seeds 0,7"),
        (("--seeds", "0"), "seeds=(): must hold at least 1"),
        (("--lists", "theirs.csv"), "write it like --lists theirs=lists.csv"),
        (("--lists", "theirs=none.csv", "--recipes", "popularity"), "none.csv does not exist"),
        (("--split", "sideways"), "--split 'sideways' is not a split"),
        (("--negatives", "500"), "fewer than 500 unseen items"),
        (("--out", "clicks.csv"), "is a file"),
        (("--out", "."), "is not empty and no comparison"),
    ],
)
def test_mistakes(words, said):
    assert said in mistake(palate("compare", "clicks.csv", *FAST, *words))


@pytest.mark.slow
def test_a_killed_comparison_goes_on_where_it_was(tmp_path):
    command = ("compare", "clicks.csv", "--recipes", "popularity,long.toml", "--negatives", 5, *FAST)
    process = start(*command, "--out", "killed", folder=tmp_path)
    first = tmp_path / "killed" / "results" / "popularity-seed0.json"
    family: list[int] = []

    def under_way() -> bool:  # the first result is there, and the process of the next model has started
        family[:] = descendants(process.pid) if first.exists() else []
        return len(family) == 2

    wait(lambda: under_way() or process.poll() is not None)
    process.kill()
    process.communicate()
    assert process.returncode == -9, "killed in the middle"
    assert first.exists()
    assert not list(first.parent.glob("ials*"))
    assert len(family) == 2
    wait(lambda: not any(alive(one) for one in family))
    made = first.stat().st_mtime_ns
    resumed = palate(*command, "--out", "killed", "--json").ok()
    assert "popularity: training" not in resumed.err
    assert "ials (long): training" in resumed.err
    assert first.stat().st_mtime_ns == made, "what was finished is not done again"
    whole = palate(*command, "--out", "whole", "--json").ok()
    assert numbers(resumed.json) == numbers(whole.json), "as if nothing had happened"


def wait(for_what, seconds=400):
    deadline = time.monotonic() + seconds
    while not for_what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def descendants(process):
    try:
        children = [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except (ProcessLookupError, FileNotFoundError):  # it has just ended
        return []
    return children + [one for child in children for one in descendants(child)]


def alive(process):
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_windows_and_folds_are_compared_on_several_splits(tmp_path):
    pytest.importorskip("altair", reason="the page needs the report extra")
    command = ("compare", "clicks.csv", "--recipes", "popularity", "--no-baselines", "--negatives", 0, "-k", 5)
    result = palate(*command, "--resamples", 100, "--windows", 2, "--out", "w").ok()
    assert "fold 2" in result.out
    assert "window 2 of 2" in result.err
    stored = json.loads((tmp_path / "w" / "folds.json").read_text())
    assert len(stored["models"][0]["full"]["by_fold"]) == 2
    written = {name: (tmp_path / "w" / name).read_text() for name in ("report.html", "report.md")}
    for value in stored["models"][0]["full"]["by_fold"]:
        assert all(f"{value:.4f}" in text for text in written.values())
    palate("report", "w", "--out", "again.html").ok()
    assert (tmp_path / "again.html").read_text() == written["report.html"]
    assert "give one of them" in mistake(palate(*command, "--windows", 2, "--folds", 2))
    assert "give one of them" in mistake(palate(*command, "--folds", 2, "--split", "time"))
