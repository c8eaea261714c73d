"""Two towers: a user network and an item network whose outputs meet in a dot product.

    x = e_id + sum_k w_k e_k + W z        id, weighted feature values, standardised numbers
    tower(x) = W_L ReLU(... ReLU(W_1 x + b_1) ...) + b_L,   or x itself where there are no layers
    score(u, i) = tower_user(u) . tower_item(i)

(Huang et al. 2013, "Learning deep structured semantic models for web search", CIKM; Yi et al. 2019,
"Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys.) Vectors of an id and of its
features are added up, as in Kula 2015 ("Metadata embeddings for user and item cold-start recommendations"). Trained
by an in-batch softmax, by binary cross-entropy on sampled negatives, or by BPR.

An id without training rows reads the out-of-vocabulary row of its table, which is learned where ``id_dropout`` hides
some ids, and zero otherwise: such items, and items given later as a table, are recommended by their features.

Fold-in of a stranger: the mean of the item vectors of the history, mapped to the user space by ridge regression,

    v = c + (mean_h tower_item(h) - m) A,      A = argmin sum_u |tower_user(u) - c - (pool_u - m) A|^2 + ridge |A|^2

over the training users, with c and m the mean user vector and mean pool. A stranger with nothing gets c.

Shape legend: B users or positives, C candidates, I items, U users, N negatives, D width, S code slots, F numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from palate import train as training
from palate.data.dataset import Dataset, Fingerprint
from palate.data.features import Encoded, FeatureSchema, FeatureTable
from palate.errors import ModelError, RecipeError
from palate.losses import bce, bpr, in_batch_softmax
from palate.nn import mlp
from palate.protocols import Batch, Query, Run, Sizes
from palate.sampling import Unseen, epoch_rng

__all__ = ["TwoTower", "TwoTowerModel"]

ROWS_AT_ONCE = 1 << 16  # rows of a tower computed at once outside training
SCORE_CELLS = 32_000_000  # floats gathered at once for listed candidates: 128 MB
CHUNK_ROWS = 1 << 18  # positives whose negatives are drawn at once
RIDGE = 1e-3  # of the fold-in, relative to the mean variance of the pools


class Tower(nn.Module):
    """One side: ids and features to vectors; the last row of each table is the out-of-vocabulary row."""

    known: Tensor
    codes: Tensor
    weights: Tensor
    numbers: Tensor

    def __init__(self, rows: int, table: FeatureTable, recipe: TwoTower) -> None:
        super().__init__()
        self.rows, self.table, self.id_dropout = rows, table, recipe.id_dropout
        sparse = recipe.optimizer.startswith("sparse")
        self.ids = nn.Embedding(rows + 1, recipe.dim, sparse=sparse)
        nn.init.normal_(self.ids.weight, std=recipe.init_std)
        nn.init.zeros_(self.ids.weight[-1:])
        self.register_buffer("known", torch.ones(rows + 1, dtype=torch.bool))
        self.known[-1] = False
        if table.codes:
            self.values = nn.EmbeddingBag(table.codes + 1, recipe.dim, mode="sum", padding_idx=0, sparse=sparse)
            nn.init.normal_(self.values.weight, std=recipe.init_std)
            nn.init.zeros_(self.values.weight[:1])
        if table.numbers:
            self.linear = nn.Linear(table.numbers, recipe.dim, bias=False)
            nn.init.normal_(self.linear.weight, std=recipe.init_std)
        self.register_buffer("codes", torch.zeros(rows + 1, table.slots, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(rows + 1, table.slots))
        self.register_buffer("numbers", torch.zeros(rows + 1, table.numbers))
        widths = (recipe.dim, *recipe.layers)
        last = nn.Linear(widths[-2], widths[-1]) if recipe.layers else nn.Identity()
        self.deep = nn.Sequential(*mlp(widths[:-1]), last)

    def forward(self, row: Tensor) -> Tensor:
        """Vectors (..., D) of row numbers (...)."""
        known = self.known[row]
        if self.training and self.id_dropout:
            known = known & (torch.rand(row.shape, device=row.device) >= self.id_dropout)
        vector = self.ids(row.where(known, self.rows))
        if not self.table.columns:
            return cast(Tensor, self.deep(vector))
        return self._finish(vector, self.codes[row], self.weights[row], self.numbers[row])

    def of_features(self, given: Encoded) -> Tensor:
        """Vectors (N, D) of rows that are known by their features alone."""
        device = self.ids.weight.device
        codes, weights, numbers = (torch.from_numpy(part).to(device) for part in given)
        return self._finish(self.ids.weight[-1].expand(len(codes), -1), codes, weights, numbers)

    def learn(self, given: Encoded, known: Tensor) -> None:
        """Take over the features of all rows, and which rows have training rows."""
        self.known[:-1] = known
        for mine, theirs in zip((self.codes, self.weights, self.numbers), given, strict=True):
            if len(theirs):
                mine[:-1] = torch.from_numpy(theirs)

    def _finish(self, vector: Tensor, codes: Tensor, weights: Tensor, numbers: Tensor) -> Tensor:
        if self.table.codes:
            flat, shares = codes.reshape(-1, self.table.slots), weights.reshape(-1, self.table.slots)
            vector = vector + self.values(flat, per_sample_weights=shares).reshape(vector.shape)
        if self.table.numbers:
            vector = vector + self.linear(numbers)
        return cast(Tensor, self.deep(vector))


class TwoTowerModel(nn.Module):
    """Two towers and the map that folds strangers in."""

    trained_on: Fingerprint | None = None
    pool_mean: Tensor
    user_mean: Tensor
    fold: Tensor

    def __init__(self, sizes: Sizes, recipe: TwoTower) -> None:
        super().__init__()
        self.sizes = sizes
        schema = sizes.features or FeatureSchema()
        self.user_tower = Tower(sizes.users, schema.users, recipe)
        self.item_tower = Tower(sizes.items, schema.items, recipe)
        width = recipe.layers[-1] if recipe.layers else recipe.dim
        self.register_buffer("pool_mean", torch.zeros(width))
        self.register_buffer("user_mean", torch.zeros(width))
        self.register_buffer("fold", torch.zeros(width, width))

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """Dot products: (B, C) or (B, I). Candidates are gathered in chunks of bounded memory."""
        user_BD, item_ID = self.query_vectors(query), self.item_vectors()
        if items is None:
            return user_BD @ item_ID.T
        rows = max(1, SCORE_CELLS // max(1, items.shape[1] * item_ID.shape[1]))
        chunks = zip(user_BD.split(rows), items.split(rows), strict=True)
        return torch.cat([torch.einsum("bd,bcd->bc", user, item_ID[item]) for user, item in chunks])

    def knows(self, query: Query) -> Tensor:
        """Trained users, strangers with a history, and users of the table with features."""
        return self._trained(query) | (query.counts() > 0) | self._featured(query)

    def query_vectors(self, query: Query) -> Tensor:
        """User vectors (B, D): trained, folded in, from features alone, or the mean user."""
        row_B = query.user.where((query.user >= 0) & (query.user < self.user_tower.rows), self.user_tower.rows)
        own_B = self._trained(query) | (self._featured(query) & (query.counts() == 0))
        vector_BD = self.user_mean.expand(len(query), -1)
        if bool(own_B.any()):
            vector_BD = self.user_tower(row_B).where(own_B[:, None], vector_BD)
        fold_B = ~own_B & (query.counts() > 0)
        if bool(fold_B.any()):
            folded_BD = self.user_mean + (self.pool(query) - self.pool_mean) @ self.fold
            vector_BD = folded_BD.where(fold_B[:, None], vector_BD)
        return vector_BD

    def item_vectors(self, features: pl.DataFrame | None = None) -> Tensor:
        """Item vectors (I, D); or (N, D) of the rows of a feature table, for items that training did not have.

        Raises:
            DataError: the table lacks a column of the schema.
            ModelError: the model was trained without item features.
        """
        if features is None:
            rows = torch.arange(self.item_tower.rows, device=self.fold.device)
            return torch.cat([self.item_tower(part) for part in rows.split(ROWS_AT_ONCE)])
        if not self.item_tower.table.columns:
            raise ModelError("the model reads no item features: fit it with item_features=('*',)")
        return self.item_tower.of_features(self.item_tower.table.encode(features))

    def pool(self, query: Query) -> Tensor:
        """Mean item vector of each history (B, D); zero where there is none."""
        assert query.offsets is not None
        assert query.items is not None
        item_ID = self.item_vectors()
        owner_H = torch.repeat_interleave(torch.arange(len(query), device=item_ID.device), query.counts())
        sum_BD = item_ID.new_zeros(len(query), item_ID.shape[1])
        for part in torch.arange(len(owner_H), device=item_ID.device).split(ROWS_AT_ONCE):
            sum_BD.index_add_(0, owner_H[part], item_ID[query.items[part]])
        return sum_BD / query.counts().clamp(min=1)[:, None]

    def learn_fold(self, train: Dataset) -> None:
        """Fit the map from the pooled history to the user vector on the users of the training rows."""
        users = np.unique(train.interactions.user)
        query = Query.of(users, train.history.select(users))
        with torch.no_grad():
            parts = [self.user_tower(part) for part in query.user.split(ROWS_AT_ONCE)]
            user_UD, pool_UD = torch.cat(parts).double(), self.pool(query).double()
            user_mean, pool_mean = user_UD.mean(0), pool_UD.mean(0)
            centred_UD = pool_UD - pool_mean
            gram_DD = centred_UD.T @ centred_UD
            ridge = RIDGE * gram_DD.diagonal().mean().clamp(min=1e-12)
            system_DD = gram_DD + ridge * torch.eye(len(gram_DD), dtype=torch.float64)
            fold_DD = torch.linalg.solve(system_DD, centred_UD.T @ (user_UD - user_mean))
            for mine, theirs in ((self.user_mean, user_mean), (self.pool_mean, pool_mean), (self.fold, fold_DD)):
                mine.copy_(theirs)

    def _trained(self, query: Query) -> Tensor:
        inside = (query.user >= 0) & (query.user < self.user_tower.rows)
        return inside & self.user_tower.known[query.user.where(inside, self.user_tower.rows)]

    def _featured(self, query: Query) -> Tensor:
        """(B,) bool: in the table, and with something known about the user besides the id."""
        tower = self.user_tower
        inside = (query.user >= 0) & (query.user < tower.rows)
        row = query.user.where(inside, tower.rows)
        return inside & ((tower.codes[row] > 0).any(1) | (tower.numbers[row] != 0).any(1))


Loss = Literal["softmax", "bce", "bpr"]
Optimizer = Literal["adam", "adagrad", "sparse_adam", "sparse_adagrad"]


@dataclass(frozen=True)
class TwoTower:
    """Two towers over ids and features; the defaults are plain embeddings under a corrected in-batch softmax.

    Args:
        dim: width of the embeddings.
        layers: widths of the layers behind them, the last being that of the vectors; none for plain embeddings.
        user_features, item_features: columns to read, as "name" or "name:kind" (kinds: see ``palate.data.features``),
            or "*" for all; none for ids alone.
        id_dropout: chance that an id is hidden in training, so that features learn to stand for it.
        objective: "softmax" (the other positives of a batch are the negatives), "bce" or "bpr" (drawn negatives).
        log_q: softmax: correct for the popularity of in-batch negatives.
        mask_hits: softmax: do not hold a row's own positive against it where it stands in the batch twice.
        negatives: bce and bpr: items drawn anew for each positive in each epoch.
        negatives_from: "unseen" never draws what the user had in training, "all" does not look.
        epochs: passes over the training rows.
        batch_size: positives in one optimiser step.
        optimizer: the sparse ones touch only the rows of a batch, for large tables; "sparse_adam" needs towers of
            embeddings alone.
        learning_rate: its step.
        accumulator: Adagrad's initial value. TensorFlow starts at 0.1 and sums the loss of B rows, which is
            0.1 / B**2 here.
        init_std: of the embeddings at the start.
    """

    name: ClassVar[str] = "two-tower"
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    dim: int = 32
    layers: tuple[int, ...] = ()
    user_features: tuple[str, ...] = ()
    item_features: tuple[str, ...] = ()
    id_dropout: float = 0.0
    objective: Loss = "softmax"
    log_q: bool = True
    mask_hits: bool = True
    negatives: int = 4
    negatives_from: Literal["unseen", "all"] = "unseen"
    epochs: int = 20
    batch_size: int = 256
    optimizer: Optimizer = "adam"
    learning_rate: float = 0.005
    accumulator: float = 0.0
    init_std: float = 0.05

    def __post_init__(self) -> None:
        for field, low in (("dim", 1), ("negatives", 1), ("epochs", 0), ("batch_size", 1), ("accumulator", 0)):
            if getattr(self, field) < low:
                raise RecipeError(f"{field}={getattr(self, field)}: must be at least {low}")
        for field in ("learning_rate", "init_std"):
            if getattr(self, field) <= 0:
                raise RecipeError(f"{field}={getattr(self, field)}: must be above 0")
        if any(width < 1 for width in self.layers):
            raise RecipeError(f"layers={self.layers}: each width must be at least 1")
        if not 0 <= self.id_dropout < 1:
            raise RecipeError(f"id_dropout={self.id_dropout}: must be at least 0 and below 1")
        if self.optimizer == "sparse_adam" and self.layers:
            raise RecipeError(f"optimizer='sparse_adam' with layers={self.layers}: use 'sparse_adagrad' or 'adam'")

    @classmethod
    def fast(cls) -> Self:
        """Features of both sides, and large batches: seconds on two cores."""
        return cls(user_features=("*",), item_features=("*",), id_dropout=0.1)

    def build(self, sizes: Sizes) -> TwoTowerModel:
        """Untrained towers with tables of the given sizes and features."""
        return TwoTowerModel(sizes, self)

    def fit(self, train: Dataset, run: Run = Run()) -> TwoTowerModel:
        """Train on the rows of ``train`` as implicit feedback: weights are not used.

        Raises:
            DataError: a wanted feature column is missing or of an unfitting kind.
        """
        model = cast(TwoTowerModel, training.fit(self, train, run, self._start(train, run.seed)))
        model.learn_fold(train)
        model.trained_on = train.fingerprint
        return model

    def batches(self, train: Dataset, seed: int, epoch: int) -> Iterator[Batch]:
        """Positives in random order: user (B,), item (B,) and its log share; or item and target (B, 1 + N)."""
        rng = epoch_rng(seed, epoch)
        rows = train.interactions
        order = rng.permutation(len(rows))
        user, item = (torch.from_numpy(part[order].astype(np.int64)) for part in (rows.user, rows.item))
        if self.objective == "softmax":
            counts = np.bincount(rows.item, minlength=train.n_items)
            log_q_I = torch.from_numpy(np.log(np.maximum(counts, 1) / len(rows)).astype(np.float32))
            for u, i in zip(user.split(self.batch_size), item.split(self.batch_size), strict=True):
                yield Batch(u, i, log_q_I[i])
            return
        unseen = Unseen(train.history, train.n_items) if self.negatives_from == "unseen" else None
        target = torch.zeros(self.batch_size, 1 + self.negatives)
        target[:, 0] = 1
        chunk = max(1, CHUNK_ROWS // self.batch_size) * self.batch_size
        for users, positive in zip(user.split(chunk), item.split(chunk), strict=True):
            if unseen is not None:
                drawn = unseen.draw(users.numpy(), self.negatives, rng)
            else:
                drawn = rng.integers(0, train.n_items, (len(users), self.negatives), dtype=np.int32)
            both = torch.cat([positive[:, None], torch.from_numpy(drawn.astype(np.int64))], dim=1)
            for u, i in zip(users.split(self.batch_size), both.split(self.batch_size), strict=True):
                yield Batch(u, i, target[: len(u)])

    def loss(self, module: Any, batch: Batch) -> Tensor:
        """The mean loss of one batch."""
        user_BD, item_BxD = module.user_tower(batch.user), module.item_tower(batch.item)
        if self.objective == "softmax":
            log_q_B = batch.target if self.log_q else None
            return in_batch_softmax(user_BD @ item_BxD.T, batch.item, log_q_B, mask_hits=self.mask_hits)
        score = (user_BD[:, None] * item_BxD).sum(-1)  # far cheaper than a batched product of such small matrices
        return bce(score, batch.target) if self.objective == "bce" else bpr(score[:, 0], score[:, 1:])

    def optimizers(self, module: nn.Module) -> list[torch.optim.Optimizer]:
        """One optimiser over both towers.

        Raises:
            RecipeError: "sparse_adam" with numeric features, whose gradient is dense.
        """
        parameters = list(module.parameters())
        if self.optimizer == "adam":
            return [torch.optim.Adam(parameters, self.learning_rate, fused=True)]
        if not torch.sparse.check_sparse_tensor_invariants.is_enabled():
            torch.sparse.check_sparse_tensor_invariants.disable()  # torch warns while nobody has said so
        if self.optimizer != "sparse_adam":
            return [torch.optim.Adagrad(parameters, self.learning_rate, initial_accumulator_value=self.accumulator)]
        if any(isinstance(part, nn.Linear) for part in module.modules()):
            raise RecipeError("optimizer='sparse_adam' with numeric features: use 'sparse_adagrad' or 'adam'")
        return [torch.optim.SparseAdam(parameters, self.learning_rate)]

    def _start(self, train: Dataset, seed: int) -> TwoTowerModel:
        schema = FeatureSchema.fit(train, self.user_features, self.item_features)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.build(Sizes(train.n_users, train.n_items, schema))
        for tower, table, frame, seen in (
            (model.user_tower, schema.users, train.user_features, train.interactions.user),
            (model.item_tower, schema.items, train.item_features, train.interactions.item),
        ):
            known = torch.zeros(tower.rows, dtype=torch.bool)
            known[torch.from_numpy(seen.astype(np.int64))] = True
            tower.learn(table.encode(frame if table.columns else None), known)
        return model
