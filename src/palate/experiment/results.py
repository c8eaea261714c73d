"""The finished comparison: a table of measures, and one JSON document from which tables and the report are made."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.base import Recipe
from palate.data.audit import audit
from palate.data.splits.split import Split
from palate.errors import EvaluationError
from palate.evaluation import significance
from palate.evaluation.evaluate import REQUEST_TIME
from palate.evaluation.report import Report, measured
from palate.evaluation.significance import METRIC, Standing
from palate.evaluation.tables import check_comparable
from palate.experiment.fitting import RANKINGS, CompareOptions, Fitted


@dataclass(frozen=True)
class Outcome:
    """The measurements of one entry: a finished result per seed, with values per user.

    Args:
        name, role: of the entry.
        recipe: as JSON, None for lists of another system.
        tuned: how its settings were chosen, in words.
        results: by seed, in the form of the files of ``run_folder``.
        users: by seed and ranking, user_id and a column per measure.
        made: the recipe itself, None for lists.
        fitted: model and reports of the first seed, if it was fitted in this process.
    """

    name: str
    role: str
    recipe: dict[str, Any] | None
    tuned: str | None
    results: Mapping[int, dict[str, Any]]
    users: Mapping[tuple[int, str], pl.DataFrame] = field(repr=False)
    made: Recipe[Any] | None = None
    fitted: Fitted | None = field(default=None, repr=False)

    def rankings(self) -> list[str]:
        """The rankings that were measured, of "full" and "sampled"."""
        return [ranking for ranking in RANKINGS if all(one[ranking] for one in self.results.values())]

    def values(self, ranking: str) -> dict[str, NDArray[np.float64]]:
        """Values per user, (U,) by measure: the mean over the seeds."""
        frames = [self.users[seed, ranking] for seed in self.results]
        return {
            name: np.mean([frame[name].to_numpy() for frame in frames], axis=0)  # NaN stays: undefined for the user
            for name in frames[0].columns
            if name != "user_id"
        }

    def standing(self, k: int) -> Standing:
        """The values per user of the metric that decides."""
        return Standing(self.name, self.role, {one: self.values(one)[f"{METRIC}@{k}"] for one in self.rankings()})

    def to_dict(self, resamples: int) -> dict[str, Any]:
        """The entry for JSON: that of the first seed, with numbers that are means over all seeds."""
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
            "findings": first.get("findings", []),
            "stopped": first.get("stopped"),
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


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Args:
        split: that all were measured on.
        options: k, seeds and the like.
        outcomes: by entry, best first by the metric that decides.
        failed: name and reason of each entry that could not be fitted.
        remarks: sentences about the comparison as a whole.
    """

    split: Split
    options: CompareOptions
    outcomes: tuple[Outcome, ...]
    failed: list[dict[str, Any]]
    remarks: list[str]
    models: list[dict[str, Any]]

    @classmethod
    def of(
        cls,
        split: Split,
        options: CompareOptions,
        outcomes: Sequence[Outcome],
        failed: list[dict[str, Any]],
        remarks: list[str],
    ) -> Comparison:
        """The comparison of some outcomes.

        Raises:
            EvaluationError: they were not measured on the same split and candidates.
        """
        models = [one.to_dict(options.resamples) for one in outcomes]
        for ranking in RANKINGS:
            check_comparable([entry[ranking] for entry in models if entry[ranking]])
        values = {entry["name"]: _value(entry["full"], METRIC, options.k) for entry in models}
        ordered = tuple(sorted(outcomes, key=lambda one: -values[one.name]))
        return cls(split, options, ordered, failed, remarks, sorted(models, key=lambda one: -values[one["name"]]))

    def fitted(self, name: str) -> Fitted:
        """Model and reports of an entry that was fitted in this process.

        Raises:
            EvaluationError: there is no such entry, or it was fitted in another process.
        """
        here = {one.name: one.fitted for one in self.outcomes if one.fitted is not None}
        if name not in here:
            known = ", ".join(here) or "none: leave out the folder to keep the models"
            raise EvaluationError(f"no model {name!r} was fitted in this process: there are {known}")
        return here[name]

    def report(self, name: str, ranking: str = "full") -> Report:
        """The report of an entry that was fitted in this process."""
        return self.fitted(name).reports[ranking]

    @property
    def winner(self) -> str | None:
        """The model that is significantly better than every other, or None."""
        found: str | None = self.document["winner"]["name"]
        return found

    @cached_property
    def document(self) -> dict[str, Any]:
        """Everything for JSON, as in comparison.json: data, split, candidates, models, tests, winner and more."""
        return _document(self)

    def to_polars(self) -> pl.DataFrame:
        """One row per model, ranking, metric and list length, with value and interval."""
        return pl.DataFrame([
            {
                "model": one["name"], "role": one["role"], "ranking": ranking, "metric": measure["metric"],
                "k": measure["k"], "value": measure["value"], "low": measure["low"], "high": measure["high"],
                "train_seconds": one["train_seconds"],
            }
            for one in self.models for ranking in RANKINGS if one[ranking] for measure in one[ranking]["measures"]
        ], infer_schema_length=None)  # fmt: skip

    to_frame = to_polars

    def to_pandas(self) -> Any:
        """The table of ``to_polars`` for pandas, which must be installed."""
        import pandas as pd  # type: ignore[import-untyped]

        return pd.DataFrame(self.to_polars().to_dict(as_series=False))

    def __repr__(self) -> str:
        split = self.split
        lines = [f"Comparison of {len(self.models)} models on {split.train.name}: {len(split.test_users):,} test users"]
        lines += ["  ".join(row) for row in self._short_rows()]
        lines += [f"failed: {one['name']}: {one['why']}" for one in self.failed]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The short table for a notebook."""
        rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self._short_rows()]
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"

    def _short_rows(self) -> list[list[str]]:
        k = self.options.k
        width = max(len(one["name"]) for one in self.models)
        rows = []
        for one in self.models:
            cells = [one["name"].ljust(width)]
            for ranking in RANKINGS:
                if one[ranking]:
                    words = "" if ranking == "full" else " (sampled)"
                    cells += [
                        f"{metric}@{k}{words} {_value(one[ranking], metric, k):.4f}" for metric in (METRIC, "HitRate")
                    ]
            rows.append(cells)
        return rows


def _value(report: Mapping[str, Any], metric: str, k: int) -> float:
    return next(float(m["value"]) for m in report["measures"] if (m["metric"], m["k"]) == (metric, k))


def _document(found: Comparison) -> dict[str, Any]:
    split, options = found.split, found.options
    candidates, train = split.candidates, split.train
    facts: dict[str, Any] = {
        "palate": version("palate"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "name": train.name,
            "rows": len(train) + len(split.test),
            "users": train.n_users,
            "items": train.n_items,
            "feedback": train.feedback_record(),
        },
        "split": {
            "how": split.how,
            "fingerprint": split.fingerprint,
            "train_rows": len(train),
            "test_rows": len(split.test),
            "test_users": len(split.test_users),
            "notes": [str(note) for note in (*train.notes, *split.notes)],
        },
        "k": options.k,
        "lengths": list(options.lengths),
        "candidates": {"how": candidates.how, "fingerprint": candidates.fingerprint(train.users, train.items)}
        if candidates
        else None,
        "seeds": list(options.seeds),
        "models": found.models,
    }
    timed = [
        f"{one['name']}: {REQUEST_TIME}; the other models do not read it"
        for one in facts["models"]
        if REQUEST_TIME in one["full"]["protocol"]
    ]
    collapsed = [f"{one['name']}: {line}" for one in facts["models"] for line in one["findings"]]
    standings = [one.standing(options.k) for one in found.outcomes]
    order = significance.order_remark(standings, options.k)
    winner = significance.winner(standings, options.k, options.resamples)
    if more := advice(winner, facts["models"], len(split.test_users)):
        winner = {**winner, "why": f"{winner['why']} {more}"}
    return {
        **facts,
        "protocol": protocol(facts),
        "tests": significance.against_baseline(standings, options.k, options.resamples),
        "winner": winner,
        "remarks": [*found.remarks, *collapsed, *timed, *([order] if order else [])],
        "failed": found.failed,
        "audit": audit(split).to_dict(),
    }


def advice(winner: Mapping[str, Any], models: Sequence[Mapping[str, Any]], users: int) -> str | None:
    """A sentence for a comparison without a winner: the model to take, and the number of users that would decide.

    Args:
        winner: of ``significance.winner``.
        models: the entries of the document.
        users: number of test users.
    """
    unclear = [row for row in winner["tests"] if not row["better"]]
    if winner["name"] is not None or not unclear:
        return None
    tied = {unclear[0]["model"], *(row["baseline"] for row in unclear)}
    costs = {
        one["name"]: one["train_seconds"] + (one["score_seconds"] or 0.0)
        for one in models
        if one["name"] in tied and one["train_seconds"] is not None
    }
    if not costs:
        return None
    cheapest = min(costs, key=lambda name: costs[name])
    cost = "under a second" if costs[cheapest] < 1 else f"{costs[cheapest]:,.0f} seconds"
    text = f"Of these {len(tied)} take {cheapest}, the cheapest ({cost} to train and score)."
    closest = unclear[0]
    if closest["low"] is None or not closest["difference"] > 0:
        return text
    # The width of an interval shrinks with the root of the users.
    times = ((closest["high"] - closest["low"]) / 2 / closest["difference"]) ** 2
    digits = 10 ** max(0, len(str(round(users * times))) - 2)
    needed = max(users, digits * -(-round(users * times) // digits))
    return f"{text} A difference of {closest['difference']:.4f} would show with about {needed:,} test users."


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
        f"Relevant rows, and the rows that ranking recipes learn from: {facts['data']['feedback']['rule']}.",
        "Full ranking: every item of the catalog is a candidate, except those the user had in training.",
        f"Sampled candidates: {candidates['how']} ({candidates['fingerprint']}), the same for every model and seed; a "
        "model that is good at telling random items apart need not make good lists." if candidates else "",
        "Ties count against the model: a relevant item stands behind every other candidate with the same score.",
        "Settings of tuned baselines were chosen on validation rows out of the training rows, then fitted on all "
        "training rows; test rows decided nothing." if tuned else "",
        "Intervals are 95 % intervals over users: percentile bootstrap, exact where users or hits are few.",
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
