"""MF: matrix factorization of explicit ratings.

    rating(u, i) = mean + b_u + b_i + p_u . q_i          (Koren, Bell & Volinsky 2009, eq. 4; without biases: p_u . q_i)

    "adam", "sgd"   sum over ratings of e^2, plus L2 of the vectors that grows with the ratings of a row to the power v,
                    plus L2 d of each bias (see ``rating_prior``), in shuffled batches
    "descent"       mean over ratings of e^2, plus l (|P|^2 + |Q|^2), by full-batch gradient descent with the moving
                    average v = 0.9 v + 0.1 g that starts at the first gradient (system C as published); P and Q start
                    at 11 U(0, 1) / K and there are no biases and no mean

The strengths l, v and d, the size of the batches and the learning rate are taken from the data unless they are set.
Biases start at damped means, the solution without vectors, which vanish where ratings tell no more than the means.

Implicit data are learned as ratings of 1 against unseen items drawn as ratings of 0.

Fold-in of a new user: ridge regression on the item vectors (see ``rating_factors``), around the mean user.

Memory of "descent" is the two tables, their gradients and moving averages, and K numbers per rating of a chunk; the
products with the residuals are those of sparse matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from palate.base import Batch, DataSpec, TrainOptions
from palate.data.dataset import Dataset
from palate.errors import RecipeError
from palate.models.rating_factors import (
    FOLD_IN_FLOOR,
    RatingFactors,
    RatingRecipe,
    RidgeFoldIn,
    rating_batches,
    ratings_of,
)
from palate.models.rating_prior import MOST_BATCH, RATE, Ratings
from palate.progress import ProgressEvent, silent
from palate.training import trainer as training
from palate.training.negative_sampling import report_users_without_negatives
from palate.training.optimizers import decaying

Floats = NDArray[np.floating[Any]]

MOMENTUM = 0.9
REPORT_EVERY = 50  # iterations of full-batch descent
CHUNK_ROWS = 1 << 18


@dataclass(frozen=True)
class MF(RatingRecipe[RatingFactors]):
    """Matrix factorization of ratings; further fields as in ``RatingRecipe``.

    Args:
        biases: add the mean rating and a bias for each user and item.
        optimizer: "adam", "sgd" (both in batches) or "descent" (full batch, as published), whose ``epochs`` are
            iterations and whose ``regularization`` is 0 unless it is set.
    """

    name: ClassVar[str] = "mf"

    biases: bool = True
    optimizer: Literal["adam", "sgd", "descent"] = "adam"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer == "descent" and self.biases:
            raise RecipeError("optimizer='descent' is the published recipe, which has no biases: set biases=False")

    @classmethod
    def fast(cls) -> Self:
        """Fewer epochs."""
        return cls(epochs=20)

    @classmethod
    def published(cls, dim: int, regularization: float = 0.0) -> Self:
        """System C: no biases, 2,000 iterations of full-batch descent; K and l were not published."""
        return cls(
            dim, biases=False, optimizer="descent", epochs=2000, learning_rate=0.01, regularization=regularization
        )

    def build(self, spec: DataSpec) -> RatingFactors:
        """Random vectors of the right sizes, zero biases."""
        fold_in = RidgeFoldIn(spec, self.dim)
        return RatingFactors(spec, self.dim, fold_in)

    def _for_rows(self, rows: Dataset) -> Self:
        """As in ``RatingRecipe``; descent takes the published values."""
        if self.optimizer != "descent":
            return super()._for_rows(rows)
        ridge, rate = self.regularization, self.learning_rate
        return replace(self, regularization=0.0 if ridge is None else ridge, learning_rate=rate or 0.01)

    def _fit(self, train: Dataset, options: TrainOptions) -> RatingFactors:
        """Learn from the ratings of ``train``.

        "descent" calls ``options.progress`` and ``options.validation_callback`` every 50 iterations, whose best
        vectors it keeps.
        """
        if not train.explicit:
            report_users_without_negatives(train, self.name, options.progress)
        ratings = ratings_of(train, self.negatives, options.seed)
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            model = self.build(DataSpec(train.n_users, train.n_items))
            model.set_scale(ratings, centered=self.biases)
            if self.optimizer == "descent":
                _descend(self, model, ratings, options)
                # The penalty is on each vector once, against the mean over all ratings.
                ridge = max((self.regularization or 0.0) * len(ratings.user), FOLD_IN_FLOOR)
                model.fold_in.precision.copy_(ridge * torch.eye(self.dim + 1))
            else:
                self.begin(model, ratings, 0 if train.explicit else self.negatives)
                training.fit(self, train, options, model)
        model.settle(train, self.negatives)
        if not self.biases:
            model.fold_in.precision[0, -1, -1] = 1e9  # holds the user's bias at 0
        model.fold_in.center.copy_(model.typical)
        return model

    def batches(self, train: Dataset, seed: int, epoch: int) -> Iterator[Batch]:
        """Ratings in random order: user, item and target (N,); negatives are redrawn in each epoch."""
        return rating_batches(train, self.negatives, self.batch_size or MOST_BATCH, seed, epoch)

    def loss(self, module: Any, batch: Batch) -> Tensor:
        """Mean squared error of the batch plus the L2 of the vectors behind each rating."""
        error = module.pairs(batch.user, batch.item) - batch.target
        return cast(Tensor, (error.square() + module.penalty(batch.user, batch.item)).mean())

    def optimizers(self, module: Any) -> list[torch.optim.Optimizer]:
        """Fused Adam, or plain SGD, over both tables; without biases their columns stay at zero."""
        tables = list(module.parameters())
        if not self.biases:
            for table, column in zip(tables, (self.dim, self.dim + 1), strict=True):
                kept = torch.ones(table.shape[1], device=table.device)
                kept[column] = 0
                table.register_hook(kept.mul)  # a gradient of 0 keeps the column where it is, under Adam too
        rate = self.learning_rate or RATE
        if self.optimizer == "sgd":
            # A row is in few ratings of a batch, so the mean over the batch would make its steps vanish.
            optimizer: torch.optim.Optimizer = torch.optim.SGD(tables, rate * (self.batch_size or MOST_BATCH) / 2)
        else:
            optimizer = torch.optim.Adam(tables, rate, fused=True)
        return [decaying(optimizer, module.steps)]


def _descend(recipe: MF, model: RatingFactors, ratings: Ratings, options: TrainOptions) -> None:
    """Full-batch descent with the published momentum; the vectors of ``model`` are those of the best or last report."""
    rng = np.random.default_rng(options.seed)
    users, items = len(model.user_table.weight), len(model.item_table.weight)
    # By user, so that the residuals are the data of a sparse matrix whose pattern never changes.
    order = np.lexsort((ratings.item, ratings.user))
    user, item, value = ratings.user[order], ratings.item[order], ratings.value[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=users))])
    p, q = (np.asarray(11 * rng.random((n, recipe.dim)) / recipe.dim, np.float32) for n in (users, items))
    ridge, rate = recipe.regularization or 0.0, recipe.learning_rate or 0.01
    moving: list[Floats] = []
    best, waited = -np.inf, 0
    for iteration in range(recipe.epochs + 1):
        error = value - _products(p, q, user, item)
        if iteration % REPORT_EVERY == 0 or iteration == recipe.epochs:
            _place(model, p, q)
            if options.progress is not silent:
                values = {"loss": float(np.square(error).mean(dtype=np.float64))}
                options.progress(ProgressEvent("train mf", iteration, recipe.epochs, "iteration", values=values))
            if options.validation_callback is not None:
                current = options.validation_callback(model)
                best, waited = (current, 0) if current > best else (best, waited + 1)
                if not waited:
                    kept = p.copy(), q.copy()
                elif waited >= options.patience:
                    break
        residual = sparse.csr_array((error, item, starts), shape=(users, items))
        gradients = [
            np.asarray(-2 / len(value) * product + 2 * ridge * own, np.float32)
            for product, own in ((residual @ q, p), (residual.T @ p, q))
        ]
        if moving:
            gradients = [MOMENTUM * v + (1 - MOMENTUM) * g for v, g in zip(moving, gradients, strict=True)]
        moving = gradients
        p, q = (x - rate * v for x, v in zip((p, q), moving, strict=True))
    if options.validation_callback is not None:
        _place(model, *kept)


def _products(p: Floats, q: Floats, user: NDArray[np.int64], item: NDArray[np.int64]) -> Floats:
    """p_u . q_i of each pair (N,), in chunks."""
    parts = [slice(first, first + CHUNK_ROWS) for first in range(0, len(user), CHUNK_ROWS)]
    return np.concatenate([np.einsum("nk,nk->n", p[user[part]], q[item[part]]) for part in parts])


def _place(model: RatingFactors, p: Floats, q: Floats) -> None:
    """Put bare vectors into the tables, whose bias columns stay as they are."""
    with torch.no_grad():
        model.user_table.weight[:, : p.shape[1]] = torch.from_numpy(p)
        model.item_table.weight[:, : q.shape[1]] = torch.from_numpy(q)
