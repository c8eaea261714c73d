"""What every dot-product model shares: new users, candidates, biases inside the vectors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.base import DataSpec, Query
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.models import sampled_mf
from palate.models.dot_product import DotProductModel, Events, FoldIn
from palate.models.sampled_mf import GradientFoldIn
from palate.training import layers


class MeanOfLiked(FoldIn):
    """A fold-in whose answer is known by hand."""

    def forward(self, item_IE, typical_D, events: Events):
        parts = [
            item_IE[events.items[a:b][events.weights[a:b] >= 0], : len(typical_D)].mean(0)
            for a, b in zip(events.offsets[:-1], events.offsets[1:], strict=True)
        ]
        return torch.stack(parts)


def model(bias: bool = True, users: int = 6, items: int = 9) -> DotProductModel:
    torch.manual_seed(0)
    made = DotProductModel(DataSpec(users, items), 4, MeanOfLiked(), bias=bias, init_std=1.0)
    torch.nn.init.normal_(made.item_table.weight)
    user = np.arange(users - 1, dtype=np.int32)  # the last user has no rows
    maps = IdMap.of(np.arange(users)), IdMap.of(np.arange(items))
    made.finish(Dataset("toy", *maps, Interactions(user, user, np.ones(users - 1, np.float32))))
    return made


def queries():
    events = st.lists(st.tuples(st.integers(0, 8), st.sampled_from([1.0, -1.0])), max_size=5)
    return st.lists(st.tuples(st.integers(-1, 8), events), min_size=1, max_size=8)


def as_query(rows) -> Query:
    flat = [event for _, events in rows for event in events]
    return Query(
        torch.tensor([user for user, _ in rows]),
        torch.tensor(np.cumsum([0, *(len(events) for _, events in rows)])),
        torch.tensor([item for item, _ in flat], dtype=torch.int64),
        torch.tensor([weight for _, weight in flat], dtype=torch.float32),
    )


@pytest.mark.parametrize("bias", [True, False])
@given(rows=queries())
@settings(deadline=None, max_examples=60)
def test_each_row_of_a_query_gets_the_vector_it_should(bias, rows):
    made, query = model(bias), as_query(rows)
    vectors, knows = made.query_vectors(query), made.can_personalize(query)
    for place, (user, events) in enumerate(rows):
        liked = [item for item, weight in events if weight >= 0]
        if 0 <= user < 5:
            expected = made.user_table.weight[user].detach()
        elif liked:
            expected = made.item_table.weight[liked, :4].detach().mean(0)
        else:
            expected = made.user_table.weight[:5].detach().mean(0)
        torch.testing.assert_close(vectors[place, :4], expected)
        assert bool(knows[place]) == (0 <= user < 5 or bool(liked))
    assert vectors.shape[1] == 4 + bias


def test_scores_are_dot_products_with_the_bias_inside():
    made = model()
    query = Query.of([0, 3, -1])
    score = made.score(query)
    torch.testing.assert_close(score, made.query_vectors(query) @ made.item_vectors().T)
    by_hand = made.item_table.weight[:, :4] @ made.user_table.weight[3] + made.item_table.weight[:, 4]
    torch.testing.assert_close(score[1], by_hand.detach())
    assert not score.requires_grad


def test_candidates_equal_the_catalog_however_small_the_chunks(monkeypatch):
    made, query = model(), Query.of([0, 1, 2, 3, -1])
    items = torch.tensor(np.random.default_rng(0).integers(0, 9, (5, 7)))
    expected = made.score(query).gather(1, items)
    torch.testing.assert_close(made.score(query, items), expected)
    monkeypatch.setattr(layers, "SCORE_CELLS", 40)
    torch.testing.assert_close(made.score(query, items), expected)


def test_a_query_without_weights_or_history_is_answered():
    made = model()
    query = Query(torch.tensor([-1, 99]), torch.tensor([0, 2, 2]), torch.tensor([1, 2]))
    assert made.can_personalize(query).tolist() == [True, False]
    assert made.can_personalize(Query.of([-1, 5, 0])).tolist() == [False, False, True]
    assert made.score(query).isfinite().all()


def squared_error(user_BD, item_IE, batch):
    scores = (user_BD[batch.owner] * item_IE[batch.item]).sum(1)
    return 0.5 * (scores - batch.sign).square().sum()


def test_gradient_fold_in_is_the_likeliest_vector_under_the_distribution_of_trained_users(monkeypatch):
    """With squared error the answer has a closed form: ridge regression toward the mean user."""
    rng = torch.Generator().manual_seed(0)
    user_UD = torch.randn(40, 3, generator=rng) @ torch.tensor([[2.0, 0, 0], [0.5, 1, 0], [0, 0.3, 0.2]]) + 1
    item_IE = torch.randn(9, 3, generator=rng)
    fold_in = GradientFoldIn(3, squared_error, steps=300)
    fold_in.settle(user_UD)
    events = Events(torch.tensor([0, 3, 4, 8]), torch.tensor([0, 1, 2, 5, 3, 4, 5, 6]), torch.ones(8), torch.ones(8))
    mean_D, precision_DD = user_UD.mean(0), torch.linalg.inv(user_UD.T.cov(correction=0))
    expected = []
    for a, b in zip(events.offsets[:-1], events.offsets[1:], strict=True):
        q = item_IE[events.items[a:b]]
        expected.append(torch.linalg.solve(precision_DD + q.T @ q, precision_DD @ mean_D + q.sum(0)))
    torch.testing.assert_close(fold_in(item_IE, mean_D, events), torch.stack(expected), rtol=0.01, atol=0.01)
    with torch.inference_mode():
        inside = Events(*(tensor.clone() for tensor in events))
        torch.testing.assert_close(
            fold_in(item_IE.clone(), mean_D, inside), torch.stack(expected), rtol=0.01, atol=0.01
        )
    monkeypatch.setattr(sampled_mf, "FOLD_CELLS", 40)
    torch.testing.assert_close(fold_in(item_IE, mean_D, events), torch.stack(expected), rtol=0.01, atol=0.01)


def test_the_spread_of_few_users_has_full_rank():
    for users, dim in ((1, 3), (2, 1)):
        fold_in = GradientFoldIn(dim, squared_error)
        fold_in.settle(torch.ones(users, dim))
        assert torch.linalg.det(fold_in.spread) > 0
