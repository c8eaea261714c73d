"""iALS and WALS: matrix factorization by alternating exact least squares.

    L(P, Q) = sum_{(u,i) in S} w_ui (t_ui - p_u.q_i)^2 + a sum_{u,i} (p_u.q_i)^2 + sum_u l_u |p_u|^2 + sum_i l_i |q_i|^2
    l_u = l (sum_i w_ui + a I)^v,    l_i = l (sum_u w_ui + a U)^v

S are the observed rows, a is the weight of the square of every score, observed or not, and l_u is scaled by the amount
of data of a row (Rendle, Krichene, Zhang & Koren 2022, "Revisiting the Performance of iALS on Item Recommendation
Benchmarks", eq. 3 to 5, after Hu, Koren & Volinsky 2008).

    iALS   t = 1 (0 for a dislike), w = the row's confidence (see ``confidence``): implicit feedback
    WALS   t = rating - mean, w = 1, a = 0 by default: ratings; predicts mean + p_u.q_i (the mean is the items' bias)

By default IALS takes a and l from the data. With n and m the mean events per user and per item,

    a = min(1, c density),   c = 10                unobserved cells weigh ten times as much as observed ones
    l = f (n^1/2 + m^1/2) (n + a I)^-v/2 (m + a U)^-v/2,   f = 0.7, up to 2 where tastes are no more than noise

The ridges of a mean user and a mean item shrink the singular values of the observed matrix by about their geometric
mean, which is then f (n^1/2 + m^1/2): a fixed part of the largest singular value of random rows, which is noise (see
``benchmarks/ials_defaults.py`` for the study that chose c and f). Where no direction but popularity stands out of noise
(see ``scale.taste``), f rises to 2, which leaves popularity alone. The published a = 0.1, l = 0.003 on ML-20M, 0.02 and
0.002 on MSD are c = 28 and 14, f = 0.5 and 0.2 in these terms; on a catalog ten times as wide with fewer events per
user the same numbers shrink all that is personal away.

Rows are solved exactly, or in blocks of coordinates (see ``least_squares``). Where a > 0 the item vectors start from
the leading singular vectors of the matrix w t, zero where nothing was observed: they would be the solution if all
entries weighed the same. That takes a fraction of an epoch and saves half of the epochs or more.

With ``half_life_events`` user vectors are solved once more after training, with w times the weight of recency (see
``Recency``): the next events resemble the latest ones.

Fold-in of a new user: the exact solution of the user's row, which is also the vector of a trained user. The score is a
sum over the events j of the history (Hu, Koren & Volinsky 2008, eq. 7):

    A_u p_u = sum_j w_j t_j q_j,    A_u = sum_j w_j q_j q_j^T + a Q^T Q + l_u
    score(u, i) = p_u . q_i (+ b_i) = sum_j  w_j t_j q_i . A_u^-1 q_j  (+ b_i)

A dislike has target 0 in iALS: it adds nothing, but changes A_u, and with it the parts of the others.

Shape legend: U users, I items, D width, E width of an item vector; R rows of the side being solved, N columns of the
other; B users of a query, C candidates, S new users, H events.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.base import Contributions, DataSpec, Query, Recipe, TrainOptions
from palate.bounds import Fraction, NonNegative, Positive, Rounds, Width
from palate.data.dataset import Dataset
from palate.errors import RecipeError
from palate.models.confidence import Confidence, Weighting
from palate.models.dot_product import EVENLY, DotProductModel, Events, FoldIn, Recency, events_of, positive_events
from palate.models.least_squares import Floats, Rows, diagonal, leading_vectors, solve_rows, solved_parts
from palate.models.scale import Scale, taste
from palate.parallel import one_blas_thread
from palate.progress import ProgressEvent, silent

LOSS_CELLS = 4_000_000  # numbers gathered at once by ``Alternation.loss``
# c and f of the module's docstring.
UNOBSERVED_SHARE, SHRINKAGE = 10.0, 0.7
TASTE, NO_TASTE_SHRINKAGE = (1.03, 1.1), 2.0  # below, between and above: all noise is shrunk away, some, a part
EXACT_WIDTH, BLOCK = 128, 64  # beyond this width blocks reach the same objective in less time


class LeastSquares(FoldIn):
    """The exact row of a new user, in double precision, so that a batch equals one by one.

    Args:
        recipe: regularization and weights of the training.
    """

    spectrum: Tensor
    lowest: Tensor

    def __init__(self, recipe: _Als) -> None:
        super().__init__(Recency(recipe.half_life_events, recipe.floor))
        self.recipe = recipe
        self.confidence = Confidence(recipe.row_weighting)
        self.register_buffer("spectrum", torch.zeros(recipe.dim))  # diagonal of Q^T Q
        self.register_buffer("lowest", torch.zeros(()))  # the target of a dislike

    def forward(self, item_IE: Tensor, typical_D: Tensor, events: Events) -> Tensor:
        """Solutions (S, D)."""
        solved = solve_rows(*self._problem(item_IE, events))
        return torch.from_numpy(solved).to(item_IE.device, item_IE.dtype)

    def parts(self, item_IE: Tensor, events: Events, items_SC: Tensor) -> Tensor:
        """The part of each event in the scores of its user's candidates, (H, C)."""
        parts = solved_parts(*self._problem(item_IE, events), items_SC.cpu().numpy())
        return torch.from_numpy(parts).to(item_IE.device, item_IE.dtype)

    def _problem(self, item_IE: Tensor, events: Events) -> tuple[Floats, Floats, Rows]:
        """Item vectors (I, D), the penalty (D,) and the rows of the new users."""
        item = item_IE.cpu().numpy()
        offsets, columns, strength, recency = (t.cpu().numpy() for t in events)
        recipe = self.recipe
        bias = item[columns, recipe.dim] if recipe.bias else None
        targets, weights = recipe.observed(strength, bias, float(self.lowest)), self.confidence.of(strength)
        if self.recency != EVENLY:
            weights = recency if weights is None else weights * recency
        ridge = recipe.ridge(offsets, weights, len(item)).astype(np.float64)
        penalty = recipe.strengths[0] * self.spectrum.cpu().numpy().astype(np.float64)
        return item[:, : recipe.dim], penalty, Rows(offsets, columns, targets.astype(np.float64), weights, ridge)


class ALSModel(DotProductModel):
    """User vectors, item vectors, and new users solved exactly.

    Args:
        spec: rows of the tables.
        recipe: the objective.
    """

    fold_in: LeastSquares

    def __init__(self, spec: DataSpec, recipe: _Als) -> None:
        init_std = recipe.init_std / recipe.dim**0.5
        super().__init__(spec, recipe.dim, LeastSquares(recipe), bias=recipe.bias, init_std=init_std)

    @property
    def reads_ratings(self) -> bool:
        """Whether it was trained on ratings."""
        return self.bias

    def contributions(self, query: Query, items: Tensor) -> Contributions:
        """w t q_i . A^-1 q_j of each event; the rest is the bias, or the score of users without positive events."""
        known_B = positive_events(query) > 0
        item_IE = self.item_vectors()
        unknown = Query(torch.full_like(query.user, -1))
        rest_BC = self.score(unknown, items)
        if self.bias:
            rest_BC = item_IE[items, self.dim].where(known_B[:, None], rest_BC)
        else:
            rest_BC = rest_BC.where(~known_B[:, None], 0)
        event_HC = rest_BC.new_zeros(int(query.counts().sum()), items.shape[1])
        if bool(known_B.any()):
            index_S = known_B.nonzero().squeeze(1)
            events = events_of(query, index_S, self.fold_in.recency)
            known_H = torch.repeat_interleave(known_B, query.counts())
            event_HC[known_H] = self.fold_in.parts(item_IE, events, items[index_S])
        return Contributions(event_HC, rest_BC)


class Alternation:
    """The state of a fit: both sides, and the two half-steps. Memory: three times the rows, twice the vectors.

    Args:
        recipe: the objective; what it leaves to the data is chosen by the rows.
        train: the rows.
        seed: of the first item vectors.
    """

    def __init__(self, recipe: _Als, train: Dataset, seed: int) -> None:
        self.recipe = recipe = recipe.for_data(train)
        rows = train.interactions
        self.bias = float(rows.weight.mean(dtype=np.float64)) if recipe.bias else None
        self.lowest = float(rows.weight.min()) - (self.bias or 0.0) if recipe.bias else 0.0
        targets = recipe.observed(rows.weight, self.bias, self.lowest)
        self.confidence = Confidence(recipe.row_weighting).measure(train)
        weights = self.confidence.of(rows.weight)
        sides = (
            (rows.user, rows.item, train.n_users, train.n_items),
            (rows.item, rows.user, train.n_items, train.n_users),
        )
        self.by_user, self.by_item = (self._rows(*side, targets, weights) for side in sides)
        # Divided by the root of D below, so that vectors of any width start equally long.
        start = np.random.default_rng(seed).standard_normal((train.n_items, recipe.dim), dtype=np.float32)
        self.item_ID: Floats = start * np.float32(recipe.init_std / recipe.dim**0.5)
        if recipe.strengths[0] > 0:
            self.item_ID += leading_vectors(self.by_user, self.by_item, start)
        self.user_UD: Floats = np.zeros((train.n_users, recipe.dim), np.float32)
        self._past: list[Floats] = []  # items after the last step but one, before the last step, after it
        self._run = 0  # epochs since momentum started

    def _rows(
        self, mine: NDArray[np.int32], other: NDArray[np.int32], size: int, others: int, targets: Floats, weights: Any
    ) -> Rows:
        # Stable: entries of a row stay in the order of the log, on which the rounding of its sums depends.
        order = np.argsort(mine, kind="stable")
        offsets = np.concatenate([[0], np.bincount(mine, minlength=size).cumsum()])
        weights = None if weights is None else weights[order]
        # float32 here makes ``solve_rows`` work in single precision, twice as fast; the fold-in uses double.
        ridge = self.recipe.ridge(offsets, weights, others).astype(np.float32)
        return Rows(offsets, other[order], targets[order], weights, ridge)

    def epoch(self, last: bool = False) -> None:
        """Item step and user step, with momentum on the item vectors between them except in the last epoch."""
        self.solve_items()
        if not last:  # the model keeps solved vectors, not extrapolated ones
            self.extrapolate()
        self.solve_users()

    def solve_users(self) -> None:
        """Half-step: new user vectors for the item vectors."""
        self.item_ID, self.spectrum_D, self.user_UD, *self._past = diagonal(self.item_ID, self.user_UD, *self._past)
        self.user_UD = self._solve(self.item_ID, self.by_user, self.user_UD)

    def solve_items(self) -> None:
        """Half-step: new item vectors for the user vectors."""
        # The past turns along: momentum compares vectors, which only makes sense in the same coordinates.
        self.user_UD, self.spectrum_D, start, *self._past = diagonal(self.user_UD, self.item_ID, *self._past)
        self.item_ID = self._solve(self.user_UD, self.by_item, start, self.prior(start))
        self._past = [*self._past[-1:], start, self.item_ID]

    def prior(self, item_ID: Floats) -> Floats | None:
        """Vectors (I, D) that the regularization pulls the items to; None for zeros."""
        return None

    def extrapolate(self) -> None:
        """Nesterov's momentum on the item vectors, (k - 1) / (k + 2); halves the epochs to the same objective.

        It restarts where the step and the last change point apart (O'Donoghue & Candes 2015, "Adaptive Restart
        for Accelerated Gradient Schemes").
        """
        if len(self._past) < 3:
            return
        before, start, now = self._past
        change = now - before
        self._run = 1 if np.vdot(now - start, change) < 0 else self._run + 1
        self.item_ID = now + np.float32((self._run - 1) / (self._run + 2)) * change

    def _solve(self, other_ND: Floats, rows: Rows, start_RD: Floats, prior_RD: Floats | None = None) -> Floats:
        penalty = np.float32(self.recipe.strengths[0]) * self.spectrum_D
        block = self.recipe.block or (BLOCK if self.recipe.dim > EXACT_WIDTH else None)
        if not start_RD.any():  # a block sweep only improves its start, and zeros are no start
            block = None
        solved = solve_rows(other_ND, penalty, rows, start_RD, block, prior_RD)
        if not np.isfinite(solved).all():
            raise RecipeError("a least squares solution is not finite: raise regularization, or check the weights")
        return solved

    def loss(self) -> float:
        """The objective L at the current vectors, summed in chunks of bounded memory."""
        rows, recipe = self.by_user, self.recipe
        user = np.repeat(np.arange(len(rows.ridge)), np.diff(rows.offsets))
        total = 0.0
        step = max(1, LOSS_CELLS // recipe.dim)
        for first in range(0, len(user), step):
            part = slice(first, first + step)
            score = np.einsum("nd,nd->n", self.user_UD[user[part]], self.item_ID[rows.columns[part]])
            error = (rows.targets[part] - score).astype(np.float64) ** 2
            total += float(error.sum() if rows.weights is None else error @ rows.weights[part])
        gram_user, gram_item = self.user_UD.T @ self.user_UD, self.item_ID.T @ self.item_ID
        total += recipe.strengths[0] * float(np.vdot(gram_user, gram_item))
        for vectors, side in ((self.user_UD, self.by_user), (self.item_ID, self.by_item)):
            total += float((side.ridge.astype(np.float64) * np.einsum("rd,rd->r", vectors, vectors)).sum())
        return total


@dataclass(frozen=True)
class _Als(Recipe[ALSModel]):
    """Fields and training that both recipes share.

    Args:
        epochs: item steps, each followed by a user step, after a first user step.
        dim: width D of the vectors.
        unobserved_weight: a, the weight of every squared score; None: by the density of the data.
        regularization: l; None: by the events per user and per item.
        exponent: v; 1 scales the regularization by the amount of data of a row, 0 not at all.
        block: width b of the coordinate blocks; rows with at most b entries are solved exactly, all rows where b is D.
            None: 64 for D above 128, else exact.
        init_std: standard deviation of the first item vectors' length, apart from the singular vectors.
        half_life_events: history events after which an event counts half in its user's vector; None counts all alike.
        floor: the least weight of an event there, however old, as a fraction of the latest.
    """

    name: ClassVar[str]
    bias: ClassVar[bool]

    epochs: Rounds = 8
    dim: Width = 64
    unobserved_weight: NonNegative | None = None
    regularization: Positive | None = None
    exponent: NonNegative = 1.0
    block: Width | None = None
    init_std: Positive = 0.1
    half_life_events: Positive | None = None
    floor: Fraction = 0.0

    @classmethod
    def fast(cls) -> Self:
        """Fewer epochs: nearly all of the quality."""
        return cls(epochs=3)

    def _for_rows(self, rows: Dataset) -> Self:
        """a and l by the density and the events per user and item (see the module's docstring)."""
        if None not in (self.unobserved_weight, self.regularization) or not len(rows):
            return self
        scale = Scale.of(rows)
        a, regularization = self.unobserved_weight, self.regularization
        if a is None:
            a = min(1.0, UNOBSERVED_SHARE * scale.per_user / scale.items)
        if regularization is None:
            # All rows and columns of the tables count in ``ridge``, also those without events.
            amounts = (scale.per_user + a * rows.n_items) * (scale.per_item + a * rows.n_users)
            part = float(np.interp(taste(rows, a), TASTE, (NO_TASTE_SHRINKAGE, SHRINKAGE)))
            shrinkage = part * scale.noise * (scale.per_user * scale.per_item) ** 0.5
            regularization = shrinkage * amounts ** (-self.exponent / 2)
        return replace(self, unobserved_weight=a, regularization=regularization)

    @property
    def strengths(self) -> tuple[float, float]:
        """a and l.

        Raises:
            RecipeError: they were left to the data, and no data have been seen.
        """
        if self.unobserved_weight is None or self.regularization is None:
            raise RecipeError(f"recipe {self.name} leaves fields to the data: take recipe.for_data(train)")
        return self.unobserved_weight, self.regularization

    @property
    def row_weighting(self) -> Weighting:
        """How much a row counts by its weight."""
        return "none"

    def observed(self, weight: Floats, bias: Any, lowest: float) -> Floats:
        """Targets of observed rows."""
        raise NotImplementedError

    def ridge(self, offsets: NDArray[np.int64], weights: Floats | None, columns: int) -> Floats:
        """l_u of each row."""
        amount = np.diff(offsets).astype(np.float64)
        if weights is not None:
            # Differences of a running sum, in double: in float32 the last rows of a long log would lose their digits.
            total = np.concatenate([[0.0], weights.cumsum(dtype=np.float64)])
            amount = np.diff(total[offsets])
        unobserved, regularization = self.strengths
        ridge: Floats = regularization * (amount + unobserved * columns) ** self.exponent
        return ridge

    def build(self, spec: DataSpec) -> ALSModel:
        """An untrained model with tables of the given sizes."""
        return ALSModel(spec, self)

    @one_blas_thread()
    def _fit(self, train: Dataset, options: TrainOptions) -> ALSModel:
        """Alternate on the CPU; with a validation callback the best epoch is kept. ``options.folder`` is not used.

        Raises:
            RecipeError: no rows, or rows that this recipe cannot learn from.
        """
        self.check(train)
        state, spec = self._start(train, options)
        if rule := state.confidence.rule:
            options.progress(ProgressEvent(f"train {self.name}", message=f"{rule} ({train.feedback.column})"))
        with torch.random.fork_rng():  # building draws random tables, which must not move the caller's generator
            model = self.build(spec)
        # Users first: their vectors are still zero, while those of the items have a start.
        state.solve_users()
        best: tuple[float, int, dict[str, Tensor]] | None = None
        for epoch in range(self.epochs):
            state.epoch(last=epoch == self.epochs - 1)
            if options.progress is not silent:  # the objective is a pass over all rows
                values = {"loss": state.loss() / len(train)}
                options.progress(ProgressEvent(f"train {self.name}", epoch + 1, self.epochs, "epoch", values=values))
            if options.validation_callback is not None:
                self._store(model, state, train)
                value = float(options.validation_callback(model))
                if best is None or value > best[0]:
                    # Copies, since the next epoch writes into the same tensors.
                    best = (value, epoch, {key: tensor.clone() for key, tensor in model.state_dict().items()})
                elif epoch - best[1] >= options.patience:
                    break
        self._store(model, state, train)
        if best is not None:
            model.load_state_dict(best[2])
        return model

    def check(self, train: Dataset) -> None:
        """Refuse rows that cannot be learned from."""
        if len(train) == 0:
            raise RecipeError(f"{train.name} has no rows to train on")

    def _start(self, train: Dataset, options: TrainOptions) -> tuple[Alternation, DataSpec]:
        """The state of a fit, and the sizes of its model."""
        return Alternation(self, train, options.seed), DataSpec(train.n_users, train.n_items)

    def _finish(self, model: ALSModel, state: Alternation) -> None:
        """Write what a recipe adds to the vectors; nothing unless overridden."""

    def _store(self, model: ALSModel, state: Alternation, train: Dataset) -> None:
        with torch.no_grad():
            model.user_table.weight.copy_(torch.from_numpy(state.user_UD))
            model.item_table.weight[:, : model.dim] = torch.from_numpy(state.item_ID)
            if state.bias is not None:
                model.item_table.weight[:, model.dim] = state.bias
            model.fold_in.spectrum.copy_(torch.from_numpy(state.spectrum_D))
            model.fold_in.lowest.fill_(state.lowest)
            model.fold_in.confidence.load_state_dict(state.confidence.state_dict())
            self._finish(model, state)
        model.finish(train)


@dataclass(frozen=True)
class IALS(_Als):
    """Implicit alternating least squares: every row of training is a 1, everything else a weak 0.

    Args:
        unobserved_weight: a; None chooses it by the density of the data (see the module's docstring).
        regularization: l; None chooses it by the events per user and per item.
        weighting: confidence of a row by its weight: "log" or "linear", "none" for 1; "auto" is "log" for quantities,
            "linear" for events, else "none".
    """

    name: ClassVar[str] = "ials"
    bias: ClassVar[bool] = False

    # With a = 0 nothing holds unobserved scores down, and every score becomes 1.
    unobserved_weight: Positive | None = None
    weighting: Weighting = "auto"

    def training_rows(self, train: Dataset) -> Dataset:
        """The positive rows, and the dislikes."""
        return train.positives(dislikes=True)

    @property
    def row_weighting(self) -> Weighting:
        """As the recipe says."""
        return self.weighting

    def observed(self, weight: Floats, bias: Any, lowest: float) -> Floats:
        """Target 1, or 0 for a dislike."""
        return (weight >= 0).astype(np.float32)


@dataclass(frozen=True)
class WALS(_Als):
    """Weighted alternating least squares on ratings: predicts mean rating + p_u.q_i, so it ranks by expected rating.

    The history of a new user must carry ratings; a dislike counts as the lowest rating of training.
    """

    name: ClassVar[str] = "wals"
    bias: ClassVar[bool] = True

    dim: Width = 16
    unobserved_weight: NonNegative = 0.0
    regularization: Positive = 0.1

    def observed(self, weight: Floats, bias: Any, lowest: float) -> Floats:
        """Rating minus mean; every rating weighs 1."""
        return np.where(weight < 0, lowest, weight - bias).astype(np.float32)

    def training_rows(self, train: Dataset) -> Dataset:
        """All rows: low ratings are what is learned."""
        return train

    def check(self, train: Dataset) -> None:
        """Refuse ratings that are all equal."""
        super().check(train)
        weight = train.interactions.weight
        if weight.min() == weight.max():
            raise RecipeError(f"all {len(weight):,} ratings are {weight[0]:g}: use ials for rows without ratings")
