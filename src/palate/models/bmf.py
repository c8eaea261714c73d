"""BMF: Bayesian matrix factorization of ratings with implicit feedback and features, by Gibbs sampling.

    r_ui ~ N(mean + x_u . [q_i ; 1] + b_i, 1 / a_u),    x_u = [p_u ; b_u],    y_i = [q_i ; b_i]
    x_u  ~ N(c + F_u B, L^-1),                          y_i ~ N(c' + G_i B', L'^-1)
    B    ~ N(0, (l L)^-1) column-wise,  (c, L) ~ Normal-Wishart,  a_u ~ Gamma(2, rate),  rate ~ Gamma

F_u holds the rated items, 1 / sqrt(|N(u)|) for each item of N(u), as in SVD++ (Koren 2008), and the user's features;
G_i the same for items: users who rated it, and its features. N(u) are the items that the user touched: the training
rows, and rows without a rating where they are given.

Sources: Salakhutdinov & Mnih 2008 (the sampler and its Normal-Wishart prior); Simm et al. 2017, "Macau" (the link
matrices B, drawn by solving one perturbed ridge regression, here with a Jacobi-preconditioned conjugate gradient);
Rendle, Zhang & Koren 2019, "On the Difficulty of Evaluating Baselines" (implicit feedback on both sides). The fitted
model averages the ratings of S draws of the items; each user's vectors are their means given those items, not draws.

Fold-in of a new user: the same conditional means from the user's ratings and touched items (see ``rating_factors``), at
the mean features and the mean noise of the trained users.

Memory: the two link matrices (two numbers per row of training and feature), d^2 numbers per user or item, and
S (K + 1) numbers per user and twice that per item in the fitted model.

Shape legend: N ratings, n rows of a side, f columns of its link matrix, K width, d = K + 1, S draws, I items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import sparse

from palate.base import DataSpec, Recipe, TrainOptions, as_dataset, overflow_explained
from palate.bounds import Count, NonNegative, Positive, Rounds, Width
from palate.data.dataset import Dataset, Interactions
from palate.data.features import indicators, unit_rows
from palate.errors import RecipeError
from palate.models.rating_factors import RatingFactors, RidgeFoldIn, conditional, ratings_of
from palate.models.rating_prior import Ratings
from palate.parallel import one_blas_thread
from palate.progress import ProgressEvent
from palate.training.negative_sampling import report_users_without_negatives

Floats = NDArray[np.floating[Any]]

CG_STEPS = 8
NOISE_SHAPE = 2.0
# Least noise of a user as a share of the variance: few ratings can be fitted exactly, and drawn zeros are no facts.
LEAST_NOISE = {"explicit": 0.001, "implicit": 0.1}
START_DAMPING = 5.0  # ratings at the mean that are added to each row's own, where biases start
PRIOR_ROWS = 2.0  # rows that the prior of the center counts for


@dataclass(frozen=True)
class BMF(Recipe[RatingFactors]):
    """Bayesian matrix factorization.

    Args:
        dim: width K of the vectors.
        sweeps: rounds of the sampler.
        burn_in: first rounds, which are discarded.
        draws: S, taken at even distances from the other rounds.
        link: l, the prior precision of the link matrices relative to that of the vectors.
        feedback: use the rated items as implicit feedback.
        features: scale of the feature columns beside those of the feedback; 0 leaves them out.
        negatives: unseen items drawn per row of implicit data, once.
    """

    name: ClassVar[str] = "bmf"

    dim: Width = 8
    sweeps: Rounds = 200
    burn_in: Rounds = 80
    draws: Count = 30
    link: Positive = 1.0
    feedback: bool = True
    features: NonNegative = 0.5
    negatives: Count = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sweeps - self.burn_in < self.draws:
            raise RecipeError(
                f"sweeps={self.sweeps} and burn_in={self.burn_in} leave fewer than draws={self.draws}: raise sweeps"
            )

    @classmethod
    def fast(cls) -> Self:
        """A short chain."""
        return cls(sweeps=60, burn_in=30, draws=15)

    def build(self, spec: DataSpec) -> RatingFactors:
        """Vectors of the right sizes, ready for ``load_state_dict``."""
        fold_in = RidgeFoldIn(spec, self.dim, self.draws, linked=self.feedback)
        return RatingFactors(spec, self.dim, fold_in)

    def fit(
        self, train: Dataset | Any, options: TrainOptions = TrainOptions(), unrated: Interactions | None = None
    ) -> RatingFactors:
        """Sample from the posterior given the ratings of ``train``.

        The loss of a progress event is the training MSE of a sweep. ``options.validation_callback`` is not called, as
        more draws do not overfit.

        Args:
            train: the ratings.
            options: training options.
            unrated: rows without a rating, of the same maps: they count as implicit feedback.
        """
        whole = as_dataset(train)
        rows = self.training_rows(whole)
        with overflow_explained(self.name, rows):
            model = self._for_rows(rows)._sampled(rows, options, unrated)
        model.trained_on = whole.fingerprint
        return model

    def _sampled(self, train: Dataset, options: TrainOptions, unrated: Interactions | None) -> RatingFactors:
        if not train.explicit:
            report_users_without_negatives(train, self.name, options.progress)
        ratings = ratings_of(train, self.negatives, options.seed)
        sides = self._sides(train, unrated)
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            model = self.build(DataSpec(train.n_users, train.n_items))
        model.set_scale(ratings)
        least = LEAST_NOISE["explicit" if train.explicit else "implicit"]
        chain = _Chain(ratings, *sides, self.dim, self.link, least, np.random.default_rng(options.seed))
        # At even distances, since adjacent draws of a chain resemble each other.
        taken = np.linspace(self.sweeps, self.burn_in, self.draws, endpoint=False).round().astype(int)[::-1] - 1
        done = 0
        for sweep in range(self.sweeps):
            error = chain.sweep()
            options.progress(
                ProgressEvent(f"train {self.name}", sweep + 1, self.sweeps, "sweep", values={"loss": error})
            )
            if sweep == taken[done]:
                chain.write(model, done)
                done += 1
        model.settle(train, self.negatives)
        if unrated is not None:
            model.trained[torch.from_numpy(np.unique(unrated.user).astype(np.int64))] = True
        return model

    def training_rows(self, train: Dataset) -> Dataset:
        """All rows of ratings; of implicit feedback the positive ones."""
        return train if train.explicit else train.positives()

    def _sides(self, train: Dataset, unrated: Interactions | None) -> tuple[sparse.csr_array, sparse.csr_array]:
        """The matrices F (users, items + features) and G (items, users + features); parts not wanted are empty."""
        rows = train.interactions
        user, item = rows.user, rows.item
        if unrated is not None:
            user, item = np.concatenate([user, unrated.user]), np.concatenate([item, unrated.item])
        shape = (train.n_users, train.n_items)
        touched = sparse.csr_array((np.ones(len(user), np.float32), (user, item)), shape=shape)
        # Duplicates are summed on construction: a pair that is rated and unrated, or rated twice, counts once.
        touched.data[:] = 1
        if not self.feedback:
            touched = sparse.csr_array(shape, dtype=np.float32)
        parts = []
        for pattern, table in ((touched, train.user_features), (touched.T.tocsr(), train.item_features)):
            shares = [unit_rows(pattern)]
            if table is not None and self.features:
                shares += [self.features * block for block in indicators(table)]
            parts.append(sparse.csr_array(sparse.hstack(shares, format="csr", dtype=np.float32)))
        return parts[0], parts[1]


class _Side:
    """Users or items: their vectors (n, d) and the prior these come from.

    Rows without a rating stand at their prior mean and have no say in the prior.
    """

    def __init__(
        self, features: sparse.csr_array, rated: NDArray[np.bool_], d: int, link: float, rng: Generator
    ) -> None:
        self.features, self.rated, self.link = features, rated, link
        self.active = features[np.flatnonzero(rated)]
        self.turned = self.active.T.tocsr()
        self.scale_f1 = 1 / (np.asarray(self.active.power(2).sum(axis=0)).reshape(-1, 1) + link)
        self.vectors = 0.1 * rng.standard_normal((features.shape[0], d))
        self.vectors[:, -1] = 0
        self.weights = np.zeros((features.shape[1], d))
        self.shift = np.zeros_like(self.vectors)  # the part of the vectors that comes from features
        self.center: Floats = np.zeros(d)
        self.precision: Floats = np.eye(d)

    def draw_prior(self, rng: Generator) -> None:
        """Draw center and precision given vectors and link, then the link given all others."""
        vectors = self.vectors[self.rated]
        n, d = vectors.shape
        rest = vectors - self.shift[self.rated]
        mean = rest.mean(0)
        scatter = np.eye(d) + (rest - mean).T @ (rest - mean) + self.link * self.weights.T @ self.weights
        scatter += n * PRIOR_ROWS / (n + PRIOR_ROWS) * np.outer(mean, mean)
        self.precision = _wishart(scatter, d + n + len(self.weights), rng)
        spread = np.linalg.cholesky(np.linalg.inv(self.precision))
        self.center = n / (n + PRIOR_ROWS) * mean + spread @ rng.standard_normal(d) / np.sqrt(n + PRIOR_ROWS)
        noise_nd = rng.standard_normal((n, d)) @ spread.T
        noise_fd = rng.standard_normal(self.weights.shape) @ spread.T
        right = self.turned @ (vectors - self.center + noise_nd) + np.sqrt(self.link) * noise_fd
        self.weights = self._solve(right)
        self.shift = self.features @ self.weights

    def _solve(self, right_fd: Floats) -> Floats:
        """(F^T F + l) W = right, by conjugate gradients from the last W, all d columns side by side."""
        w = self.weights
        rest = right_fd - self._normal(w)
        step = self.scale_f1 * rest
        size = (rest * step).sum(0)
        for _ in range(CG_STEPS):
            image = self._normal(step)
            # A column that is solved exactly has a zero step: 0 / 0 without the bound.
            rate = size / np.maximum((step * image).sum(0), 1e-30)
            w = w + rate * step
            rest = rest - rate * image
            scaled = self.scale_f1 * rest
            before, size = size, (rest * scaled).sum(0)
            step = scaled + size / np.maximum(before, 1e-30) * step
        return w

    def _normal(self, w_fd: Floats) -> Floats:
        result: Floats = self.turned @ (self.active @ w_fd) + self.link * w_fd
        return result

    def given(self, other: _Side, weight: sparse.csr_array, rest: Floats) -> tuple[Floats, Floats]:
        """Mean and Cholesky factor of the vectors, given those of the other side and the ratings less their mean."""
        design = other.vectors.astype(np.float32)
        design[:, -1] = 1
        target = weight.data * (rest - other.vectors[weight.indices, -1])
        d = design.shape[1]
        return conditional(
            weight,
            sparse.csr_array((target, weight.indices, weight.indptr), weight.shape),
            design,
            self.precision[np.tril_indices(d)],
            (self.center + self.shift) @ self.precision,
        )

    def draw(self, mean_nd: Floats, factor_ndd: Floats, rng: Generator) -> None:
        """Draw the vectors from the normal distributions that ``given`` describes."""
        normal = torch.from_numpy(rng.standard_normal((*mean_nd.shape, 1)))
        spread = torch.linalg.solve_triangular(torch.from_numpy(factor_ndd).mT, normal, upper=True)
        self.vectors = mean_nd + self.rated[:, None] * spread.squeeze(2).numpy()


def _wishart(scatter_dd: Floats, freedom: int, rng: Generator) -> Floats:
    """One draw from the Wishart distribution with the inverse scale ``scatter_dd`` (Bartlett 1933)."""
    d = len(scatter_dd)
    lower = np.zeros((d, d))
    lower[np.tril_indices(d, -1)] = rng.standard_normal(d * (d - 1) // 2)
    lower[np.diag_indices(d)] = np.sqrt(rng.chisquare(freedom - np.arange(d)))
    root = np.linalg.cholesky(np.linalg.inv(scatter_dd)) @ lower
    result: Floats = root @ root.T
    return result


class _Chain:
    """The state of the sampler."""

    def __init__(
        self,
        ratings: Ratings,
        user_features: sparse.csr_array,
        item_features: sparse.csr_array,
        dim: int,
        link: float,
        least_noise: float,
        rng: Generator,
    ) -> None:
        by_user = np.lexsort((ratings.item, ratings.user))
        self.user, self.item = ratings.user[by_user], ratings.item[by_user]
        self.rest = ratings.value[by_user].astype(np.float64) - ratings.mean
        self.most_exact = 1 / (least_noise * max(float(self.rest.var()), 1e-12))
        self.by_item = np.lexsort((self.user, self.item))
        self.rng = rng
        self.counts = np.bincount(self.user, minlength=user_features.shape[0])
        items_rated = np.bincount(self.item, minlength=item_features.shape[0]) > 0
        self.users = _Side(user_features, self.counts > 0, dim + 1, link, rng)
        self.items = _Side(item_features, items_rated, dim + 1, link, rng)
        # Biases start as damped means of the residuals. From zeros the prior of the first sweeps is so narrow
        # that with two or three ratings per user a chain of a hundred sweeps never leaves it and predicts the mean.
        rest = self.rest
        for side, row, other in ((self.users, self.user, None), (self.items, self.item, self.users)):
            residual = rest if other is None else rest - other.vectors[self.user, -1]
            count = np.bincount(row, minlength=len(side.vectors))
            side.vectors[:, -1] = np.bincount(row, residual, minlength=len(count)) / (count + START_DAMPING)
        self.noise, self.rate = np.ones(len(self.counts)), NOISE_SHAPE

    @one_blas_thread()
    def sweep(self) -> float:
        """One round; returns the training MSE of the drawn vectors."""
        rng = self.rng
        self.users.draw_prior(rng)
        self.items.draw_prior(rng)
        self.users.draw(*self.users.given(self.items, self._weights(), self.rest), rng)
        self.items.draw(*self.items.given(self.users, self._weights(turned=True), self.rest[self.by_item]), rng)
        x, y = self.users.vectors[self.user], self.items.vectors[self.item]
        square = np.square(self.rest - x[:, -1] - y[:, -1] - np.einsum("nk,nk->n", x[:, :-1], y[:, :-1]))
        total = np.bincount(self.user, square, minlength=len(self.counts))
        drawn = rng.gamma(NOISE_SHAPE + self.counts / 2, 1 / (self.rate + total / 2))
        self.noise = np.minimum(drawn, self.most_exact)
        self.rate = rng.gamma(1 + NOISE_SHAPE * len(self.noise), 1 / (1 + self.noise.sum()))
        return float(square.mean())

    def write(self, model: RatingFactors, draw: int) -> None:
        """Put the current items, and the users' means given them, in place ``draw`` of the model."""
        fold_in = model.fold_in
        draws, d = fold_in.center.shape
        place = slice(draw * d, (draw + 1) * d)
        mean, _ = self.users.given(self.items, self._weights(), self.rest)
        # Items carry the 1 / S of the average: one dot product is then the mean rating of all draws.
        items = self.items.vectors / draws
        with torch.no_grad():
            model.user_table.weight[:, place] = torch.from_numpy(mean).float()
            model.item_table.weight[:, place] = torch.from_numpy(items).float()
            model.item_table.weight[:, (draw + 1) * d - 1] = 1 / draws
            if draw == 0:
                model.item_table.weight[:, -1] = 0
            # Item biases of all draws share the last column, where they add up to their mean.
            model.item_table.weight[:, -1] += torch.from_numpy(items[:, -1]).float()
        count = fold_in.bias.shape[0]
        others = self.users.features[:, count:] @ self.users.weights[count:]
        fold_in.bias[:, draw] = torch.from_numpy(self.items.vectors[:, -1])
        fold_in.noise[draw] = float(self.noise[self.counts > 0].mean())
        fold_in.precision[draw] = torch.from_numpy(self.users.precision)
        fold_in.center[draw] = torch.from_numpy(self.users.center + others[self.counts > 0].mean(0))
        if fold_in.link is not None:
            fold_in.link[:, draw] = torch.from_numpy(self.users.weights[:count])

    def _weights(self, turned: bool = False) -> sparse.csr_array:
        """(users, items) precisions of the ratings, or turned."""
        n, m = len(self.users.vectors), len(self.items.vectors)
        weight, row, column = self.noise[self.user].astype(np.float32), self.user, self.item
        if turned:
            order = self.by_item
            weight, row, column, n, m = weight[order], self.item[order], self.user[order], m, n
        starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n))])
        return sparse.csr_array((weight, column, starts), shape=(n, m))
