"""Which items to show to somebody new, so that few answers tell tastes apart.

Who knows what is described by D factors of the training histories:

    x_ui = s_i + l_i.z_u + e_ui,    z_u ~ N(0, 1),    Var e_ui = v_i = s_i (1 - s_i) - |l_i|^2

x_ui is 1 where user u knows item i, s_i is the share of users who do, and the l_i are the leading singular vectors of
the centred matrix. What the answers so far say of a newcomer's z is a normal distribution N(m, P), at first N(0, 1).
The next question is the item with the largest

    (s_i + l_i.m) * sum_j s_j (l_j P l_i)^2 / (l_i P l_i + v_i)

the chance that the newcomer knows it, times how much less uncertain knowing it leaves us about all items, each counted
by its share: a Bayesian A-optimal design (Chaloner & Verdinelli 1995, "Bayesian Experimental Design: A Review") on what
Rashid et al. 2002 ("Getting to Know You") weigh up, being known and telling apart. Items that say the same as one
already asked are worth little, which makes the questions diverse.

Shape legend: B newcomers, M items that may be asked about, D factors, N users of the training data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, svds

from palate.data.dataset import History
from palate.errors import DataError
from palate.recommend import Recommender

__all__ = ["Interview", "Tastes", "like_weight", "onboarding_items"]

Floats = NDArray[np.float64]

FACTORS = 8
ASKABLE = 1_000  # items, most known first: nobody is asked about what hardly anybody knows
USERS = 50_000  # of the training data, evenly spaced, are enough to see who knows what
# What an answer "don't know it" counts beside one of somebody who does: there are many reasons not to know an item.
UNKNOWN = 0.2


@dataclass(frozen=True, eq=False)
class Tastes:
    """Who knows what, as the training histories tell it.

    Args:
        item: (M,) item rows, most known first.
        share: (M,) s, share of the users who know the item.
        loading: (M, D) l.
        noise: (M,) v, above 0.
    """

    item: NDArray[np.int64]
    share: Floats
    loading: Floats
    noise: Floats

    @classmethod
    def of(cls, recommender: Recommender) -> Tastes:
        """The tastes in the history that a recommender carries.

        Raises:
            DataError: it has no history.
        """
        known_NM, item_M = _known(recommender.seen, len(recommender.items))
        if not known_NM.nnz:
            raise DataError(
                f"{recommender.name or 'the recommender'} has no training history to choose questions from: "
                "save the bundle again with its training rows"
            )
        share_M = np.asarray(known_NM.mean(axis=0), np.float64).ravel()
        loading_MD = _loadings(known_NM, share_M)
        noise_M = np.maximum(share_M * (1 - share_M) - np.square(loading_MD).sum(1), 1e-4)
        return cls(item_M, share_M, loading_MD, noise_M)

    @cached_property
    def worth(self) -> Floats:
        """sum_j s_j l_j l_j^T, (D, D): which directions of taste matter for what people know."""
        worth_DD: Floats = (self.loading * self.share[:, None]).T @ self.loading
        return worth_DD

    def first(self, n: int) -> NDArray[np.int64]:
        """Places (n,) of a list that is shown at once: each question counts what may be expected of its answer."""
        interview = Interview(self, 1)
        places = np.empty(min(n, len(self.item)), np.int64)
        for turn in range(len(places)):
            place_B = interview.next()
            interview.answer(place_B, interview.chance(place_B))
            places[turn] = place_B[0]
        return places


class Interview:
    """What the answers so far say about B newcomers, who are all asked at once.

    Args:
        tastes: of the training users.
        newcomers: B.
    """

    def __init__(self, tastes: Tastes, newcomers: int = 1) -> None:
        width = tastes.loading.shape[1]
        self.tastes = tastes
        self.mean_BD = np.zeros((newcomers, width))
        self.spread_BDD = np.repeat(np.eye(width)[None], newcomers, axis=0)
        self.asked_BM = np.zeros((newcomers, len(tastes.item)), dtype=bool)

    def next(self) -> NDArray[np.int64]:
        """The place (B,) of the next question of each newcomer; -1 where everything has been asked.

        Equal worth goes to the item that more people know.
        """
        tastes = self.tastes
        reach_BMD = tastes.loading @ self.spread_BDD
        doubt_BM = np.einsum("bmd,md->bm", reach_BMD, tastes.loading) + tastes.noise
        gain_BM = np.einsum("bmd,bmd->bm", reach_BMD @ tastes.worth, reach_BMD) / doubt_BM
        gain_BM *= np.clip(tastes.share + self.mean_BD @ tastes.loading.T, 0.01, 0.99)
        # Rounded, so that what is equal but for the last digits of floating point is equal on every machine.
        gain_BM = np.round(gain_BM / np.maximum(gain_BM.max(axis=1, keepdims=True), 1e-12), 9)
        gain_BM[self.asked_BM] = -np.inf
        return np.where(self.asked_BM.all(1), -1, gain_BM.argmax(1))

    def chance(self, place_B: NDArray[np.int64]) -> Floats:
        """The chance (B,) that each newcomer knows the item, as the linear model has it: not kept within 0 and 1."""
        tastes = self.tastes
        chance_B: Floats = tastes.share[place_B] + (self.mean_BD * tastes.loading[place_B]).sum(1)
        return chance_B

    def answer(self, place_B: NDArray[np.int64], known_B: NDArray[Any]) -> None:
        """Learn whether each newcomer knows the item: 1 or 0, or the chance that they do."""
        tastes = self.tastes
        loading_BD, noise_B = tastes.loading[place_B], tastes.noise[place_B]
        weight_B = np.clip(UNKNOWN + (1 - UNKNOWN) * known_B, UNKNOWN, 1)
        reach_BD = np.einsum("bde,be->bd", self.spread_BDD, loading_BD)
        step_BD = reach_BD * (weight_B / (noise_B + weight_B * (reach_BD * loading_BD).sum(1)))[:, None]
        self.mean_BD = self.mean_BD + step_BD * (known_B - self.chance(place_B))[:, None]
        self.spread_BDD = self.spread_BDD - step_BD[:, :, None] * reach_BD[:, None, :]
        self.asked_BM[np.arange(len(place_B)), place_B] = True


def onboarding_items(recommender: Recommender, n: int = 10) -> pl.DataFrame:
    """The n items to show somebody new: item_id, rank, share, why, and title where titles are known.

    ``share`` is that of the training users who know the item; ``why`` names what knowing it speaks for and against.

    Args:
        recommender: of any model; its training history is all that is looked at.
        n: length of the list, which is shorter where the catalog is.

    Raises:
        DataError: n is below 1, or there is no training history.
    """
    if n < 1:
        raise DataError(f"n={n}: ask about at least 1 item")
    tastes = Tastes.of(recommender)
    place = tastes.first(n)
    item = tastes.item[place]
    names = (recommender.items.ids if recommender.titles is None else recommender.titles).cast(pl.String)
    frame = pl.DataFrame(
        {
            "item_id": recommender.items.external(item),
            "rank": pl.Series(np.arange(1, len(item) + 1), dtype=pl.Int32),
            "share": pl.Series(tastes.share[place], dtype=pl.Float32),
            "why": pl.Series([_why(tastes, one, names) for one in place], dtype=pl.String),
        }
    )
    return frame if recommender.titles is None else frame.with_columns(title=recommender.titles.gather(item))


def like_weight(recommender: Recommender) -> float:
    """What a like weighs in a history: the upper quartile of the training weights above 0."""
    weights = recommender.seen.weights[recommender.seen.weights > 0]
    return float(np.quantile(weights, 0.75)) if len(weights) else 1.0


def _why(tastes: Tastes, place: np.int64, names: pl.Series) -> str:
    """What knowing the item speaks for and against most, by the covariance of who knows what."""
    shift_M = tastes.loading @ tastes.loading[place]
    shift_M[place] = 0.0
    words = [
        f"{side} {names[int(tastes.item[other])]}"
        for side, other, sign in (("for", shift_M.argmax(), 1), ("against", shift_M.argmin(), -1))
        if sign * shift_M[other] > 1e-3
    ]
    return f"knowing it speaks {' and '.join(words)}" if words else "many know it"


def _known(seen: History, items: int) -> tuple[sparse.csr_array, NDArray[np.int64]]:
    """Users by items (N, M) of 0 and 1, and the item rows (M,): users with rows, the most known items first."""
    users = np.flatnonzero(seen.counts)
    users = users[np.linspace(0, len(users) - 1, min(USERS, len(users))).astype(np.int64)] if len(users) else users
    some = seen.select(users)
    owner = np.repeat(np.arange(len(users)), some.counts)
    known = sparse.csr_array((np.ones(len(owner)), (owner, some.items)), shape=(len(users), items))
    known.sum_duplicates()
    known.data[:] = 1.0
    count_I = np.asarray(known.sum(axis=0)).ravel()
    item_M = np.argsort(-count_I, kind="stable")[: min(ASKABLE, int((count_I > 0).sum()))]
    return known[:, item_M], item_M


def _loadings(known_NM: sparse.csr_array, share_M: Floats) -> Floats:
    """Leading singular vectors of the centred matrix, scaled to a covariance (M, D); never stored dense."""
    users, items = known_NM.shape
    factors = min(FACTORS, users - 1, items - 1)
    if factors < 1 or not (share_M < 1).any():  # nothing tells anybody apart
        return np.zeros((items, 1))
    centred = LinearOperator(
        known_NM.shape,
        dtype=np.float64,
        matvec=lambda x: known_NM @ x.ravel() - share_M @ x.ravel(),
        rmatvec=lambda y: known_NM.T @ y.ravel() - share_M * y.sum(),
    )
    start = np.random.default_rng(0).standard_normal(min(users, items))
    _, size_D, vector_DM = svds(centred, k=factors, v0=start, return_singular_vectors="vh")
    loading_MD: Floats = vector_DM.T * (size_D / np.sqrt(users))
    return loading_MD
