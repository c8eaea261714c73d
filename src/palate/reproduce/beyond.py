"""beyond: data sets beyond MovieLens, by default presets and by settings chosen on validation rows.

    Amazon Beauty, Toys   the last item of each user held out, by order
    Amazon Music          the latest row of each user held out
    Steam, Last.fm        a random fifth of all rows held out
    FilmTrust             five random folds, every rating predicted once
    ml-latest-small       the last fifth of the rows by time held out, relevant from 4

Lists are ranked among all items, seen ones removed. A row "chosen" is the best of the listed candidates by NDCG@10 (or
RMSE) on validation rows, which are cut from the training rows in the way the test rows were; test rows are measured
once for each row of the table. All data sets but the last are read from the folder PALATE_DATA and are left out with a
message where they are missing. The published figures and those of peers are on the same split of the same files where
the order of rows decides it, else on another random fifth.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from palate.base import Recipe
from palate.data.dataset import Dataset
from palate.data.frame import from_frame
from palate.data.readers import read_interactions
from palate.data.splits.split import Split
from palate.data.splits.strategies import at_random, by_time, leave_one_out
from palate.datasets.registry import load
from palate.errors import PalateError
from palate.evaluation.rating_prediction import evaluate_ratings
from palate.experiment import fit_and_measure
from palate.experiment.validation import validation_split
from palate.models.bmf import BMF
from palate.models.ease import EASE
from palate.models.ensemble import Ensemble
from palate.models.graph_filter import GFCF
from palate.models.ials import IALS
from palate.models.item_knn import ItemKNN
from palate.models.means import UserItemMeans
from palate.models.mf import MF
from palate.models.popularity import Popularity, RecentPopularity
from palate.models.registry import as_recipe
from palate.models.sasrec import SASRec
from palate.models.sparse_ease import SparseEASE
from palate.models.svdpp import SVDpp
from palate.reproduce.measured import Metrics, Planned, pooled
from palate.reproduce.rows import Options, Row, in_words, published
from palate.reproduce.system_c import measured

SYSTEM = "beyond"
NEXT: Metrics = (("Recall", 10), ("NDCG", 10))
LISTS: Metrics = (("NDCG", 10), ("Recall", 20))


@dataclass(frozen=True)
class Lists:
    """A data set whose lists are measured.

    Args:
        name: of the data set in the table.
        protocol: of the split, in words.
        read: reads the rows.
        cut: holds out test rows.
        metrics: by name and length.
        peers: published figures, or those of peers, of the metrics by label; None where one is not known.
        trivial: baselines.
        defaults: recipes at their default or fast presets.
        candidates: recipes of which validation rows choose one.
    """

    name: str
    protocol: str
    read: Callable[[], Dataset]
    cut: Callable[[Dataset], Split]
    metrics: Metrics
    peers: dict[str, tuple[float | None, ...]]
    trivial: tuple[Recipe[Any], ...]
    defaults: tuple[Recipe[Any], ...]
    candidates: tuple[Recipe[Any], ...]


def folder() -> Path:
    """The folder PALATE_DATA, or one that does not exist."""
    return Path(os.environ.get("PALATE_DATA") or "PALATE_DATA is not set")


def sequences(name: str) -> Dataset:
    """Users with their items in order, without times."""
    return read_interactions(folder() / "amazon-sequences" / f"{name}.txt.gz", layout="lines")


def music() -> Dataset:
    """Ratings of Amazon Digital Music as implicit feedback."""
    return read_interactions(
        folder() / "amazon-music" / "rating.txt.gz", names=["user", "item", "rating", "time"], min_rating="any"
    )


def filmtrust() -> Dataset:
    """The ratings of all four files."""
    files = [folder() / "filmtrust" / f"ratings_{part}.txt" for part in range(4)]
    names = ["user_id", "item_id", "rating"]
    return from_frame(
        pl.concat([pl.read_csv(file, separator=" ", has_header=False, new_columns=names) for file in files]),
        name="filmtrust",
        explicit=True,
        min_rating="any",
    )


RECENT = (
    EASE(regularization=50, half_life_events=2, floor=0.05),
    SparseEASE(neighbors=200, regularization=30, half_life_events=2, floor=0.05),
    GFCF(half_life_events=2, floor=0.05),
)
SEQUENCE = SASRec(
    objective="sampled-softmax", negatives=1_024, dim=64, n_layers=2, dropout=0.4, epochs=20, batch_size=2_048,
    learning_rate=0.003, average=0.99, shuffled=0.1,
)  # fmt: skip
AMAZON = partial(
    Lists,
    protocol="leave one out by order; all items, seen ones removed",
    cut=leave_one_out,
    metrics=NEXT,
    trivial=(Popularity(), ItemKNN()),
    defaults=(SparseEASE(), GFCF(), SASRec.fast()),
    candidates=(SparseEASE(regularization=30, half_life_events=2, floor=0.05), RECENT[2], SEQUENCE),
)
WIDE = (
    SparseEASE(neighbors=200, regularization=30),
    SparseEASE(neighbors=200),
    GFCF(neighbors=1_000),
    GFCF(neighbors=1_000, asymmetry=0.5),
    GFCF(neighbors=1_000, asymmetry=0.7),
    IALS(dim=128),
)
TABLES = (
    AMAZON(
        name="Amazon Beauty",
        read=partial(sequences, "beauty"),
        peers={"SASRec, sampled softmax": (0.0921, 0.0531), "eSASRec": (0.0928, 0.0523)},
    ),
    AMAZON(
        name="Amazon Toys",
        read=partial(sequences, "toys"),
        peers={"SASRec, sampled softmax": (0.0970, 0.0580), "eSASRec": (0.0939, 0.0538)},
    ),
    Lists(
        name="Amazon Music",
        protocol="leave one out by time; all items, seen ones removed",
        read=music,
        cut=leave_one_out,
        metrics=NEXT,
        peers={},
        trivial=(Popularity(), RecentPopularity(), ItemKNN()),
        defaults=(EASE(), SparseEASE(), GFCF(), IALS(), SASRec.fast()),
        candidates=(*RECENT, replace(SEQUENCE, objective="softmax"), replace(SEQUENCE, epochs=30)),
    ),
    Lists(
        name="Steam plays",
        protocol="Steam, random fifth of the rows held out; all items, seen ones removed",
        read=lambda: read_interactions(folder() / "steam" / "game_play.dat.gz"),
        cut=at_random,
        metrics=LISTS,
        peers={"implicit, ALS, tuned": (0.272, None)},
        trivial=(Popularity(), ItemKNN()),
        defaults=(EASE(), SparseEASE(), GFCF(), IALS(), Ensemble()),
        candidates=(
            EASE(regularization=100),
            EASE(regularization=200),
            *WIDE,
            Ensemble(members=("ials", {"recipe": "ease", "regularization": 200}, "gf-cf"), weights=(1, 1, 1)),
        ),
    ),
    Lists(
        name="Last.fm-2k",
        protocol="Last.fm, random fifth of the rows held out; all items, seen ones removed",
        read=lambda: read_interactions(folder() / "lastfm-2k" / "user_artists.dat.gz"),
        cut=at_random,
        metrics=LISTS,
        peers={"implicit, ALS, tuned": (0.2615, None)},
        trivial=(Popularity(), ItemKNN()),
        defaults=(SparseEASE(), GFCF(), IALS()),
        candidates=(
            *WIDE,
            Ensemble(members=({"recipe": "ials", "dim": 128}, "sparse-ease", "gf-cf"), weights=(1, 1, 1)),
        ),
    ),
    Lists(
        name="ml-latest-small",
        protocol="last fifth of the rows by time held out, relevant from 4; all items, seen ones removed",
        read=lambda: load("ml-latest-small", min_rating=4),
        cut=by_time,
        metrics=LISTS,
        peers={},
        trivial=(Popularity(), RecentPopularity(), ItemKNN()),
        defaults=(SparseEASE(), GFCF(), IALS()),
        candidates=(
            *RECENT[1:],
            SparseEASE(neighbors=200),
            GFCF(neighbors=1_000),
            IALS(dim=128),
            RecentPopularity(100),
        ),
    ),
)
FOLDS = "five random folds, every rating predicted once"
RATINGS = (
    BMF(dim=4), BMF(dim=8), MF(dim=8, regularization=0.3), SVDpp(dim=8, regularization=0.3),
    UserItemMeans(user_damping=3, item_damping=10),
)  # fmt: skip


def run(options: Options, tables: Sequence[Lists] = TABLES) -> Iterator[Row]:
    """Published, trivial, default and chosen rows of all data sets that are there."""
    for one in tables:
        try:
            split = one.cut(one.read())
        except PalateError as error:
            options.report(f"{one.name} is left out", str(error).partition("\n")[0])
            continue
        yield from lists(one, split, options)
    if not all((folder() / "filmtrust" / f"ratings_{part}.txt").exists() for part in range(4)):
        options.report("FilmTrust is left out", "PALATE_DATA has no filmtrust/ratings_0.txt to ratings_3.txt")
        return
    yield from ratings(filmtrust(), options)


def lists(table: Lists, split: Split, options: Options) -> Iterator[Row]:
    """The rows of a data set whose lists are measured."""
    for peer, figures in table.peers.items():
        known = [(*metric, figure) for metric, figure in zip(table.metrics, figures, strict=True) if figure is not None]
        yield from published(SYSTEM, split.train.name, table.protocol, peer, known)
    plan = [Planned("trivial", recipe, label(recipe)) for recipe in table.trivial]
    plan += [Planned("best", recipe, f"{label(recipe)}: preset") for recipe in table.defaults]
    plan = [one for one in plan if one.role in options.roles and not _slow(one.recipe, options)]
    if "best" in options.roles:
        chosen = choose([one for one in table.candidates if not _slow(one, options)], split, options)
        plan.append(Planned("best", chosen, f"{label(chosen)}: chosen"))
    for one in plan:
        options.report(f"{table.name}: training {one.label}")
        forget_peak()
        fit = fit_and_measure(one.recipe, split, options.training, k=[k for _, k in table.metrics], rankings=("full",))
        for line in fit.findings:
            options.report(f"{one.label}: {line}")
        rows = pooled(
            [fit.reports["full"]], table.metrics, system=SYSTEM, protocol=table.protocol, role=one.role,
            model=one.label, seconds=fit.seconds,
        )  # fmt: skip
        yield from (replace(row, memory=fit.memory) for row in rows)


def ratings(data: Dataset, options: Options) -> Iterator[Row]:
    """The rows of FilmTrust."""
    for metric, figure in (("RMSE", 0.796), ("MAE", 0.621)):
        yield from published(SYSTEM, data.name, FOLDS, "Surprise, SVD, one fold", [(metric, None, figure)])
    splits = folds(data)
    plan = [Planned("trivial", UserItemMeans(), "user and item means")]
    plan += [Planned("best", one, f"{one.name}: preset") for one in (MF.fast(), SVDpp.fast(), BMF.fast())]
    if "best" in options.roles:
        part = validation_split(splits[0])
        errors = [evaluate_ratings(one.fit(part.train, options.training), part, resamples=0) for one in RATINGS]
        chosen = RATINGS[min(range(len(errors)), key=lambda place: errors[place].value("RMSE"))]
        plan.append(Planned("best", chosen, f"{label(chosen)}: chosen"))
    for one in plan:
        if one.role in options.roles:
            forget_peak()
            rows = measured(one, splits, None, options, system=SYSTEM, dataset=data.name, protocol=FOLDS)
            yield from (row for row in rows if row.protocol == FOLDS and row.metric in ("RMSE", "MAE"))


def folds(data: Dataset) -> list[Split]:
    """Five random parts of the rows, each held out once; test rows of unknown users and items are kept."""
    part = np.random.default_rng(0).permutation(len(data)) % 5
    return [
        Split(
            data.with_rows(data.interactions.take(part != fold)),
            data.with_rows(data.interactions.take(part == fold)),
            f"random fold {fold + 1} of 5",
        )
        for fold in range(5)
    ]


def choose(candidates: list[Recipe[Any]], split: Split, options: Options) -> Recipe[Any]:
    """The candidate with the highest NDCG@10 on validation rows cut from the training rows."""
    validation = validation_split(split)
    values = []
    for recipe in candidates:
        fit = fit_and_measure(recipe, validation, options.training, k=10, rankings=("full",), resamples=0)
        values.append(fit.reports["full"].value("NDCG", 10))
        options.report(f"{split.train.name}: validation", f"{label(recipe)} {values[-1]:.4f}")
    return candidates[max(range(len(values)), key=values.__getitem__)]


def label(recipe: Recipe[Any]) -> str:
    """The name and the fields that are not at their defaults; an ensemble by its members."""
    if isinstance(recipe, Ensemble):
        return f"ensemble of {'; '.join(label(as_recipe(member)) for member in recipe.members)}"
    return in_words(recipe.name, recipe)


def forget_peak() -> None:
    """Reset the count of the most memory held, so that each row has its own; ignored where the system cannot."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _slow(recipe: Recipe[Any], options: Options) -> bool:
    return options.fast and isinstance(recipe, SASRec)
