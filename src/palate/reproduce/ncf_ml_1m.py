"""ncf-ml-1m: the NCF paper's own evaluation of MovieLens 1M (He et al. 2017), with its 99 listed negatives.

Reference values on these files: popularity .4538 / .2545 with ties in favor of the positive; the authors' pre-trained
GMF-8 .6368 / .3691 and MLP [64, 32, 16, 8] .6710 / .3963. Published: NeuMF .7093 / .4349 (He et al. 2017); dot-product
MF .7294 / .4523 (Rendle et al. 2020, "Neural Collaborative Filtering vs. Matrix Factorization Revisited").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from palate.datasets.registry import load_split
from palate.models.ease import EASE
from palate.models.ials import IALS
from palate.models.neumf import GMF, MLP
from palate.models.popularity import Popularity, RecentPopularity
from palate.models.sampled_mf import LogisticMF
from palate.models.sasrec import SASRec
from palate.reproduce.measured import Planned, gaps, halves, measured_table, sequences
from palate.reproduce.rows import Options, Row, in_words, published

METRICS = (("HitRate", 10), ("NDCG", 10))
PROTOCOL = "the paper's files: latest interaction held out, 99 listed negatives"
FIGURES = {
    "GMF-8, authors' weights": {("HitRate", 10): 0.6368, ("NDCG", 10): 0.3691},
    "MLP 64-32-16-8, authors' weights": {("HitRate", 10): 0.6710, ("NDCG", 10): 0.3963},
    "NeuMF, He et al. 2017": {("HitRate", 10): 0.7093, ("NDCG", 10): 0.4349},
    "dot-product MF, Rendle et al. 2020": {("HitRate", 10): 0.7294, ("NDCG", 10): 0.4523},
}
# Half-life, floor and widths were chosen by NDCG@10 on validation rows, the latest of each user in the training file:
# .5957 there for iALS (.4606 with all events alike), .5374 for the dot-product MF.
IALS_128 = IALS(dim=128, unobserved_weight=0.3, regularization=0.007, half_life_events=4, floor=0.02)
EVEN_IALS = IALS(dim=128, unobserved_weight=0.3, regularization=0.007)
DOT_PRODUCT = LogisticMF(dim=64, epochs=40, regularization=0.005, half_life_events=4, floor=0.02)
# From the studies of ml-1m-next, whose training rows are nearly these (docs/tuning.md).
SEQUENCE = SASRec(
    dim=64, n_layers=3, heads=2, hidden=256, max_seq_len=200, dropout=0.1, time_gaps=True, request_time=True,
    epochs=10, batch_size=4096, learning_rate=0.004, average=0.998,
)  # fmt: skip
# The settings of the paper.
PAPER: dict[str, Any] = {
    "epochs": 20, "negatives": 4, "batch_size": 256, "learning_rate": 0.001, "weight_decay": 0.0, "dropout": 0.0
}  # fmt: skip
BEST = EASE(regularization=2000, half_life_events=3, floor=0.02)


def run(options: Options) -> Iterator[Row]:
    """Published, trivial, faithful and best rows."""
    for model, figures in FIGURES.items():
        yield from published("ncf-ml-1m", "ncf-ml-1m", PROTOCOL, model, [(m, k, v) for (m, k), v in figures.items()])
    parts = load_split("ncf-ml-1m", progress=options.training.progress)
    plan = [
        Planned("trivial", Popularity(), "popularity"),
        Planned("trivial", RecentPopularity(half_life=10), "recent popularity, half-life 10 days"),
    ]
    if not options.fast:
        gmf, mlp = "GMF-8, authors' weights", "MLP 64-32-16-8, authors' weights"
        plan += [
            Planned("faithful", GMF(dim=8, **PAPER), "GMF-8, batch 256, 20 epochs", FIGURES[gmf]),
            Planned(
                "faithful", MLP(layers=(64, 32, 16, 8), **PAPER), "MLP 64-32-16-8, batch 256, 20 epochs", FIGURES[mlp]
            ),
        ]
    plan += [
        Planned("best", EVEN_IALS, in_words("iALS", EVEN_IALS)),
        Planned("best", IALS_128, in_words("iALS", IALS_128)),
        Planned("best", BEST, in_words("EASE", BEST), by_group=True),
    ]
    if not options.fast:
        plan.append(Planned("best", DOT_PRODUCT, in_words("dot-product MF", DOT_PRODUCT)))
        plan += sequences(SEQUENCE)
    groups = gaps(parts) | halves(parts.train, first=0)
    yield from measured_table(
        plan, parts, options, METRICS, system="ncf-ml-1m", protocols={"sampled": PROTOCOL}, groups=groups
    )
