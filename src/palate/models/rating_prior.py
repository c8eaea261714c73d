"""Strength of regularization of rating models, by the ratings they learn from.

    sum over ratings of e^2 + l (N / U)^(1-v) sum_u n_u^v |p_u|^2 + d sum_u b_u^2 + the same of the items

N ratings of U users, n_u of user u. With v = 1 each rating is penalized (the weighted L2 of ALS-WR), with v = 0 each
user (a normal prior); users with few ratings overfit under the first, those with many are held back under the second.

    l = f s (n^-1/2 + m^-1/2),  f = 0.7     s: standard deviation of the ratings; n, m: mean ratings per user, per item
    d = s_e^2 / s_b^2                       variances within users and between them, by moments (Henderson 1953)

The L2 shrinks singular values of the residuals by a fixed part of the largest singular value of noise (see ``Scale``),
so that vectors vanish where the ratings do not say more than the means, and biases are the best linear predictors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.floating[Any]]
Rows = NDArray[np.int64]

# f and v, chosen on validation rows of FilmTrust, MovieLens, Amazon Music and on generated worlds (docs/models.md).
SHRINKAGE, EXPONENT = 0.7, 0.5
MOST_DAMPING = 1_000.0  # where users (or items) do not differ by more than chance
ROUNDS = 3
LEAST_BATCH, MOST_BATCH, BATCHES = 128, 2_048, 32  # ratings per step, and steps that an epoch should have
RATE = 0.005  # of Adam, for ratings with a standard deviation of 1


class Ratings(NamedTuple):
    """Targets to learn: user (N,), item (N,) int64 rows and value (N,) float32."""

    user: Rows
    item: Rows
    value: NDArray[np.float32]

    @property
    def mean(self) -> float:
        """The mean rating."""
        return float(self.value.mean(dtype=np.float64))

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest rating."""
        return float(self.value.min()), float(self.value.max())

    @property
    def deviation(self) -> float:
        """The standard deviation; 1 where all ratings are equal."""
        return float(self.value.std(dtype=np.float64)) or 1.0

    @property
    def noise(self) -> float:
        """n^-1/2 + m^-1/2 for n ratings per user and m per item."""
        return float(sum((len(np.unique(part)) / len(part)) ** 0.5 for part in (self.user, self.item)))


def fields_by_ratings(ratings: Ratings) -> dict[str, Any]:
    """Values of the fields that rating recipes leave to the data."""
    user_damping, item_damping = dampings(ratings)
    return {
        "regularization": SHRINKAGE * ratings.deviation * ratings.noise,
        "exponent": EXPONENT,
        "user_damping": user_damping,
        "item_damping": item_damping,
        "batch_size": min(MOST_BATCH, max(LEAST_BATCH, len(ratings.user) // BATCHES)),
        # Vectors are as long as the root of the ratings that their products add up to.
        "learning_rate": RATE * ratings.deviation**0.5,
    }


def dampings(ratings: Ratings) -> tuple[float, float]:
    """d of the users' biases, and of the items' given those."""
    rest = ratings.value.astype(np.float64) - ratings.mean
    user_damping = damping(rest, ratings.user)
    user_bias = damped_means(rest, ratings.user, int(ratings.user.max()) + 1, user_damping)
    return user_damping, damping(rest - user_bias[ratings.user], ratings.item)


def damping(values: Floats, group: Rows) -> float:
    """Variance of values (N,) within groups over that between them, estimated by moments."""
    counts = np.bincount(group)
    total = np.bincount(group, values)
    mean = total / np.maximum(counts, 1)
    n, groups = len(values), int((counts > 0).sum())
    within = float(np.square(values - mean[group]).sum()) / max(n - groups, 1)
    spread = float((counts * np.square(mean - values.mean())).sum()) - (groups - 1) * within
    between = spread / max(n - float(np.square(counts).sum()) / n, 1e-9)
    return within / max(between, within / MOST_DAMPING, 1e-12)


def damped_means(values: Floats, group: NDArray[Any], n: int, damping: float) -> NDArray[np.float64]:
    """Damped mean (n,) of the values (N,) in each group; 0 for an empty one."""
    total = np.bincount(group, values, minlength=n)
    result: NDArray[np.float64] = total / np.maximum(np.bincount(group, minlength=n) + damping, 1e-9)
    return result


def biases(
    ratings: Ratings, shape: tuple[int, int], user_damping: float, item_damping: float, rounds: int = ROUNDS
) -> tuple[Floats, Floats]:
    """Damped means of the residuals of users and items, users first, in turns."""
    rest = ratings.value.astype(np.float64) - ratings.mean
    user_bias, item_bias = (np.zeros(n) for n in shape)
    for _ in range(rounds):
        user_bias = damped_means(rest - item_bias[ratings.item], ratings.user, shape[0], user_damping)
        item_bias = damped_means(rest - user_bias[ratings.user], ratings.item, shape[1], item_damping)
    return user_bias, item_bias


class Penalties(NamedTuple):
    """L2 of each vector and bias per rating that it is in: of users (U,) and items (I,)."""

    user: Tensor
    item: Tensor
    user_bias: Tensor
    item_bias: Tensor

    @classmethod
    def of(
        cls,
        ratings: Ratings,
        shape: tuple[int, int],
        regularization: float,
        exponent: float,
        dampings: tuple[float, ...],
    ) -> Penalties:
        """Those of the module's docstring, over the ratings of each row."""
        vectors, scalars = [], []
        for rows, n, d in zip((ratings.user, ratings.item), shape, dampings, strict=True):
            counts = np.maximum(np.bincount(rows, minlength=n), 1)
            typical = len(rows) / len(np.unique(rows))
            vectors.append(regularization * (counts / typical) ** (exponent - 1))
            scalars.append(d / counts)
        return cls(*(torch.from_numpy(one.astype(np.float32)) for one in (*vectors, *scalars)))

    def to(self, device: torch.device) -> Penalties:
        """The same on another device."""
        return Penalties(*(one.to(device) for one in self))
