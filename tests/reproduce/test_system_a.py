"""System A: who is sampled, how the tutorial trains, and the rows of the table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from palate.base import DataSpec
from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.datasets.registry import load
from palate.errors import SourceError
from palate.reproduce.rows import Options
from palate.reproduce.system_a import PROTOCOLS, TutorialNCF, run, split, table


@pytest.fixture(scope="module")
def ml_1m() -> Dataset:
    try:
        return load("ml-1m")
    except SourceError as error:
        pytest.skip(f"ml-1m cannot be had here: {error}")


@pytest.fixture(scope="module")
def parts(ml_1m: Dataset) -> Split:
    return split(ml_1m)


def test_the_split_is_the_tutorials(ml_1m: Dataset, parts: Split) -> None:
    first_seen = ml_1m.users.external(ml_1m.interactions.user).unique(maintain_order=True).to_numpy()
    chosen = np.random.RandomState(123).choice(first_seen, size=int(0.3 * len(first_seen)), replace=False)
    users = parts.train.users.ids.to_numpy()
    assert sorted(users) == sorted(chosen)
    assert len(parts.test) == len(users) == 1_812
    assert (parts.train.interactions.weight == 1).all()
    assert parts.candidates is not None
    assert parts.candidates.negatives.shape == (1_812, 99)
    touched = {*zip(parts.train.interactions.user.tolist(), parts.train.interactions.item.tolist(), strict=True)}
    touched |= {*zip(parts.test.interactions.user.tolist(), parts.test.interactions.item.tolist(), strict=True)}
    for user, negatives in zip(parts.candidates.users.tolist(), parts.candidates.negatives.tolist(), strict=True):
        assert not touched & {(user, item) for item in negatives}
    drawn_twice = [len(set(row)) < 99 for row in parts.candidates.negatives.tolist()]
    assert np.mean(drawn_twice) > 0.5


def test_scattered_positives_are_each_followed_by_fresh_negatives(checkerboard: Split) -> None:
    train = checkerboard.train
    recipe = TutorialNCF(batch_size=128)
    seen = {*zip(train.interactions.user.tolist(), train.interactions.item.tolist(), strict=True)}
    negatives = []
    for epoch in (0, 1):
        batches = list(recipe.batches(train, seed=4, epoch=epoch))
        assert {len(batch.user) for batch in batches[:-1]} == {128}
        user = torch.cat([batch.user for batch in batches]).reshape(-1, 5)
        item = torch.cat([batch.item for batch in batches]).reshape(-1, 5)
        target = torch.cat([batch.target for batch in batches]).reshape(-1, 5)
        assert torch.equal(target, torch.tensor([1.0, 0, 0, 0, 0]).expand(len(train), 5))
        assert (user == user[:, :1]).all()
        pairs = [*zip(user[:, 0].tolist(), item[:, 0].tolist(), strict=True)]
        assert sorted(pairs) == sorted(seen), "every positive once"
        drawn = {*zip(user[:, 1:].reshape(-1).tolist(), item[:, 1:].reshape(-1).tolist(), strict=True)}
        assert not drawn & seen
        negatives.append((item[:, 1:], drawn, pairs))
    assert not torch.equal(negatives[0][0], negatives[1][0])
    assert negatives[0][2] == negatives[1][2], "the order is the same in every epoch"
    assert len({user for user, _ in negatives[0][2][:32]}) > 16, (
        "and scattered: the next row is seldom of the same user"
    )
    held_out = {*zip(checkerboard.test.interactions.user, checkerboard.test.interactions.item, strict=True)}
    assert held_out & negatives[0][1], "the user's own test item can be a negative: the habit of the tutorial"


def test_the_network_is_the_tutorials() -> None:
    torch.manual_seed(0)
    model = TutorialNCF().build(DataSpec(500, 400))
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert shapes["user_table.weight"] == (500, 8)
    assert shapes["item_table.weight"] == (400, 8)
    assert sorted(shape for name, shape in shapes.items() if name.endswith("weight") and "table" not in name) == [
        (1, 32),
        (32, 64),
        (64, 16),
    ]
    assert float(model.user_table.weight.detach().std()) == pytest.approx(1.0, abs=0.05)


def test_the_rows_of_a_data_set(ml_100k: Dataset) -> None:
    some = ml_100k.interactions.take(np.flatnonzero(ml_100k.interactions.user < 150))
    rows = list(table(replace(ml_100k, interactions=some), Options(fast=True)))
    by_tie = {tie: [row for row in rows if row.protocol == protocol] for tie, protocol in PROTOCOLS.items()}
    for found in by_tie.values():
        assert [(row.role, row.metric) for row in found[::2]] == [("trivial", "HitRate")] * 2 + [
            ("best", "HitRate")
        ] * 2
        assert {row.users for row in found} == {45}
        assert all(row.published is None and row.candidates is not None and row.value is not None for row in found)
    assert by_tie["first"][0].fingerprints != by_tie["last"][0].fingerprints
    gaps = [row for row in rows if row.protocol.startswith(f"{PROTOCOLS['first']}; held out") and row.metric == "NDCG"]
    whole = next(row for row in by_tie["first"] if row.model.startswith("EASE") and row.metric == "NDCG")
    assert sum(row.users for row in gaps) == 45
    assert sum(row.users * row.value for row in gaps) / 45 == pytest.approx(whole.value)


def test_the_trivial_rows_on_ml_1m_are_those_of_independent_code(ml_1m: Dataset) -> None:
    """They calibrate the evaluator; the rows of recipes are recorded, never asserted on these test rows."""
    rows = list(run(Options(roles=frozenset({"trivial"}), fast=True)))
    assert [(row.dataset, row.role, row.published) for row in rows if row.role == "published"] == [
        ("ml-20m", "published", 0.86)
    ]
    first = [row for row in rows if row.protocol == PROTOCOLS["first"] and row.model == "popularity"]
    assert {row.metric: row.value for row in first} == {
        "HitRate": pytest.approx(0.4216, abs=5e-4), "NDCG": pytest.approx(0.2377, abs=5e-4)
    }  # fmt: skip
