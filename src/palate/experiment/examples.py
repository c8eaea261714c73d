"""A few test users with their history, their held-out items and the list of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from palate.base import Model, Query, device_of, reads_ratings
from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.top_k import top_k

USERS = 5
HISTORY = 10  # of the latest items shown


def example_users(split: Split) -> NDArray[np.int32]:
    """The same few test users for every model, from short to long histories, (E,)."""
    users = split.test_users
    by_length = users[np.argsort(split.train.history.counts[users], kind="stable")]
    places = np.linspace(0.1, 0.9, USERS) * (len(users) - 1)
    return by_length[np.unique(np.round(places).astype(np.int64))]


def examples(model: Model, split: Split, k: int) -> list[dict[str, Any]]:
    """The lists of a model for the example users, without seen items."""
    users = example_users(split)
    history = split.train.history.select(users)
    owner = np.repeat(np.arange(len(users)), history.counts)
    with torch.inference_mode():
        device = device_of(model)
        scores_EI = (
            model.score(Query.of(users, history, every_event=reads_ratings(model)).to(device)).float().cpu().clone()
        )
        scores_EI[torch.from_numpy(owner), torch.from_numpy(history.items.astype(np.int64))] = -torch.inf
        value_EK, top_EK = top_k(scores_EI, k)
    return shown(split, users, torch.where(value_EK == -torch.inf, -1, top_EK).numpy())


def shown(split: Split, users: NDArray[np.int32], top_EK: NDArray[np.integer[Any]]) -> list[dict[str, Any]]:
    """Histories (latest items, oldest first), held-out items and lists (item rows, -1 is empty), ids with titles."""
    data, held = split.train, split.test.history
    names = data.users.external(users).to_list()
    rows = []
    for name, user, top_K in zip(names, users, top_EK, strict=True):
        relevant = held.of(int(user))
        places = [
            {"rank": place + 1, **item, "hit": bool(row in relevant)}
            for place, (row, item) in enumerate(zip(top_K, _items(data, top_K), strict=True))
            if row >= 0
        ]
        rows.append({
            "user": name,
            "history": _items(data, data.history.of(int(user))[-HISTORY:]),
            "held_out": _items(data, relevant),
            "recommended": places,
        })  # fmt: skip
    return rows


def _items(data: Dataset, rows: NDArray[np.integer[Any]]) -> list[dict[str, Any]]:
    ids = data.items.external(rows).to_list()
    titles = [None] * len(ids) if data.titles is None else data.titles.gather(np.maximum(rows, 0)).to_list()
    return [{"item": item, "title": title} for item, title in zip(ids, titles, strict=True)]
