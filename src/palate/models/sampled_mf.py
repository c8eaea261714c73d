"""BPR and LogisticMF: matrix factorization by gradients on sampled negatives, x_ui = p_u.q_i + b_i.

    BPR         L = sum_{(u,i) in S} E_j [ - ln sigmoid(x_ui - x_uj) + l/2 (2 |p_u|^2 + |q_i|^2 + |q_j|^2) ]
    LogisticMF  L = - sum_{(u,i) in S} [ ln sigmoid(x_ui) + sum_{n negatives j of u} ln(1 - sigmoid(x_uj)) ]
                    + l/2 (|p_u|^2 + |q_i|^2) for each of these rows

with j uniform over the items that u has not touched (Rendle, Freudenthaler, Gantner & Schmidt-Thieme 2009, "BPR:
Bayesian Personalized Ranking from Implicit Feedback", eq. 4 to 6; Rendle, Krichene, Zhang & Anderson 2020, "Neural
Collaborative Filtering vs. Matrix Factorization Revisited", sec. 3; Johnson 2014, "Logistic Matrix Factorization for
Implicit Feedback Data").

Users are trained in batches with all their events, against one pool of items per batch. The pool stands for the unseen
items of every user of the batch, weighted to the same expectation as independent draws: scoring hundreds of negatives
is then one matrix product and costs less than a handful drawn for each event. Adam with a falling learning rate takes
the place of the plain SGD of the papers.

Fold-in of a new user: the likeliest vector under the same loss, with the items fixed and the distribution of the
trained users' vectors as prior in place of the penalty (see ``GradientFoldIn``). With ``half_life_events`` trained
users get their final vectors by it too: items learn from all events, users lean on their latest.

Shape legend: B users of a batch, H their events together, N items of the pool, I items, S new users, D width of a user
vector, E width of an item vector.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from palate.base import DataSpec, Recipe, TrainOptions
from palate.bounds import Count, Fraction, NonNegative, Positive, Rounds, Width
from palate.data.dataset import Dataset
from palate.errors import RecipeError
from palate.models.dot_product import EVENLY, DotProductModel, Events, FoldIn, Recency, covariance_root
from palate.models.scale import Scale
from palate.training import trainer as training
from palate.training.negative_sampling import epoch_rng
from palate.training.optimizers import decaying

# L2 per event over the noise of the data (``Scale.noise``), chosen on validation rows of ml-100k and Amazon Music
# and on generated worlds, wide to dense; three times as much is clearly worse on most, and a third of it on some.
SHRINKAGE = 0.06
MOST_USERS, LEAST_USERS, LEAST_BATCHES = 64, 4, 16  # users in a batch, and batches that an epoch should have
FOLD_CELLS = 2_000_000  # numbers held at once by the fold-in, which runs often and has several arrays of this size


class UserBatch(NamedTuple):
    """B users with all their H events, and N items drawn for all of them.

    user (B,) row numbers; counts (B,) events of each; owner (H,) place in the batch of each event's user; item (H,);
    sign (H,) 1 or, for a dislike, -1; strength (H,) how much it counts, adding up to ``counts``; pool (N,) item rows;
    share (B, N) chance of each to be the user's next negative: uniform over the items of the pool that the user has not
    touched, 0 elsewhere.
    """

    user: Tensor
    counts: Tensor
    owner: Tensor
    item: Tensor
    sign: Tensor
    strength: Tensor
    pool: Tensor
    share: Tensor


Objective = Callable[[Tensor, Tensor, UserBatch], Tensor]
"""(user vectors (B, D) of a batch, item vectors (I, E), the batch) -> the training loss summed over it."""


def user_batches(train: Dataset, size: int, pool: int, rng: np.random.Generator) -> Iterator[UserBatch]:
    """All users with rows in random order, ``size`` at a time, each time with a new uniform pool of distinct items.

    The part of the pool that a user has not touched is uniform over all items that the user has not touched.
    """
    history = train.history
    users = rng.permutation(np.flatnonzero(history.counts))
    for first in range(0, len(users), size):
        some = users[first : first + size]
        chosen = history.select(some)
        # Sorted, so that the batch finds a user's own items in it by binary search.
        drawn = np.sort(rng.choice(train.n_items, min(pool, train.n_items), replace=False))
        evenly = np.ones(len(chosen.items), np.float32)
        arrays = (some, chosen.offsets, chosen.items.astype(np.int64), chosen.weights, evenly, drawn)
        yield _user_batch(*(torch.from_numpy(array) for array in arrays))


def predict(user_BD: Tensor, item_IE: Tensor, batch: UserBatch) -> tuple[Tensor, Tensor]:
    """Scores of the events (H,) and of the pool (B, N)."""
    dim = user_BD.shape[1]
    event_HE, pool_NE = F.embedding(batch.item, item_IE), F.embedding(batch.pool, item_IE)
    event_H = (F.embedding(batch.owner, user_BD) * event_HE[:, :dim]).sum(1) + event_HE[:, dim:].sum(1)
    return event_H, user_BD @ pool_NE[:, :dim].T + pool_NE[:, dim:].sum(1)


def pairwise_loss(user_BD: Tensor, item_IE: Tensor, batch: UserBatch) -> Tensor:
    """- ln sigmoid(x_ui - x_uj) summed over the events, in expectation over the pool."""
    event_H, pool_BN = predict(user_BD, item_IE, batch)
    worse_HN = F.softplus(batch.sign[:, None] * (F.embedding(batch.owner, pool_BN) - event_H[:, None]))
    return (batch.strength[:, None] * F.embedding(batch.owner, batch.share) * worse_HN).sum()


def pointwise_loss(user_BD: Tensor, item_IE: Tensor, batch: UserBatch, negatives: int) -> Tensor:
    """Binary cross-entropy summed over the events and ``negatives`` items for each, in expectation over the pool."""
    event_H, pool_BN = predict(user_BD, item_IE, batch)
    negative_B = (batch.share * F.softplus(pool_BN)).sum(1)
    own = (batch.strength * F.softplus(-batch.sign * event_H)).sum()
    return own + negatives * (batch.counts * negative_B).sum()


def penalty(user_BD: Tensor, item_IE: Tensor, batch: UserBatch, negatives: int) -> Tensor:
    """Half the squared length of all vectors, each as often as it occurs in the events and their negatives."""
    dim = user_BD.shape[1]
    square_N = F.embedding(batch.pool, item_IE)[:, :dim].square().sum(1)
    items = F.embedding(batch.item, item_IE)[:, :dim].square().sum() + negatives * (
        batch.counts.float() @ batch.share @ square_N
    )
    return 0.5 * ((1 + negatives) * (batch.counts * user_BD.square().sum(1)).sum() + items)


class GradientFoldIn(FoldIn):
    """The likeliest vector p = m + L z of a new user: Adam with a falling rate from z = 0 on, the items fixed, on

        training loss of the history, without its penalty, + |z|^2 / 2

    where m and L L^T are mean and covariance of the trained users' vectors: their distribution is the prior of a new
    one. Negatives are all items of a small catalog, or evenly spaced ones of a large one. Weights by recency are
    scaled to add up to the number of events, so that loss and prior keep their balance. Memory is bounded: new users
    are taken in chunks.

    Args:
        dim: width D of a user vector.
        objective: the training loss, summed, without its penalty.
        steps: of Adam.
        learning_rate: its first learning rate.
        probes: at most so many items stand for the catalog.
        recency: see ``FoldIn``.
    """

    spread: Tensor

    def __init__(
        self,
        dim: int,
        objective: Objective,
        *,
        steps: int = 30,
        learning_rate: float = 0.2,
        probes: int = 1024,
        recency: Recency = EVENLY,
    ) -> None:
        super().__init__(recency)
        self.objective, self.steps, self.probes = objective, steps, probes
        self.learning_rate = learning_rate
        self.register_buffer("spread", torch.eye(dim))  # L, lower triangular

    def settle(self, user_UD: Tensor) -> None:
        """Measure the spread of the trained users' vectors."""
        self.spread.copy_(covariance_root(user_UD))

    def forward(self, item_IE: Tensor, typical_D: Tensor, events: Events) -> Tensor:
        """Vectors (S, D)."""
        count = min(self.probes, len(item_IE))
        pool_N = torch.arange(count, device=item_IE.device) * len(item_IE) // count
        # Objectives may hold a number for each event and probe.
        chunk_S = events.offsets[:-1] * (count + item_IE.shape[1]) // FOLD_CELLS
        counts = chunk_S.unique_consecutive(return_counts=True)[1].tolist()
        # Scoring runs in inference mode; tensors made there carry no gradients, so the inputs are copied out of it.
        with torch.inference_mode(False), torch.enable_grad():
            # Only the item vectors in use are copied: a catalog may have millions.
            used_M = torch.cat([pool_N, events.items]).unique()
            pool_N, items_H = (torch.searchsorted(used_M, rows) for rows in (pool_N, events.items))
            rest = (pool_N, events.offsets, items_H, events.weights, events.recency)
            copied = (t.clone() for t in (typical_D, self.spread, *rest))
            fixed = (item_IE[used_M], *copied)
            firsts = itertools.accumulate(counts, initial=0)
            return torch.cat([self._some(first, size, *fixed) for first, size in zip(firsts, counts, strict=False)])

    def _some(
        self, first: int, count: int, item_IE: Tensor, mean_D: Tensor, spread_DD: Tensor, *rest: Tensor
    ) -> Tensor:
        pool_N, offsets, items, weights, recency = rest
        some = offsets[first : first + count + 1]
        part = slice(int(some[0]), int(some[-1]))
        user = torch.full((count,), -1, device=some.device)
        batch = _user_batch(user, some - some[0], items[part], weights[part], recency[part], pool_N)
        # In units of the prior: its penalty is then |z|^2 / 2, and one learning rate suits all dimensions.
        z_SD = mean_D.new_zeros(count, len(mean_D)).requires_grad_()
        adam = torch.optim.Adam([z_SD], lr=self.learning_rate)
        for step in range(self.steps):
            adam.param_groups[0]["lr"] = self.learning_rate * (1 - step / self.steps)
            loss = self.objective(mean_D + z_SD @ spread_DD.T, item_IE, batch) + z_SD.square().sum() / 2
            (z_SD.grad,) = torch.autograd.grad(loss, [z_SD])
            adam.step()
        return (mean_D + z_SD @ spread_DD.T).detach()


def _user_batch(
    user: Tensor, offsets: Tensor, item: Tensor, weight: Tensor, recency: Tensor, pool: Tensor
) -> UserBatch:
    count = offsets.diff()
    owner = torch.repeat_interleave(torch.arange(len(user), device=user.device), count)
    # Clamped, since an item beyond the last of the pool is placed behind its end.
    place = torch.searchsorted(pool, item).clamp(max=len(pool) - 1)
    inside = pool[place] == item
    free = torch.ones(len(user), len(pool), device=user.device)
    free[owner[inside], place[inside]] = 0
    # A user who has touched the whole pool has no negatives in it: a row of zeros, where 0 / 0 would be NaN.
    share = free / free.sum(1, keepdim=True).clamp(min=1)
    sign = torch.where(weight < 0, -1.0, 1.0)
    # Recency only shifts weight between the events of a user; the sum stays, and with it the balance with the prior.
    total = torch.zeros(len(user), device=user.device).index_add_(0, owner, recency)
    strength = recency * (count / total)[owner]
    return UserBatch(user, count, owner, item, sign, strength, pool, share)


@dataclass(frozen=True)
class SampledMF(Recipe[DotProductModel]):
    """Fields and training that BPR and LogisticMF share.

    Args:
        epochs: passes over the users; the learning rates fall to zero over them.
        dim: width D of the vectors.
        shared_negatives: items drawn for each batch to stand for the unseen ones of its users.
        batch_users: users, with all their events, in one optimizer step. None: 64, or fewer where there are fewer than
            1,024 users, so that an epoch has steps enough for the items.
        user_learning_rate, item_learning_rate: initial learning rates of Adam; a user is in one step per epoch, an item
            in nearly all.
        regularization: l. None: in proportion to the noise of the data, which is n^-1/2 + m^-1/2 for n and m events per
            user and per item.
        init_std: standard deviation of the first vectors' length.
    """

    probes: ClassVar[int] = 1024  # items that stand for the catalog in a fold-in

    epochs: Rounds = 40
    dim: Width = 64
    shared_negatives: Count = 64
    batch_users: Count | None = None
    user_learning_rate: Positive = 0.2
    item_learning_rate: Positive = 0.03
    regularization: NonNegative | None = None
    init_std: Positive = 0.5

    def _for_rows(self, rows: Dataset) -> Self:
        """Regularization and size of the batches by the numbers of events, users and items."""
        if None not in (self.regularization, self.batch_users) or not len(rows):
            return self
        scale, l2, batch = Scale.of(rows), self.regularization, self.batch_users
        if l2 is None:
            l2 = SHRINKAGE * scale.noise
        if batch is None:
            batch = min(MOST_USERS, max(LEAST_USERS, scale.users // LEAST_BATCHES))
        return replace(self, regularization=l2, batch_users=batch)

    @property
    def penalty_weight(self) -> float:
        """l.

        Raises:
            RecipeError: it was left to the data, and no data have been seen.
        """
        if self.regularization is None:
            raise RecipeError(f"recipe {self.name} leaves fields to the data: take recipe.for_data(train)")
        return self.regularization

    @property
    def recency(self) -> Recency:
        """How much events count by their age in a user's vector."""
        return EVENLY

    def build(self, spec: DataSpec) -> DotProductModel:
        """An untrained model with tables of the given sizes."""
        # The prior of the fold-in takes the place of the penalty, which would count twice.
        objective = replace(self, regularization=0.0).objective
        fold_in = GradientFoldIn(self.dim, objective, probes=self.probes, recency=self.recency)
        return DotProductModel(spec, self.dim, fold_in, bias=True, init_std=self.init_std / self.dim**0.5)

    def training_rows(self, train: Dataset) -> Dataset:
        """The positive rows, and the dislikes."""
        return train.positives(dislikes=True)

    def _fit(self, train: Dataset, options: TrainOptions) -> DotProductModel:
        model = cast(DotProductModel, training.fit(self, train, options))
        model.finish(train)
        return model

    def batches(self, train: Dataset, seed: int, epoch: int) -> Iterator[UserBatch]:
        """All users in random order, each batch with a pool of its own."""
        return user_batches(train, self.batch_users or MOST_USERS, self.shared_negatives, epoch_rng(seed, epoch))

    def loss(self, module: Any, batch: UserBatch) -> Tensor:
        """Mean over the events of the batch."""
        return self.objective(module.user_table(batch.user), module.item_table.weight, batch) / len(batch.item)

    def objective(self, user_BD: Tensor, item_IE: Tensor, batch: UserBatch) -> Tensor:
        """L over the users of the batch, in expectation over their unseen items of the pool."""
        raise NotImplementedError

    def optimizers(self, module: Any) -> list[torch.optim.Optimizer]:
        """Fused Adam, users and items at learning rates of their own that fall linearly to nearly zero."""
        steps = self.epochs * -(-module.user_table.num_embeddings // (self.batch_users or MOST_USERS))
        groups = ((module.user_table, self.user_learning_rate), (module.item_table, self.item_learning_rate))
        adam = torch.optim.Adam([{"params": table.parameters(), "lr": rate} for table, rate in groups], fused=True)
        return [decaying(adam, steps)]


@dataclass(frozen=True)
class BPR(SampledMF):
    """Dot product, item bias, pairwise logistic loss; its fields are those of ``SampledMF``.

    A row whose weight is below 0 is a dislike: its item is ranked behind the unseen ones.
    """

    name: ClassVar[str] = "bpr"
    probes: ClassVar[int] = 128  # the pairwise loss holds a number for each event and probe

    @classmethod
    def fast(cls) -> Self:
        """Fewer epochs and smaller vectors: seconds instead of minutes on two cores."""
        return cls(epochs=15, dim=32, item_learning_rate=0.05)

    def objective(self, user_BD: Tensor, item_IE: Tensor, batch: UserBatch) -> Tensor:
        """L of BPR."""
        return pairwise_loss(user_BD, item_IE, batch) + self.penalty_weight * penalty(user_BD, item_IE, batch, 1)


@dataclass(frozen=True)
class LogisticMF(SampledMF):
    """Dot product, item bias, binary cross-entropy; further fields as in ``SampledMF``.

    Args:
        negatives: n, the weight of unseen items against each event.
        half_life_events: history events after which an event counts half in its user's vector; None counts all alike.
        floor: the least weight of an event there, however old, as a fraction of the latest.
    """

    name: ClassVar[str] = "logistic-mf"

    shared_negatives: Count = 512
    init_std: Positive = 0.7
    negatives: Count = 8
    half_life_events: Positive | None = None
    floor: Fraction = 0.0

    @property
    def recency(self) -> Recency:
        """How much events count by their age in a user's vector."""
        return Recency(self.half_life_events, self.floor)

    @classmethod
    def fast(cls) -> Self:
        """Fewer epochs and smaller pools: seconds instead of minutes on two cores."""
        return cls(epochs=15, dim=32, shared_negatives=256, item_learning_rate=0.05)

    def loss(self, module: Any, batch: UserBatch) -> Tensor:
        """Mean over the rows of the batch, negatives included."""
        total = self.objective(module.user_table(batch.user), module.item_table.weight, batch)
        return total / (len(batch.item) * (1 + self.negatives))

    def objective(self, user_BD: Tensor, item_IE: Tensor, batch: UserBatch) -> Tensor:
        """L of LogisticMF."""
        rows = pointwise_loss(user_BD, item_IE, batch, self.negatives)
        return rows + self.penalty_weight * penalty(user_BD, item_IE, batch, self.negatives)
