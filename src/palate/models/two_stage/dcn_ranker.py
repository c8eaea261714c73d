"""Ranker of crossed features: a small DCN-v2 (Wang et al. 2021, "DCN V2: Improved Deep & Cross Network", WWW).

    x_0 = (x - mean) / std,    x_(l+1) = x_0 * (W_l x_l + b_l) + x_l,    r = v . [x_L ; mlp(x_0)] + c

trained by the softmax over each user's candidates. Standardized inputs are cut off at +-5.

Shape legend: N candidates of all users, F inputs, Q users.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from palate.models.two_stage.ranker_training import LabeledCandidates
from palate.training.layers import mlp

LAYERS = 2
HIDDEN = (64, 32)
DROPOUT = 0.1
RATE = 0.003
DECAY = 1e-2
USERS = 32  # of one step
EPOCHS = 60
HELD_OUT = 0.2  # share of the users held out for early stopping
PATIENCE = 6  # epochs without a lower loss of the users held out
REACH = 5.0


class DCNRanker(nn.Module):
    """The network; its tables are made when the number of inputs is known.

    Args:
        width: F.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(LAYERS))
        self.deep = mlp((width, *HIDDEN), DROPOUT)
        self.out = nn.Linear(width + HIDDEN[-1], 1)

    def forward(self, input_NF: Tensor) -> Tensor:
        """Scores (N,)."""
        start_NF = ((input_NF - self.mean) / self.std).clamp(-REACH, REACH)
        x_NF = start_NF
        for layer in self.layers:
            x_NF = start_NF * layer(x_NF) + x_NF
        score_N1: Tensor = self.out(torch.cat([x_NF, self.deep(start_NF)], 1))
        return score_N1.squeeze(1)

    def learn(self, candidates: LabeledCandidates, seed: int) -> None:
        """Train on most users until the loss of the others stops improving; the best epoch is kept."""
        self.mean.copy_(candidates.inputs.mean(0))
        self.std.copy_(candidates.inputs.std(0, correction=0).clamp(min=1e-3))
        # Users without a relevant candidate have no loss.
        users = int(candidates.rows.max()) + 1
        right_Q = torch.zeros(users, device=candidates.rows.device).index_add(0, candidates.rows, candidates.labels)
        training, check = _halves(_counted(candidates.of(right_Q > 0)), seed)
        optimizer = torch.optim.AdamW(self.parameters(), RATE, weight_decay=DECAY)
        best, kept, waited = float("inf"), copy.deepcopy(self.state_dict()), 0
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for _ in range(EPOCHS):
                self._epoch(training, optimizer)
                with torch.no_grad():
                    loss = float(_loss(self(check.inputs), check))
                waited = 0 if loss < best else waited + 1
                if not waited:
                    best, kept = loss, copy.deepcopy(self.state_dict())
                if waited >= PATIENCE:
                    break
        self.load_state_dict(kept)

    def _epoch(self, training: LabeledCandidates, optimizer: torch.optim.Optimizer) -> None:
        self.train()
        for part in _batches(training):
            optimizer.zero_grad()
            _loss(self(part.inputs), part).backward()
            optimizer.step()
        self.eval()


def _loss(score_N: Tensor, candidates: LabeledCandidates) -> Tensor:
    """Mean over users of the mean over right candidates of -log softmax over the user's candidates."""
    users, row_N = candidates.rows.unique_consecutive(return_inverse=True)
    # The largest score is subtracted, or exp would overflow; it cancels out, so it needs no gradient.
    top_Q = torch.full((len(users),), -torch.inf, device=score_N.device).scatter_reduce(
        0, row_N, score_N.detach(), "amax"
    )
    total_Q = torch.zeros_like(top_Q).index_add(0, row_N, (score_N - top_Q[row_N]).exp())
    lost_N = total_Q.log()[row_N] + top_Q[row_N] - score_N
    right_Q = torch.zeros_like(top_Q).index_add(0, row_N, candidates.labels)
    return (lost_N * candidates.labels / right_Q[row_N]).sum() / len(users)


def _halves(candidates: LabeledCandidates, seed: int) -> tuple[LabeledCandidates, LabeledCandidates]:
    """Users to train on, and users held out."""
    order = torch.randperm(int(candidates.rows.max()) + 1, generator=torch.Generator().manual_seed(seed))
    held = torch.zeros(len(order), dtype=torch.bool)
    held[order[: max(1, int(HELD_OUT * len(order)))]] = True
    return _counted(candidates.of(~held)), _counted(candidates.of(held))


def _counted(candidates: LabeledCandidates) -> LabeledCandidates:
    """With users renumbered from 0."""
    return candidates._replace(rows=candidates.rows.unique_consecutive(return_inverse=True)[1])


def _batches(candidates: LabeledCandidates) -> Iterator[LabeledCandidates]:
    """Users in random order, some at a time."""
    count_Q = candidates.rows.bincount()
    start_Q = count_Q.cumsum(0) - count_Q
    for users in torch.randperm(len(count_Q)).split(USERS):
        size = count_Q[users]
        place = torch.repeat_interleave(start_Q[users] - (size.cumsum(0) - size), size) + torch.arange(int(size.sum()))
        row = torch.repeat_interleave(torch.arange(len(users)), size)
        yield LabeledCandidates(candidates.inputs[place], candidates.labels[place], row)
