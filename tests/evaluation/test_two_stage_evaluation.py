"""The table of the stages: against numbers counted by hand, and against the evaluation of each stage by itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from palate.base import Query
from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.data.splits.strategies import by_time
from palate.errors import EvaluationError, LeakError
from palate.evaluation.evaluate import evaluate
from palate.evaluation.two_stage import StagesReport, evaluate_stages
from palate.models import make_recipe
from palate.models.popularity import Popularity
from palate.models.two_stage import TwoStage, TwoStageModel


@pytest.fixture(scope="module")
def halves(ml_100k: Dataset) -> Split:
    return by_time(ml_100k, test_size=0.2)


@pytest.fixture(scope="module")
def model(halves: Split) -> TwoStageModel:
    members = ("popularity", "recent-popularity", {"recipe": "ials", "epochs": 3, "dim": 16})
    return TwoStage(members=members, scorers=("user-item-means",), n_candidates=50, rounds=60).fit(halves.train)


@pytest.fixture(scope="module")
def measured(model: TwoStageModel, halves: Split) -> StagesReport:
    return evaluate_stages(model, halves, k=10)


def test_the_lists_are_those_that_each_stage_alone_would_give(
    measured: StagesReport, model: TwoStageModel, halves: Split
) -> None:
    assert [stage.name for stage in measured.stages] == [*model.names, "all, fused", "two stages"]  # and no scorer
    for stage, one in zip(measured.stages[:3], model.retrieval.models[:3], strict=True):
        assert stage.ndcg == evaluate(one, halves, k=10, resamples=0).value("NDCG", 10)
    own = evaluate(model, halves, k=10, resamples=0)
    assert measured.stages[-1].ndcg == own.value("NDCG", 10)
    assert measured.users == own.users
    best = max(measured.stages[:3], key=lambda stage: stage.ndcg)
    assert measured.best == best.name
    assert measured.lift.difference == pytest.approx(measured.stages[-1].ndcg - best.ndcg)
    assert measured.over_fused.difference == pytest.approx(measured.stages[-1].ndcg - measured.stages[-2].ndcg)


def test_the_ceiling_is_the_recall_of_the_candidates(
    measured: StagesReport, model: TwoStageModel, halves: Split
) -> None:
    test = halves.test.interactions
    shares, counts = [], []
    for user in halves.test_users:
        query = Query.of([int(user)], halves.train.history.select(np.array([user])))
        with torch.inference_mode():
            found = set(model.candidates(query)[0].tolist())
        relevant = set(test.item[test.user == user].tolist())
        shares.append(len(relevant & found) / len(relevant))
        counts.append(len(found))
    union = measured.stages[-2]
    assert union.ceiling == pytest.approx(np.mean(shares))
    assert union.candidates == pytest.approx(np.mean(counts))
    assert measured.stages[-1].ceiling == union.ceiling
    for one in measured.stages[:3]:
        assert 0 < one.ceiling <= union.ceiling
        assert one.candidates <= 50


def test_it_prints_as_a_table_and_as_json(measured: StagesReport) -> None:
    text = str(measured)
    assert all(
        name in text for name in ("popularity", "ials", "all, fused", "two stages", "recall ceiling at 50", "p = ")
    )
    plain = json.loads(json.dumps(measured.to_dict(), allow_nan=False))
    assert [one["name"] for one in plain["stages"]] == [row[0] for row in measured.cells()[1]]
    assert plain["lift"]["difference"] == measured.lift.difference
    assert measured.to_frame()["ndcg"].to_list() == [one.ndcg for one in measured.stages]
    assert len(repr(measured).splitlines()) <= 5
    assert all(one.milliseconds > 0 for one in measured.stages)


def test_another_model_has_no_stages(halves: Split) -> None:
    with pytest.raises(EvaluationError, match="PopularityModel has no stages"):
        evaluate_stages(Popularity().fit(halves.train), halves)  # type: ignore[arg-type]


def test_trained_rows_are_refused(ml_100k: Dataset, halves: Split) -> None:
    leaky = make_recipe("two-stage", {"members": ["popularity"], "rounds": 3}, fast=True).fit(ml_100k)
    split = Split(leaky_half(ml_100k), ml_100k.with_rows(ml_100k.interactions.take(np.arange(5000))), "leaky")
    with pytest.raises(LeakError):
        evaluate_stages(leaky, split)


def leaky_half(data: Dataset) -> Dataset:
    return data.with_rows(data.interactions.take(np.arange(5000, 10_000)))
