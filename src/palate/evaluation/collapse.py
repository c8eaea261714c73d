"""Signs that a fitted model has collapsed: a cheap look at the lists of some users, in sentences.

    for sentence in collapse(model, split.train, split):
        print(sentence)

A model that has learned nothing still answers, and a table alone does not say why it is last. Each sentence names the
fact, the number that it is compared with, and a remedy. Models that are not personal, such as popularity, are only
checked for scores that are no numbers.

Shape legend: B users looked at, I items, K list length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from palate.base import Model, Query, device_of, reads_ratings
from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.errors import EvaluationError, ModelError
from palate.evaluation.evaluate import evaluate
from palate.models.popularity import Popularity

USERS = 200  # whose lists are looked at
MEASURED_USERS = 1_000  # whose held-out rows are measured, beside popularity
SCORE_CELLS = 8_000_000  # scores held at once
# A bound of judgment: far below the lists of any personal model, far above one list for all.
LEAST_COVERAGE = 0.1
FEW_USERS = 20  # too few to tell anything from


def collapse(model: Model, train: Dataset, held: Split | None = None, *, k: int = 10, seed: int = 0) -> list[str]:
    """Sentences on the lists of up to 200 users of ``train``; empty where nothing is wrong.

    Args:
        model: fitted on ``train``.
        train: the training rows.
        held: with held-out rows, on up to 1,000 users of which the model is measured beside popularity; None leaves
            that out.
        k: list length.
        seed: of the users that are looked at.
    """
    users = np.unique(train.interactions.user)
    if not len(users):
        return []
    rng = np.random.default_rng(seed)
    picked = np.sort(rng.choice(users, min(USERS, len(users)), replace=False)).astype(np.int64)
    try:
        look = _look(model, train, picked, min(k, train.n_items))
        found = list(_on_lists(look, train.n_items))
        if look.personal and held is not None:
            found += _below_popularity(model, train, held, k, rng)
    except ModelError as error:  # an evaluation of it would end in the same error
        return [f"The model cannot be looked at: {error}."]
    return found


class _Look(NamedTuple):
    """Lists (B, K) of item rows without seen items, -1 in empty places, those with seen items, and facts about scores.

    bad: users with scores that are no finite numbers. equal: users whose K + 1 best unseen items have one score.
    """

    lists_BK: NDArray[np.int64]
    plain_BK: NDArray[np.int64]
    bad: int
    equal: int
    personal: bool


def _look(model: Model, train: Dataset, users: NDArray[np.int64], k: int) -> _Look:
    lists, plain, bad, equal, personal = [], [], 0, 0, True
    step = max(1, SCORE_CELLS // max(1, train.n_items))
    for first in range(0, len(users), step):
        some = users[first : first + step]
        history = train.history.select(some)
        query = Query.of(some, history, every_event=reads_ratings(model)).to(device_of(model))
        with torch.inference_mode():
            score_BI = model.score(query).float().cpu()
            personal = personal and bool(model.can_personalize(query).any())
        finite_B = torch.isfinite(score_BI).all(1)
        bad += int((~finite_B).sum())
        score_BI = score_BI.nan_to_num()
        plain.append(score_BI.topk(k).indices)
        owner = np.repeat(np.arange(len(some)), history.counts)
        score_BI[torch.from_numpy(owner), torch.from_numpy(history.items.astype(np.int64))] = -torch.inf
        best = score_BI.topk(min(k + 1, train.n_items))
        lists.append(best.indices[:, :k].where(torch.isfinite(best.values[:, :k]), -1))
        same_B = (best.values == best.values[:, :1]).all(1) & torch.isfinite(best.values).all(1)
        equal += int(same_B.sum()) if best.values.shape[1] > 1 else 0
    return _Look(torch.cat(lists).numpy(), torch.cat(plain).numpy(), bad, equal, personal)


def _on_lists(look: _Look, n_items: int) -> Iterator[str]:
    users, k = look.lists_BK.shape
    if look.bad:
        yield f"The scores of {look.bad} of {users} users are not finite numbers: lower the learning rate."
    if not look.personal or users < FEW_USERS or n_items <= 2 * k:
        return
    if look.equal > users / 2:
        yield (
            f"The {k + 1} best items of {look.equal} of {users} users have one and the same score: the scores are "
            "saturated, train for fewer epochs or with more regularization."
        )
    if len(np.unique(look.plain_BK, axis=0)) == 1:
        yield (
            f"All {users} users looked at get the same {k} items before seen ones are removed: the model has learned "
            "nothing personal; train longer, or with less regularization."
        )
        return
    listed = len(np.unique(look.lists_BK[look.lists_BK >= 0]))
    by_chance = n_items * (1 - (1 - k / n_items) ** users)
    if listed < LEAST_COVERAGE * by_chance:
        yield (
            f"The lists of {users} users hold {listed:,} different items, where random lists would hold "
            f"{by_chance:,.0f}: the model hardly tells users apart; train longer, or with less regularization."
        )


def _below_popularity(model: Model, train: Dataset, held: Split, k: int, rng: np.random.Generator) -> Iterator[str]:
    tested = held.test_users
    kept = np.zeros(train.n_users, bool)
    kept[rng.choice(tested, min(MEASURED_USERS, len(tested)), replace=False)] = True
    rows = held.test.interactions
    part = replace(held, test=held.test.with_rows(rows.take(np.flatnonzero(kept[rows.user]))), candidates=None)
    try:
        mine, other = (
            evaluate(one, part, k=k, resamples=0).per_user[f"NDCG@{k}"] for one in (model, Popularity().fit(train))
        )
    except EvaluationError:  # no held-out row is relevant
        return
    difference = mine - other
    # Twice the standard error: a model as good as popularity must not be called worse by luck.
    if difference.mean() < -2 * difference.std() / max(1, len(difference)) ** 0.5:
        yield (
            f"NDCG@{k} on held-out rows of {len(mine):,} users is {mine.mean():.4f}, below that of popularity "
            f"({other.mean():.4f}): tune the recipe (palate tune), or take another."
        )
