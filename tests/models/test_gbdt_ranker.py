"""Trees of the ranker: how large a leaf is, on how many users and features a tree is grown, and that bags differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from palate.models.two_stage.gbdt_ranker import GBDTRanker
from palate.models.two_stage.ranker_training import LabeledCandidates

pytest.importorskip("lightgbm")
USERS, EACH, COLUMNS = 100, 20, 20


@pytest.fixture(scope="module")
def trees() -> list[dict]:
    """Forty trees over twenty features that all say a little."""
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.normal(size=(USERS * EACH, COLUMNS)).astype(np.float32))
    labels = (inputs.sum(1) + torch.from_numpy(rng.normal(size=len(inputs)).astype(np.float32)) > 4).float()
    ranker = GBDTRanker("binary", rounds=40, leaves=31, learning_rate=0.1)
    ranker.learn(LabeledCandidates(inputs, labels, torch.arange(USERS).repeat_interleave(EACH)), seed=0)
    return [tree["tree_structure"] for tree in ranker.boosters[0].dump_model()["tree_info"]]


def leaves(node: dict) -> list[int]:
    """Candidates in each leaf below a node."""
    if "leaf_count" in node:
        return [node["leaf_count"]]
    return leaves(node["left_child"]) + leaves(node["right_child"])


def columns(node: dict) -> set[int]:
    """Features that a tree splits by."""
    if "leaf_count" in node:
        return set()
    return {node["split_feature"]} | columns(node["left_child"]) | columns(node["right_child"])


def test_each_leaf_holds_a_hundredth_of_the_candidates_at_least(trees: list[dict]) -> None:
    """LightGBM estimates the candidates of a leaf while it splits, so single leaves are smaller: not half of them."""
    smallest = np.median([min(leaves(tree)) for tree in trees])
    assert 0.75 <= smallest / (USERS * EACH / 100) < 1.4


def test_a_tree_is_grown_on_six_tenths_of_the_users(trees: list[dict]) -> None:
    grown = [tree["internal_count"] for tree in trees]
    assert {count % EACH for count in grown} == {0}, "users are drawn, not rows"
    assert np.mean(grown) / (USERS * EACH) == pytest.approx(0.6, abs=0.03)  # four standard errors


def test_a_tree_reads_three_tenths_of_the_features(trees: list[dict]) -> None:
    assert max(len(columns(tree)) for tree in trees) == round(0.3 * COLUMNS)
    assert len(set().union(*map(columns, trees))) == COLUMNS, "others in each tree"
