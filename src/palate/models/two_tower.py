"""Two towers: a user network and an item network whose outputs meet in a dot product.

    x = e_id + sum_k w_k e_k + W z        id, weighted feature values, standardized numbers
    tower(x) = W_L ReLU(... ReLU(W_1 x + b_1) ...) + b_L,   or x itself where there are no layers
    score(u, i) = tower_user(u) . tower_item(i)

(Huang et al. 2013, "Learning deep structured semantic models for web search", CIKM; Yi et al. 2019,
"Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys.) Vectors of an id and of its
features are added up, as in Kula 2015 ("Metadata embeddings for user and item cold-start recommendations"). Trained
by an in-batch softmax, by binary cross-entropy on sampled negatives, or by BPR.

An id without training rows reads the out-of-vocabulary row of its table, which is learned where ``id_dropout`` hides
some ids, and zero otherwise: such items and users, and those given later as a table, are known by their features.

Fold-in of new users: the most probable vector given the training loss of the history, with the items fixed and the
distribution of the trained users' vectors as prior (see ``GradientFoldIn``). For the softmax that loss is, per event h,

    softplus(log Z - score(h)),      Z = sum over the catalog of e^score

and its reflection for a dislike. The network and how it scores are in ``two_tower_network``.

Shape legend: B users or positives, I items, N negatives or probes, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.base import Batch, DataSpec, Recipe, TrainOptions
from palate.bounds import Chance, Count, NonNegative, Positive, Rounds, Width
from palate.data.dataset import Dataset
from palate.data.features import FeatureSchema
from palate.errors import RecipeError
from palate.models.scale import softmax_l2
from palate.models.two_tower_network import Loss, TwoTowerModel
from palate.training import trainer as training
from palate.training.losses import bce, bpr, in_batch_softmax, log_popularity
from palate.training.negative_sampling import (
    NegativeSampler,
    epoch_rng,
    report_users_without_negatives,
    rows_with_negatives,
)

LEAST_BATCH, MOST_BATCH, BATCHES = 64, 4_096, 32  # positives per step, and steps that an epoch should have
NOT_LIKED = 256  # items without a positive row that are negatives of a batch
FACTOR, LEAST_SHRINKAGE = 0.005, 0.4  # of ``softmax_l2``
CHUNK_ROWS = 1 << 18  # positives whose negatives are drawn at once

Optimizer = Literal["adam", "adagrad", "sparse_adam", "sparse_adagrad"]


@dataclass(frozen=True)
class TwoTower(Recipe[TwoTowerModel]):
    """Two towers over ids and features; the defaults are plain embeddings under a corrected in-batch softmax.

    Args:
        dim: width of the embeddings.
        layers: widths of the layers behind them, the last being that of the vectors; none for plain embeddings.
        user_features, item_features: columns to read, as "name" or "name:kind" (kinds: see ``palate.data.features``),
            or "*" for all; none for ids alone.
        id_dropout: chance that an id is hidden in training, so that features learn to stand for it.
        objective: "softmax" (the other positives of a batch are the negatives), "bce" or "bpr" (drawn negatives).
        log_q: softmax: correct for the popularity of in-batch negatives.
        mask_hits: softmax: a positive that occurs twice in the batch is no negative of itself.
        negatives: bce and bpr: items drawn for each positive, newly in each epoch.
        negatives_from: "unseen" excludes the user's training items, "all" draws from the whole catalog.
        epochs: passes over the training rows.
        batch_size: positives in one optimizer step. The softmax costs the product of distinct users and distinct items
            of a batch, so large batches are cheap on small tables. None: a 32nd of the rows, from 64 to 4,096, so that
            few rows do not mean few steps.
        optimizer: the sparse ones touch only the rows of a batch, for large tables; "sparse_adam" needs towers of
            embeddings alone.
        learning_rate: its step.
        accumulator: Adagrad's initial value. TensorFlow starts at 0.1 and sums the loss of B rows, which is
            0.1 / B**2 here.
        popularity: softmax: add the log of an item's popularity to its scores, so that vectors learn only how users
            differ from it. ``log_q`` is then not used: the two cancel out. Items that are known by their features alone
            have the popularity of a mean item, so they are seldom ahead of known ones. "auto": where no item
            features are read.
        regularization: L2 of the user and the item vector of each positive. "auto": with ``popularity`` by the noise of
            the data (see ``palate.models.scale.softmax_l2``), else 0.
        init_std: of the embeddings at the start.
    """

    name: ClassVar[str] = "two-tower"

    dim: Width = 32
    layers: tuple[Width, ...] = ()
    user_features: tuple[str, ...] = ()
    item_features: tuple[str, ...] = ()
    id_dropout: Chance = 0.0
    objective: Loss = "softmax"
    log_q: bool = True
    mask_hits: bool = True
    negatives: Count = 4
    negatives_from: Literal["unseen", "all"] = "unseen"
    epochs: Rounds = 20
    batch_size: Count | None = None
    optimizer: Optimizer = "adam"
    learning_rate: Positive = 0.005
    accumulator: NonNegative = 0.0
    popularity: bool | Literal["auto"] = False
    regularization: NonNegative | Literal["auto"] = 0.0
    init_std: Positive = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer == "sparse_adam" and self.layers:
            raise RecipeError(f"optimizer='sparse_adam' with layers={self.layers}: use 'sparse_adagrad' or 'adam'")

    @classmethod
    def fast(cls) -> Self:
        """Features of both sides; without item features, scores that start from popularity: seconds on two cores."""
        features = ("*",)
        return cls(
            user_features=features, item_features=features, id_dropout=0.1, popularity="auto", regularization="auto"
        )

    def _for_rows(self, rows: Dataset) -> Self:
        """Batches by the number of positive rows, popularity by the features, regularization by the noise."""
        size, popularity, l2 = self.batch_size, self.popularity, self.regularization
        if size is None:
            size = min(MOST_BATCH, max(LEAST_BATCH, int(rows.positive.sum()) // BATCHES))
        if popularity == "auto":
            # New items, which have no rows yet, would never be ahead of known ones.
            featured = bool(self.item_features) and rows.item_features is not None
            popularity = self.objective == "softmax" and not featured
        if l2 == "auto":
            l2 = softmax_l2(rows, FACTOR, LEAST_SHRINKAGE) if popularity and len(rows) else 0.0
        return replace(self, batch_size=size, popularity=popularity, regularization=l2)

    def training_rows(self, train: Dataset) -> Dataset:
        """The positive rows; all rows where the softmax would never see some of their items, which nobody liked."""
        rows = train.positives()
        return train if len(rows) and self.objective == "softmax" and len(_not_liked(train)) else rows

    def build(self, spec: DataSpec) -> TwoTowerModel:
        """Untrained towers with tables of the given sizes and features."""
        return TwoTowerModel(
            spec,
            dim=self.dim,
            layers=self.layers,
            id_dropout=self.id_dropout,
            init_std=self.init_std,
            sparse=self.optimizer.startswith("sparse"),
            objective=self.objective,
            negatives=self.negatives,
            popularity=self._adds_popularity,
        )

    def _fit(self, train: Dataset, options: TrainOptions) -> TwoTowerModel:
        """Train on the rows of ``train`` as implicit feedback: weights are not used.

        Raises:
            DataError: a wanted feature column is missing or of an unfitting kind.
        """
        if self._draws_unseen:
            report_users_without_negatives(train, self.name, options.progress)
        model = cast(TwoTowerModel, training.fit(self, train, options, self._start(train, options.seed)))
        model.settle(train.positives())
        model.trained_on = train.fingerprint
        return model

    @property
    def _adds_popularity(self) -> bool:
        return self.popularity is True and self.objective == "softmax"

    @property
    def _corrects(self) -> bool:
        return self.log_q and not self._adds_popularity

    @property
    def _draws_unseen(self) -> bool:
        return self.objective != "softmax" and self.negatives_from == "unseen"

    def batches(self, train: Dataset, seed: int, epoch: int) -> Iterator[Batch]:
        """Positives in random order: user (B,), item (B,) and its log share; or item and target (B, 1 + N).

        Behind the items of a softmax are items that nobody liked, with the log of how many negatives each stands for.
        """
        rng, size = epoch_rng(seed, epoch), self.batch_size or MOST_BATCH
        not_liked, train = _not_liked(train), train.positives()
        rows = train.interactions
        order = rng.permutation(len(rows))
        unseen = None
        if self._draws_unseen:
            unseen = NegativeSampler(train.history, train.n_items)
            order = rows_with_negatives(train, unseen, order)
        user, item = (torch.from_numpy(part[order].astype(np.int64)) for part in (rows.user, rows.item))
        if self.objective == "softmax":
            # An in-batch negative is drawn in proportion to its popularity q: the loss subtracts log q from its score.
            counts = np.bincount(rows.item, minlength=train.n_items)
            log_q_I = torch.from_numpy(np.log(np.maximum(counts, 1) / len(rows)).astype(np.float32))
            for u, i in zip(user.split(size), item.split(size), strict=True):
                if not len(not_liked):
                    yield Batch(u, i, log_q_I[i])
                    continue
                some = torch.from_numpy(rng.permutation(not_liked)[:NOT_LIKED])
                # The batch is an estimate of a sum over the catalog, len(u) times; uncorrected, one of the rows.
                each = len(u) * len(not_liked) / len(some) / (1 if self._corrects else len(rows))
                yield Batch(u, torch.cat([i, some]), torch.cat([log_q_I[i], torch.full((len(some),), math.log(each))]))
            return
        target = torch.zeros(size, 1 + self.negatives)
        target[:, 0] = 1
        chunk = max(1, CHUNK_ROWS // size) * size
        for users, positive in zip(user.split(chunk), item.split(chunk), strict=True):
            if unseen is not None:
                drawn = unseen.draw(users.numpy(), self.negatives, rng)
            else:
                drawn = rng.integers(0, train.n_items, (len(users), self.negatives), dtype=np.int32)
            both = torch.cat([positive[:, None], torch.from_numpy(drawn.astype(np.int64))], dim=1)
            for u, i in zip(users.split(size), both.split(size), strict=True):
                yield Batch(u, i, target[: len(u)])

    def loss(self, module: Any, batch: Batch) -> Tensor:
        """The mean loss of one batch."""
        if self.objective == "softmax":
            # Each tower runs once per distinct user and item: the scores are (distinct users, distinct items).
            users, row_B = batch.user.unique(return_inverse=True)
            items, column = batch.item.unique(return_inverse=True)
            column_B, not_liked, n_rows = column[: len(row_B)], column[len(row_B) :], len(row_B)
            log_q_B = batch.target[:n_rows] if self._corrects else None
            log_weight_K = None
            if len(not_liked):
                log_weight_K = batch.target.new_full((len(items),), -math.inf)
                log_weight_K[not_liked] = batch.target[n_rows:]
            vectors = module.user_tower(users), module.item_tower(items)
            loss = in_batch_softmax(
                *vectors, row_B, column_B, log_q_B, mask_hits=self.mask_hits, log_weight_K=log_weight_K
            )
            user_BD, item_BxD = (F.embedding(row, side) for row, side in zip((row_B, column_B), vectors, strict=True))
        else:
            user_BD, item_BxD = module.user_tower(batch.user), module.item_tower(batch.item)
            score = (user_BD[:, None] * item_BxD).sum(-1)  # far cheaper than a batched product of such small matrices
            loss = bce(score, batch.target) if self.objective == "bce" else bpr(score[:, 0], score[:, 1:])
        if self.regularization and self.regularization != "auto":
            square = user_BD.square().sum() + item_BxD.square().sum()
            loss = loss + self.regularization / 2 * square / len(batch.user)
        return loss

    def optimizers(self, module: nn.Module) -> list[torch.optim.Optimizer]:
        """One optimizer over both towers.

        Raises:
            RecipeError: "sparse_adam" with numeric features, whose gradient is dense.
        """
        parameters = list(module.parameters())
        if self.optimizer == "adam":
            return [torch.optim.Adam(parameters, self.learning_rate, fused=True)]
        if not torch.sparse.check_sparse_tensor_invariants.is_enabled():
            torch.sparse.check_sparse_tensor_invariants.disable()  # sparse gradients warn unless this is set
        if self.optimizer != "sparse_adam":
            return [torch.optim.Adagrad(parameters, self.learning_rate, initial_accumulator_value=self.accumulator)]
        if any(isinstance(part, nn.Linear) for part in module.modules()):
            raise RecipeError("optimizer='sparse_adam' with numeric features: use 'sparse_adagrad' or 'adam'")
        return [torch.optim.SparseAdam(parameters, self.learning_rate)]

    def _start(self, train: Dataset, seed: int) -> TwoTowerModel:
        schema = FeatureSchema.fit(train, self.user_features, self.item_features)
        # Weights depend on the seed alone, and the caller's random state stays as it is.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.build(DataSpec(train.n_users, train.n_items, schema))
        for tower, table, frame, seen in (
            (model.user_tower, schema.users, train.user_features, train.positives().interactions.user),
            (model.item_tower, schema.items, train.item_features, train.interactions.item),
        ):
            known = torch.zeros(tower.rows, dtype=torch.bool)
            known[torch.from_numpy(seen.astype(np.int64))] = True
            tower.learn(table.encode(frame if table.columns else None), known)
        if model.item_bias is not None:
            liked = train.positives().interactions.item
            count_I = torch.from_numpy(np.bincount(liked, minlength=train.n_items))
            known_I = model.item_tower.known[:-1] if schema.items.columns else None
            model.item_bias.copy_(log_popularity(count_I, known_I))
        return model


def _not_liked(train: Dataset) -> NDArray[np.int64]:
    """The items that have rows, but no positive one: no batch of positives holds them."""
    if train.positive.all():
        return np.empty(0, np.int64)
    all_I, liked_I = (
        np.bincount(rows.interactions.item, minlength=train.n_items) for rows in (train, train.positives())
    )
    return np.flatnonzero((all_I > 0) & (liked_I == 0))
