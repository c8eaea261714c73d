"""Histories packed into rows without padding, for sequence models.

The histories of all users, in random order, form one stream of events that is cut into rows of equal length: a row
holds parts of several users, kept apart by their segment numbers, and only the last row of an epoch is padded. The
cuts change from epoch to epoch, so that long histories are seen in different windows.

Shape legend: R rows of a batch, L events of a row, N events of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from palate.data.dataset import History

WITHHELD = 0.1  # share of the waits hidden in training, so that requests without a time are answered well too


class Packed(NamedTuple):
    """Rows of events, oldest first.

    item (R, L): item rows. target (R, L): the item that came next, -1 where none did. segment (R, L): whose history,
    -1 for padding. gap (R, L): seconds since the event before, 0 where there is none. wait (R, L): seconds until the
    next event, -1 where there is none or it is withheld. negatives (n,): item rows drawn uniformly, shared by the
    batch; empty where the loss needs none.
    """

    item: Tensor
    target: Tensor
    segment: Tensor
    gap: Tensor
    wait: Tensor
    negatives: Tensor


def packed_rows(
    history: History,
    length: int,
    events: int,
    rng: Generator,
    shuffled_share: float = 0.0,
    *,
    ties: bool = True,
    waits: bool = True,
) -> Iterator[Packed]:
    """The batches of one epoch: every event once, in rows of ``length``, about ``events`` of them in a batch.

    Users with a single event have no next event and are left out.

    Args:
        history: of all users.
        length: of a row.
        events: in a batch.
        rng: of the order of users, rows and tied events, and of the withheld waits.
        shuffled_share: share of the histories whose items are shuffled regardless of their times.
        ties: shuffle items of the same time. Their order in a log is often that of some table, which a model learns
            easily although held-out items do not follow it.
        waits: include most of the times until the next event; otherwise none.
    """
    users = np.flatnonzero(history.counts > 1)
    chosen = history.select(rng.permutation(users))
    owner = np.repeat(np.arange(len(users), dtype=np.int64), chosen.counts)
    item = chosen.items[_order(owner, chosen.times if ties else None, shuffled_share, rng)].astype(np.int64)
    follows = owner[1:] == owner[:-1]
    target = np.full(len(item), -1, dtype=np.int64)
    target[:-1] = np.where(follows, item[1:], -1)
    gap, wait = np.zeros(len(owner), np.float32), np.full(len(owner), -1, np.float32)
    if chosen.times is not None:
        steps = np.diff(chosen.times)
        gap[1:] = np.where(follows, steps, 0)
        if waits:
            wait[:-1] = np.where(follows & (rng.random(len(steps)) >= WITHHELD), steps, -1)
    # One stream of all histories, cut into full rows: no padding but in the last row.
    length = min(length, len(owner))
    rows = -(-len(owner) // max(length, 1))
    item_RL, target_RL, owner_RL, gap_RL, wait_RL = (
        torch.from_numpy(np.pad(part, (0, rows * length - len(owner)), constant_values=fill).reshape(rows, length))
        for part, fill in ((item, 0), (target, -1), (owner, -1), (gap, 0), (wait, -1))
    )
    none = torch.empty(0, dtype=torch.int64)
    for part in torch.from_numpy(rng.permutation(rows)).split(max(1, events // max(length, 1))):
        yield Packed(item_RL[part], target_RL[part], owner_RL[part], gap_RL[part], wait_RL[part], none)


def _order(
    owner: NDArray[np.int64], time: NDArray[np.float64] | None, share: float, rng: Generator
) -> NDArray[np.int64]:
    """The places of the events, where those of the same owner and time, and all of a ``share`` of owners, are mixed."""
    place = np.arange(len(owner))
    if time is not None and len(owner):
        block = np.append(0, np.cumsum((np.diff(owner) != 0) | (np.diff(time) != 0)))
        place = np.lexsort((rng.random(len(owner)), block))
    if share > 0:
        mixed = (rng.random(owner.max(initial=-1) + 1) < share)[owner]
        place = place[np.lexsort((np.where(mixed, rng.random(len(owner)), np.arange(len(owner))), owner))]
    return place
