"""GMF, MLP and NeuMF: neural collaborative filtering (He et al. 2017, "Neural Collaborative Filtering", WWW).

    GMF    phi_G = p_u * q_i                                        (element-wise; eq. 9)
    MLP    phi_M = ReLU(W_L (... ReLU(W_2 [p'_u ; q'_i] + b_2) ...) + b_L)     (eq. 10)
    NeuMF  y_ui  = sigmoid(h . [phi_G ; phi_M])                     (eq. 12; separate embeddings for the two parts)

trained on observed pairs (target 1) and uniform unseen items (target 0) with binary cross-entropy (eq. 7). GMF keeps
only phi_G, MLP only phi_M.

Fold-in of new users: the network and the item tables are fixed; new user vectors p = m + L z take a few optimizer steps
from z = 0 on

    sum over history BCE(1) + N * |history| * mean over unseen probe items BCE(0) + |z|^2 / 2

where m and L L^T are mean and covariance of the trained user vectors: their distribution is the prior of a new one.

Shape legend: B users, C candidates, I items, P positives of a batch, N negatives of a positive, D width,
S new users, H events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar, Self, cast

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from palate.base import Batch, DataSpec, Query, Recipe, TrainOptions
from palate.bounds import Chance, Count, Fraction, NonNegative, Positive, Rounds, Width
from palate.data.dataset import Dataset, Fingerprint
from palate.errors import RecipeError
from palate.models.dot_product import covariance_root, positive_events
from palate.training import trainer as training
from palate.training.layers import mlp
from palate.training.losses import bce
from palate.training.negative_sampling import (
    NegativeSampler,
    epoch_rng,
    report_users_without_negatives,
    rows_with_negatives,
)

# Hidden values held at once while scoring pairs: bounds the memory of a catalog at any size to about 130 MB.
SCORE_CELLS = 32_000_000
CHUNK_ROWS = 1 << 18  # positives whose negatives are drawn at once

FOLD_IN_STEPS = 60
FOLD_IN_RATE = 0.2
FOLD_IN_NEGATIVES = 4
FOLD_IN_EVENTS = 256  # most recent events used
PROBE_ITEMS = 512


class NCFModel(nn.Module):
    """The network of the three recipes; a part of width 0 is absent.

    Args:
        spec: rows of the tables.
        dim: width D of the GMF part.
        layers: widths of the MLP part, the first being user and item vector together.
        dropout: behind each hidden layer.
    """

    trained_on: Fingerprint | None = None
    user_mean: Tensor
    user_spread: Tensor

    def __init__(self, spec: DataSpec, dim: int, layers: tuple[int, ...], dropout: float = 0.0) -> None:
        super().__init__()
        self.dim, self.width, self.items = dim, layers[0] // 2 if layers else 0, spec.items
        self.user_table = nn.Embedding(spec.users, self.dim + self.width)
        self.item_table = nn.Embedding(spec.items, self.dim + self.width)
        nn.init.normal_(self.user_table.weight, std=0.01)
        nn.init.normal_(self.item_table.weight, std=0.01)
        self.register_buffer("user_mean", torch.zeros(self.dim + self.width))
        self.register_buffer("user_spread", torch.eye(self.dim + self.width))
        if layers:
            self.first = nn.Linear(layers[0], layers[1])
            self.rest = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), *mlp(layers[1:], dropout))
        # The output layer reads [phi_G ; phi_M]; an absent part has width 0.
        self.out = nn.Linear(self.dim + (layers[-1] if layers else 0), 1)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    @torch.no_grad()
    def settle(self) -> None:
        """Measure mean and spread (lower Cholesky factor of the covariance) of the trained user vectors."""
        self.user_mean.copy_(self.user_table.weight.mean(0))
        self.user_spread.copy_(covariance_root(self.user_table.weight))

    def pairs(self, user_BD: Tensor, item_xCD: Tensor) -> Tensor:
        """Logits (B, C) of user vectors (B, D) against item vectors (B, C, D), or (1, C, D) shared by all users.

        The first layer is linear in [user ; item], so its two halves are computed apart and added: each user's half
        once for all candidates, and a shared catalog's half once for all users.
        """
        parts: list[Tensor] = []
        if self.dim:
            parts.append(user_BD[:, None, : self.dim] * item_xCD[..., : self.dim])
        if self.width:
            weight = self.first.weight
            user_BH = F.linear(user_BD[:, self.dim :], weight[:, : self.width], self.first.bias)
            item_xCH = F.linear(item_xCD[..., self.dim :], weight[:, self.width :])
            parts.append(cast(Tensor, self.rest(user_BH[:, None] + item_xCH)))
        both = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return cast(Tensor, self.out(both)).squeeze(-1)

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """Logits: (B, C) or (B, I), computed in chunks of bounded memory."""
        user_BD = self.user_inputs(query)
        if items is not None:
            rows = self._rows(items.shape[1])
            chunks = zip(user_BD.split(rows), items.split(rows), strict=True)
            return torch.cat([self.pairs(u, self.item_table(i)) for u, i in chunks])
        catalog = self.item_table.weight[None]
        return torch.cat([self.pairs(u, catalog) for u in user_BD.split(self._rows(self.items))])

    def can_personalize(self, query: Query) -> Tensor:
        """Trained users, and new users with a positive event."""
        return self._trained(query) | (positive_events(query) > 0)

    def user_inputs(self, query: Query) -> Tensor:
        """User vectors (B, D) of both parts: trained, folded in, or the mean user for new users without a history.

        They are inputs of the network, not factors of a dot product.
        """
        trained_B = self._trained(query)
        vector_BD = self.user_table(query.user.where(trained_B, 0))
        if bool(trained_B.all()):
            return cast(Tensor, vector_BD)
        vector_BD = vector_BD.where(trained_B[:, None], self.user_mean)
        fold_B = ~trained_B & (positive_events(query) > 0)
        if bool(fold_B.any()):
            vector_BD = vector_BD.clone()
            vector_BD[fold_B] = self._fold_in(query, fold_B.nonzero().squeeze(1)).to(vector_BD.dtype)
        return cast(Tensor, vector_BD)

    def item_vectors(self) -> Tensor:
        """Item vectors of both parts (I, D), for similarity between items."""
        return self.item_table.weight.detach()

    def _trained(self, query: Query) -> Tensor:
        return (query.user >= 0) & (query.user < self.user_table.num_embeddings)

    def _rows(self, columns: int) -> int:
        # The widest activation of a pair decides how many pairs fit into SCORE_CELLS.
        widest = max(1, self.dim + self.width, *(p.shape[0] for p in self.parameters() if p.ndim == 1))
        return max(1, SCORE_CELLS // (columns * widest))

    def _fold_in(self, query: Query, row_S: Tensor) -> Tensor:
        """New user vectors (S, D) from histories, a function of each history alone."""
        # Scoring runs in inference mode, but the fold-in needs gradients.
        with torch.inference_mode(False), torch.enable_grad():
            # Parts are copied, since autograd refuses tensors made in inference mode.
            columns = min(int(query.counts().max()), FOLD_IN_EVENTS) + min(self.items, PROBE_ITEMS)
            return torch.cat([self._fold_in_chunk(query, part.clone()) for part in row_S.split(self._rows(columns))])

    def _fold_in_chunk(self, query: Query, row_S: Tensor) -> Tensor:
        assert query.offsets is not None
        assert query.items is not None
        device = self.user_table.weight.device
        start, end = query.offsets[row_S], query.offsets[row_S + 1]
        start = torch.maximum(start, end - FOLD_IN_EVENTS)
        length_S = end - start
        # Histories side by side, padded to the longest; padding reads item 0 and has weight 0.
        place = torch.arange(int(length_S.max()), device=device)
        real_SH = place < length_S[:, None]
        index_SH = (start[:, None] + place).clamp(max=len(query.items) - 1)
        event_SH = query.items[index_SH].where(real_SH, 0)
        liked_SH = query.positive()[index_SH]
        # Fixed, evenly spaced probes instead of random negatives: the vector is a function of the history alone.
        probe_N = torch.linspace(0, self.items - 1, min(self.items, PROBE_ITEMS), device=device).long().unique()
        touched_SN = ((event_SH[:, :, None] == probe_N) & real_SH[:, :, None]).any(1)
        with torch.no_grad():
            item_SXD = self.item_table(torch.cat([event_SH, probe_N.expand(len(row_S), -1)], dim=1))
        # A dislike is an event with target 0.
        target = torch.cat([liked_SH.long(), torch.zeros_like(touched_SN, dtype=torch.int64)], 1).float()
        # The weights of training: each event once, against N unseen items in expectation.
        unseen_SN = ~touched_SN / (~touched_SN).sum(1, keepdim=True).clamp(min=1)
        weight = torch.cat([real_SH.float(), FOLD_IN_NEGATIVES * length_S[:, None] * unseen_SN], dim=1)
        mean_D, spread_DD = self.user_mean.clone(), self.user_spread.clone()
        z_SD = torch.zeros(len(row_S), len(mean_D), device=device, requires_grad=True)
        optimizer = torch.optim.Adam([z_SD], lr=FOLD_IN_RATE)
        for _ in range(FOLD_IN_STEPS):
            logit = self.pairs(mean_D + z_SD @ spread_DD.T, item_SXD)
            loss = F.binary_cross_entropy_with_logits(logit, target, weight, reduction="sum") + z_SD.square().sum() / 2
            (z_SD.grad,) = torch.autograd.grad(loss, [z_SD])
            optimizer.step()
        return (mean_D + z_SD @ spread_DD.T).detach()


def _even_first(layers: tuple[int, ...]) -> tuple[int, ...]:
    if layers[0] % 2:
        raise ValueError(f"the first width, {layers[0]}, must be even: half for the user, half for the item")
    return layers


Layers = Annotated[tuple[Width, ...], Field(min_length=2), AfterValidator(_even_first)]


@dataclass(frozen=True)
class _Ncf(Recipe[NCFModel]):
    """Training, shared by the three recipes.

    Args:
        epochs: passes over the training rows.
        negatives: unseen items drawn for each positive, newly in each epoch.
        batch_size: rows (positives and negatives together) in one optimizer step.
        learning_rate: of Adam.
        weight_decay: L2 inside Adam.
        dropout: behind each hidden layer.
    """

    name: ClassVar[str]

    epochs: Rounds = 20
    negatives: Count = 4
    batch_size: Count = 256
    learning_rate: Positive = 0.001
    weight_decay: NonNegative = 0.0
    dropout: Chance = 0.0

    @property
    def _parts(self) -> tuple[int, tuple[int, ...]]:
        raise RecipeError(f"{type(self).__name__} has no network: use GMF, MLP or NeuMF")

    @classmethod
    def fast(cls) -> Self:
        """Large batches and a higher learning rate: seconds instead of minutes on two cores.

        Chosen on validation rows of MovieLens 100K (the latest training row of each user).
        """
        return cls(epochs=10, batch_size=2048, learning_rate=0.004)

    def build(self, spec: DataSpec) -> NCFModel:
        """An untrained network with tables of the given sizes."""
        dim, layers = self._parts
        return NCFModel(spec, dim, layers, self.dropout)

    def _fit(self, train: Dataset, options: TrainOptions) -> NCFModel:
        """Train on the rows of ``train`` as implicit feedback: weights are not used."""
        report_users_without_negatives(train, self.name, options.progress)
        return self._finish(training.fit(self, train, options), train)

    @staticmethod
    def _finish(module: nn.Module, train: Dataset) -> NCFModel:
        model = cast(NCFModel, module)
        model.settle()
        model.trained_on = train.fingerprint
        return model

    def batches(self, train: Dataset, seed: int, epoch: int) -> Iterator[Batch]:
        """Positives in random order, each with its negatives behind it: user (P,), item and target (P, 1 + N)."""
        rng = epoch_rng(seed, epoch, stream=1)  # stream 0 draws candidates
        rows = train.interactions
        unseen = NegativeSampler(train.history, train.n_items)
        order = rows_with_negatives(train, unseen, rng.permutation(len(rows)))
        # batch_size counts positives and negatives, as in the paper's code.
        size = max(1, self.batch_size // (1 + self.negatives))
        target = torch.zeros(size, 1 + self.negatives)
        target[:, 0] = 1
        # Whole batches per draw: the sampler is far cheaper per row on many rows than on one batch.
        chunk = max(1, CHUNK_ROWS // size) * size
        for first in range(0, len(order), chunk):
            picked = order[first : first + chunk]
            user = torch.from_numpy(rows.user[picked].astype("int64"))
            positive = torch.from_numpy(rows.item[picked].astype("int64"))
            negative = torch.from_numpy(unseen.draw(rows.user[picked], self.negatives, rng).astype("int64"))
            item = torch.cat([positive[:, None], negative], dim=1)
            for u, i in zip(user.split(size), item.split(size), strict=True):
                yield Batch(u, i, target[: len(u)])

    def loss(self, module: Any, batch: Batch) -> Tensor:
        """Binary cross-entropy over positives and negatives."""
        return bce(module.pairs(module.user_table(batch.user), module.item_table(batch.item)), batch.target)

    def optimizers(self, module: nn.Module) -> list[torch.optim.Optimizer]:
        """Fused Adam over all parameters."""
        return [torch.optim.Adam(module.parameters(), self.learning_rate, weight_decay=self.weight_decay, fused=True)]


@dataclass(frozen=True)
class GMF(_Ncf):
    """Generalized matrix factorization: element-wise product of ``dim``-wide vectors under learned weights.

    Args:
        dim: width of the vectors of users and items.
    """

    name: ClassVar[str] = "gmf"
    dim: Width = 8

    @classmethod
    def fast(cls) -> Self:
        """Wider vectors and larger batches: a few seconds on MovieLens 100K."""
        return cls(epochs=10, batch_size=2048, learning_rate=0.01, dim=16)

    @property
    def _parts(self) -> tuple[int, tuple[int, ...]]:
        return self.dim, ()


@dataclass(frozen=True)
class MLP(_Ncf):
    """A multi-layer network over [user vector ; item vector]; ``layers[0]`` is the width of both together.

    Args:
        layers: widths of the layers; the first is that of both vectors together.
    """

    name: ClassVar[str] = "mlp"
    layers: Layers = (64, 32, 16, 8)

    @property
    def _parts(self) -> tuple[int, tuple[int, ...]]:
        return 0, self.layers


@dataclass(frozen=True)
class NeuMF(_Ncf):
    """GMF and MLP side by side under one output layer.

    Args:
        dim: width of the GMF part.
        layers: widths of the MLP part.
        pretrain: first train GMF and MLP apart with the same settings, start from both with the output weights
            mixed as [alpha h_G ; (1 - alpha) h_M] (eq. 13) and go on with plain SGD, as the paper does.
        alpha: the mix.
    """

    name: ClassVar[str] = "neumf"
    dim: Width = 8
    layers: Layers = (64, 32, 16, 8)
    pretrain: bool = False
    alpha: Fraction = 0.5

    @classmethod
    def fast(cls) -> Self:
        """A wider GMF part and larger batches: a few seconds on MovieLens 100K."""
        return cls(epochs=8, batch_size=4096, learning_rate=0.01, dim=16)

    @property
    def _parts(self) -> tuple[int, tuple[int, ...]]:
        return self.dim, self.layers

    def _fit(self, train: Dataset, options: TrainOptions) -> NCFModel:
        """Train as a whole, or from the two parts trained apart."""
        report_users_without_negatives(train, self.name, options.progress)
        start = self._pretrained(train, options) if self.pretrain else None
        return self._finish(training.fit(self, train, options, start), train)

    def optimizers(self, module: nn.Module) -> list[torch.optim.Optimizer]:
        """Adam, or plain SGD after pre-training (Adam would need the momentum of the parts; sec. 3.4.1)."""
        if self.pretrain:
            return [torch.optim.SGD(module.parameters(), self.learning_rate, weight_decay=self.weight_decay)]
        return super().optimizers(module)

    def _pretrained(self, train: Dataset, options: TrainOptions) -> NCFModel:
        shared = {field: getattr(self, field) for field in (one.name for one in fields(_Ncf))}
        parts: list[tuple[_Ncf, str]] = [
            (GMF(**shared, dim=self.dim), "gmf"),
            (MLP(**shared, layers=self.layers), "mlp"),
        ]
        apart = [
            part.fit(train, replace(options, folder=options.folder / name if options.folder else None))
            for part, name in parts
        ]
        model = self.build(DataSpec(train.n_users, train.n_items))
        mix(model, apart[0], apart[1], self.alpha)
        return model


@torch.no_grad()
def mix(model: NCFModel, gmf: NCFModel, tower: NCFModel, alpha: float) -> None:
    """Fill a NeuMF network from a GMF and an MLP network, output weights mixed by alpha (He et al. 2017, eq. 13)."""
    for table in ("user_table", "item_table"):
        both = [getattr(part, table).weight for part in (gmf, tower)]
        getattr(model, table).weight.copy_(torch.cat(both, dim=1))
    model.first.load_state_dict(tower.first.state_dict())
    model.rest.load_state_dict(tower.rest.state_dict())
    model.out.weight.copy_(torch.cat([alpha * gmf.out.weight, (1 - alpha) * tower.out.weight], dim=1))
    model.out.bias.copy_(alpha * gmf.out.bias + (1 - alpha) * tower.out.bias)
