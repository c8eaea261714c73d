"""Numbers of the training rows that default values depend on (see ``Recipe.for_data``)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import svds

from palate.data.dataset import Dataset

LEAST_SIZE = 200  # users and items from which ``taste`` can tell
# f of ``softmax_l2``, by how clear tastes are, and at most: chosen on validation rows of ml-100k, Amazon Music, Beauty.
CLEAR_SHRINKAGE, MOST_SHRINKAGE = 0.0025, 0.5


class Scale(NamedTuple):
    """Users and items with rows, and the mean rows of each."""

    users: int
    items: int
    per_user: float
    per_item: float

    @classmethod
    def of(cls, rows: Dataset) -> Scale:
        """The scale of rows, of which there is at least one."""
        users, items = (len(np.unique(part)) for part in (rows.interactions.user, rows.interactions.item))
        return cls(users, items, len(rows) / users, len(rows) / items)

    @property
    def noise(self) -> float:
        """Noise of the observed matrix over its signal per row, n^-1/2 + m^-1/2.

        A matrix of random ones with n per row and m per column has singular values up to about n^1/2 + m^1/2; the L2 of
        its rows and columns shrinks singular values by about (n m)^1/2 times the L2 per observed entry. An L2 per entry
        in proportion to this number shrinks the same part of the noise on any data.
        """
        return float(self.per_user**-0.5 + self.per_item**-0.5)


def taste(rows: Dataset, unobserved_weight: float) -> float:
    """How far tastes stand out of noise: about 1 where nothing but popularity can be learned, from 1.1 on elsewhere.

    The second singular value of the matrix of positive rows, over that of the same matrix with its items shuffled,
    which keeps only how active users and how popular items are (Horn 1965, "A Rationale and Test for the Number of
    Factors in Factor Analysis"). The first one is popularity. A row counts 1 over the root of the amounts of its user
    and item. Infinite below 200 users or items, where a single user could decide.

    Args:
        rows: of which there is at least one.
        unobserved_weight: of each cell in the amounts, in which a row has 1; above 0.
    """
    kept = rows.interactions.weight > 0
    user, item = rows.interactions.user[kept], rows.interactions.item[kept]
    users, items = rows.n_users, rows.n_items
    if min(users, items) < LEAST_SIZE:
        return np.inf
    scale_U, scale_I = (
        diags_array((np.bincount(side, minlength=size) + unobserved_weight * others).astype(np.float32) ** -0.5)
        for side, size, others in ((user, users, items), (item, items, users))
    )
    start, second = np.ones(min(users, items), np.float32), []
    for column in (item, np.random.default_rng(0).permutation(item)):
        matrix_UI = csr_array((np.ones(len(user), np.float32), (user, column)), shape=(users, items))
        matrix_UI.data[:] = 1  # pairs that occur twice
        matrix_UI = scale_U @ matrix_UI @ scale_I
        # To a thousandth, which takes a few dozen products.
        second.append(float(svds(matrix_UI, k=2, tol=1e-3, v0=start, return_singular_vectors=False).min()))
    return second[0] / max(second[1], float(np.finfo(np.float32).tiny))


def softmax_l2(rows: Dataset, factor: float = CLEAR_SHRINKAGE, least: float = 0.0) -> float:
    """L2 for networks that are trained by a softmax over items whose scores start at log popularity.

    The gradient of such a softmax at vectors of zero is the number of rows of each pair minus the number expected by
    popularity. Divided by the roots of the rows of its user and item, this matrix has singular values up to about
    ``Scale.noise`` where users take items at random, and

        l/2 (|p_u|^2 + |q_i|^2) for each row (u, i),    l = f (n^-1/2 + m^-1/2)

    keeps all directions whose singular value is below l at zero: f = 1 removes noise, and tastes that drown in it. Here
    f is 0.5 where nothing but popularity can be learned or users or items are too few to tell, and 0.0025 (t - 1)^-2 at
    a ``taste`` of t: 0.001 on ml-100k, 0.012 on Amazon Beauty.

    Args:
        rows: of which there is at least one.
        factor: the 0.0025 of f.
        least: the smallest f. Networks that share their weights among all users need little where tastes are clear, and
            a free vector for each user needs 0.4.
    """
    scale = Scale.of(rows)
    clear = taste(rows, min(1.0, 10 * scale.per_user / scale.items)) - 1
    part = factor * clear**-2 if 0 < clear < np.inf else MOST_SHRINKAGE
    return float(np.clip(part, least, MOST_SHRINKAGE)) * scale.noise
