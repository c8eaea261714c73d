"""SASRec: a transformer that reads a history and predicts the next item (Kang & McAuley 2018, ICDM).

    e_i  = id vector  (+ vectors of the item's features; the id's is 0 for an item without training rows)
    x_t  = sqrt(D) e_(item t)  (+ g_(bucket of the time since the event before))
    x    = blocks of causal self-attention and feed-forward layers, each with its residual
    s_ti = norm(x_t) . e_i + b_i                      the same item table on both sides

Where the paper adds a learned vector for each position, attention here gets a learned bias for each distance between
two events and each head (Shaw et al. 2018; Raffel et al. 2020): what an event means depends on how long ago it was, and
every distance is trained at every place. Losses: the full softmax, a sampled one, or gBCE (Petrov & Macdonald 2023,
gSASRec). There are no user vectors: whoever has a history is known, and a live click counts at once. Somebody without a
history, trained or not, gets the mean state of the trained users; ``knows`` says False.

Shape legend: B users of a query, C candidates, I items, R rows of a batch, L events of a row, T events with a target, n
negatives, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palate import train as training
from palate.data.dataset import Dataset, Fingerprint
from palate.data.features import FeatureSchema
from palate.errors import RecipeError
from palate.losses import chunked_softmax, gbce, sampled_softmax
from palate.models.sasrec_batches import Packed, packed_rows
from palate.nn import Averaged, Block, ByteDropout, ItemFeatures
from palate.protocols import Query, Run, Sizes
from palate.sampling import epoch_rng

__all__ = ["SASRec", "SASRecModel"]

ENCODE_CELLS = 4_000_000  # attention logits of one layer held at once outside training: 16 MB
SCORE_CELLS = 32_000_000  # floats gathered at once for listed candidates: 128 MB
GAP_BUCKETS = 32  # powers of two of seconds
TYPICAL_USERS = 2_000  # users whose mean state stands for somebody unknown


class SASRecModel(nn.Module):
    """The network; its state dict is the whole model.

    Args:
        sizes: rows of the tables; users need none.
        recipe: widths and depths.
    """

    trained_on: Fingerprint | None = None
    typical: Tensor

    def __init__(self, sizes: Sizes, recipe: SASRec) -> None:
        super().__init__()
        self.sizes, self.window, self.scale = sizes, recipe.window, recipe.dim**0.5
        self.item_table = nn.Embedding(sizes.items, recipe.dim)
        self.features = ItemFeatures(sizes.items, sizes.features.items, recipe.dim) if sizes.features else None
        self.item_bias = nn.Parameter(torch.zeros(sizes.items))
        self.distance = nn.Parameter(torch.zeros(recipe.heads, recipe.window))
        self.gap_table = nn.Embedding(GAP_BUCKETS, recipe.dim) if recipe.time_gaps else None
        blocks = [Block(recipe.dim, recipe.heads, recipe.hidden, recipe.dropout) for _ in range(recipe.blocks)]
        self.blocks = nn.ModuleList(blocks)
        self.dropout, self.norm = ByteDropout(recipe.dropout), nn.LayerNorm(recipe.dim)
        self.register_buffer("typical", torch.zeros(recipe.dim))
        nn.init.normal_(self.item_table.weight, std=recipe.init_std)
        if self.gap_table is not None:
            nn.init.zeros_(self.gap_table.weight)

    def encode(self, item_RL: Tensor, gap_RL: Tensor, segment_RL: Tensor | None = None) -> Tensor:
        """States (R, L, D): what follows each event, given the events before it in its segment."""
        x_RLD = F.embedding(item_RL, self.table()) * self.scale
        if self.gap_table is not None:
            x_RLD = x_RLD + self.gap_table(gap_RL.clamp(min=0).add(1).log2().long().clamp(max=GAP_BUCKETS - 1))
        x_RLD, places = self.dropout(x_RLD), torch.arange(item_RL.shape[1], device=item_RL.device)
        back_LL = places[:, None] - places
        bias_RHLL = self.distance[:, back_LL.clamp(min=0)].masked_fill(back_LL < 0, -torch.inf)[None]
        if segment_RL is not None:
            other_RLL = segment_RL[:, :, None] != segment_RL[:, None, :]
            bias_RHLL = bias_RHLL.masked_fill(other_RLL[:, None], -torch.inf)
        for block in self.blocks:
            x_RLD = block(x_RLD, bias_RHLL)
        return cast(Tensor, self.norm(x_RLD))

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """Dot products: (B, C) or (B, I). Candidates are gathered in chunks of bounded memory."""
        user_BE, item_IE = self.query_vectors(query), self.item_vectors()
        if items is None:
            return user_BE @ item_IE.T
        rows = max(1, SCORE_CELLS // max(1, items.shape[1] * item_IE.shape[1]))
        chunks = zip(user_BE.split(rows), items.split(rows), strict=True)
        return torch.cat([torch.einsum("be,bce->bc", user, item_IE[item]) for user, item in chunks])

    def knows(self, query: Query) -> Tensor:
        """Whoever has an event in the query that is not a dislike."""
        return _liked(query)[0].diff() > 0

    def query_vectors(self, query: Query) -> Tensor:
        """The state behind the last event of each history, and a 1: (B, D + 1)."""
        state_BD = self.typical.repeat(len(query), 1)
        offsets, item_H, gap_H = _liked(query)
        counts = offsets.diff().clamp(max=self.window)
        order = counts.argsort(descending=True, stable=True)
        order = order[: int((counts > 0).sum())]
        while len(order):  # the longest first; a chunk is as wide as its first history
            width = int(counts[order[0]])
            step = max(1, ENCODE_CELLS // (width * width * len(self.distance)))
            part, order = order[:step], order[step:]
            place_BL = torch.arange(width, device=part.device)
            last_B = counts[part] - 1
            index_BL = (offsets[part + 1] - counts[part])[:, None] + place_BL.minimum(last_B[:, None])
            x_BLD = self.encode(item_H[index_BL], gap_H[index_BL])  # what stands behind the last event is not read
            state_BD[part] = x_BLD[torch.arange(len(part), device=part.device), last_B].to(state_BD.dtype)
        return torch.cat([state_BD, torch.ones_like(state_BD[:, :1])], 1)

    def table(self) -> Tensor:
        """Item vectors (I, D) of ids and features, without the bias."""
        return self.item_table.weight if self.features is None else self.features(self.item_table.weight)

    def item_vectors(self) -> Tensor:
        """Item vectors (I, D + 1), the bias in the last column."""
        return torch.cat([self.table(), self.item_bias[:, None]], 1)

    @torch.no_grad()
    def settle(self, train: Dataset) -> None:
        """Measure the mean state of some users: what somebody without a history gets."""
        users = np.unique(train.interactions.user)
        users = users[:: -(-len(users) // TYPICAL_USERS)]
        query = Query.of(users, train.history.select(users))
        known_B = self.knows(query)
        if bool(known_B.any()):
            self.typical.copy_(self.query_vectors(query)[known_B, :-1].mean(0))


def _liked(query: Query) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets (B + 1,), items (H,) and seconds since the event before (H,), without the dislikes."""
    if query.offsets is None or query.items is None:
        none = query.user.new_zeros(0)
        return query.user.new_zeros(len(query) + 1), none, none
    gap_H = torch.zeros(len(query.items), device=query.items.device)
    if query.times is not None:
        gap_H[1:] = query.times.diff()
    keep_H = torch.ones_like(query.items, dtype=torch.bool) if query.weights is None else query.weights >= 0
    before = torch.cat([keep_H.new_zeros(1, dtype=torch.int64), keep_H.cumsum(0)])
    offsets = before[query.offsets]
    first = query.offsets[:-1][query.counts() > 0]
    gap_H[first] = 0
    return offsets, query.items[keep_H], gap_H[keep_H]


@dataclass(frozen=True)
class SASRec:
    """SASRec with the full softmax.

    Args:
        dim: width of the item vectors, a multiple of ``heads``.
        blocks: transformer blocks.
        heads: attention heads of a block.
        hidden: width inside the feed-forward layers.
        window: most recent events read; longer histories are trained on in pieces.
        dropout: of the item vectors and of each block's two outputs.
        objective: "softmax" over all items, "sampled-softmax", or "gbce".
        negatives: items drawn for a batch by the last two, shared by its events.
        calibration: gBCE's t; 0 is binary cross-entropy.
        mask_seen: softmax: leave out what the user already had, except the target itself.
        item_features: columns that join the item vectors, as "name" or "name:kind" (kinds: see
            ``palate.data.features``), or "*" for all; items without training rows are then known by these alone.
        time_gaps: read the time since the event before.
        shuffled: share of the histories whose order is shuffled in an epoch, as augmentation.
        epochs: passes over the training rows.
        batch_size: events in one optimiser step.
        learning_rate: Adam's step.
        weight_decay: decoupled, per step and unit of learning rate (AdamW).
        average: share of the averaged weights that stays at each step.
        init_std: of the item vectors at the start.
    """

    name: ClassVar[str] = "sasrec"
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    dim: int = 64
    blocks: int = 2
    heads: int = 2
    hidden: int = 256
    window: int = 200
    dropout: float = 0.2
    objective: Literal["softmax", "sampled-softmax", "gbce"] = "softmax"
    negatives: int = 256
    calibration: float = 0.75
    mask_seen: bool = True
    item_features: tuple[str, ...] = ()
    time_gaps: bool = False
    shuffled: float = 0.0
    epochs: int = 30
    batch_size: int = 4096
    learning_rate: float = 0.003
    weight_decay: float = 0.0
    average: float = 0.998
    init_std: float = 0.02

    def __post_init__(self) -> None:
        whole = ("dim", "heads", "hidden", "window", "negatives", "batch_size")
        for field, low in (*((name, 1) for name in whole), ("blocks", 0), ("epochs", 0), ("weight_decay", 0)):
            if getattr(self, field) < low:
                raise RecipeError(f"{field}={getattr(self, field)}: must be at least {low}")
        for field in ("learning_rate", "init_std"):
            if getattr(self, field) <= 0:
                raise RecipeError(f"{field}={getattr(self, field)}: must be above 0")
        for field in ("dropout", "average", "shuffled"):
            if not 0 <= getattr(self, field) < 1:
                raise RecipeError(f"{field}={getattr(self, field)}: must be at least 0 and below 1")
        if not 0 <= self.calibration <= 1:
            raise RecipeError(f"calibration={self.calibration}: must be from 0 to 1")
        if self.dim % self.heads:
            raise RecipeError(f"dim={self.dim} with heads={self.heads}: dim must be a multiple of heads")

    @classmethod
    def fast(cls) -> Self:
        """Narrow, with one block: half a minute for 100,000 rows on one core."""
        return cls(
            dim=32, blocks=1, hidden=64, epochs=20, batch_size=1024, learning_rate=0.003, average=0.99, shuffled=0.1
        )

    def build(self, sizes: Sizes) -> SASRecModel:
        """An untrained network with tables of the given sizes."""
        return SASRecModel(sizes, self)

    def fit(self, train: Dataset, run: Run = Run()) -> SASRecModel:
        """Train on the order of each user's rows as implicit feedback; dislikes (weights below 0) are left out.

        Raises:
            RecipeError: nobody has two rows, so that nothing follows anything.
            DataError: a wanted feature column is missing or of an unfitting kind.
        """
        if _positive(train).history.counts.max(initial=0) < 2:
            raise RecipeError(f"{len(train):,} rows, no user has more than one: sasrec learns what comes next")
        watch = run.watch
        if watch is not None:
            run = replace(run, watch=lambda module: watch(module.average))
        trained = cast(Averaged[SASRecModel], training.fit(self, train, run, self._start(train, run.seed)))
        model = trained.average
        model.settle(train)
        model.trained_on = train.fingerprint
        return model.eval()

    def _start(self, train: Dataset, seed: int) -> Averaged[SASRecModel]:
        schema = FeatureSchema.fit(train, items=self.item_features) if self.item_features else None
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.build(Sizes(train.n_users, train.n_items, schema))
        if model.features is not None and schema is not None:
            model.features.learn(train, schema.items)
        return Averaged(model, self.average)

    def batches(self, train: Dataset, seed: int, epoch: int) -> Iterator[Packed]:
        """The histories in packed rows, with the batch's negatives where the objective wants some."""
        rng = epoch_rng(seed, epoch)
        for batch in packed_rows(_positive(train).history, self.window, self.batch_size, rng, self.shuffled):
            if self.objective == "softmax":
                yield batch
            else:
                yield batch._replace(negatives=torch.from_numpy(rng.integers(0, train.n_items, self.negatives)))

    def loss(self, module: Any, batch: Packed) -> Tensor:
        """The mean loss over the events that something followed."""
        module.step()
        net: SASRecModel = module.net
        has_RL = batch.target >= 0
        x_TD, target_T = net.encode(batch.item, batch.gap, batch.segment)[has_RL], batch.target[has_RL]
        table_ID = net.table()
        bias_I: Tensor = net.item_bias
        if net.features is not None:  # an item without rows is no evidence against its features
            bias_I = bias_I.masked_fill(~net.features.known, -torch.inf)
        if self.objective == "softmax":
            banned_TL = _seen(batch)[has_RL] if self.mask_seen else None
            return chunked_softmax(x_TD, table_ID, bias_I, target_T, banned_TL)
        drawn = batch.negatives
        positive_T = (x_TD * table_ID[target_T]).sum(-1) + bias_I[target_T]
        negative_Tn = torch.addmm(bias_I[drawn], x_TD, table_ID[drawn].T)
        negative_Tn = negative_Tn.masked_fill(drawn == target_T[:, None], -torch.inf)
        if self.objective == "gbce":
            return gbce(positive_T, negative_Tn, len(bias_I), self.calibration)
        return sampled_softmax(positive_T, negative_Tn, len(bias_I))

    def optimizers(self, module: nn.Module) -> list[torch.optim.Optimizer]:
        """AdamW over the network in training."""
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return [torch.optim.AdamW(parameters, self.learning_rate, weight_decay=self.weight_decay, fused=True)]


def _positive(train: Dataset) -> Dataset:
    """Without the rows that are dislikes."""
    rows = train.interactions
    return train.with_rows(rows.take(rows.weight >= 0)) if bool((rows.weight < 0).any()) else train


def _seen(batch: Packed) -> Tensor:
    """(R, L, L): the items up to each event of its segment; its own item fills the other places."""
    item_RL, segment_RL = batch.item, batch.segment
    same_RLL = (segment_RL[:, :, None] == segment_RL[:, None, :]).tril()
    return item_RL[:, None, :].where(same_RLL, item_RL[:, :, None])
