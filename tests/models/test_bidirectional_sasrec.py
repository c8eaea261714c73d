"""BidirectionalSASRec: it fills holes where a sequence model continues, and its sum is the one written down."""

import numpy as np
import pytest
import torch

from palate.base import Query
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.errors import RecipeError
from palate.models.bidirectional_sasrec import BidirectionalSASRec
from palate.models.sasrec import SASRec

ITEMS, LENGTH = 40, 12
NETWORK = {"dim": 16, "n_layers": 1, "hidden": 32, "dropout": 0.1, "epochs": 40, "batch_size": 512, "average": 0.9}


def walks(users: int = 160) -> tuple[Dataset, np.ndarray]:
    """Everybody walks a ring of items one by one, and one step of each walk was lost; (data, the lost items)."""
    rng = np.random.default_rng(0)
    start, hole = rng.integers(0, ITEMS, users), rng.integers(3, LENGTH - 3, users)
    step = np.array([np.delete(np.arange(LENGTH), h) for h in hole])
    item = (start[:, None] + step) % ITEMS
    user = np.repeat(np.arange(users), LENGTH - 1).astype(np.int32)
    rows = Interactions(user, item.ravel().astype(np.int32), np.ones(len(user), np.float32), step.ravel() * 1.0)
    return Dataset("walks", IdMap.of(np.arange(users)), IdMap.of(np.arange(ITEMS)), rows), (start + hole) % ITEMS


@pytest.fixture(scope="module")
def fitted():
    data, lost = walks()
    return data, torch.from_numpy(lost), BidirectionalSASRec(NETWORK).fit(data)


def unseen_first(data: Dataset, score_UI: torch.Tensor) -> torch.Tensor:
    rows = data.interactions
    score_UI = score_UI.clone()
    score_UI[torch.from_numpy(rows.user.copy()).long(), torch.from_numpy(rows.item.copy()).long()] = -torch.inf
    return score_UI.argmax(1)


def test_what_is_missing_comes_first_where_a_sequence_model_goes_on(fitted):
    data, lost_U, model = fitted
    query, ahead = Query.of(np.arange(data.n_users), data.history), SASRec(**NETWORK).fit(data)
    with torch.inference_mode():
        filled_U = unseen_first(data, model.score(query))
        next_U = unseen_first(data, ahead.score(query))
    assert (filled_U == lost_U).float().mean() > 0.9
    assert (next_U == lost_U).float().mean() < 0.2


def test_the_score_is_the_sum_over_all_positions(fitted):
    data, _, model = fitted
    history = data.history.of(3).astype(np.int64)
    expected = torch.zeros(ITEMS)
    seen = torch.zeros(ITEMS, dtype=torch.bool)
    seen[torch.from_numpy(history)] = True
    with torch.inference_mode():
        for net, order in ((model.forwards, history), (model.backwards, history[::-1])):
            chances = torch.zeros(ITEMS)
            for length in range(1, len(order) + 1):
                score_I = net.score(Query.new_users([order[:length]]))[0].masked_fill(seen, -torch.inf)
                chances += score_I.softmax(0)
            expected += chances.clamp(min=1e-6).log()
        torch.testing.assert_close(model.score(Query.new_users([history]))[0], expected, rtol=1e-4, atol=1e-4)


def test_long_histories_are_read_in_windows(fitted):
    data, _, model = fitted
    narrow = BidirectionalSASRec({**NETWORK, "max_seq_len": 6, "epochs": 1}).fit(data)
    long = np.arange(35) % ITEMS
    for one in (model, narrow):
        assert one.score(Query.new_users([long, [], [5]])).isfinite().all()


def test_a_wrong_field_of_the_network_is_refused():
    with pytest.raises(RecipeError, match="depth"):
        BidirectionalSASRec({"depth": 3})
    with pytest.raises(RecipeError, match="leave recipe out"):
        BidirectionalSASRec({"recipe": "sasrec"})
