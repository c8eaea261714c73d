"""Histories packed into rows without padding, for sequence models.

The histories of all users, in random order, form one stream of events that is cut into rows of equal length: a row
holds parts of several users, kept apart by their segment numbers, and only the last row of an epoch is padded. Where a
cut falls changes from epoch to epoch, so long histories are seen in ever other windows.

Shape legend: R rows of a batch, L events of a row, N events of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from palate.data.dataset import History

__all__ = ["Packed", "packed_rows"]


class Packed(NamedTuple):
    """Rows of events, oldest first.

    item (R, L): item rows. target (R, L): the item that came next, -1 where none did. segment (R, L): whose history,
    -1 for padding. gap (R, L): seconds since the event before, 0 where there is none. negatives (n,): item rows drawn
    uniformly, shared by the batch; empty where the loss needs none.
    """

    item: Tensor
    target: Tensor
    segment: Tensor
    gap: Tensor
    negatives: Tensor


def packed_rows(
    history: History, length: int, events: int, rng: Generator, shuffled_share: float = 0.0
) -> Iterator[Packed]:
    """The batches of one epoch: every event once, in rows of ``length``, about ``events`` of them in a batch.

    Users with a single event teach nothing about what comes next and are left out.
    """
    users = np.flatnonzero(history.counts > 1)
    shuffled = history.select(rng.permutation(users))
    owner = np.repeat(np.arange(len(users), dtype=np.int64), shuffled.counts)
    if shuffled_share > 0:
        mixed = rng.random(len(users)) < shuffled_share
        key = np.where(mixed[owner], rng.random(len(owner)), np.arange(len(owner)))
        order = np.lexsort((key, owner))
        shuffled = replace(shuffled, items=shuffled.items[order])
    target = np.full(len(owner), -1, dtype=np.int64)
    target[:-1] = np.where(owner[1:] == owner[:-1], shuffled.items[1:], -1)
    gap = np.zeros(len(owner), dtype=np.float32)
    if shuffled.times is not None:
        gap[1:] = np.where(owner[1:] == owner[:-1], np.diff(shuffled.times), 0)
    length = min(length, len(owner))
    rows = -(-len(owner) // max(length, 1))
    item_RL, target_RL, owner_RL, gap_RL = (
        torch.from_numpy(np.pad(part, (0, rows * length - len(owner)), constant_values=fill).reshape(rows, length))
        for part, fill in ((shuffled.items.astype(np.int64), 0), (target, -1), (owner, -1), (gap, 0))
    )
    none = torch.empty(0, dtype=torch.int64)
    for part in torch.from_numpy(rng.permutation(rows)).split(max(1, events // max(length, 1))):
        yield Packed(item_RL[part], target_RL[part], owner_RL[part], gap_RL[part], none)
