"""ml-1m-next: the next film of every MovieLens 1M user among all films, and the same models among 100 sampled ones.

Each user's latest rating is held out; the whole catalog without the user's seen films is ranked. Of equally late rows
the last or the first of the file is held out, in tables of their own: 42 % of the users have several, so that the two
test sets differ widely. Published figures of other systems stand in the first alone, the rule that they follow too:
SASRec Recall@10 .2392, NDCG@10 .1259 and gSASRec .3003 / .1726 (the repository of Petrov & Macdonald 2023), eSASRec
.3133 / .1772, FuXi-alpha .3164 / .1813 and HSTU .3037 / .1719 (the repository blondered/transformer_benchmark). With
one held-out item Recall@10 is HitRate@10. HSTU reads the time of the held-out event, SASRec and gSASRec do not.

The second table of each rule ranks the held-out film among 100 uniform negatives, as much of the literature does. It
is printed to be compared: the numbers are far higher, and models change places.
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
from palate.reproduce.measured import TIES, Planned, Tie, gaps, halves, measured_table, sequences
from palate.reproduce.rows import Options, Row, published
from palate.training.negative_sampling import draw_candidates

PROTOCOL = "latest rating of each user held out"
RANKINGS = {"full": "all films, seen ones removed", "sampled": "among 100 uniform negatives never touched"}
METRICS = (("Recall", 10), ("NDCG", 10))
FIGURES = {
    "SASRec, Petrov & Macdonald 2023": (0.2392, 0.1259),
    "gSASRec": (0.3003, 0.1726),
    "HSTU": (0.3037, 0.1719),
    "eSASRec": (0.3133, 0.1772),
    "FuXi-alpha": (0.3164, 0.1813),
}
IALS_128 = IALS(dim=128, unobserved_weight=0.3, regularization=0.007)
# From studies on validation rows (docs/tuning.md), rounded. It reads the gaps between events, which published ones do
# not, with and without the request time. Other fields are named, so that new defaults change nothing.
SEQUENCE = SASRec(
    dim=64, n_layers=3, heads=2, hidden=256, max_seq_len=200, dropout=0.1, time_gaps=True, request_time=True,
    epochs=10, batch_size=4096, learning_rate=0.004, average=0.998,
)  # fmt: skip
PLAN = (
    Planned("trivial", Popularity(), "popularity"),
    Planned("trivial", RecentPopularity(half_life=10), "recent popularity, half-life 10 days"),
    Planned("trivial", ItemKNN(neighbors=50, shrinkage=10), "item kNN, 50 neighbors, shrinkage 10"),
    Planned(
        "best",
        MLP(layers=(64, 32, 16, 8), epochs=10, negatives=4, batch_size=2048, learning_rate=0.004),
        "MLP, large batches",
    ),
    Planned("best", EASE(regularization=1000), "EASE, all events alike", by_group=True),
    Planned(
        "best", EASE(regularization=2000, half_life_events=3, floor=0.02), "EASE, recent events first", by_group=True
    ),
    Planned("best", IALS_128, "iALS, dim 128, all events alike"),
    Planned("best", replace(IALS_128, half_life_events=4, floor=0.02), "iALS, dim 128, recent events first"),
    *sequences(SEQUENCE),
)


def run(options: Options) -> Iterator[Row]:
    """Published, trivial and best rows by full ranking, then the same models by sampled candidates, for both ties."""
    data = load("ml-1m", min_rating="any", progress=options.training.progress)
    plan = [one for one in PLAN if not (options.fast and isinstance(one.recipe, MLP | SASRec))]
    ties: tuple[Tie, ...] = ("last", "first")
    for tie in ties:
        protocols = {ranking: f"{PROTOCOL}; {words}; {TIES[tie]}" for ranking, words in RANKINGS.items()}
        for model, figures in FIGURES.items() if tie == "last" else ():
            pairs = [(metric, k, figure) for (metric, k), figure in zip(METRICS, figures, strict=True)]
            yield from published("ml-1m-next", "ml-1m", protocols["full"], model, pairs)
        parts = leave_one_out(data, tie=tie, cold="keep")
        parts = parts.with_candidates(draw_candidates(parts, 100, seed=options.training.seed))
        yield from measured_table(
            plan,
            parts,
            options,
            METRICS,
            system="ml-1m-next",
            protocols=protocols,
            groups=gaps(parts) | halves(parts.train),
        )
