"""The finished comparison as one JSON document, which tables and the report are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.evaluation.comparability import check_comparable
from palate.evaluation.report import measured
from palate.evaluation.winner import METRIC, Standing

__all__ = ["Outcome", "combined", "protocol"]

RANKINGS = ("full", "sampled")


@dataclass(frozen=True)
class Outcome:
    """What was measured of one entrant: a finished result per seed, with values per user.

    Args:
        name, role: of the entrant.
        recipe: as JSON, None for lists of another system.
        tuned: how its settings were chosen, in words.
        results: by seed, as ``palate.experiment.worker`` writes them.
        users: by seed and ranking, user_id and a column per measure.
    """

    name: str
    role: str
    recipe: dict[str, Any] | None
    tuned: str | None
    results: Mapping[int, dict[str, Any]]
    users: Mapping[tuple[int, str], pl.DataFrame] = field(repr=False)

    def rankings(self) -> list[str]:
        """Those that were measured."""
        return [ranking for ranking in RANKINGS if all(one[ranking] for one in self.results.values())]

    def values(self, ranking: str) -> dict[str, NDArray[np.float64]]:
        """Values per user, (U,) by measure: the mean over the seeds."""
        frames = [self.users[seed, ranking] for seed in self.results]
        return {
            name: np.mean([frame[name].to_numpy() for frame in frames], axis=0)  # NaN stays: it says nothing
            for name in frames[0].columns
            if name != "user_id"
        }

    def standing(self, k: int) -> Standing:
        """The values per user that decide."""
        return Standing(self.name, self.role, {one: self.values(one)[f"{METRIC}@{k}"] for one in self.rankings()})

    def to_dict(self, resamples: int) -> dict[str, Any]:
        """The entry of this entrant: the first seed's, with numbers that are means over all seeds."""
        first = next(iter(self.results.values()))
        reports = {one: self._report(one, resamples) for one in self.rankings()}
        seconds = [one["train_seconds"] for one in self.results.values()]
        return {
            "name": self.name,
            "role": self.role,
            "recipe": self.recipe,
            "tuned": self.tuned,
            "train_seconds": None if None in seconds else float(np.mean(seconds)),
            "score_seconds": None if first["score_seconds"] is None else self._mean("score_seconds"),
            "peak_memory_mb": first["peak_memory_mb"],
            "curve": first["curve"],
            "full": reports["full"],
            "sampled": reports.get("sampled"),
            "ratings": first["ratings"],
            "seeds": [_seed(seed, one) for seed, one in self.results.items()],
            "examples": first["examples"],
        }

    def _mean(self, key: str) -> float:
        return float(np.mean([one[key] for one in self.results.values()]))

    def _report(self, ranking: str, resamples: int) -> dict[str, Any]:
        """The first seed's report with the measures of all seeds."""
        reports = [one[ranking] for one in self.results.values()]
        check_comparable(reports)
        if len(reports) == 1:
            return dict(reports[0])
        means = measured(self.values(ranking), resamples)
        measures = [_averaged(one, means, reports) for one in reports[0]["measures"]]
        seeds = ", ".join(map(str, self.results))
        note = f"measures are means over the seeds {seeds}, intervals over users; the rest is of the first seed"
        return {**reports[0], "measures": measures, "notes": [*reports[0]["notes"], note]}


def combined(outcomes: Sequence[Outcome], resamples: int) -> list[dict[str, Any]]:
    """The entries of all entrants, refused if they were not measured on the same ground."""
    entries = [one.to_dict(resamples) for one in outcomes]
    for ranking in RANKINGS:
        check_comparable([entry[ranking] for entry in entries if entry[ranking]])
    return entries


def protocol(facts: Mapping[str, Any]) -> list[str]:
    """The protocol in sentences, for people.

    Args:
        facts: the document so far: split, candidates, seeds and the entries of models.
    """
    split, candidates, k = facts["split"], facts["candidates"], facts["k"]
    tuned = any(one["tuned"] for one in facts["models"])
    lines = [
        f"Held-out rows: {split['how']} ({split['train_rows']:,} training rows, {split['test_rows']:,} test rows of "
        f"{split['test_users']:,} users; split {split['fingerprint']}).",
        "Full ranking: every item of the catalog is a candidate, except those the user had in training.",
        f"Sampled candidates: {candidates['how']} ({candidates['fingerprint']}), the same for every model and seed; a "
        "model that is good at telling random items apart need not make good lists." if candidates else "",
        "Ties count against the model: a relevant item stands behind every other candidate with the same score.",
        "Settings of tuned baselines were chosen on validation rows out of the training rows, then fitted on all "
        "training rows; test rows decided nothing." if tuned else "",
        "Intervals are 95 % percentile bootstrap intervals over users.",
        f"Tests: {METRIC}@{k} of each model against the best baseline, sign-flip permutation over users, two-sided, "
        "corrected for their number (Holm).",
        f"Seeds: {', '.join(map(str, facts['seeds']))}."
        + (" A user's values are their mean over the seeds." if len(facts["seeds"]) > 1 else ""),
        "Training seconds are of one fit, without tuning; scoring seconds are for the lists of all test users, with "
        "ranking. Peak memory is what the process of one model held at most until it was trained: Python, libraries, "
        "data and model.",
    ]  # fmt: skip
    return [line for line in lines if line]


def _averaged(
    measure: dict[str, Any], means: Mapping[str, tuple[float, float, float, int]], reports: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """One measure over all seeds: of the users' means, or, where it is no mean over users, the plain mean."""
    label = f"{measure['metric']}@{measure['k']}"
    if label in means:
        value, low, high, _ = means[label]
        return {
            **measure,
            "value": value,
            "low": None if np.isnan(low) else low,
            "high": None if np.isnan(high) else high,
        }
    key = (measure["metric"], measure["k"])
    every = [one["value"] for report in reports for one in report["measures"] if (one["metric"], one["k"]) == key]
    return {**measure, "value": float(np.mean(every)), "low": None, "high": None}


def _seed(seed: int, result: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {
        ranking: {f"{one['metric']}@{one['k']}": one["value"] for one in result[ranking]["measures"]}
        if result[ranking]
        else None
        for ranking in RANKINGS
    }
    return {"seed": seed, **numbers, "train_seconds": result["train_seconds"]}
