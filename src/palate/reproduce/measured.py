"""Tables of ranking models: several seeds per model, request times, and users by the time since their last event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.base import Model, Query, Recipe, TrainOptions, reads_request_time
from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.evaluation.evaluate import evaluate
from palate.evaluation.intervals import interval
from palate.evaluation.report import Report
from palate.experiment import comparability_line, fit_and_measure, fit_timed
from palate.models.sasrec import SASRec
from palate.reproduce.rows import Options, Role, Row, in_words, quickest

Metrics = Sequence[tuple[str, int]]
HELD_OUT, LAST_KNOWN = "held-out event", "last known event"
Tie = Literal["first", "last"]
TIES: dict[Tie, str] = {
    "first": "of equally late rows the first is held out",
    "last": "of equally late rows the last is held out",
}
MINUTE, HOUR = 60, 3_600
APPROXIMATE_FROM = 3_000  # of MovieLens 1M, see ``halves``


@dataclass(frozen=True)
class Planned:
    """One model of a table.

    Args:
        role: of its rows.
        recipe: the recipe to fit.
        label: name of the model in the table.
        figures: published values of the same model by metric and length.
        half: train in bfloat16 mixed precision on a machine where that is faster.
        feedback: also train on the rows without a rating.
        seeds: number of fits with consecutive seeds, from that of the options on.
        by_group: also measured on the groups of users of the table.
    """

    role: Role
    recipe: Recipe[Any]
    label: str
    figures: dict[tuple[str, int], float] | None = None
    half: bool = False
    feedback: bool = False
    seeds: int = 1
    by_group: bool = False

    def training(self, options: Options) -> TrainOptions:
        """The training options of this model."""
        return quickest(options.training) if self.half else options.training

    def fit(self, train: Dataset, options: Options, **more: Any) -> tuple[Any, float]:
        """The fitted model and the seconds that took."""
        return fit_timed(self.recipe, train, self.training(options), **more)


class AtLastEvent:
    """A model that reads the request time, asked at the time of each user's last training event.

    Args:
        model: reads the request time.
        train: its training rows, with times.
    """

    def __init__(self, model: Model, train: Dataset) -> None:
        self.model = model
        self.trained_on = getattr(model, "trained_on", None)
        self.last_U = torch.from_numpy(last_times(train))

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """The scores of the model, for the query at the time of the last training event."""
        return self.model.score(replace(query, at=self.last_U[query.user]), items)

    def can_personalize(self, query: Query) -> Tensor:
        """Whether the model knows the user."""
        return self.model.can_personalize(query)


def sequences(told: SASRec, seeds: int = 1) -> list[Planned]:
    """A recipe that reads the request time, and the same recipe without it."""
    plain = replace(told, request_time=False)
    return [
        Planned("best", one, in_words("SASRec", one), half=True, seeds=seeds, by_group=True) for one in (plain, told)
    ]


def last_times(train: Dataset) -> NDArray[np.float64]:
    """(U,) when each user's last training row happened; -infinity where there is none."""
    rows = train.interactions
    assert rows.time is not None
    last_U = np.full(train.n_users, -np.inf)
    np.maximum.at(last_U, rows.user, rows.time)
    return last_U


def gaps(split: Split) -> dict[str, NDArray[np.bool_]]:
    """(U,) masks of the test users by the time between the last training row and the first held-out one."""
    rows = split.test.interactions
    assert rows.time is not None
    first_U = np.full(split.test.n_users, np.inf)
    np.minimum.at(first_U, rows.user, rows.time)
    gap_U = np.where(np.isfinite(first_U), first_U - last_times(split.train), np.nan)
    return {
        "held out at the time of the last known event": gap_U <= 0,
        "held out within a minute of the last known event": (gap_U > 0) & (gap_U < MINUTE),
        "held out within an hour of the last known event": (gap_U >= MINUTE) & (gap_U < HOUR),
        "held out an hour or more after the last known event": gap_U >= HOUR,
    }


def halves(train: Dataset, first: int = 1) -> dict[str, NDArray[np.bool_]]:
    """(U,) masks of the users of MovieLens 1M below and from 3,000 on, whose times are approximate in some copies.

    ``first`` is the id of the first user: 1 in the official files, 0 in those of the NCF paper.
    """
    number_U = np.array([int(one) for one in train.users.ids]) + 1 - first
    return {
        f"users 1 to {APPROXIMATE_FROM - 1:,}": number_U < APPROXIMATE_FROM,
        f"users {APPROXIMATE_FROM:,} to 6,040": number_U >= APPROXIMATE_FROM,
    }


def pooled(
    reports: Sequence[Report],
    metrics: Metrics,
    *,
    system: str,
    protocol: str,
    role: Role,
    model: str,
    seconds: float | None,
    figures: Mapping[tuple[str, int], float] | None = None,
    request: str | None = None,
    among: NDArray[np.bool_] | None = None,
) -> list[Row]:
    """The rows of one model, fitted with one seed or several.

    Args:
        reports: one per seed, on the same split.
        metrics: by name and length.
        system, protocol, role, model, seconds, request: of the rows.
        figures: published values of the same metrics.
        among: (U,) mask by row number of the users that count; None for all measured ones.
    """
    first, rows = reports[0], []
    for metric, k in metrics:
        key = f"{metric}@{k}"
        low = high = float("nan")
        users = first.users
        if key in first.per_user:
            value_SU = np.stack([report.per_user[key] for report in reports])
            value_SU = value_SU if among is None else value_SU[:, among[first.user_rows]]
            users = value_SU.shape[1]
            if not users:
                continue
            low, high = interval(value_SU.mean(0))
            value_S = value_SU.mean(1)
        else:
            value_S = np.array([report.value(metric, k) for report in reports])
        bounds: tuple[float | None, float | None] = (None, None) if np.isnan(low) else (low, high)
        least, most = (float(value_S.min()), float(value_S.max())) if len(reports) > 1 else (None, None)
        rows.append(
            Row(
                system, first.data, protocol, role, model, metric, k, (figures or {}).get((metric, k)),
                float(value_S.mean()), bounds[0], bounds[1], users, seconds, first.candidates,
                comparability_line(first), request, len(reports), least, most,
            )
        )  # fmt: skip
    return rows


def measured_table(
    plan: Iterable[Planned],
    split: Split,
    options: Options,
    metrics: Metrics,
    *,
    system: str,
    protocols: dict[str, str],
    groups: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Iterator[Row]:
    """Fit each model on the training rows and measure it on the test rows.

    A model that reads the request time has two sets of rows: asked at the time of the held-out event, and at that of
    the last known one.

    Args:
        plan: models; those of other roles than requested are skipped.
        split: with candidates, if "sampled" is measured.
        options: roles and training.
        metrics: by name and length.
        system: of the rows.
        protocols: of "full" and "sampled" ranking, those to measure; the rows of the first come first.
        groups: (U,) masks of users by name: the first protocol, measured on these users alone, follows at the end.
    """
    later: list[Row] = []
    for one in plan:
        if one.role not in options.roles:
            continue
        training = one.training(options)
        found: dict[tuple[str, str | None], list[Report]] = {}
        seconds = 0.0
        for number in range(one.seeds):
            options.report(f"training {one.label}", f"seed {number + 1} of {one.seeds}" if one.seeds > 1 else "")
            seeded = replace(training, seed=training.seed + number)
            fit = fit_and_measure(one.recipe, split, seeded, k=10, rankings=tuple(protocols))
            seconds += fit.seconds / one.seeds
            for line in fit.findings:
                options.report(f"{one.label}: {line}")
            told = reads_request_time(fit.model)
            for ranking, report in fit.reports.items():
                found.setdefault((ranking, HELD_OUT if told else None), []).append(report)
                if told:
                    listed = None if ranking == "full" else split.candidates
                    last = evaluate(AtLastEvent(fit.model, split.train), split, k=10, candidates=listed)
                    found.setdefault((ranking, LAST_KNOWN), []).append(last)
        for (ranking, request), reports in found.items():
            common: dict[str, Any] = {
                "system": system, "role": one.role, "model": one.label, "seconds": seconds, "request": request
            }  # fmt: skip
            rows = pooled(reports, metrics, protocol=protocols[ranking], figures=one.figures, **common)
            if ranking != next(iter(protocols)):
                later += rows
                continue
            yield from rows
            for name, among_U in (groups or {}).items() if one.by_group else ():
                later += pooled(reports, metrics, protocol=f"{protocols[ranking]}; {name}", among=among_U, **common)
    yield from later
