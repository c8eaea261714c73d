"""Ratings: errors by hand, cold rows by the fallback and apart, intervals over rows, refusals; and the means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from palate.base import DataSpec, Query, TrainOptions
from palate.data.dataset import Dataset, Interactions
from palate.data.feedback import Feedback
from palate.data.ids import IdMap
from palate.data.splits.split import Split
from palate.data.splits.strategies import at_random
from palate.errors import EvaluationError, LeakError, ModelError, RecipeError
from palate.evaluation.rating_prediction import evaluate_ratings, rating_validation_callback
from palate.models.bmf import BMF
from palate.models.means import MeanRating, UserItemMeans
from palate.models.mf import MF


def interactions(rows: list[tuple[int, int, float]]) -> Interactions:
    user, item, weight = zip(*rows, strict=True)
    return Interactions(np.array(user, np.int32), np.array(item, np.int32), np.array(weight, np.float32))


def by_hand() -> Split:
    """Users 0 and 1 and items 0 and 1 train; user 2 and item 2 are cold."""
    train = interactions([(0, 0, 5), (0, 1, 3), (1, 0, 2)])
    test = interactions([(1, 1, 4), (0, 2, 1), (2, 0, 3), (2, 2, 5)])
    ids = IdMap.of(np.arange(3))
    data = Dataset("hand", ids, ids, train, Feedback("rating"))
    return Split(data, data.with_rows(test), "by hand")


class Always(nn.Module):
    """Predicts 4, or NaN."""

    trained_on = None

    def __init__(self, rating: float = 4.0) -> None:
        super().__init__()
        self.rating = rating

    def predict(self, query: Query, items: Tensor) -> Tensor:
        return torch.full(items.shape, self.rating)


def test_errors_and_fallbacks_by_hand() -> None:
    # Known row: 4 against 4. Cold rows: user 0's mean 4 against 1, item 0's mean 3.5 against 3, mean 10/3 against 5.
    report = evaluate_ratings(Always(), by_hand())
    assert report.predicted.tolist() == pytest.approx([4, 4, 3.5, 10 / 3])
    assert report.known.rows == 1
    assert report.cold.rows == 3
    assert report.known.value("MSE") == 0
    assert report.value("MSE") == pytest.approx((0 + 9 + 0.25 + 25 / 9) / 4)
    assert report.value("RMSE") == pytest.approx(report.value("MSE") ** 0.5)
    assert report.value("MAE") == pytest.approx((0 + 3 + 0.5 + 5 / 3) / 4)
    assert report.fallback == "item mean, else user mean, else mean"
    only_mean = evaluate_ratings(Always(), by_hand(), fallback=("mean",))
    assert only_mean.predicted.tolist() == pytest.approx([4, 10 / 3, 10 / 3, 10 / 3])


def test_intervals_hold_the_value_and_json_has_no_nan() -> None:
    report = evaluate_ratings(Always(), by_hand())
    for metric in ("MSE", "RMSE", "MAE"):
        one = report.measure(metric)
        assert one.low < one.value < one.high
    plain = report.to_dict()
    assert plain["known"]["measures"][0] == {"metric": "MSE", "value": 0.0, "low": None, "high": None}
    assert "predicted" not in plain


def test_predictions_come_back_in_the_order_of_the_test_rows() -> None:
    rng = np.random.default_rng(0)
    rows = Interactions(
        *(rng.integers(0, 30, 500).astype(np.int32) for _ in range(2)), rng.normal(size=500).astype(np.float32)
    )
    data = Dataset("random", IdMap.of(np.arange(30)), IdMap.of(np.arange(30)), rows, Feedback("rating"))
    split = at_random(data, cold="keep")

    class Place(Always):
        def predict(self, query: Query, items: Tensor) -> Tensor:
            return (query.user[:, None] * 100 + items).double()

    predicted = evaluate_ratings(Place(), split, resamples=0).predicted
    test = split.test.interactions
    known = np.isin(test.user, split.train.interactions.user) & np.isin(test.item, split.train.interactions.item)
    assert (predicted[known] == (test.user * 100 + test.item)[known]).all()


def test_calibration_bins_hold_the_means_of_the_known_rows() -> None:
    assert evaluate_ratings(Always(), by_hand()).calibration == ((4.0, 4.0, 1),)
    rng = np.random.default_rng(1)
    user, item = (rng.integers(0, 40, 4000).astype(np.int32) for _ in range(2))
    rows = Interactions(user, item, (user / 10 + rng.normal(size=4000)).astype(np.float32))
    data = Dataset("random", IdMap.of(np.arange(40)), IdMap.of(np.arange(40)), rows, Feedback("rating"))
    split = at_random(data, cold="keep")

    class Doubled(Always):
        """Right on average for user 20 alone, too high above and too low below."""

        def predict(self, query: Query, items: Tensor) -> Tensor:
            return (query.user[:, None] / 5 - 2).expand(items.shape).double()

    report = evaluate_ratings(Doubled(), split, resamples=0)
    bins = report.to_dict()["calibration"]
    assert sum(one["rows"] for one in bins) == report.known.rows
    assert len(bins) >= 8
    for one in bins:
        assert one["actual"] == pytest.approx((one["predicted"] + 2) / 2, abs=0.25)


def test_what_would_mean_nothing_is_refused() -> None:
    split = by_hand()
    with pytest.raises(LeakError, match="trained on test rows: 4 of 4"):
        evaluate_ratings(MeanRating().fit(split.test), split)
    assert evaluate_ratings(MeanRating().fit(split.test), split, allow_trained_rows=True).all.rows == 4
    with pytest.raises(ModelError, match="NaN for 1 ratings"):
        evaluate_ratings(Always(float("nan")), split)
    with pytest.raises(ModelError, match="predicts no ratings"):
        evaluate_ratings(nn.Linear(1, 1), split)  # type: ignore[arg-type]
    clicks = Dataset("clicks", split.train.users, split.train.items, split.train.interactions)
    with pytest.raises(EvaluationError, match="no ratings to predict"):
        evaluate_ratings(Always(), Split(clicks, clicks, "same"))
    with pytest.raises(EvaluationError, match="Accuracy is not measured"):
        evaluate_ratings(Always(), split).value("Accuracy")


def test_means_are_the_damped_means_written_out() -> None:
    train = by_hand().train
    model = UserItemMeans(user_damping=1, item_damping=2, rounds=1).fit(train)
    mean = 10 / 3
    b_user = [(8 - 2 * mean) / 3, (2 - mean) / 2, 0]
    b_item = [(7 - 2 * mean - b_user[0] - b_user[1]) / 4, (3 - mean - b_user[0]) / 3, 0]
    expected = np.clip(mean + np.add.outer(b_user, b_item), 2, 5)
    np.testing.assert_allclose(model.predict(Query.of([0, 1, 2])).numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(
        model.predict(Query.of([1]), torch.tensor([[1, 0]])).numpy(), expected[1:2, [1, 0]], rtol=1e-5
    )
    assert not bool(model.can_personalize(Query.of([0])).any())
    with pytest.raises(RecipeError, match="rounds=0"):
        UserItemMeans(rounds=0)


def test_means_of_a_new_user_come_from_the_history_and_survive_saving() -> None:
    train = by_hand().train
    model = UserItemMeans(user_damping=1).fit(train)
    new_user = Query.of([-1, -1], train.history.select(np.array([0, 2])))
    folded = model.predict(new_user)
    bias = ((5 - 10 / 3 - model.item_bias[0]) + (3 - 10 / 3 - model.item_bias[1])) / 3
    torch.testing.assert_close(folded[0], (10 / 3 + bias + model.item_bias).clamp(2, 5))
    torch.testing.assert_close(folded[1], (10 / 3 + model.item_bias).clamp(2, 5))
    for recipe in (MeanRating(), UserItemMeans(user_damping=1)):
        fitted, rebuilt = recipe.fit(train), recipe.build(DataSpec(3, 3))
        rebuilt.load_state_dict(fitted.state_dict(), strict=True)
        assert torch.equal(rebuilt.predict(new_user), fitted.predict(new_user))


def test_a_real_model_beats_both_means_on_real_ratings(ml_100k: Dataset) -> None:
    few = ml_100k.with_rows(ml_100k.interactions.take(ml_100k.interactions.user < 200))
    split = at_random(few, test_size=0.2, seed=0, cold="keep")
    constant, means = (evaluate_ratings(r.fit(split.train), split) for r in (MeanRating(), UserItemMeans()))
    inner = at_random(split.train, test_size=0.2, seed=1, cold="keep")
    values: list[float] = []
    validation_callback = rating_validation_callback(inner)

    def kept(model: object) -> float:
        values.append(validation_callback(model))
        return values[-1]

    MF(dim=4, epochs=6, learning_rate=0.01).fit(inner.train, TrainOptions(validation_callback=kept))
    assert values[-1] > values[0]
    ours = evaluate_ratings(BMF(dim=4, sweeps=40, burn_in=20, draws=10).fit(split.train), split)
    assert ours.known.value("MSE") < means.known.value("MSE") < constant.known.value("MSE")
    assert means.measure("MSE").high < constant.measure("MSE").low
