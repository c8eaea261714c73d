"""Numbers of the training rows that default values depend on (see ``Recipe.for_data``)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from palate.data.dataset import Dataset


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
