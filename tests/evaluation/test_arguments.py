"""Arguments of evaluate that are mistakes get a sentence with the remedy, and a report is read in several ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import palate
from boards import Fixed, make_split
from palate.data.dataset import Interactions
from palate.data.splits.split import Split
from palate.errors import EvaluationError, ModelError
from palate.evaluation.evaluate import evaluate, evaluate_lists, validation_callback
from palate.evaluation.rankings import Lists
from palate.models.ease import EASE
from palate.models.popularity import Popularity


def test_k_is_an_integer_or_several(checkerboard: Split) -> None:
    model = Popularity().fit(checkerboard.train)
    report = evaluate(model, checkerboard, k=np.int64(5))
    assert report.value("NDCG", 5) == evaluate(model, checkerboard, k=[5, np.int32(7)]).value("NDCG", 5)
    for wrong in (5.0, "5", 0, -1, True, (), (5, 5.5), None, np.float64(5)):
        with pytest.raises(EvaluationError, match=r"k=.*must be an integer of at least 1"):
            evaluate(model, checkerboard, k=wrong)  # type: ignore[arg-type]


def test_k_beyond_the_catalog_takes_no_memory_and_changes_the_precision_only() -> None:
    split = make_split([(0, 0), (1, 1)], [(0, 1), (0, 2), (1, 3)], users=2, items=4)
    model, k = Fixed([[1, 3, 2, 9], [3, 2, 1, 0]]), 10**9
    far, all_items = evaluate(model, split, k=k), evaluate(model, split, k=4)
    for one in all_items.measures:
        expected = one.value * 4 / k if one.metric == "Precision" else one.value
        assert far.value(one.metric, k) == pytest.approx(expected, nan_ok=True)
    lists = Lists(np.array([0, 1]), np.array([[1, 2, 2, 2, 3], [0, 2, 3, -1, -1]]))
    assert evaluate_lists(lists, split, k=k).value("Recall", k) == evaluate_lists(lists, split, k=5).value("Recall", 5)
    assert validation_callback(split, "NDCG", k)(model) == all_items.value("NDCG", 4)


def test_arguments_of_the_wrong_kind_get_the_remedy(checkerboard: Split) -> None:
    model: Any = Popularity().fit(checkerboard.train)
    mistakes: list[tuple[Any, Any, str]] = [
        (checkerboard, model, r"the split comes second: evaluate\(model, split\)"),
        (["ease", EASE()], checkerboard, r"palate\.compare\(split, \['ease', 'ease'\]\)"),
        ("ease", checkerboard, r"palate\.make_recipe\('ease'\)\.fit\(split\.train\)"),
        (EASE(), checkerboard, r"EASE is a recipe, which is not fitted yet: evaluate\(recipe\.fit\(split\.train\)"),
        (model, checkerboard.train, r"split is a Dataset, not a Split: make one with palate\.by_time"),
    ]
    for first, second, message in mistakes:
        with pytest.raises(EvaluationError, match=message):
            evaluate(first, second)


def test_a_model_of_other_ids_is_refused() -> None:
    rows = [(user, item, 10 * user + item) for user in range(6) for item in range(5)]
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    split = palate.leave_one_out(palate.from_frame(frame))
    fewer = palate.from_frame(frame.filter(pl.col("user") > 0, pl.col("item") < 4))
    model = Popularity().fit(fewer)
    with pytest.raises(ModelError, match=r"trained on 5 users and 4 items, this data has 6 users and 5 items"):
        evaluate(model, split)
    renamed = palate.from_frame(frame.with_columns(pl.col("item") + 100))
    with pytest.raises(ModelError, match="ids of the items"):
        evaluate(Popularity().fit(palate.leave_one_out(renamed).train), split)


def test_trained_rows_without_their_times_are_noted(checkerboard: Split) -> None:
    train, test = checkerboard.train.interactions, checkerboard.test.interactions
    both = Interactions(
        np.append(train.user, test.user), np.append(train.item, test.item), np.ones(len(train) + len(test))
    )
    leaky = Split(checkerboard.train.with_rows(both), checkerboard.test, "leaky")
    (note,) = evaluate(Fixed(np.eye(40)), leaky, exclude_seen=False, resamples=0).notes
    assert note.startswith("40 of 40 relevant items are in the training rows of their user")
    assert not evaluate(Fixed(np.eye(40)), checkerboard, exclude_seen=False, resamples=0).notes


def test_a_value_is_found_by_any_spelling_of_its_name(checkerboard: Split) -> None:
    report = evaluate(Fixed(np.random.default_rng(0).random((40, 40))), checkerboard, k=(5, 10), resamples=0)
    expected = report.value("NDCG", 10)
    assert [report.value("NDCG@10"), report.value("ndcg", 10), report.value("ndcg@10")] == [expected] * 3
    for wrong in (("NDCG@7",), ("nope", 10), ("NDCG@x",)):
        with pytest.raises(EvaluationError, match=r"was not measured: there are HitRate@5, NDCG@5"):
            report.value(*wrong)
    with pytest.raises(EvaluationError, match="for several k: say which of NDCG@5, NDCG@10"):
        report.value("NDCG")
    assert evaluate(Fixed(np.eye(40)), checkerboard, k=5, resamples=0).value("Recall") >= 0


def test_a_report_is_a_table(checkerboard: Split) -> None:
    report = evaluate(Fixed(np.eye(40)), checkerboard, k=5, name="eye", resamples=20)
    frame = report.to_frame()
    assert isinstance(frame, pl.DataFrame)
    assert frame["metric"].to_list() == [one.metric for one in report.measures]
    assert frame.row(0, named=True)["value"] == report.measures[0].value
    pandas = report.to_pandas()
    assert isinstance(pandas, pd.DataFrame)
    assert list(pandas.columns) == frame.columns
    assert "NDCG" in report._repr_html_()
    assert len(repr(report).splitlines()) <= 5
    assert "eye" in repr(report)
    assert f"{report.value('NDCG@5'):.4f}" in repr(report)
