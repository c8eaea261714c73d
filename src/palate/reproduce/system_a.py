"""System A: neural collaborative filtering on 30 % of the users of MovieLens 20M, 99 sampled test negatives.

Published (a tutorial on the model of He et al. 2017 with PyTorch Lightning): HR@10 0.86 on MovieLens 20M. That set is
large and may not be passed on, so the same protocol also runs on MovieLens 1M, for which nothing was published.

Two things to know about it. A training negative is redrawn only if the user has it in the training rows, so a user's
own test item can be a training negative. Test negatives are drawn with replacement, for every model alike, so most
users have fewer than 99 different ones.

The positives are walked in the order of a Python set of pairs, which is scattered and the same in every epoch; nothing
else is shuffled. On ml-1m the faithful run is about as good as popularity; what was published for ml-20m can only be
compared on ml-20m, where a larger catalog probably makes random negatives easier to beat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from palate.base import Batch, DataSpec, Recipe
from palate.data.dataset import Dataset
from palate.data.preprocessing import binarize, sample_users
from palate.data.splits.split import Split
from palate.data.splits.strategies import leave_one_out
from palate.datasets.registry import load
from palate.errors import SourceError
from palate.models.ease import EASE
from palate.models.item_knn import ItemKNN
from palate.models.neumf import MLP, NCFModel
from palate.models.popularity import Popularity, RecentPopularity
from palate.models.sasrec import SASRec
from palate.reproduce.measured import TIES, Planned, Tie, gaps, halves, measured_table, sequences
from palate.reproduce.rows import Options, Row, published
from palate.training.negative_sampling import NegativeSampler, draw_candidates, epoch_rng

METRICS = (("HitRate", 10), ("NDCG", 10))
PROTOCOL = "30 % of the users, latest rating of each held out, 99 negatives the user never touched, with replacement"
PROTOCOLS: dict[Tie, str] = {tie: f"{PROTOCOL}; {words}" for tie, words in TIES.items()}
PUBLISHED = {"ml-20m": 0.86}
USER_SEED = 123
CHUNK = 1 << 18  # positives whose negatives are drawn at once


@dataclass(frozen=True)
class TutorialNCF(MLP):
    """The tutorial's network and the way it was trained.

    Embeddings of 8 and 8, hidden layers of 64 and 32, tables and layers started as torch starts them, Adam at its
    defaults. The positives come in an order that is scattered once for all epochs, each followed by its new negatives,
    512 rows to a batch.
    """

    name: ClassVar[str] = "ncf-tutorial"
    layers: tuple[int, ...] = (16, 64, 32)
    epochs: int = 5
    negatives: int = 4
    batch_size: int = 512
    learning_rate: float = 0.001
    weight_decay: float = 0.0
    dropout: float = 0.0

    def build(self, spec: DataSpec) -> NCFModel:
        """An untrained network; tables are normal with deviation 1, as ``nn.Embedding`` makes them."""
        return torch_start(super().build(spec))

    def batches(self, train: Dataset, seed: int, epoch: int) -> Iterator[Batch]:
        """Positives in one scattered order, each followed by its negatives: user (P,), item and target (P, 1)."""
        order = epoch_rng(seed, 0, stream=1).permutation(len(train))
        rng = epoch_rng(seed, epoch)
        rows, unseen, width = train.interactions, NegativeSampler(train.history, train.n_items), 1 + self.negatives
        chunk = max(1, CHUNK // self.batch_size) * self.batch_size  # a multiple: only an epoch's last batch is short
        for first in range(0, len(rows), chunk):
            picked = order[first : first + chunk]
            user = rows.user[picked]
            item = np.column_stack([rows.item[picked], unseen.draw(user, self.negatives, rng)]).reshape(-1, 1)
            target = (np.arange(len(item)) % width == 0).astype(np.float32)[:, None]
            parts = (np.repeat(user, width).astype(np.int64), item.astype(np.int64), target)
            yield from map(Batch, *(torch.from_numpy(part).split(self.batch_size) for part in parts))


def torch_start(model: NCFModel) -> NCFModel:
    """The network with tables and layers started as torch starts them: tables are normal with deviation 1."""
    for layer in model.modules():
        if isinstance(layer, nn.Embedding | nn.Linear):
            layer.reset_parameters()
    return model


# Chosen on validation rows: leave one out once more, within the training rows of ml-1m.
EASE_RECENT = EASE(regularization=1000, half_life_events=5, floor=0.05, max_items=30_000)
BEST: tuple[tuple[Recipe[Any], str], ...] = (
    (EASE_RECENT, "EASE, regularization 1000, half-life 5 events, floor 0.05"),
    (ItemKNN(neighbors=50, shrinkage=10), "item kNN, 50 neighbors, shrinkage 10"),
)

# From a study on validation rows (docs/tuning.md), rounded. Every field is named, so that new defaults change nothing.
SEQUENCE = SASRec(
    dim=128, n_layers=2, heads=2, hidden=256, max_seq_len=200, dropout=0.1, time_gaps=True, request_time=True,
    epochs=12, batch_size=2048, learning_rate=0.0037, average=0.99,
)  # fmt: skip
SEEDS = 5


def split(data: Dataset, seed: int = 0, tie: Tie = "first") -> Split:
    """The protocol's split of any data set, with its candidates drawn once and shared by every model."""
    parts = leave_one_out(binarize(sample_users(data, 0.3, USER_SEED)), tie=tie, cold="keep")
    return parts.with_candidates(draw_candidates(parts, 99, seed=seed, replace=True))


def run(options: Options) -> Iterator[Row]:
    """Published, trivial, faithful and best rows: on ml-20m where it is available, and on ml-1m."""
    for name, figure in PUBLISHED.items():
        yield from published("A", name, PROTOCOLS["first"], "NCF 64-32", [("HitRate", 10, figure)])
    if not options.fast:
        try:
            data = load("ml-20m", min_rating="any", progress=options.training.progress)
        except SourceError as error:
            options.report("system A", f"runs on ml-1m alone: {error}")
        else:
            yield from table(data, options)
    yield from table(load("ml-1m", min_rating="any", progress=options.training.progress), options)


def table(data: Dataset, options: Options) -> Iterator[Row]:
    """The rows of one data set: the first of equally late rows held out, as published, and then the last one."""
    known = {("HitRate", 10): PUBLISHED[data.name]} if data.name in PUBLISHED else None
    trivial = [
        Planned("trivial", Popularity(), "popularity"),
        Planned("trivial", RecentPopularity(half_life=10), "recent popularity, half-life 10 days"),
    ]
    best = [Planned("best", recipe, label, by_group=recipe is EASE_RECENT) for recipe, label in BEST]
    if not options.fast:
        label = "NCF 64-32, batch 512, 5 epochs; the user's own test item can be a training negative"
        trivial.append(Planned("faithful", TutorialNCF(), label, known, seeds=SEEDS))
        best += sequences(SEQUENCE)
    for tie, protocol in PROTOCOLS.items():
        parts = split(data, options.training.seed, tie)
        groups = gaps(parts) | (halves(parts.train) if data.name == "ml-1m" else {})
        plan = [one for one in (*trivial, *best) if tie == "first" or one.role != "faithful"]
        yield from measured_table(
            plan, parts, options, METRICS, system="A", protocols={"sampled": protocol}, groups=groups
        )
