"""Comparisons over several splits of one data set: cross-validation, and rolling windows of time.

    found = compare_folds(palate.rolling_windows(data, 3), ["ease", "ials"])
    found.document["winner"]

Each split is a comparison of its own: settings of tuned baselines are chosen anew from its training rows. Models are
paired by user and split, and users are the unit: a user's value is the mean over the splits with test rows of that
user, because splits of one user are not independent. Training rows are shared between splits, so the intervals cover
other users, not other training rows (Bengio & Grandvalet 2004, "No Unbiased Estimator of the Variance of K-Fold
Cross-Validation", JMLR 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from palate.base import Recipe
from palate.data.splits.split import Split
from palate.errors import EvaluationError
from palate.evaluation import significance
from palate.evaluation.intervals import interval
from palate.evaluation.significance import METRIC, Standing
from palate.evaluation.tables import plain
from palate.experiment.baselines import Entry
from palate.experiment.compare import compare
from palate.experiment.fitting import RANKINGS, CompareOptions
from palate.experiment.results import Comparison
from palate.progress import Progress, ProgressEvent, silent


@dataclass(frozen=True)
class FoldedComparison:
    """Comparisons of the same entries on several splits.

    Args:
        parts: one comparison per split, in their order.
    """

    parts: tuple[Comparison, ...]

    @property
    def names(self) -> list[str]:
        """The entries that were measured on every split."""
        first, *others = ([one.name for one in part.outcomes] for part in self.parts)
        return [name for name in first if all(name in names for names in others)]

    def standings(self) -> list[Standing]:
        """Values per user of the deciding metric, the mean over the splits with test rows of the user."""
        k, found = self.parts[0].options.k, []
        for name in self.names:
            outcomes = [next(one for one in part.outcomes if one.name == name) for part in self.parts]
            values = {}
            for ranking in RANKINGS:
                if not all(ranking in one.rankings() for one in outcomes):
                    continue
                frames = [
                    next(iter(one.users[key] for key in one.users if key[1] == ranking))
                    .select("user_id")
                    .with_columns(value=pl.Series(one.values(ranking)[f"{METRIC}@{k}"]))
                    for one in outcomes
                ]
                mean = pl.concat(frames).group_by("user_id").agg(pl.col("value").mean()).sort("user_id")
                values[ranking] = mean["value"].to_numpy()
            found.append(Standing(name, outcomes[0].role, values))
        return found

    @cached_property
    def document(self) -> dict[str, Any]:
        """Everything for JSON: data, folds, models with their values per fold, tests, winner, protocol and failures."""
        options, splits = self.parts[0].options, [part.split for part in self.parts]
        standings = sorted(self.standings(), key=lambda one: -one.values["full"].mean())
        models = []
        for one in standings:
            reports = [next(m for m in part.models if m["name"] == one.name) for part in self.parts]
            entry: dict[str, Any] = {"name": one.name, "role": one.role}
            for ranking, value_U in one.values.items():
                low, high = interval(value_U, resamples=options.resamples)
                by_fold = [
                    next(
                        m["value"] for m in report[ranking]["measures"] if (m["metric"], m["k"]) == (METRIC, options.k)
                    )
                    for report in reports
                ]
                entry[ranking] = {
                    "value": float(value_U.mean()),
                    "low": plain(low),
                    "high": plain(high),
                    "by_fold": by_fold,
                }
            models.append({**entry, "tuned": [report["tuned"] for report in reports]})
        failed = [{"fold": n, **one} for n, part in enumerate(self.parts, 1) for one in part.failed]
        incomplete = {one.name for part in self.parts for one in part.outcomes} - set(self.names)
        users = len(standings[0].values["full"])
        return {
            "palate": version("palate"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": splits[0].train.name,
            "metric": METRIC,
            "k": options.k,
            "users": users,
            "seeds": list(options.seeds),
            "folds": [
                {
                    "how": split.how,
                    "fingerprint": split.fingerprint,
                    "train_rows": len(split.train),
                    "test_rows": len(split.test),
                    "test_users": len(split.test_users),
                }
                for split in splits
            ],
            "models": models,
            "protocol": [
                f"{len(splits)} splits; every model is fitted and every baseline is tuned on each of them anew.",
                f"A user's value is the mean {METRIC}@{options.k} over the splits with test rows of that user "
                f"({users:,} users); intervals are 95 % intervals over users, tests pair the models by user and split.",
                "Splits share training rows: the intervals cover other users, not other training rows.",
            ],
            "tests": significance.against_baseline(standings, options.k, options.resamples),
            "winner": significance.winner(standings, options.k, options.resamples),
            "remarks": [f"Not measured on every split, so left out: {', '.join(sorted(incomplete))}."]
            * bool(incomplete),
            "failed": failed,
        }

    def to_polars(self) -> pl.DataFrame:
        """One row per model and ranking: value, low, high, and a column per split."""
        return pl.DataFrame([
            {"model": one["name"], "role": one["role"], "ranking": ranking}
            | {key: one[ranking][key] for key in ("value", "low", "high")}
            | {f"fold {number}": value for number, value in enumerate(one[ranking]["by_fold"], 1)}
            for one in self.document["models"] for ranking in RANKINGS if ranking in one
        ], infer_schema_length=None)  # fmt: skip


def compare_folds(
    splits: Sequence[Split],
    recipes: Sequence[Entry | Recipe[Any] | str],
    folder: str | Path | None = None,
    *,
    options: CompareOptions = CompareOptions(),
    with_baselines: bool = False,
    minutes: float | None = None,
    fresh: bool = False,
    progress: Progress = silent,
) -> FoldedComparison:
    """Fit, measure and test recipes on several splits of one data set; arguments as for ``compare``.

    Args:
        splits: of ``k_folds`` or ``rolling_windows``.
        recipes: as for ``compare``.
        folder: holds a folder of a comparison per split, "fold-1" and so on; None writes nothing.
        options: k, seeds and the like.
        with_baselines: add tuned baselines, tuned on each split.
        minutes: of all splits together, in equal parts; None: no limit.
        fresh: delete the results of an earlier comparison.
        progress: called with the events of the comparisons.

    Raises:
        EvaluationError: fewer than two splits, or no entry was measured on all of them; or as ``compare``.
    """
    if len(splits) < 2:
        raise EvaluationError(f"{len(splits)} splits: give at least two, or use compare")
    parts = []
    for number, split in enumerate(splits, 1):

        def inside(event: ProgressEvent, number: int = number) -> None:
            progress(replace(event, stage=f"fold {number} of {len(splits)}: {event.stage}"))

        home = None if folder is None else Path(folder) / f"fold-{number}"
        share = None if minutes is None else minutes / len(splits)
        parts.append(
            compare(
                split, recipes, home, options=options, with_baselines=with_baselines, minutes=share, fresh=fresh,
                progress=inside,
            )
        )  # fmt: skip
    found = FoldedComparison(tuple(parts))
    if not found.names:
        raise EvaluationError("no entry was measured on every split: " + "; ".join(
            f"{one['name']}: {one['why']}" for part in parts for one in part.failed
        ))  # fmt: skip
    return found
