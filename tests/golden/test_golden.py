"""Bundles that older versions have left behind still load and score as they did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from palate.base import Query
from palate.bundle import Bundle

BUNDLES = [path.parent for path in sorted(Path(__file__).parent.glob("bundles-*/*/manifest.json"))]


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_an_old_bundle_loads_and_scores_as_before(folder: Path) -> None:
    recommender = Bundle.load(folder).recommender
    expected = json.loads((folder.parent / "scores.json").read_text())[folder.name]
    rows = recommender.users.rows([0, 5])
    with torch.inference_mode():
        scores = recommender.model.score(Query.of(rows, recommender.seen.select(rows)))
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    assert len(recommender.recommend([0, 99], 3)) == 6  # a known and an unknown user


def test_there_are_golden_bundles() -> None:
    assert len(BUNDLES) >= 5
