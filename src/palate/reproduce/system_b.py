"""System B: NCF against popularity on MovieLens 100K, 100 sampled test negatives.

Published (https://github.com/yihong-chen/neural-collaborative-filtering, and the tutorial made from it): popularity
HR@10 0.4221, NDCG@10 0.2269; MLP 0.6013, 0.3294.
"""

from __future__ import annotations

from collections.abc import Iterator

from palate.data.splits.split import Split
from palate.data.splits.strategies import leave_one_out
from palate.datasets.registry import load
from palate.models.ease import EASE
from palate.models.neumf import GMF, MLP, NeuMF
from palate.models.popularity import Popularity, RecentPopularity
from palate.models.sasrec import SASRec
from palate.reproduce.rows import Options, Planned, Row, in_words, measured_table, published
from palate.training.negative_sampling import draw_candidates

METRICS = (("HitRate", 10), ("NDCG", 10))
PROTOCOL = "latest interaction of each user held out, 100 uniform negatives the user never touched"
FIGURES = {
    "popularity": {("HitRate", 10): 0.4221, ("NDCG", 10): 0.2269},
    "mlp": {("HitRate", 10): 0.6013, ("NDCG", 10): 0.3294},
}
PUBLISHED_MLP = MLP(layers=(16, 32, 16, 8), weight_decay=1e-5, batch_size=256, epochs=30)
# Chosen on validation rows: the latest training row of each user among 99 negatives.
BEST = EASE(regularization=1000, half_life_events=3, floor=0.02)
# From a study on validation rows (docs/tuning.md), rounded: the narrower of two that were equally good there.
SEQUENCE = SASRec(
    epochs=20, batch_size=2048, dropout=0.29, learning_rate=0.0035, average=0.99, time_gaps=True, request_time=True
)
FAST = (GMF.fast(), MLP.fast(), NeuMF.fast())


def split(options: Options) -> Split:
    """The protocol's split, with its candidates drawn once and shared by every model."""
    data = load("ml-100k", min_rating="any", progress=options.training.progress)
    parts = leave_one_out(data, tie="first", cold="keep")
    return parts.with_candidates(draw_candidates(parts, 100, seed=options.training.seed))


def run(options: Options) -> Iterator[Row]:
    """Published, trivial, faithful and best rows."""
    for model, figures in FIGURES.items():
        yield from published("B", "ml-100k", PROTOCOL, model, [(m, k, v) for (m, k), v in figures.items()])
    parts = split(options)
    plan = [
        Planned("trivial", Popularity(), "popularity", FIGURES["popularity"]),
        Planned("trivial", RecentPopularity(), "recent popularity, half-life 10 days"),
    ]
    if not options.fast:
        plan.append(Planned("faithful", PUBLISHED_MLP, "MLP 16-32-16-8, batch 256, 30 epochs", FIGURES["mlp"]))
    plan += [Planned("best", one, f"{one.name}, fast preset", FIGURES.get(one.name)) for one in FAST]
    plan.append(Planned("best", BEST, in_words("EASE", BEST)))
    if not options.fast:
        plan.append(Planned("best", SEQUENCE, in_words("SASRec", SEQUENCE), half=True))
    yield from measured_table(plan, parts, options, METRICS, system="B", protocols={"sampled": PROTOCOL})
