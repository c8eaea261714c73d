"""Systems side by side: the same rows as one after the other, in real processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from palate.base import TrainOptions
from palate.data.dataset import Dataset
from palate.errors import DataError
from palate.reproduce import LONGEST_FIRST, SYSTEMS, run, run_side_by_side
from palate.reproduce.rows import Options, Row

TRIVIAL = Options(roles=frozenset({"trivial"}), fast=True)


def without_seconds(rows: list[Row]) -> list[Row]:
    return [replace(row, seconds=None) for row in rows]


@pytest.mark.slow
def test_the_rows_are_those_of_one_after_the_other(ml_100k: Dataset) -> None:
    stages: list[str] = []
    heard = replace(TRIVIAL, training=TrainOptions(progress=lambda event: stages.append(event.stage)))
    found = dict(run_side_by_side(["B", "E"], heard, workers=2))
    assert set(found) == {"B", "E"}
    for system, rows in found.items():
        assert without_seconds(rows) == without_seconds(list(run(system, TRIVIAL)))
        assert f"{system}: training popularity" in stages


def test_every_system_has_its_place_in_the_queue() -> None:
    assert sorted(LONGEST_FIRST) == sorted(SYSTEMS)


def test_an_error_in_a_process_arrives_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PALATE_DATA", str(tmp_path))
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path))
    (tmp_path / "ml-100k.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"ml-100k"):
        list(run_side_by_side(["B", "E"], TRIVIAL, workers=2))
