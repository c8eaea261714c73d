"""ncf-ml-1m: the NCF paper's own evaluation of MovieLens 1M (He et al. 2017), with its 99 listed negatives.

Reference values on these files: popularity .4538 / .2545 with ties in favour of the positive; the authors' pre-trained
GMF-8 .6368 / .3691 and MLP [64, 32, 16, 8] .6710 / .3963. Published: NeuMF .7093 / .4349 (He et al. 2017); dot-product
MF .7294 / .4523 (Rendle et al. 2020, "Neural Collaborative Filtering vs. Matrix Factorization Revisited").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from palate.data.registry import load_split
from palate.models.ease import EASE
from palate.models.neumf import GMF, MLP
from palate.models.popularity import Popularity
from palate.reproduce.rows import Options, Role, Row, from_report, measure, published

__all__ = ["FIGURES", "run"]

METRICS = (("HitRate", 10), ("NDCG", 10))
PROTOCOL = "the paper's files: latest interaction held out, 99 listed negatives"
FIGURES = {
    "GMF-8, authors' weights": {("HitRate", 10): 0.6368, ("NDCG", 10): 0.3691},
    "MLP 64-32-16-8, authors' weights": {("HitRate", 10): 0.6710, ("NDCG", 10): 0.3963},
    "NeuMF, He et al. 2017": {("HitRate", 10): 0.7093, ("NDCG", 10): 0.4349},
    "dot-product MF, Rendle et al. 2020": {("HitRate", 10): 0.7294, ("NDCG", 10): 0.4523},
}
# The paper's architectures; larger batches with a higher learning rate, chosen on validation rows of the training file.
GMF_8 = GMF(dim=8, batch_size=8192, learning_rate=0.01, epochs=16)
BEST = EASE(regularization=2000, half_life_events=3, floor=0.02)
MLP_32 = MLP(layers=(64, 32, 16, 8), batch_size=8192, learning_rate=0.008, epochs=15)


def run(options: Options) -> Iterator[Row]:
    """Published, trivial, faithful and best rows."""
    for model, figures in FIGURES.items():
        yield from published("ncf-ml-1m", "ncf-ml-1m", PROTOCOL, model, [(m, k, v) for (m, k), v in figures.items()])
    parts = load_split("ncf-ml-1m", log=options.log, progress=options.progress)
    plan: list[tuple[Role, Any, str, str | None]] = [
        ("trivial", Popularity(), "popularity", None),
        ("faithful", GMF_8, "GMF-8", "GMF-8, authors' weights"),
        ("faithful", MLP_32, "MLP 64-32-16-8", "MLP 64-32-16-8, authors' weights"),
        ("best", BEST, f"EASE, recent events first ({BEST})", None),
    ]
    for role, recipe, label, source in plan:
        if role in options.roles:
            options.log(f"training {label}")
            fitting = replace(options.run, progress=options.progress)
            _, report, seconds = measure(recipe, parts, fitting, k=10, candidates=parts.candidates)
            yield from from_report(
                report, METRICS, system="ncf-ml-1m", protocol=PROTOCOL, role=role, model=label, seconds=seconds,
                figures=FIGURES.get(source or ""),
            )  # fmt: skip
