"""GMF, MLP and NeuMF: equations against a slow version, negatives, pre-training, fold-in, published quality."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from palate.base import DataSpec, Query, TrainOptions
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.data.splits.split import Split
from palate.data.splits.strategies import leave_one_out
from palate.errors import RecipeError
from palate.evaluation.evaluate import evaluate
from palate.models.bmf import BMF
from palate.models.mf import MF
from palate.models.neumf import GMF, MLP, NCFModel, NeuMF, mix
from palate.models.popularity import Popularity
from palate.models.svdpp import SVDpp
from palate.models.two_tower import TwoTower
from palate.progress import ProgressEvent
from palate.training.negative_sampling import draw_candidates


def test_scores_equal_the_equations_of_the_paper() -> None:
    torch.manual_seed(0)
    model = NCFModel(DataSpec(4, 5), 3, (6, 4, 2)).eval()
    with torch.no_grad():
        for table in (model.user_table, model.item_table):
            table.weight.normal_()
    for user in range(4):
        for item in range(5):
            p, q = model.user_table.weight[user], model.item_table.weight[item]
            hidden = torch.relu(model.first(torch.cat([p[3:], q[3:]])))
            last = next(layer for layer in model.rest if isinstance(layer, torch.nn.Linear))
            hidden = torch.relu(last(hidden))
            expected = model.out(torch.cat([p[:3] * q[:3], hidden]))
            found = model.score(Query.of([user]), torch.tensor([[item]]))
            torch.testing.assert_close(found[0], expected)


def test_each_batch_holds_positives_with_fresh_unseen_negatives(checkerboard: Split) -> None:
    recipe = GMF(negatives=3, batch_size=64)
    train = checkerboard.train
    seen = set(zip(train.interactions.user.tolist(), train.interactions.item.tolist(), strict=True))
    drawn = []
    for epoch in (0, 1):
        pairs, negatives = [], []
        for batch in recipe.batches(train, seed=1, epoch=epoch):
            assert batch.item.shape == batch.target.shape == (len(batch.user), 4)
            assert len(batch.user) <= 64 // 4
            pairs += zip(batch.user.tolist(), batch.item[:, 0].tolist(), strict=True)
            negatives.append(batch.item[:, 1:])
            for user, items in zip(batch.user.tolist(), batch.item[:, 1:].tolist(), strict=True):
                assert not {(user, item) for item in items} & seen
        assert sorted(pairs) == sorted(seen)
        drawn.append(torch.cat(negatives))
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize(
    "recipe",
    [
        GMF(epochs=1),
        TwoTower(epochs=1, objective="bpr"),
        MF(epochs=1),
        SVDpp(epochs=1),
        BMF(sweeps=4, burn_in=2, draws=2),
    ],
    ids=lambda recipe: recipe.name,
)
def test_a_user_who_has_seen_all_items_is_left_out_of_the_loss_and_named(recipe: Any) -> None:
    user, item = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 1, 2])
    rows = Interactions(user.astype(np.int32), item.astype(np.int32), np.ones(6, np.float32))
    train = Dataset("bot", IdMap.of(["ann", "bob", "crawler"]), IdMap.of(["x", "y", "z"]), rows)
    events: list[ProgressEvent] = []
    model = recipe.fit(train, TrainOptions(seed=1, progress=events.append))
    said = [event.message for event in events if event.message]
    assert said == ["left out of the loss, having seen all 3 items: 1 of 3 users (crawler)"]
    if hasattr(recipe, "batches"):
        assert {user for batch in recipe.batches(train, 1, 0) for user in batch.user.tolist()} == {0, 1}
    assert torch.isfinite(model.score(Query.of([0, 1, 2]))).all()
    with pytest.raises(RecipeError, match="every user has seen all 3 items"):
        recipe.fit(train.with_rows(rows.take(np.array([3, 4, 5]))))


def test_pretraining_starts_from_both_parts_mixed_by_alpha() -> None:
    torch.manual_seed(0)
    sizes = DataSpec(3, 4)
    gmf, tower, both = NCFModel(sizes, 2, ()), NCFModel(sizes, 0, (4, 3)), NCFModel(sizes, 2, (4, 3))
    mix(both, gmf, tower, alpha=0.25)
    for model in (gmf, tower, both):
        model.eval()
    query = Query.of([0, 1, 2])
    with torch.inference_mode():
        # Outputs are linear in h, so the mixture of weights is the mixture of scores.
        expected = 0.25 * gmf.score(query) + 0.75 * tower.score(query)
        torch.testing.assert_close(both.score(query), expected)


def test_pretrained_neumf_trains_with_sgd_and_learns(checkerboard: Split) -> None:
    recipe = NeuMF(dim=8, layers=(16, 8), epochs=15, batch_size=128, learning_rate=0.02, pretrain=True)
    model = recipe.fit(checkerboard.train, TrainOptions())
    assert isinstance(recipe.optimizers(model)[0], torch.optim.SGD)
    assert evaluate(model, checkerboard, k=5, resamples=0).value("HitRate", 5) > 0.9  # by chance 5 of 21


def test_scoring_in_chunks_changes_nothing(checkerboard: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    model = NeuMF(epochs=1).fit(checkerboard.train, TrainOptions())
    query, items = Query.of(np.arange(40)), torch.arange(12).expand(40, -1)
    with torch.inference_mode():
        whole, some = model.score(query), model.score(query, items)
        monkeypatch.setattr("palate.models.neumf.SCORE_CELLS", 5000)
        torch.testing.assert_close(model.score(query), whole)
        torch.testing.assert_close(model.score(query, items), some)


def test_a_new_user_with_the_history_of_a_user_gets_a_like_list(ml_100k_loo: Split) -> None:
    model = replace(GMF.fast(), epochs=5).fit(ml_100k_loo.train, TrainOptions(threads=1))
    users = np.arange(0, 943, 20)
    history = ml_100k_loo.train.history.select(users)
    with torch.inference_mode():
        trained = model.score(Query.of(users, history))
        folded = model.score(Query.of(np.full(len(users), -1), history))
    overlap = [
        len(set(a.tolist()) & set(b.tolist())) / 50
        for a, b in zip(trained.topk(50).indices, folded.topk(50).indices, strict=True)
    ]
    popular = torch.from_numpy(np.bincount(ml_100k_loo.train.interactions.item)).topk(50).indices
    by_chance = [len(set(a.tolist()) & set(popular.tolist())) / 50 for a in trained.topk(50).indices]
    assert np.mean(overlap) > np.mean(by_chance) + 0.1


def test_three_epochs_of_the_fast_preset_beat_popularity_by_far_on_real_data(ml_100k_loo: Split) -> None:
    validation = leave_one_out(ml_100k_loo.train, cold="keep")
    candidates = draw_candidates(validation, 100, seed=0)
    recipes = replace(MLP.fast(), epochs=3), Popularity()
    models = [recipe.fit(validation.train, TrainOptions(threads=1)) for recipe in recipes]
    ours, popular = (evaluate(one, validation, candidates=candidates, resamples=0) for one in models)
    assert ours.value("HitRate", 10) > 1.25 * popular.value("HitRate", 10)
    assert ours.value("NDCG", 10) > 1.25 * popular.value("NDCG", 10)
