"""iALS that knows items by their features, too: new items are ranked at once, and those with few events lean on them.

Each item vector has a normal prior around a linear map of its features x_i, instead of one around zero:

    L = sum_{(u,i) in S} w_ui (t_ui - p_u.q_i)^2 + a sum_{u,i} (p_u.q_i)^2 + sum_u l_u |p_u|^2
        + sum_i l_i |q_i - W'x_i|^2

(Agarwal & Chen 2009, "Regression-based Latent Factor Models", KDD, eq. 2 and 3, for the objective of ``ials``.) W is
fitted by ridge regression between the half-steps,

    W = argmin sum_i c_i |q_i - W'x_i|^2 + r |W|^2,    c_i = n_i / (n_i + n)

with n_i events of the item and n of the mean item: a vector of few events is uncertain. r is the one of ``STRENGTHS``
that predicts a fifth of the items best from the others. An item without events has the vector W'x_i (Gantner et al.
2010, "Learning Attribute-to-Feature Mappings for Cold-Start Recommendations", ICDM).

Without item features the model is that of ``ials``. Fold-in and contributions are its as well.

Shape legend: I items, D width, F inputs of the map (1, codes and numbers), N rows of a feature table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import sparse

from palate.base import DataSpec, TrainOptions
from palate.data.dataset import Dataset
from palate.data.features import FeatureSchema, FeatureTable
from palate.errors import ModelError
from palate.models.ials import IALS, ALSModel, Alternation
from palate.models.least_squares import Floats

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # r, to choose from
HELD_OUT = 5  # every fifth item
STEPS, TOLERANCE = 200, 1e-5  # of the conjugate gradients


class FeatureALSModel(ALSModel):
    """User and item vectors, and the map from features to item vectors.

    Args:
        spec: rows of the tables, and the item features that were read.
        recipe: the objective.
    """

    feature_weight: torch.Tensor

    def __init__(self, spec: DataSpec, recipe: FeatureIALS) -> None:
        super().__init__(spec, recipe)
        self.spec, self.recipe = spec, recipe
        self.register_buffer("feature_weight", torch.zeros(inputs_of(self._table), recipe.dim))

    def with_items(self, features: pl.DataFrame) -> Self:
        """This model with the items of a feature table behind its own; all else is shared, and this one stays as it is.

        Raises:
            DataError: the table lacks a column that was read.
            ModelError: the model was trained without item features.
        """
        if not self._table.columns:
            raise ModelError("the model reads no item features: fit it on rows with item features")
        design = design_matrix(self._table, features, len(features))
        new = torch.from_numpy(design @ self.feature_weight.cpu().numpy()).to(self.item_table.weight)
        state = self.state_dict()
        state["item_table.weight"] = torch.cat([state["item_table.weight"], new])
        # Built without memory, then given the tensors of this model: only the item table is copied.
        with torch.device("meta"):
            model = type(self)(self.spec._replace(items=self.spec.items + len(features)), self.recipe)
        model.load_state_dict(state, strict=True, assign=True)
        model.trained_on = self.trained_on
        return model.eval()

    @property
    def _table(self) -> FeatureTable:
        return FeatureTable() if self.spec.features is None else self.spec.features.items


def inputs_of(table: FeatureTable) -> int:
    """F: a constant, the codes and the numbers."""
    return 1 + table.codes + table.numbers


def design_matrix(table: FeatureTable, frame: pl.DataFrame | None, rows: int) -> sparse.csr_array:
    """The inputs of the map, (N, F); the weights of the codes of one column sum to 1."""
    codes_NS, weights_NS, numbers_NF = table.encode(frame if table.columns else pl.DataFrame())
    row, slot = np.nonzero(codes_NS)
    values = sparse.csr_array((weights_NS[row, slot], (row, codes_NS[row, slot] - 1)), shape=(rows, table.codes))
    numbers = sparse.csr_array(numbers_NF.reshape(rows, table.numbers))
    made: sparse.csr_array = sparse.hstack([sparse.csr_array(np.ones((rows, 1), np.float32)), values, numbers], "csr")
    return made


def ridge_map(design: sparse.csr_array, vector_ID: Floats, weight_I: Floats, strength: float) -> NDArray[np.float32]:
    """W (F, D) of the module's docstring for r = ``strength``, by conjugate gradients on all columns at once."""
    weighted = design.T.multiply(weight_I[None]).tocsr()
    penalty_F1 = np.full((design.shape[1], 1), strength)
    penalty_F1[0] = 1e-3 * strength  # the mean item should not be shrunk
    diagonal_F1 = weighted.multiply(design.T).sum(1).reshape(-1, 1) + penalty_F1
    residual_FD = (weighted @ vector_ID).astype(np.float64)
    found_FD = np.zeros_like(residual_FD)
    direction_FD = solved_FD = residual_FD / diagonal_F1
    size_D = np.einsum("fd,fd->d", residual_FD, solved_FD)
    start_D = np.maximum(size_D, np.finfo(np.float64).tiny)
    for _ in range(STEPS):
        if (size_D <= TOLERANCE**2 * start_D).all():
            break
        image_FD = weighted @ (design @ direction_FD) + penalty_F1 * direction_FD
        length_D = size_D / np.maximum(np.einsum("fd,fd->d", direction_FD, image_FD), np.finfo(np.float64).tiny)
        found_FD += length_D * direction_FD
        residual_FD -= length_D * image_FD
        solved_FD = residual_FD / diagonal_F1
        before_D, size_D = size_D, np.einsum("fd,fd->d", residual_FD, solved_FD)
        direction_FD = solved_FD + size_D / np.maximum(before_D, np.finfo(np.float64).tiny) * direction_FD
    made: NDArray[np.float32] = found_FD.astype(np.float32)
    return made


class FeatureAlternation(Alternation):
    """Alternation whose item vectors have a prior by features.

    Args:
        recipe, train, seed: as for ``Alternation``.
        schema: the features to read.
    """

    def __init__(self, recipe: FeatureIALS, train: Dataset, seed: int, schema: FeatureSchema) -> None:
        super().__init__(recipe, train, seed)
        self.design = design_matrix(schema.items, train.item_features, train.n_items)
        self.count_I = np.bincount(train.interactions.item, minlength=train.n_items)
        known_I = self.count_I > 0
        self.weight_I = np.where(known_I, self.count_I / (self.count_I + self.count_I[known_I].mean()), 0.0)
        self.strength: float | None = None

    def prior(self, item_ID: Floats) -> Floats | None:
        """W'x_i of the current item vectors, (I, D); None where there are no features."""
        return None if self.design.shape[1] == 1 else (self.design @ self.map(item_ID)).astype(np.float32)

    def map(self, item_ID: Floats) -> NDArray[np.float32]:
        """W of the current item vectors, (F, D)."""
        if self.strength is None:
            self.strength = self._best_strength(item_ID)
        return ridge_map(self.design, item_ID, self.weight_I, self.strength)

    def _best_strength(self, item_ID: Floats) -> float:
        held_I = np.arange(len(item_ID)) % HELD_OUT == 0
        errors = []
        for strength in STRENGTHS:
            map_FD = ridge_map(self.design, item_ID, np.where(held_I, 0.0, self.weight_I), strength)
            error_ID = item_ID[held_I] - self.design[held_I] @ map_FD
            errors.append(float(self.weight_I[held_I] @ (error_ID**2).sum(1)))
        return STRENGTHS[int(np.argmin(errors))]


@dataclass(frozen=True)
class FeatureIALS(IALS):
    """iALS whose item vectors lean on the features of the items, so that it ranks items without events.

    Args:
        item_features: columns to read, as "name" or "name:kind" (kinds: see ``palate.data.features``), "*" for all.
            Given vectors, such as embeddings of a text (``palate.text_vectors``), are columns of lists of numbers.
    """

    name: ClassVar[str] = "feature-ials"

    item_features: tuple[str, ...] = ("*",)

    def build(self, spec: DataSpec) -> FeatureALSModel:
        """An untrained model with tables of the given sizes and features."""
        return FeatureALSModel(spec, self)

    def _start(self, train: Dataset, options: TrainOptions) -> tuple[Alternation, DataSpec]:
        schema = FeatureSchema.fit(train, (), self.item_features)
        state = FeatureAlternation(self, train, options.seed, schema)
        return state, DataSpec(train.n_users, train.n_items, schema)

    def _finish(self, model: ALSModel, state: Alternation) -> None:
        assert isinstance(model, FeatureALSModel)
        assert isinstance(state, FeatureAlternation)
        if state.design.shape[1] == 1:
            return
        map_FD = state.map(state.item_ID)
        model.feature_weight.copy_(torch.from_numpy(map_FD))
        # The objective shrinks items without events; a new item could not have any.
        unknown_I = state.count_I == 0
        vectors: Any = state.design[unknown_I] @ map_FD
        model.item_table.weight[torch.from_numpy(unknown_I)] = torch.from_numpy(vectors)
