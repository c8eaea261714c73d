"""Losses against slow, obvious NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.training.losses import bpr, in_batch_softmax


def slow_softmax(score: np.ndarray, item: np.ndarray, log_q: np.ndarray | None, mask: bool) -> float:
    losses = []
    for row in range(len(item)):
        terms = []
        for column in range(len(item)):
            if mask and column != row and item[column] == item[row]:
                continue
            terms.append(score[row, column] - (0 if log_q is None else log_q[column]))
        own = score[row, row] - (0 if log_q is None else log_q[row])
        losses.append(np.log(np.exp(terms).sum()) - own)
    return float(np.mean(losses))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_in_batch_softmax_equals_a_loop_over_rows_and_columns(
    size: int, corrected: bool, mask: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 4, size), rng.integers(0, 3, size)
    user_GD, item_KD = rng.normal(size=(4, 2)), rng.normal(size=(3, 2))
    log_q = np.log(np.array([0.5, 0.3, 0.2]))[item] if corrected else None
    loss = in_batch(*(torch.from_numpy(x) for x in (user_GD, item_KD, user, item)), log_q, mask)
    expected = slow_softmax(user_GD[user] @ item_KD[item].T, item, log_q, mask)
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 12), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_its_gradient_is_the_slope_of_the_loss(size: int, corrected: bool, mask: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    user, item = (torch.from_numpy(rng.integers(0, 3, size)) for _ in range(2))
    log_q = np.log(np.array([0.5, 0.3, 0.2]))[item.numpy()] if corrected else None
    tables = [torch.from_numpy(rng.normal(size=(3, 2))).requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(lambda u, i: in_batch(u, i, user, item, log_q, mask), tables)


def in_batch(
    user_UD: torch.Tensor,
    item_ID: torch.Tensor,
    user: torch.Tensor,
    item: torch.Tensor,
    log_q: np.ndarray | None = None,
    mask: bool = False,
) -> torch.Tensor:
    """The loss of a batch of row numbers into two tables."""
    (users, row), (items, column) = user.unique(return_inverse=True), item.unique(return_inverse=True)
    given_log_q = None if log_q is None else torch.from_numpy(log_q)
    return in_batch_softmax(user_UD[users], item_ID[items], row, column, given_log_q, mask_hits=mask)


def test_masked_hits_do_not_hold_the_item_down() -> None:
    """Two users with the same item, alone in a batch: nothing to tell apart. Unmasked, each loses half."""
    same, user = torch.tensor([7, 7]), torch.tensor([0, 1])
    tables = torch.ones(2, 3), torch.ones(8, 3)
    assert in_batch(*tables, user, same, mask=True) == 0
    np.testing.assert_allclose(in_batch(*tables, user, same).item(), np.log(2), rtol=1e-6)


@pytest.mark.parametrize("corrected", [False, True])
def test_items_that_nobody_likes_are_negatives_of_their_weight(corrected: bool) -> None:
    rng = np.random.default_rng(3)
    user_UD, item_ID = (torch.from_numpy(rng.normal(size=(n, 4))).requires_grad_() for n in (3, 5))
    log_q_B = torch.tensor([-1.0, -2.0, -1.0]) if corrected else None
    log_weight_K = torch.tensor([-torch.inf, -torch.inf, -torch.inf, 0.7, -0.3])
    user, item = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2])
    loss = in_batch_softmax(user_UD, item_ID, user, item, log_q_B, log_weight_K=log_weight_K)
    offset = torch.zeros(3) if log_q_B is None else -log_q_B
    logits = user_UD @ item_ID.T + torch.cat([offset, log_weight_K[3:]])
    expected = torch.nn.functional.cross_entropy(logits, item)
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-6)
    tables = (user_UD, item_ID)
    for mine, theirs in zip(torch.autograd.grad(loss, tables), torch.autograd.grad(expected, tables), strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-6, atol=1e-9)


def test_scores_far_apart_keep_loss_and_gradient_finite() -> None:
    user_UD = torch.tensor([[1000.0], [-1000.0]], requires_grad=True)
    item_ID = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    loss = in_batch(user_UD, item_ID, torch.tensor([0, 1]), torch.tensor([1, 0]), mask=True)
    loss.backward()
    assert loss.isfinite()
    assert user_UD.grad is not None
    assert user_UD.grad[0] > 0 > user_UD.grad[1]  # toward their items, by descent


def test_log_q_keeps_frequent_items_from_being_held_down() -> None:
    """With enough batches the corrected loss finds the true preference, the plain one preference over popularity."""
    rng = np.random.default_rng(0)
    share = np.array([0.7, 0.2, 0.1])
    item = torch.from_numpy(rng.choice(3, 4096, p=share))
    found = {}
    for corrected in (False, True):
        logit = torch.zeros(3, requires_grad=True)
        optimizer = torch.optim.Adam([logit], 0.1)
        for start in range(0, 4096, 128):
            part = item[start : start + 128]
            log_q = np.log(share)[part.numpy()].astype(np.float32) if corrected else None
            optimizer.zero_grad()
            in_batch(torch.ones(128, 1), logit[:, None], torch.arange(128), part, log_q).backward()
            optimizer.step()
        found[corrected] = (logit - logit.mean()).detach()
    # Everybody likes items by their share: log share is the answer, and only the correction goes toward it.
    assert found[True][0] - found[True][2] > 1.0
    assert abs(float(found[False][0] - found[False][2])) < 0.6


def test_bpr_equals_its_definition() -> None:
    positive, negative = torch.tensor([1.0, -2.0]), torch.tensor([[0.5, 3.0], [-2.0, -9.0]])
    difference = positive.numpy()[:, None] - negative.numpy()
    np.testing.assert_allclose(bpr(positive, negative).item(), np.log1p(np.exp(-difference)).mean(), rtol=1e-6)
