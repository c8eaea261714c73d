"""The fitted form of every rating model: a dot product that is also a number on the rating scale.

    rating(u, i) = mean + b_u + b_i + p_u . q_i,  cut to the scale
    score(u, i)  = b_u + b_i + p_u . q_i          (the same order)

A user vector is [p_u ; b_u] and an item vector [q_i ; 1 ; b_i], the last coordinate of every user being 1 (see
``dot_product``). A model may hold S draws of its vectors side by side and averages their ratings, which is a dot
product again.

Fold-in of a new user, for each draw: the mean of x = [p ; b] given the ratings r_h of the history,

    (L + a sum_h z_h z_h^T) x = L c + a sum_h (r_h - mean - b_h) z_h,     z_h = [q_h ; 1]

with prior center c and prior precision L: ridge regression on the item vectors, in closed form. A weight outside the
scale (a dislike below zero) counts as its end. Memory is one d x d matrix per user of a chunk and d^2 / 2 numbers
per distinct item of the histories.

Shape legend: B users, I items, N rows, S draws, K width of p, d = K + 1, D = S d, E = D + 1, H events,
T = d (d + 1) / 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from palate.base import Batch, DataSpec, Query, Recipe
from palate.bounds import Count, NonNegative, Positive, Rounds, Width
from palate.data.dataset import Dataset
from palate.errors import ModelError, RecipeError
from palate.models.dot_product import CELLS, DotProductModel, Events, FoldIn
from palate.models.rating_prior import Penalties, Ratings, biases, fields_by_ratings
from palate.training.negative_sampling import NegativeSampler, epoch_rng, rows_with_negatives

Floats = NDArray[np.floating[Any]]

FOLD_IN_FLOOR = 0.02  # ridge of one rating where the recipe has less: a history of one rating must not be fitted fully


def ratings_of(train: Dataset, negatives: int, seed: int, epoch: int = 0) -> Ratings:
    """The ratings of explicit data; for implicit data ones, and zeros for ``negatives`` unseen items per row.

    Of implicit data, users who have seen every item are left out.

    Raises:
        RecipeError: the data are implicit and every user has seen every item.
    """
    rows = train.interactions
    user, item = rows.user.astype(np.int64), rows.item.astype(np.int64)
    if train.explicit:
        return Ratings(user, item, rows.weight)
    unseen = NegativeSampler(train.history, train.n_items)
    kept = rows_with_negatives(train, unseen, np.arange(len(rows)))
    user, item = user[kept], item[kept]
    drawn = unseen.draw(user, negatives, epoch_rng(seed, epoch))
    value = np.concatenate([np.ones(len(user), np.float32), np.zeros(drawn.size, np.float32)])
    both = np.concatenate([item, drawn.reshape(-1).astype(np.int64)])
    return Ratings(np.concatenate([user, np.repeat(user, negatives)]), both, value)


def rating_batches(train: Dataset, negatives: int, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
    """The ratings of one epoch in random order: user, item and target (N,)."""
    ratings = ratings_of(train, negatives, seed, epoch)
    order = epoch_rng(seed, epoch, stream=1).permutation(len(ratings.user))
    for first in range(0, len(order), batch_size):
        picked = order[first : first + batch_size]
        yield Batch(*(torch.from_numpy(column[picked]) for column in ratings))


def conditional(
    weight: sparse.csr_array, target: sparse.csr_array, design_Id: Floats, prior_BT: Floats, linear_Bd: Floats
) -> tuple[Floats, Floats]:
    """Mean (B, d) and lower Cholesky factor of the precision (B, d, d) of B independent linear regressions.

    Args:
        weight: (B, I) precision of each observation.
        target: (B, I) precision times observed value.
        design_Id: row i is the regressor of every observation in column i.
        prior_BT: prior precision, lower triangle by rows, (B, T) or (1, T).
        linear_Bd: prior precision times prior center, (B, d) or (1, d).
    """
    d = design_Id.shape[1]
    row, column = np.tril_indices(d)
    # The matrices are symmetric: summing one triangle halves the work and the memory.
    packed_BT = weight @ (design_Id[:, row] * design_Id[:, column]) + prior_BT
    precision_Bdd = np.empty((len(packed_BT), d, d), packed_BT.dtype)
    precision_Bdd[:, row, column] = packed_BT
    precision_Bdd[:, column, row] = packed_BT
    factor = torch.linalg.cholesky(torch.from_numpy(precision_Bdd))
    linear = torch.from_numpy(np.asarray(target @ design_Id + linear_Bd, packed_BT.dtype))
    return torch.cholesky_solve(linear[:, :, None], factor).squeeze(2).numpy(), factor.numpy()


class RidgeFoldIn(FoldIn):
    """Ridge regression on the item vectors, as the module's docstring has it.

    Args:
        spec: rows of the tables.
        dim: K.
        draws: S.
        linked: the prior center has a term sum_h link_h / sqrt(H), the implicit feedback of SVD++.
    """

    mean: Tensor
    scale: Tensor
    noise: Tensor
    center: Tensor
    precision: Tensor
    bias: Tensor
    absent: Tensor
    growth: Tensor
    link: Tensor | None

    def __init__(
        self,
        spec: DataSpec,
        dim: int,
        draws: int = 1,
        *,
        linked: bool = False,
    ) -> None:
        super().__init__()
        self.draws = draws
        # Exponents of the events of a user in the precision of p and of b.
        self.register_buffer("growth", torch.zeros(2))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.tensor([0.0, 1.0]))
        self.register_buffer("noise", torch.ones(draws))  # a, the precision of one rating
        self.register_buffer("center", torch.zeros(draws, dim + 1))
        self.register_buffer("precision", torch.eye(dim + 1).repeat(draws, 1, 1))
        self.register_buffer("bias", torch.zeros(spec.items, draws))
        self.register_buffer("absent", torch.zeros(()))  # ratings of 0 per event, spread over the catalog
        self.register_buffer("link", torch.zeros(spec.items, draws, dim + 1) if linked else None)

    def forward(self, item_IE: Tensor, typical_D: Tensor, events: Events) -> Tensor:
        """User vectors (B, D), each a function of its own history."""
        items, place = np.unique(events.items.cpu().numpy(), return_inverse=True)
        offsets = events.offsets.cpu().numpy()
        value = events.weights.clamp(self.scale[0], self.scale[1]).cpu().numpy().astype(np.float64)
        d = self.center.shape[1]
        design_ISd = item_IE[:, :-1].reshape(len(item_IE), self.draws, d).cpu().double().numpy() * self.draws
        step = max(1, CELLS // (d * d))
        parts = []
        for first in range(0, len(offsets) - 1, step):
            ends = offsets[first : first + step + 1]
            inside = slice(ends[0], ends[-1])
            csr = sparse.csr_array((value[inside], place[inside], ends - ends[0]), shape=(len(ends) - 1, len(items)))
            parts.append(np.hstack([self._draw(s, csr, items, design_ISd[:, s]) for s in range(self.draws)]))
        return torch.from_numpy(np.concatenate(parts)).to(item_IE)

    def _draw(self, s: int, ratings: sparse.csr_array, items: NDArray[np.int64], design_Id: Floats) -> Floats:
        """The conditional means (B, d) under one draw."""
        noise, level = float(self.noise[s]), float(self.mean)
        bias_I = self.bias[:, s].cpu().double().numpy()
        precision = self.precision[s].cpu().double().numpy()
        events_B = np.diff(ratings.indptr)[:, None]
        weight = _like(ratings, np.full(ratings.nnz, noise))
        target = _like(ratings, noise * (ratings.data - level - bias_I[items][ratings.indices]))
        # D L D with D the diagonal of H^(v/2).
        own, bias = (float(one) / 2 for one in self.growth)
        scale_Bd = events_B ** np.array([own] * (len(precision) - 1) + [bias])
        row, column = np.tril_indices(len(precision))
        precision_BT = precision[row, column] * scale_Bd[:, row] * scale_Bd[:, column]
        linear_Bd = scale_Bd * ((scale_Bd * self._prior(s, ratings, items)) @ precision)
        if self.absent > 0:
            share_B1 = noise * float(self.absent) * events_B / len(design_Id)
            # Zeros all over the catalog are one d x d matrix for all users: no (B, I) is ever made.
            gram_dd = design_Id.T @ design_Id
            precision_BT = precision_BT + share_B1 * gram_dd[np.tril_indices(len(gram_dd))]
            linear_Bd = linear_Bd - share_B1 * ((level + bias_I) @ design_Id)
        return conditional(weight, target, design_Id[items], precision_BT, linear_Bd)[0]

    def _prior(self, s: int, ratings: sparse.csr_array, items: NDArray[np.int64]) -> Floats:
        """Prior centers (B, d)."""
        center_d = self.center[s].cpu().double().numpy()
        if self.link is None:
            return np.tile(center_d, (ratings.shape[0], 1))
        counts = np.diff(ratings.indptr)
        share = _like(ratings, np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts))
        linked: Floats = share @ self.link[:, s].cpu().double().numpy()[items]
        return center_d + linked


def _like(pattern: sparse.csr_array, data: Floats) -> sparse.csr_array:
    return sparse.csr_array((data, pattern.indices, pattern.indptr), shape=pattern.shape)


class RatingFactors(DotProductModel):
    """A dot-product model whose scores are ratings less their mean.

    Args:
        spec: rows of the tables.
        dim: K.
        fold_in: the rule for new users; it holds mean and scale.
        init_std: of the normal distribution that p and q start from; biases start at 0.
    """

    fold_in: RidgeFoldIn

    def __init__(self, spec: DataSpec, dim: int, fold_in: RidgeFoldIn, *, init_std: float = 0.1) -> None:
        super().__init__(spec, fold_in.draws * (dim + 1), fold_in, bias=True, init_std=init_std)
        self.width = dim
        # While training: the strengths of regularization, and the optimizer steps in all.
        self.penalties: Penalties | None = None
        self.steps = 0
        with torch.no_grad():
            self.user_table.weight[:, dim] = 0
            # The user's bias is multiplied by this constant.
            self.item_table.weight[:, dim] = 1

    @property
    def reads_ratings(self) -> bool:
        """True: the fold-in solves for the ratings of a history."""
        return True

    def predict(self, query: Query, items: Tensor | None = None) -> Tensor:
        """Ratings inside the scale: (B, C), or (B, I) for the whole catalog."""
        low, high = self.fold_in.scale
        return (self.fold_in.mean + self.score(query, items)).clamp(low, high)

    def pairs(self, user: Tensor, item: Tensor) -> Tensor:
        """Ratings (N,) of pairs for training, not cut to the scale; the constant column gets no gradient."""
        user_ND, item_NE, k = self.user_table(user), self.item_table(item), self.width
        product_N = (user_ND[:, :k] * item_NE[:, :k]).sum(1)
        return cast(Tensor, self.fold_in.mean + product_N + user_ND[:, k] + item_NE[:, k + 1])

    def penalty(self, user: Tensor, item: Tensor) -> Tensor:
        """L2 (N,) of all that the ratings of these pairs are made of, without the constant."""
        user_ND, item_NE, k = self.user_table(user), self.item_table(item), self.width
        return self.weighted(
            user, item, user_ND[:, :k].square().sum(1), user_ND[:, k], item_NE[:, :k].square().sum(1), item_NE[:, k + 1]
        )

    def weighted(
        self, user: Tensor, item: Tensor, user_N: Tensor, user_bias_N: Tensor, item_N: Tensor, item_bias_N: Tensor
    ) -> Tensor:
        """Squared lengths of vectors (N,) and biases (N,), each under its strength per rating.

        Raises:
            ModelError: training has not begun.
        """
        if self.penalties is None:
            raise ModelError("this network is trained by the fit of its recipe, which sets the strengths")
        strength = self.penalties = self.penalties.to(user.device)
        vectors_N = strength.user[user] * user_N + strength.item[item] * item_N
        return (
            vectors_N
            + strength.user_bias[user] * user_bias_N.square()
            + strength.item_bias[item] * item_bias_N.square()
        )

    def start_biases(self, user_bias: Floats, item_bias: Floats) -> None:
        """Set the biases that training starts from."""
        self.user_table.weight.data[:, self.width] = torch.from_numpy(user_bias)
        self.item_table.weight.data[:, self.width + 1] = torch.from_numpy(item_bias)

    def set_scale(self, ratings: Ratings, *, centered: bool = True) -> None:
        """Take mean (0 unless ``centered``) and scale from the training ratings."""
        self.fold_in.mean.fill_(ratings.mean if centered else 0.0)
        self.fold_in.scale.copy_(torch.tensor(ratings.scale))

    def settle(self, train: Dataset, negatives: int) -> None:
        """Finish training: fill the fold-in, record the trained users and the rows."""
        self.penalties = None
        self.finish(train)
        if self.fold_in.draws == 1:
            self.fold_in.bias.copy_(self.item_vectors()[:, -1:])
        self.fold_in.absent.fill_(0.0 if train.explicit else float(negatives))


M = TypeVar("M", bound=RatingFactors)


@dataclass(frozen=True)
class RatingRecipe(Recipe[M]):
    """Fields and training that the rating models trained by gradients share.

    Args:
        dim: width K of the vectors.
        epochs: passes over the ratings.
        batch_size: ratings per step; None: by their number.
        learning_rate: of the optimizer; None: by the deviation of the ratings.
        regularization: l; None: by the deviation of the ratings and their number per user and per item.
        exponent: v; None: 0.5.
        user_damping, item_damping: d of the biases; None: by the variance within and between users (items).
        negatives: unseen items drawn per row of implicit data.
    """

    dim: Width = 16
    epochs: Rounds = 30
    batch_size: Count | None = None
    learning_rate: Positive | None = None
    regularization: NonNegative | None = None
    exponent: NonNegative | None = None
    user_damping: NonNegative | None = None
    item_damping: NonNegative | None = None
    negatives: Count = 4

    def training_rows(self, train: Dataset) -> Dataset:
        """All rows of ratings; of implicit feedback the positive ones."""
        return train if train.explicit else train.positives()

    def _for_rows(self, rows: Dataset) -> Self:
        """Strengths, batches and learning rate by the ratings (see ``rating_prior``)."""
        if not len(rows):
            return self
        chosen = fields_by_ratings(ratings_of(rows, self.negatives, 0))
        return replace(self, **{name: value for name, value in chosen.items() if getattr(self, name) is None})

    def begin(self, model: RatingFactors, ratings: Ratings, negatives: int) -> None:
        """Strengths of regularization for these ratings, in training and fold-in, and damped means as biases.

        Args:
            model: before training; its mean is set.
            ratings: those of the first epoch.
            negatives: how many of them are zeros that were drawn for each event.

        Raises:
            RecipeError: a field was left to the data, and no data have been seen.
        """
        strengths = self.regularization, self.exponent, self.user_damping, self.item_damping, self.batch_size
        if None in strengths:
            raise RecipeError(f"recipe {self.name} leaves fields to the data: take recipe.for_data(train)")
        ridge, exponent, user_damping, item_damping, batch = (cast(float, one) for one in strengths)
        shape = len(model.user_table.weight), len(model.item_table.weight)
        dampings = (user_damping, item_damping)
        model.penalties = Penalties.of(ratings, shape, ridge, exponent, dampings)
        model.steps = self.epochs * -(-len(ratings.user) // int(batch))
        if float(model.fold_in.mean):
            model.start_biases(*biases(ratings, shape, *dampings))
        # H events of a history are (1 + negatives) H ratings.
        typical = len(ratings.user) / len(np.unique(ratings.user))
        own = max(ridge * typical ** (1 - exponent) * (1 + negatives) ** exponent, FOLD_IN_FLOOR)
        precision_d = torch.full((self.dim + 1,), own)
        precision_d[-1] = max(user_damping, FOLD_IN_FLOOR)
        model.fold_in.precision.copy_(torch.diag(precision_d))
        model.fold_in.growth.copy_(torch.tensor([exponent, 0.0]))
