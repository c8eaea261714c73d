"""The folder of a comparison: whose it is, what is whole, and what it refuses."""

from __future__ import annotations

import re

import polars as pl
import pytest

from palate.errors import EvaluationError
from palate.experiment.run_folder import RunFolder

SETTINGS = {"split": "a" * 16, "k": 10, "lengths": (1, 10)}
USERS = {"full": pl.DataFrame({"user_id": [1, 2], "NDCG@10": [0.0, 1.0]})}


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "run")
    with made.locked():
        assert not made.claim(SETTINGS)
        made.begin(SETTINGS)
        yield made


def test_the_same_settings_go_on_and_others_are_refused_with_both_values(folder):
    assert folder.claim(SETTINGS)
    with pytest.raises(EvaluationError, match=f"split {'a' * 16} there, {'b' * 16} now; k 10 there, 5 now.*--fresh"):
        folder.claim({**SETTINGS, "split": "b" * 16, "k": 5})
    assert not folder.claim({**SETTINGS, "k": 5}, fresh=True)
    assert [path.name for path in folder.path.iterdir() if path.name != ".lock"] == []


def test_a_result_comes_back_and_is_refused_for_another_recipe(folder):
    assert folder.result("ease (tuned)", "seed0", {"recipe": "ease"}) is None
    folder.save("ease (tuned)", "seed0", {"recipe": {"recipe": "ease"}, "x": 1}, USERS)
    assert folder.result("ease (tuned)", "seed0", {"recipe": "ease"}) == {"recipe": {"recipe": "ease"}, "x": 1}
    assert folder.per_user("ease (tuned)", "seed0", "full").equals(USERS["full"])
    assert folder.result("ease", "seed0", {"recipe": "ease"}) is None
    assert folder.result("ease tuned", "seed0", {"recipe": "ease"}) is None, "names that look alike as files stay apart"
    with pytest.raises(EvaluationError, match="with other settings"):
        folder.result("ease (tuned)", "seed0", {"recipe": "ials"})


def test_names_make_files_that_windows_takes_and_keeps_apart(folder):
    names = ["con", "a:b/c?", "shop <now> | *.csv", "ease", "EASE", "é", "..", "x" * 40 + ". "]
    for name in names:
        folder.save(name, "seed0", {"recipe": name}, USERS)
    files = [path.name.lower() for path in (folder.path / "results").iterdir()]
    assert len(files) == len(set(files)) == 2 * len(names)
    # Reserved are the names up to the first point, and some characters; blanks and points at the end are cut.
    assert all(re.fullmatch(r"(?!(con|nul|aux|prn)\.)[a-z0-9_.-]+[a-z]", name) for name in files)
    assert [folder.result(name, "seed0", name) for name in names] == [{"recipe": name} for name in names]


def test_what_was_half_written_is_no_result(folder):
    results = folder.path / "results"
    (results / ".palate-tmp-1234-gmf-seed0.json").write_text('{"half')
    (results / "gmf-seed0.full.parquet").write_bytes(b"PAR1")
    assert folder.result("gmf", "seed0", {}) is None
    with pytest.raises(EvaluationError, match="--fresh"):
        folder.per_user("gmf", "seed0", "full")
    (results / "gmf-seed0.json").write_text('{"half')
    with pytest.raises(EvaluationError, match="--fresh"):
        folder.result("gmf", "seed0", {})


def test_two_processes_do_not_share_it(folder):
    with pytest.raises(EvaluationError, match="another process works in"), RunFolder(folder.path).locked():
        pass


def test_somebody_elses_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for fresh in (False, True):
        with pytest.raises(EvaluationError, match=r"it holds thesis\.txt"), RunFolder(tmp_path).locked():
            RunFolder(tmp_path).claim(SETTINGS, fresh=fresh)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"], "not even a lock file is added"
    with pytest.raises(EvaluationError, match="is a file"), RunFolder(tmp_path / "thesis.txt").locked():
        pass


def test_a_run_killed_before_it_wrote_down_its_settings_begins_anew(tmp_path):
    (tmp_path / "split").mkdir()
    (tmp_path / ".split.new-1234").mkdir()
    (tmp_path / ".palate-tmp-1234-run.json").write_text("{")
    with RunFolder(tmp_path).locked():
        assert not RunFolder(tmp_path).claim(SETTINGS)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == []
