"""Building blocks shared by the networks.

Shape legend: B rows, L places of a row, D and E widths, H heads, I items, C candidates.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from palate.data.dataset import Dataset
from palate.data.features import FeatureTable

M = TypeVar("M", bound=nn.Module)
SCORE_CELLS = 32_000_000  # floats gathered at once for listed candidates: 128 MB


def dot_products(user_BE: Tensor, item_IE: Tensor, items_BC: Tensor | None = None) -> Tensor:
    """Scores (B, C) of the candidates, gathered in chunks of bounded memory, or (B, I) of the whole catalog."""
    if items_BC is None:
        return user_BE @ item_IE.T
    rows = max(1, SCORE_CELLS // max(1, items_BC.shape[1] * item_IE.shape[1]))
    chunks = zip(user_BE.split(rows), items_BC.split(rows), strict=True)
    return torch.cat([torch.bmm(item_IE[item], user[:, :, None]).squeeze(2) for user, item in chunks])


def mlp(widths: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers through ``widths`` (first = input), a ReLU behind each, dropout behind each if it is above 0."""
    layers: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


class ByteDropout(nn.Module):
    """Dropout that spends one random byte per value: five times faster than ``nn.Dropout`` on a CPU.

    Args:
        chance: of a zero, rounded to a multiple of 1/256; kept values are scaled by the inverse of the rounded rate.
    """

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.below = round(chance * 256)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; in eval mode the same values."""
        if not self.training or not self.below:
            return x
        # One draw of 64 bits makes eight bytes, the chances of eight values.
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.below
        return x * (kept.to(x.dtype) * (256 / (256 - self.below)))


class Block(nn.Module):
    """A transformer block, normalized before each part (Xiong et al. 2020, "On layer normalization ...", ICML).

        x <- x + dropout(attention(norm(x)));    x <- x + dropout(W_2 gelu(W_1 norm(x)))

    Args:
        dim: width D, a multiple of ``heads``.
        heads: H.
        hidden: width between the two layers of the second part.
        dropout: of each part's output.
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.wide, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dropout = ByteDropout(dropout)
        for layer in (self.qkv, self.out, self.wide, self.narrow):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x_BLD: Tensor, bias_BHLL: Tensor) -> Tensor:
        """The next layer (B, L, D); ``bias`` is added to the attention's logits, -inf where nothing may be read."""
        rows, places, dim = x_BLD.shape
        split = (rows, places, 3, self.heads, dim // self.heads)
        q_BHLE, k_BHLE, v_BHLE = self.qkv(self.first(x_BLD)).view(split).permute(2, 0, 3, 1, 4)
        # Scaled before the product: q is smaller than the logits, and these are changed in place.
        logit_BHLL = ((q_BHLE * q_BHLE.shape[-1] ** -0.5) @ k_BHLE.transpose(-1, -2)).add_(bias_BHLL)
        mixed_BHLE = logit_BHLL.softmax(-1).to(v_BHLE.dtype) @ v_BHLE
        x_BLD = x_BLD + self.dropout(self.out(mixed_BHLE.transpose(1, 2).reshape(rows, places, dim)))
        return cast(Tensor, x_BLD + self.dropout(self.narrow(F.gelu(self.wide(self.second(x_BLD))))))


class ItemFeatures(nn.Module):
    """Features of items, and which ids have training rows.

    Args:
        items: rows of the table.
        table: the fitted columns.
        dim: width D.
    """

    known: Tensor
    codes: Tensor
    weights: Tensor
    numbers: Tensor

    def __init__(self, items: int, table: FeatureTable, dim: int) -> None:
        super().__init__()
        self.values = nn.EmbeddingBag(table.codes + 1, dim, mode="sum", padding_idx=0)  # code 0 fills empty slots
        self.linear = nn.Linear(table.numbers, dim, bias=False) if table.numbers else None
        # Zeros: features change no vector until they have learned something.
        for weight in self.parameters():
            nn.init.zeros_(weight)
        self.register_buffer("known", torch.ones(items, dtype=torch.bool))
        self.register_buffer("codes", torch.zeros(items, table.slots, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(items, table.slots))
        self.register_buffer("numbers", torch.zeros(items, table.numbers))

    def forward(self, id_ID: Tensor) -> Tensor:
        """Vectors (I, D) of ids and features together."""
        # An id without training rows still has its random start: features alone describe such an item.
        vector_ID = id_ID * self.known[:, None]
        if self.codes.shape[1]:
            vector_ID = vector_ID + self.values(self.codes, per_sample_weights=self.weights)
        return vector_ID if self.linear is None else vector_ID + self.linear(self.numbers)

    def learn(self, train: Dataset, table: FeatureTable) -> None:
        """Take over the features of all items, and which have training rows."""
        self.known.zero_()
        self.known[torch.from_numpy(train.interactions.item.astype(np.int64))] = True
        if table.columns:  # "*" matches no column where the data set has no item features
            given = table.encode(train.item_features)
            for mine, theirs in zip((self.codes, self.weights, self.numbers), given, strict=True):
                mine.copy_(torch.from_numpy(theirs))


class Averaged(nn.Module, Generic[M]):
    """A network in training and the exponential average of its weights, which is evaluated and kept.

    The average has the effect of a falling learning rate at every moment of the training (Polyak & Juditsky 1992).

    Args:
        net: the network to train.
        decay: share of the average that stays at each step; early steps count more.
    """

    steps: Tensor

    def __init__(self, net: M, decay: float) -> None:
        super().__init__()
        self.net, self.average, self.decay = net, copy.deepcopy(net).requires_grad_(False), decay
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def step(self) -> None:
        """Move the average toward the present weights: call it once per optimizer step."""
        done = int(self.steps)
        self.steps += 1
        # A short memory at first: otherwise the random start stays in the average for 1 / (1 - decay) steps.
        share = 1 - min(self.decay, (1 + done) / (10 + done))
        # One call for all weights.
        torch._foreach_lerp_(list(self.average.parameters()), list(self.net.parameters()), share)


class NoInitialValues(TorchFunctionMode):
    """A context in which networks are built without drawing weights, for those that are loaded right after.

    Tensors hold whatever was in their memory: for 10 million weights that saves a third of a second.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The tensor as it is where it would be filled with random numbers, else the usual result."""
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))
