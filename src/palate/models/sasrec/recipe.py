"""The recipe of SASRec: its fields, its losses and its training.

Shape legend: I items, R rows of a batch, L events of a row, T events with a target, n negatives, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from palate.base import DataSpec, Recipe, TrainOptions
from palate.bounds import Chance, Count, Fraction, NonNegative, Positive, Rounds, Width
from palate.data.dataset import Dataset
from palate.data.features import FeatureSchema
from palate.errors import RecipeError
from palate.models.sasrec.batches import Packed, packed_rows
from palate.models.sasrec.network import SASRecModel
from palate.models.scale import softmax_l2
from palate.training import trainer as training
from palate.training.layers import Averaged
from palate.training.losses import chunked_softmax, gbce, gbce_beta, gbce_prior, log_popularity, sampled_softmax
from palate.training.negative_sampling import epoch_rng


@dataclass(frozen=True)
class SASRec(Recipe[SASRecModel]):
    """SASRec with the full softmax.

    Args:
        dim: width of the item vectors, a multiple of ``heads``.
        n_layers: transformer blocks.
        heads: attention heads of each.
        hidden: width inside the feed-forward layers.
        max_seq_len: most recent events read; longer histories are trained on in pieces.
        dropout: of the item vectors and of each block's two outputs.
        objective: "softmax" over all items, "sampled-softmax", or "gbce".
        negatives: items drawn for a batch by the last two, shared by its events.
        gbce_t: gBCE's t; 0 is binary cross-entropy.
        mask_seen: softmax: exclude the items of the user's history from the softmax, except the target.
        item_features: columns that join the item vectors, as "name" or "name:kind" (kinds: see
            ``palate.data.features``), or "*" for all; items without training rows are then known by these alone.
        time_gaps: read the time since the event before.
        request_time: read the time until the next event, which for the latest is the request (``Query.at``).
        shuffle_ties: shuffle events of one user at the same time in every epoch; False where rows of the same time are
            in their true order, as with dates instead of times.
        shuffled: share of the histories whose order is shuffled in an epoch, as augmentation.
        epochs: passes over the training rows.
        batch_size: events in one optimizer step.
        learning_rate: Adam's step.
        weight_decay: decoupled, per step and unit of learning rate (AdamW).
        regularization: L2 of the state and of the next item of each event; above 0 the item biases start at log
            popularity. "auto": by how clear tastes are in the data (see ``palate.models.scale.softmax_l2``).
        average: decay of the averaged weights per step.
        init_std: of the item vectors at the start.
    """

    name: ClassVar[str] = "sasrec"

    dim: Width = 64
    n_layers: Annotated[int, Field(ge=0, le=64)] = 2
    heads: Width = 2
    hidden: Width = 256
    max_seq_len: Annotated[int, Field(ge=1, le=100_000)] = 200
    dropout: Chance = 0.2
    objective: Literal["softmax", "sampled-softmax", "gbce"] = "softmax"
    negatives: Count = 256
    gbce_t: Fraction = 0.75
    mask_seen: bool = True
    item_features: tuple[str, ...] = ()
    time_gaps: bool = False
    request_time: bool = False
    shuffle_ties: bool = True
    shuffled: Chance = 0.0
    epochs: Rounds = 30
    batch_size: Count = 4096
    learning_rate: Positive = 0.003
    weight_decay: NonNegative = 0.0
    regularization: NonNegative | Literal["auto"] = 0.0
    average: Chance = 0.998
    init_std: Positive = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % self.heads:
            raise RecipeError(f"dim={self.dim} with heads={self.heads}: dim must be a multiple of heads")

    @classmethod
    def fast(cls) -> Self:
        """Narrow, with one block: half a minute for 100,000 rows on one core."""
        return cls(
            dim=32,
            n_layers=1,
            hidden=64,
            time_gaps=True,
            shuffled=0.1,
            epochs=20,
            batch_size=1024,
            learning_rate=0.006,
            regularization="auto",
            average=0.99,
        )

    def _for_rows(self, rows: Dataset) -> Self:
        """Regularization by the data."""
        if self.regularization != "auto":
            return self
        return replace(self, regularization=softmax_l2(rows) if len(rows) else 0.0)

    def build(self, spec: DataSpec) -> SASRecModel:
        """An untrained network with tables of the given sizes."""
        return SASRecModel(
            spec,
            dim=self.dim,
            n_layers=self.n_layers,
            heads=self.heads,
            hidden=self.hidden,
            max_seq_len=self.max_seq_len,
            dropout=self.dropout,
            time_gaps=self.time_gaps,
            request_time=self.request_time,
            init_std=self.init_std,
        )

    def _fit(self, train: Dataset, options: TrainOptions) -> SASRecModel:
        """Train on the order of each user's rows as implicit feedback; dislikes (weights below 0) are left out.

        Raises:
            RecipeError: no user has two rows, so that there is no next item.
            DataError: a wanted feature column is missing or of an unfitting kind.
        """
        if train.history.counts.max(initial=0) < 2:
            raise RecipeError(f"{len(train):,} rows, no user has more than one: sasrec learns the next item")
        validation_callback = options.validation_callback
        if validation_callback is not None:
            options = replace(options, validation_callback=lambda module: validation_callback(module.average))
        trained = cast(Averaged[SASRecModel], training.fit(self, train, options, self._start(train, options.seed)))
        model = trained.average
        model.settle(train)
        model.trained_on = train.fingerprint
        return model.eval()

    def _start(self, train: Dataset, seed: int) -> Averaged[SASRecModel]:
        schema = FeatureSchema.fit(train, items=self.item_features) if self.item_features else None
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.build(DataSpec(train.n_users, train.n_items, schema))
        if model.features is not None and schema is not None:
            model.features.learn(train, schema.items)
        if self.objective == "gbce" or self.regularization:
            count_I = torch.from_numpy(np.bincount(train.interactions.item, minlength=train.n_items))
            with torch.no_grad():
                if self.objective == "gbce":
                    model.item_bias.copy_(gbce_prior(count_I, self.negatives, self.gbce_t))
                else:
                    model.item_bias.copy_(log_popularity(count_I, model.features.known if model.features else None))
        return Averaged(model, self.average)

    def batches(self, train: Dataset, seed: int, epoch: int) -> Iterator[Packed]:
        """The histories in packed rows, with the batch's negatives where the objective wants some."""
        rng = epoch_rng(seed, epoch)
        order = {"ties": self.shuffle_ties, "waits": self.request_time}
        for batch in packed_rows(train.history, self.max_seq_len, self.batch_size, rng, self.shuffled, **order):
            if self.objective == "softmax":
                yield batch
            else:
                yield batch._replace(negatives=torch.from_numpy(rng.integers(0, train.n_items, self.negatives)))

    def loss(self, module: Any, batch: Packed) -> Tensor:
        """The mean loss over the events that have a next event."""
        module.step()
        net: SASRecModel = module.net
        has_RL = batch.target >= 0
        x_TD, target_T = net.encode(batch.item, batch.gap, batch.segment, batch.wait)[has_RL], batch.target[has_RL]
        table_ID = net.table()
        bias_I: Tensor = net.item_bias
        if net.features is not None:  # items without rows must not be pushed down: they would push down their features
            bias_I = bias_I.masked_fill(~net.features.known, -torch.inf)
        if self.objective == "softmax":
            banned_TL = _seen(batch)[has_RL] if self.mask_seen else None
            loss = chunked_softmax(x_TD, table_ID, bias_I, target_T, banned_TL)
            return loss + self._penalty(x_TD, table_ID, target_T)
        drawn = batch.negatives  # shared by all events of the batch: one matrix product instead of a gather per event
        positive_T = (x_TD * table_ID[target_T]).sum(-1) + bias_I[target_T]
        negative_Tn = torch.addmm(bias_I[drawn], x_TD, table_ID[drawn].T)
        negative_Tn = negative_Tn.masked_fill(drawn == target_T[:, None], -torch.inf)
        if self.objective == "gbce":
            # A positive weighs beta in a mean over 1 + n rows, instead of 1.
            weight = gbce_beta(self.negatives, len(bias_I), self.gbce_t) / (1 + self.negatives)
            loss = gbce(positive_T, negative_Tn, len(bias_I), self.gbce_t)
            return loss + weight * self._penalty(x_TD, table_ID, target_T)
        return sampled_softmax(positive_T, negative_Tn, len(bias_I)) + self._penalty(x_TD, table_ID, target_T)

    def _penalty(self, x_TD: Tensor, table_ID: Tensor, target_T: Tensor) -> Tensor:
        if not self.regularization or self.regularization == "auto":
            return x_TD.new_zeros(())
        square_T = x_TD.square().sum(1) + F.embedding(target_T, table_ID).square().sum(1)
        return self.regularization / 2 * square_T.mean()

    def optimizers(self, module: nn.Module) -> list[torch.optim.Optimizer]:
        """AdamW over the network in training."""
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return [torch.optim.AdamW(parameters, self.learning_rate, weight_decay=self.weight_decay, fused=True)]


def _seen(batch: Packed) -> Tensor:
    """(R, L, L): the items up to each event of its segment; its own item fills the other places."""
    item_RL, segment_RL = batch.item, batch.segment
    same_RLL = (segment_RL[:, :, None] == segment_RL[:, None, :]).tril()
    return item_RL[:, None, :].where(same_RLL, item_RL[:, :, None])
