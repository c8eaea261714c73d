"""Onboarding: items to ask a new user about, so that few answers tell tastes apart.

Which users know which items is described by D factors of the training histories:

    x_ui = s_i + l_i.z_u + e_ui,    z_u ~ N(0, 1),    Var e_ui = v_i = s_i (1 - s_i) - |l_i|^2

x_ui is 1 where user u knows item i, s_i is the share of users who do, and the l_i are the leading singular vectors of
the centered matrix. The answers so far give a normal distribution N(m, P) over a new user's z, at first N(0, 1). The
next question is the item with the largest

    (s_i + l_i.m) * sum_j s_j (l_j P l_i)^2 / (l_i P l_i + v_i)

the probability that the user knows it, times the reduction of uncertainty about all items by knowing it, each counted
by its share: a Bayesian A-optimal design (Chaloner & Verdinelli 1995, "Bayesian Experimental Design: A Review") for
the trade-off of Rashid et al. 2002 ("Getting to Know You") between popular and discriminating items. Items that
resemble an earlier question are worth little, which makes the questions diverse.

Shape legend: B new users, M items that may be asked about, D factors, N users of the training data.
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

from palate.errors import DataError
from palate.recommend import Recommender

Floats = NDArray[np.float64]

FACTORS = 8
MAX_ITEMS = 1_000  # the most known items: a question about a rare one is nearly always answered "don't know"
MAX_USERS = 50_000  # evenly spaced; more do not change the factors
# Weight of the answer "don't know" relative to "know": there are many reasons not to know an item.
UNKNOWN_WEIGHT = 0.2


@dataclass(frozen=True, eq=False)
class Tastes:
    """The factor model of the items that users know, fitted to the training histories.

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
        """The tastes in the training history of a recommender.

        Raises:
            DataError: it has no history.
        """
        seen, items = recommender.positive, len(recommender.items)
        users = np.flatnonzero(seen.counts)
        if not len(users):
            raise DataError(
                f"{recommender.name or 'the recommender'} has no training history to choose questions from: "
                "save the bundle again with its training rows"
            )
        users = users[np.linspace(0, len(users) - 1, min(MAX_USERS, len(users))).astype(np.int64)]
        history = seen.select(users)
        owner = np.repeat(np.arange(len(users)), history.counts)
        known = sparse.csr_array((np.ones(len(owner)), (owner, history.items)), shape=(len(users), items))
        known.sum_duplicates()
        known.data[:] = 1.0
        count_I = np.asarray(known.sum(axis=0)).ravel()
        item_M = np.argsort(-count_I, kind="stable")[: min(MAX_ITEMS, int((count_I > 0).sum()))]
        known_NM = known[:, item_M]
        share_M = np.asarray(known_NM.mean(axis=0), np.float64).ravel()
        loading_MD = _loadings(known_NM, share_M)
        # Factors can explain more than a rare item's variance; the update divides by the noise.
        noise_M = np.maximum(share_M * (1 - share_M) - np.square(loading_MD).sum(1), 1e-4)
        return cls(item_M, share_M, loading_MD, noise_M)

    @cached_property
    def worth(self) -> Floats:
        """sum_j s_j l_j l_j^T, (D, D): the weight of each direction of taste, summed over items."""
        worth_DD: Floats = (self.loading * self.share[:, None]).T @ self.loading
        return worth_DD

    def questions(self, n: int) -> NDArray[np.int64]:
        """Positions (n,) in ``item`` of a list that is shown at once: each question counts its expected answer."""
        interview = Interview(self, 1)
        places = np.empty(min(n, len(self.item)), np.int64)
        for turn in range(len(places)):
            place_B = interview.next()
            interview.answer(place_B, interview.probability(place_B))
            places[turn] = place_B[0]
        return places


class Interview:
    """The state of an interview with B new users, who are all asked at once.

    Args:
        tastes: of the training users.
        users: B. Default: 1.
    """

    def __init__(self, tastes: Tastes, users: int = 1) -> None:
        width = tastes.loading.shape[1]
        self.tastes = tastes
        self.mean_BD = np.zeros((users, width))
        self.spread_BDD = np.repeat(np.eye(width)[None], users, axis=0)
        self.asked_BM = np.zeros((users, len(tastes.item)), dtype=bool)

    def next(self) -> NDArray[np.int64]:
        """The position (B,) in ``tastes.item`` of each user's next question; -1 where all have been asked.

        Of items with equal gain, the one that more users know is asked first.
        """
        tastes = self.tastes
        reach_BMD = tastes.loading @ self.spread_BDD
        doubt_BM = np.einsum("bmd,md->bm", reach_BMD, tastes.loading) + tastes.noise
        gain_BM = np.einsum("bmd,bmd->bm", reach_BMD @ tastes.worth, reach_BMD) / doubt_BM
        gain_BM *= np.clip(tastes.share + self.mean_BD @ tastes.loading.T, 0.01, 0.99)
        # Rounded: gains that differ in the last digits of floating point are equal on every machine.
        gain_BM = np.round(gain_BM / np.maximum(gain_BM.max(axis=1, keepdims=True), 1e-12), 9)
        gain_BM[self.asked_BM] = -np.inf
        return np.where(self.asked_BM.all(1), -1, gain_BM.argmax(1))

    def probability(self, place_B: NDArray[np.int64]) -> Floats:
        """The probability (B,) that each user knows the item by the linear model, which may leave the range 0..1."""
        tastes = self.tastes
        probability_B: Floats = tastes.share[place_B] + (self.mean_BD * tastes.loading[place_B]).sum(1)
        return probability_B

    def answer(self, place_B: NDArray[np.int64], known_B: NDArray[Any]) -> None:
        """Update the state by the answers.

        Args:
            place_B: positions of the items asked about.
            known_B: whether each user knows the item: 1 or 0, or the probability that they do.
        """
        tastes = self.tastes
        loading_BD, noise_B = tastes.loading[place_B], tastes.noise[place_B]
        weight_B = np.clip(UNKNOWN_WEIGHT + (1 - UNKNOWN_WEIGHT) * known_B, UNKNOWN_WEIGHT, 1)
        # A Kalman update of rank one, whose noise grows where the answer counts less.
        reach_BD = np.einsum("bde,be->bd", self.spread_BDD, loading_BD)
        step_BD = reach_BD * (weight_B / (noise_B + weight_B * (reach_BD * loading_BD).sum(1)))[:, None]
        self.mean_BD = self.mean_BD + step_BD * (known_B - self.probability(place_B))[:, None]
        self.spread_BDD = self.spread_BDD - step_BD[:, :, None] * reach_BD[:, None, :]
        self.asked_BM[np.arange(len(place_B)), place_B] = True


def onboarding_items(recommender: Recommender, n: int = 10) -> pl.DataFrame:
    """The n items to show a new user: item_id, rank, share, why, and title where titles are known.

    ``share`` is the share of the training users who know the item; ``why`` names the items that knowing it speaks most
    for and against.

    Args:
        recommender: of any model; only its training history is used.
        n: length of the list, which is shorter where the catalog is. Default: 10.

    Raises:
        DataError: n is below 1, or there is no training history.
    """
    if n < 1:
        raise DataError(f"n={n}: ask about at least 1 item")
    tastes = Tastes.of(recommender)
    places = tastes.questions(n)
    names = recommender.items.ids if recommender.titles is None else recommender.titles
    why = []
    for place in places:
        shift_M = tastes.loading @ tastes.loading[place]  # covariance of knowing this item with knowing others
        shift_M[place] = 0.0
        words = [
            f"{side} {names[int(tastes.item[other])]}"
            for side, other, sign in (("for", shift_M.argmax(), 1), ("against", shift_M.argmin(), -1))
            if sign * shift_M[other] > 1e-3
        ]
        why.append(f"knowing it speaks {' and '.join(words)}" if words else "many know it")
    item = tastes.item[places]
    frame = pl.DataFrame(
        {
            "item_id": recommender.items.external(item),
            "rank": pl.Series(np.arange(1, len(item) + 1), dtype=pl.Int32),
            "share": pl.Series(tastes.share[places], dtype=pl.Float32),
            "why": pl.Series(why, dtype=pl.String),
        }
    )
    return frame if recommender.titles is None else frame.with_columns(title=recommender.titles.gather(item))


def _loadings(known_NM: sparse.csr_array, share_M: Floats) -> Floats:
    """Leading singular vectors of the centered matrix, scaled to a covariance (M, D); never stored dense."""
    users, items = known_NM.shape
    factors = min(FACTORS, users - 1, items - 1)
    if factors < 1 or not (share_M < 1).any():  # all users know the same items
        return np.zeros((items, 1))
    centered = LinearOperator(
        known_NM.shape,
        dtype=np.float64,
        matvec=lambda x: known_NM @ x.ravel() - share_M @ x.ravel(),
        rmatvec=lambda y: known_NM.T @ y.ravel() - share_M * y.sum(),
    )
    # A fixed start: the iterative solver would draw one, and the list would change from run to run.
    start = np.random.default_rng(0).standard_normal(min(users, items))
    _, size_D, vector_DM = svds(centered, k=factors, v0=start, return_singular_vectors="vh")
    loading_MD: Floats = vector_DM.T * (size_D / np.sqrt(users))
    return loading_MD
