"""BPR and LogisticMF: their losses against the equations written out in loops, and their effect."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from palate.base import DataSpec, Query, TrainOptions
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.models.sampled_mf import BPR, LogisticMF


def dataset(user, item, weight=None, n_users=None, n_items=None) -> Dataset:
    user, item = np.asarray(user, np.int32), np.asarray(item, np.int32)
    weight = np.ones(len(user), np.float32) if weight is None else np.asarray(weight, np.float32)
    users, items = n_users or int(user.max()) + 1, n_items or int(item.max()) + 1
    maps = IdMap.of(np.arange(users)), IdMap.of(np.arange(items))
    return Dataset("toy", *maps, Interactions(user, item, weight))


def checkerboard(n: int = 20) -> Dataset:
    user, item = np.nonzero((np.add.outer(np.arange(n), np.arange(n)) % 2 == 0) & ~np.eye(n, dtype=bool))
    return dataset(user, item, n_users=n, n_items=n)


@pytest.fixture(scope="module", params=[BPR, LogisticMF])
def recipe(request):
    return request.param(dim=8, epochs=30, batch_users=4)


@pytest.fixture(scope="module")
def model(recipe):
    return recipe.fit(checkerboard())


def test_the_loss_of_bpr_is_the_equation():
    """A pool of the whole catalog gives the expectation itself."""
    rng = np.random.default_rng(0)
    pairs = rng.choice(5 * 7, 18, replace=False)
    data = dataset(pairs // 7, pairs % 7, rng.choice([1, 1, -1], 18), 5, 7)
    recipe = BPR(dim=3, shared_negatives=7, batch_users=5, regularization=0.2, init_std=2.0)
    torch.manual_seed(0)
    module = recipe.build(DataSpec(5, 7))
    torch.nn.init.normal_(module.item_table.weight)
    (batch,) = recipe.batches(data, seed=0, epoch=0)
    user, item = module.user_table.weight.detach().double().numpy(), module.item_table.weight.detach().double().numpy()
    rows = data.interactions
    total = 0.0
    for u, i, w in zip(rows.user, rows.item, rows.weight, strict=True):
        unseen = [j for j in range(7) if j not in rows.item[rows.user == u]]
        for j in unseen:
            ahead = user[u] @ (item[i, :3] - item[j, :3]) + item[i, 3] - item[j, 3]
            squares = (user[u] ** 2).sum() + (item[i, :3] ** 2).sum() + (item[j, :3] ** 2).sum()
            total += (np.log1p(np.exp(-ahead * w)) + 0.1 * squares) / len(unseen)
    # The user's vector counts once for the event and once for its negative, as an item's does.
    total += 0.1 * sum((user[u] ** 2).sum() for u in rows.user)
    assert recipe.loss(module, batch).item() == pytest.approx(float(total) / 18, rel=1e-5)


def test_the_loss_of_logistic_mf_is_the_equation():
    """A pool of the whole catalog gives the expectation itself."""
    rng = np.random.default_rng(0)
    pairs = rng.choice(5 * 7, 18, replace=False)
    data = dataset(pairs // 7, pairs % 7, rng.choice([1, 1, -1], 18), 5, 7)
    recipe = LogisticMF(dim=3, negatives=4, shared_negatives=7, batch_users=5, regularization=0.2, init_std=2.0)
    torch.manual_seed(0)
    module = recipe.build(DataSpec(5, 7))
    torch.nn.init.normal_(module.item_table.weight)
    (batch,) = recipe.batches(data, seed=0, epoch=0)
    user, item = module.user_table.weight.detach().double().numpy(), module.item_table.weight.detach().double().numpy()
    rows = data.interactions
    total = 0.0
    for u, i, w in zip(rows.user, rows.item, rows.weight, strict=True):
        unseen = [j for j in range(7) if j not in rows.item[rows.user == u]]
        score = user[u] @ item[i, :3] + item[i, 3]
        total += np.log1p(np.exp(-score * w)) + 0.1 * (user[u] @ user[u] + item[i, :3] @ item[i, :3])
        for j in unseen:
            one = np.log1p(np.exp(user[u] @ item[j, :3] + item[j, 3])) + 0.1 * (item[j, :3] @ item[j, :3])
            total += 4 / len(unseen) * one
        total += 4 * 0.1 * (user[u] @ user[u])
    assert recipe.loss(module, batch).item() == pytest.approx(float(total) / (18 * 5), rel=1e-5)


def test_learns_the_checkerboard(model):
    score = model.score(Query.of(np.arange(20)))
    even = (torch.arange(20)[:, None] + torch.arange(20)) % 2 == 0
    assert score[even].min() > score[~even].max()


def test_a_new_user_is_ranked_like_the_trained_user_of_the_same_history(model):
    history = checkerboard().history
    folded = Query.of(np.full(20, -1), history)
    even = (torch.arange(20)[:, None] + torch.arange(20)) % 2 == 0
    score = model.score(folded)
    assert score[even].min() > score[~even].max()
    alone = torch.cat([model.score(Query.of([-1], history.select(np.array([u])))) for u in range(20)])
    torch.testing.assert_close(score, alone, rtol=1e-3, atol=1e-3)


def test_a_dislike_turns_a_new_user_away(model):
    liked, disliked = model.score(Query.of([-1, -1], dataset([0, 0, 1, 1], [1, 4, 1, 4], [1, 1, 1, -1]).history))
    assert disliked[6] < liked[6]


def test_same_seed_same_weights_and_the_state_rebuilds_the_model(recipe, model):
    again, other = recipe.fit(checkerboard()), recipe.fit(checkerboard(), TrainOptions(seed=1))
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in model.state_dict().items())
    assert not torch.equal(other.item_table.weight, model.item_table.weight)
    rebuilt = recipe.build(DataSpec(20, 20))
    rebuilt.load_state_dict(model.state_dict(), strict=True)
    query = Query.new_users([[0, 2], []])
    assert torch.equal(rebuilt.score(query), model.score(query))


def test_negatives_are_never_seen_and_the_rate_falls_to_nearly_nothing(recipe):
    data = checkerboard()
    seen = np.zeros((20, 20), bool)
    seen[data.interactions.user, data.interactions.item] = True
    for batch in replace(recipe, shared_negatives=6, batch_users=3).batches(data, 0, 1):
        drawn = seen[batch.user.numpy()][:, batch.pool.numpy()]
        assert not (batch.share.numpy()[drawn] > 0).any()
        np.testing.assert_allclose(batch.share.sum(1), (~drawn).any(1), atol=1e-6)
    module = recipe.build(DataSpec(20, 20))
    (adam,) = recipe.optimizers(module)
    for _ in range(30 * 5):
        adam.step()
    assert [group["lr"] < group["initial_lr"] / 100 for group in adam.param_groups] == [True, True]
