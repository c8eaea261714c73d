"""Losses against slow, obvious NumPy."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.losses import bpr, in_batch_softmax


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
@given(st.integers(1, 6), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_in_batch_softmax_equals_a_loop_over_rows_and_columns(
    size: int, corrected: bool, mask: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    score, item = rng.normal(size=(size, size)), rng.integers(0, 3, size)
    log_q = np.log(np.array([0.5, 0.3, 0.2]))[item] if corrected else None
    given_log_q = None if log_q is None else torch.from_numpy(log_q)
    loss = in_batch_softmax(torch.from_numpy(score), torch.from_numpy(item), given_log_q, mask_hits=mask)
    np.testing.assert_allclose(loss.item(), slow_softmax(score, item, log_q, mask), rtol=1e-9, atol=1e-12)


def test_masked_hits_get_no_gradient() -> None:
    score = torch.zeros(3, 3, requires_grad=True)
    item = torch.tensor([7, 7, 2])
    in_batch_softmax(score, item, mask_hits=True).backward()
    assert score.grad is not None
    assert score.grad[0, 1] == score.grad[1, 0] == 0
    assert (score.grad[0, 2] > 0) & (score.grad[0, 0] < 0)
    free = torch.zeros(3, 3, requires_grad=True)
    in_batch_softmax(free, item).backward()
    assert free.grad is not None
    assert free.grad[0, 1] > 0


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
            log_q = torch.from_numpy(np.log(share))[part] if corrected else None
            optimizer.zero_grad()
            in_batch_softmax(logit[part].expand(128, -1), part, log_q).backward()
            optimizer.step()
        found[corrected] = (logit - logit.mean()).detach()
    # Everybody likes items by their share: log share is the answer, and only the correction goes towards it.
    assert found[True][0] - found[True][2] > 1.0
    assert abs(float(found[False][0] - found[False][2])) < 0.6


def test_bpr_equals_its_definition() -> None:
    positive, negative = torch.tensor([1.0, -2.0]), torch.tensor([[0.5, 3.0], [-2.0, -9.0]])
    difference = positive.numpy()[:, None] - negative.numpy()
    np.testing.assert_allclose(bpr(positive, negative).item(), np.log1p(np.exp(-difference)).mean(), rtol=1e-6)
