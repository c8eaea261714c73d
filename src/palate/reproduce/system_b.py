"""System B: NCF against popularity on MovieLens 100K, 100 sampled test negatives.

Published (a tutorial, with the repository HarshdeepGupta/recommender_pytorch): popularity HR@10 0.4221, NDCG@10 0.2269;
MLP 0.6013, 0.3294. The faithful rows follow that repository: embeddings start at N(0, 1) and linear layers as torch
starts them; four negatives of each positive are drawn once, before training; all rows are shuffled one by one; of
equally late rows the last is held out; the 100 test negatives are drawn with replacement and repeats count once; and
the figures are those of the best epoch by HR@10 **on the test rows**. Beside them stand the same fits at their last
epoch, and fits with new negatives in each epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from palate.base import Batch, DataSpec
from palate.data.dataset import Dataset
from palate.data.splits.split import Candidates, Split
from palate.data.splits.strategies import leave_one_out
from palate.datasets.registry import load
from palate.evaluation.evaluate import evaluate
from palate.evaluation.report import Report
from palate.experiment import fit_timed
from palate.models.ease import EASE
from palate.models.neumf import GMF, MLP, NCFModel, NeuMF
from palate.models.popularity import Popularity, RecentPopularity
from palate.models.sasrec import SASRec
from palate.reproduce.measured import TIES, Planned, Tie, gaps, measured_table, pooled, sequences
from palate.reproduce.rows import Options, Row, in_words, published
from palate.reproduce.system_a import torch_start
from palate.training.negative_sampling import NegativeSampler, draw_candidates, epoch_rng

METRICS = (("HitRate", 10), ("NDCG", 10))
PROTOCOL = "latest interaction of each user held out, 100 uniform negatives the user never touched, with replacement"
PROTOCOLS: dict[Tie, str] = {tie: f"{PROTOCOL}; {TIES[tie]}" for tie in ("last", "first")}
FIGURES = {
    "popularity": {("HitRate", 10): 0.4221, ("NDCG", 10): 0.2269},
    "mlp": {("HitRate", 10): 0.6013, ("NDCG", 10): 0.3294},
}
SEEDS = 5


@dataclass(frozen=True)
class TutorialMLP(MLP):
    """The tutorial's network, and how its repository trains it.

    Args:
        redraw: draw new negatives in each epoch. The repository draws them once, before training.
    """

    name: ClassVar[str] = "mlp-tutorial"
    layers: tuple[int, ...] = (16, 32, 16, 8)
    epochs: int = 30
    negatives: int = 4
    batch_size: int = 256
    learning_rate: float = 0.001
    weight_decay: float = 1e-5
    dropout: float = 0.0
    redraw: bool = False

    def build(self, spec: DataSpec) -> NCFModel:
        """An untrained network; tables are normal with deviation 1, as ``nn.Embedding`` makes them."""
        return torch_start(super().build(spec))

    def batches(self, train: Dataset, seed: int, epoch: int) -> Iterator[Batch]:
        """Positives and negatives shuffled one by one: user (P,), item and target (P, 1)."""
        rows, unseen = train.interactions, NegativeSampler(train.history, train.n_items)
        drawn = unseen.draw(rows.user, self.negatives, epoch_rng(seed, epoch if self.redraw else 0, stream=1))
        width = 1 + self.negatives
        order = epoch_rng(seed, epoch).permutation(len(rows) * width)
        item = np.column_stack([rows.item, drawn]).reshape(-1, 1)[order].astype(np.int64)
        target = (order % width == 0).astype(np.float32)[:, None]
        parts = (rows.user[order // width].astype(np.int64), item, target)
        yield from map(Batch, *(torch.from_numpy(part).split(self.batch_size) for part in parts))


# Chosen on validation rows: the latest training row of each user among 99 negatives.
BEST = EASE(regularization=1000, half_life_events=3, floor=0.02)
# From a study on validation rows (docs/tuning.md), rounded: the narrower of two that were equally good there.
SEQUENCE = SASRec(
    dim=64, n_layers=2, heads=2, hidden=256, max_seq_len=200, dropout=0.29, time_gaps=True, request_time=True,
    epochs=20, batch_size=2048, learning_rate=0.0035, average=0.99,
)  # fmt: skip
FAST = (
    GMF(dim=16, epochs=10, negatives=4, batch_size=2048, learning_rate=0.01),
    MLP(layers=(64, 32, 16, 8), epochs=10, negatives=4, batch_size=2048, learning_rate=0.004),
    NeuMF(dim=16, layers=(64, 32, 16, 8), epochs=8, negatives=4, batch_size=4096, learning_rate=0.01),
)


def split(options: Options, tie: Tie = "last") -> Split:
    """The protocol's split, with its candidates drawn once and shared by every model."""
    data = load("ml-100k", min_rating="any", progress=options.training.progress)
    parts = leave_one_out(data, tie=tie, cold="keep")
    return parts.with_candidates(
        each_once(draw_candidates(parts, 100, seed=options.training.seed, replace=True), parts)
    )


def each_once(candidates: Candidates, parts: Split) -> Candidates:
    """The candidates with each repeat in the place of the user's own test item, which does not count."""
    own_U = np.full(parts.test.n_users, -1, dtype=np.int32)
    own_U[parts.test.interactions.user] = parts.test.interactions.item
    order = np.argsort(candidates.negatives, axis=1, kind="stable")
    ascending = np.take_along_axis(candidates.negatives, order, axis=1)
    again = np.zeros(ascending.shape, dtype=bool)
    again[:, 1:] = ascending[:, 1:] == ascending[:, :-1]
    negatives = np.where(again, own_U[candidates.users][:, None], ascending)
    return Candidates(candidates.users, negatives, f"{candidates.how}; repeats count once")


def run(options: Options) -> Iterator[Row]:
    """Published, trivial, faithful and best rows: the last of equally late rows held out, and then the first one."""
    for model, figures in FIGURES.items():
        yield from published("B", "ml-100k", PROTOCOLS["last"], model, [(m, k, v) for (m, k), v in figures.items()])
    trivial = [
        Planned("trivial", Popularity(), "popularity", FIGURES["popularity"]),
        Planned("trivial", RecentPopularity(half_life=10), "recent popularity, half-life 10 days"),
    ]
    best = [Planned("best", BEST, in_words("EASE", BEST), by_group=True)]
    if not options.fast:
        networks = [Planned("best", one, f"{one.name}, large batches", seeds=SEEDS) for one in FAST]
        best = [*networks, *best, *sequences(SEQUENCE)]
    for tie, protocol in PROTOCOLS.items():
        parts = split(options, tie)
        common: dict[str, Any] = {"system": "B", "protocols": {"sampled": protocol}, "groups": gaps(parts)}
        yield from measured_table(trivial, parts, options, METRICS, **common)
        if tie == "last" and "faithful" in options.roles and not options.fast:
            yield from tutorial_rows(parts, options, protocol)
        yield from measured_table(best, parts, options, METRICS, **common)


def tutorial_rows(
    parts: Split, options: Options, protocol: str, recipe: TutorialMLP | None = None, seeds: int = SEEDS
) -> Iterator[Row]:
    """The tutorial's network at its best epoch on the test rows, at its last, and one with new negatives each epoch."""
    once = recipe or TutorialMLP()
    label = f"MLP {'-'.join(map(str, once.layers))}, batch {once.batch_size}, {once.epochs} epochs"
    anew = replace(once, redraw=True)
    for one, words, fits in ((once, "negatives drawn once", seeds), (anew, "negatives drawn anew", 1)):
        best, last, seconds = [], [], 0.0
        for number in range(fits):
            options.report(f"training {label}, {words}", f"seed {number + 1} of {fits}")
            found, taken = _epochs(one, parts, options, number)
            best.append(max(found, key=lambda report: report.value("HitRate", 10)))
            last.append(found[-1])
            seconds += taken / fits
        for reports, epoch in ((best, "best epoch on the test rows"), (last, "last epoch")):
            figures = FIGURES["mlp"] if reports is best and one is once else None
            yield from pooled(
                reports, METRICS, system="B", protocol=protocol, role="faithful",
                model=f"{label}; {words}; {epoch}", seconds=seconds, figures=figures,
            )  # fmt: skip


def _epochs(recipe: TutorialMLP, parts: Split, options: Options, number: int) -> tuple[list[Report], float]:
    """A report on the test rows for each epoch of one fit, and the seconds of training with these measurements."""
    found: list[Report] = []

    def measure(model: NCFModel) -> float:
        # The model in training has no fingerprint yet, and measuring on test rows is what the tutorial does.
        found.append(evaluate(model, parts, k=10, candidates=parts.candidates, name=recipe.name, resamples=0))
        return found[-1].value("HitRate", 10)

    training = options.training
    watched = replace(training, seed=training.seed + number, validation_callback=measure, patience=recipe.epochs)
    _, seconds = fit_timed(recipe, parts.train, watched)
    return found, seconds
