"""ml-1m-next: the next film of every MovieLens 1M user among all films, and the same models among 100 sampled ones.

Each user's latest rating is held out; the whole catalog without the user's seen films is ranked. Published under
like protocols: SASRec Recall@10 .2392, NDCG@10 .1259 and gSASRec .3003 / .1726 (the repository of Petrov & Macdonald
2023); HSTU .3227 / .1879 and HSTU-large .3642 / .2164 (RecTools' HSTU notebook). With one held-out item Recall@10 is
HitRate@10.

HSTU reads the time of the held-out event, as the last row of ours does (``request_time``); SASRec and gSASRec do not.

The second table ranks the held-out film among 100 uniform negatives, as much of the literature does. It is printed to
be compared: the numbers are far higher, and models change places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from palate.data.splits.strategies import leave_one_out
from palate.datasets.registry import load
from palate.models.ease import EASE
from palate.models.ials import IALS
from palate.models.item_knn import ItemKNN
from palate.models.neumf import MLP
from palate.models.popularity import Popularity, RecentPopularity
from palate.models.sasrec import SASRec
from palate.reproduce.rows import Options, Planned, Row, in_words, measured_table, published
from palate.training.negative_sampling import draw_candidates

PROTOCOL = "latest rating of each user held out"
FULL, SAMPLED = f"{PROTOCOL}; all films, seen ones removed", f"{PROTOCOL}; among 100 uniform negatives never touched"
METRICS = (("Recall", 10), ("NDCG", 10))
FIGURES = {
    "SASRec": (0.2392, 0.1259),
    "gSASRec": (0.3003, 0.1726),
    "HSTU": (0.3227, 0.1879),
    "HSTU-large": (0.3642, 0.2164),
}
# From studies on validation rows (docs/tuning.md), rounded.
BEST = SASRec(dim=128, n_layers=3, dropout=0.13, learning_rate=0.004, time_gaps=True, request_time=True, epochs=16)
IALS_128 = IALS(dim=128, unobserved_weight=0.3, regularization=0.007)
# Narrower, and without the time of the request; it reads the gaps between events, which published ones do not.
PLAIN = SASRec(n_layers=3, dropout=0.1, learning_rate=0.004, time_gaps=True, epochs=10)
PLAN = (
    Planned("trivial", Popularity(), "popularity"),
    Planned("trivial", RecentPopularity(), "recent popularity, half-life 10 days"),
    Planned("trivial", ItemKNN(shrinkage=10), "item kNN, 50 neighbors, shrinkage 10"),
    Planned("best", MLP.fast(), "MLP, fast preset"),
    Planned("best", EASE(regularization=1000), "EASE, all events alike"),
    Planned("best", EASE(regularization=2000, half_life_events=3, floor=0.02), "EASE, recent events first"),
    Planned("best", IALS_128, "iALS, dim 128, all events alike"),
    Planned("best", replace(IALS_128, half_life_events=4, floor=0.02), "iALS, dim 128, recent events first"),
    Planned("best", PLAIN, in_words("SASRec", PLAIN), half=True),
    Planned("best", BEST, in_words("SASRec", BEST), half=True),
)


def run(options: Options) -> Iterator[Row]:
    """Published, trivial and best rows by full ranking, then the same models by sampled candidates."""
    for model, figures in FIGURES.items():
        pairs = zip(METRICS, figures, strict=True)
        yield from published("ml-1m-next", "ml-1m", FULL, model, [(metric, k, figure) for (metric, k), figure in pairs])
    parts = leave_one_out(load("ml-1m", min_rating="any", progress=options.training.progress), tie="first", cold="keep")
    parts = parts.with_candidates(draw_candidates(parts, 100, seed=options.training.seed))
    plan = [one for one in PLAN if not (options.fast and isinstance(one.recipe, SASRec))]
    yield from measured_table(
        plan, parts, options, METRICS, system="ml-1m-next", protocols={"full": FULL, "sampled": SAMPLED}
    )
