"""Training speed of the `sasrec` recipe against a plain padded SASRec: events trained on per second of one core.

    python benchmarks/sasrec_tokens.py [--data ml-1m] [--rounds 3] [--steps 6] [--losses softmax gbce] [--json FILE]

Same width, layers, heads, hidden width, row length, dropout, loss and fused Adam, in plain loops of optimizer steps of
about as many events. "padded" is how SASRec is usually written: the last 200 events of each user behind padding on the
left, dropout also on the attention weights, learned positions, logits of every item for every place, padded or not,
and cross-entropy with an ignored index (gBCE: negatives drawn for every place). "packed" is the recipe. Only real
events that something followed are counted. A round times both ways, one after the other; medians of the rounds.
float32; ``--bf16`` adds the recipe under bfloat16 autocast, which the command line calls --precision bf16-mixed. Set
OMP_NUM_THREADS=1. Times are of the processor, not of the clock, so that a busy machine says nearly the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palate.base import DataSpec
from palate.data.dataset import Dataset
from palate.datasets.registry import load
from palate.models.sasrec import SASRec
from palate.training.layers import Averaged
from palate.training.losses import gbce

Step = Callable[[Any], Tensor]


class Padded(nn.Module):
    """SASRec as it is usually written; item 0 is the padding."""

    def __init__(self, items: int, recipe: SASRec) -> None:
        super().__init__()
        self.recipe = recipe
        self.item = nn.Embedding(items + 1, recipe.dim, padding_idx=0)
        self.place = nn.Embedding(recipe.max_seq_len, recipe.dim)
        layer = [
            nn.TransformerEncoderLayer(
                recipe.dim, recipe.heads, recipe.hidden, recipe.dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(recipe.n_layers)
        ]
        self.blocks, self.norm = nn.ModuleList(layer), nn.LayerNorm(recipe.dim)
        self.dropout = nn.Dropout(recipe.dropout)

    def forward(self, item_BL: Tensor) -> Tensor:
        causal_LL = torch.ones(item_BL.shape[1], item_BL.shape[1], dtype=torch.bool).triu(1)
        x_BLD = self.dropout(self.item(item_BL) + self.place.weight)
        for block in self.blocks:
            x_BLD = block(x_BLD, src_mask=causal_LL)
        return self.norm(x_BLD)

    def loss(self, batch: Tensor) -> Tensor:
        source_BL, target_BL = batch[:, :-1], batch[:, 1:]
        x_BLD = self(source_BL)
        if self.recipe.objective == "softmax":
            logit_BLI = x_BLD @ self.item.weight.T
            return F.cross_entropy(logit_BLI.flatten(0, 1), target_BL.flatten(), ignore_index=0)
        count = len(self.item.weight)
        drawn_BLn = torch.randint(1, count, (*target_BL.shape, self.recipe.negatives))
        positive_BL = (x_BLD * self.item(target_BL)).sum(-1)
        negative_BLn = torch.einsum("bld,blnd->bln", x_BLD, self.item(drawn_BLn))
        real = target_BL > 0
        return gbce(positive_BL[real], negative_BLn[real], count - 1, self.recipe.gbce_t)


def padded_batches(train: Dataset, window: int, users: int) -> Iterator[Tensor]:
    """The last ``window`` + 1 events of each user, padded on the left: (B, window + 1)."""
    history = train.history
    table = np.zeros((len(history), window + 1), dtype=np.int64)
    for user in range(len(history)):
        items = history.of(user)[-window - 1 :]
        table[user, window + 1 - len(items) :] = items + 1
    yield from torch.from_numpy(np.random.default_rng(0).permutation(table)).split(users)


def measure(step: Step, net: nn.Module, recipe: SASRec, batches: list[Any], real: list[int], *, bf16: bool) -> float:
    """Real events per second of processor time; the first two batches warm up."""
    (optimizer,) = recipe.optimizers(net)
    begin = 0.0
    for number, batch in enumerate(batches):
        if number == 2:
            begin = time.process_time()
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = step(batch)
        loss.backward()
        optimizer.step()
    return sum(real[2:]) / (time.process_time() - begin)


def compare(recipe: SASRec, train: Dataset, rounds: int, steps: int, *, bf16: bool) -> dict[str, Any]:
    rates: dict[str, list[float]] = {}
    users = max(1, recipe.batch_size // recipe.max_seq_len)
    for number in range(rounds):
        torch.manual_seed(number)
        padded = Padded(train.n_items, recipe)
        batches = list(itertools.islice(padded_batches(train, recipe.max_seq_len, users), steps + 2))
        real = [int((one[:, 1:] > 0).sum() - (one[:, :-1] == 0).logical_and(one[:, 1:] > 0).sum()) for one in batches]
        rates.setdefault("padded", []).append(measure(padded.loss, padded, recipe, batches, real, bf16=False))
        for low in (False, True)[: 1 + bf16]:
            packed = Averaged(recipe.build(DataSpec(train.n_users, train.n_items)), recipe.average)
            rows = list(itertools.islice(recipe.batches(train, 0, number), steps + 2))
            events = [int((one.target >= 0).sum()) for one in rows]
            way = "packed, bf16" if low else "packed"
            step: Step = lambda batch, net=packed: recipe.loss(net, batch)  # noqa: E731
            rates.setdefault(way, []).append(measure(step, packed, recipe, rows, events, bf16=low))
    medians = {way: round(median(rate)) for way, rate in rates.items()}
    ratio = round(medians["packed"] / medians["padded"], 2)
    return {"data": train.name, "recipe": asdict(recipe), "events_per_second": medians, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ml-1m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--losses", nargs="+", default=["softmax", "gbce"])
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    train = load(args.data, min_rating="any")
    found = []
    for objective in args.losses:
        found.append(compare(SASRec(objective=objective), train, args.rounds, args.steps, bf16=args.bf16))
        print(objective, found[-1]["events_per_second"], "ratio", found[-1]["ratio"], flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
