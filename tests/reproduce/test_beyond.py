"""The table beyond MovieLens on generated rows: what validation rows choose, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from palate.base import TrainOptions
from palate.data.splits.strategies import at_random
from palate.experiment import fit_and_measure
from palate.experiment.validation import validation_split
from palate.models.popularity import Popularity
from palate.models.sparse_ease import SparseEASE
from palate.progress import ProgressEvent
from palate.reproduce.beyond import NEXT, TABLES, Lists, folds, lists, run
from palate.reproduce.markdown import table
from palate.reproduce.rows import Options
from worlds import World

CANDIDATES = (SparseEASE(20, 1e6), SparseEASE(20, 20.0), SparseEASE(1, 20.0))


def small() -> Lists:
    return Lists(
        name="world", protocol="by hand", read=lambda: World(200, 100, 20).dataset(), cut=at_random, metrics=NEXT,
        peers={"a peer": (None, 0.5)}, trivial=(Popularity(),), defaults=(SparseEASE(),), candidates=CANDIDATES,
    )  # fmt: skip


def test_validation_rows_choose_and_each_row_has_its_cost() -> None:
    one = small()
    split = one.cut(one.read())
    rows = list(lists(one, split, Options()))
    names = list(dict.fromkeys(row.model for row in rows))
    assert names[:3] == ["a peer", "popularity", "sparse-ease: preset"]
    assert [row.published for row in rows if row.role == "published"] == [0.5]
    part = validation_split(split)
    values = [
        fit_and_measure(recipe, part, TrainOptions(), rankings=("full",)).reports["full"].value("NDCG", 10)
        for recipe in CANDIDATES
    ]
    best = CANDIDATES[values.index(max(values))]
    chosen = [row for row in rows if row.model.endswith(": chosen")]
    report = fit_and_measure(best, split, TrainOptions(), rankings=("full",)).reports["full"]
    assert [row.value for row in chosen] == [report.value(*metric) for metric in NEXT]
    ours = [row for row in rows if row.role != "published"]
    assert all(row.seconds is not None and row.users == report.users for row in ours)
    text = table([replace(row, memory=812.4, seconds=3.0) if row.role != "published" else row for row in rows])
    assert "| training, s | memory, MB |" in text
    assert text.count("| 3 | 812 |") == 3


def test_data_sets_that_are_missing_are_named_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALATE_DATA", str(tmp_path))
    said: list[ProgressEvent] = []
    local = [one for one in TABLES if one.name != "ml-latest-small"]  # which may be downloaded
    assert not list(run(Options(training=TrainOptions(progress=said.append)), local))
    stages = {event.stage for event in said}
    assert {"Amazon Beauty is left out", "Steam plays is left out", "FilmTrust is left out"} <= stages


def test_every_row_is_held_out_in_one_of_the_folds() -> None:
    data = World(50, 40, 10, weights="ratings").dataset()
    parts = folds(data)
    assert sum(len(part.test) for part in parts) == len(data)
    assert all(len(part.train) + len(part.test) == len(data) for part in parts)
