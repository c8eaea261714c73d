"""The common parts of the published tables: rows, the models of a table, intervals over users, precision."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from palate.base import Recipe, TrainOptions
from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.errors import EvaluationError
from palate.evaluation.report import Report
from palate.experiment import comparability_line, fit_and_measure, fit_timed
from palate.progress import ProgressEvent
from palate.training.losses import chunked_softmax

Role = Literal["published", "trivial", "faithful", "best"]


@dataclass(frozen=True)
class Row:
    """One number of one model under one protocol.

    Args:
        system: "A" to "E" or a data set with a published protocol of its own.
        dataset: the registry's name.
        protocol: split and candidates in one line.
        role: "published", "trivial" (a baseline), "faithful" (our run of the published recipe) or "best" (ours).
        model: name of the model, with the settings that matter.
        metric: the bare name: HitRate, NDCG, Recall, Coverage, Accuracy, MSE, RMSE.
        k: list length, None for ratings.
        published: the published figure for this metric, None where there is none.
        value: ours; None in a published row.
        low, high: 95 % interval of ``value``.
        users: how many users (or rows, for ratings) were measured.
        seconds: training time.
        candidates: the items that each relevant item is ranked among, in words.
        fingerprints: of the split or splits, and of the candidates.
    """

    system: str
    dataset: str
    protocol: str
    role: Role
    model: str
    metric: str
    k: int | None
    published: float | None
    value: float | None
    low: float | None
    high: float | None
    users: int | None
    seconds: float | None
    candidates: str | None
    fingerprints: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Options:
    """How to run a reproduction.

    Args:
        roles: which roles to compute; "published" rows are always printed.
        fast: omit the rows that take minutes.
        training: seed, device, threads and progress of every fit.
    """

    roles: frozenset[Role] = frozenset({"trivial", "faithful", "best"})
    fast: bool = False
    training: TrainOptions = TrainOptions()

    def report(self, stage: str, message: str = "") -> None:
        """Report the start of a step."""
        self.training.progress(ProgressEvent(stage, message=message))


def published(
    system: str, dataset: str, protocol: str, model: str, figures: Iterable[tuple[str, int | None, float]]
) -> list[Row]:
    """The rows of a published table: (metric, k, figure) each."""
    return [
        Row(system, dataset, protocol, "published", model, metric, k, figure, None, None, None, None, None, None)
        for metric, k, figure in figures
    ]


def from_report(
    report: Report,
    metrics: Iterable[tuple[str, int]],
    *,
    system: str,
    protocol: str,
    role: Role,
    model: str,
    seconds: float | None,
    figures: dict[tuple[str, int], float] | None = None,
) -> list[Row]:
    """The rows of one evaluated model; ``figures`` are the published values of the same metrics."""
    rows = []
    for metric, k in metrics:
        one = report.measure(metric, k)
        known = None if one.low != one.low else (one.low, one.high)
        low, high = known or (None, None)
        figure = (figures or {}).get((metric, k))
        rows.append(
            Row(
                system, report.data, protocol, role, model, metric, k, figure, one.value, low, high, report.users,
                seconds, report.candidates, comparability_line(report),
            )
        )  # fmt: skip
    return rows


def in_words(name: str, recipe: Recipe[Any]) -> str:
    """The name and the fields that are not at their defaults: "SASRec, epochs 24, dropout 0.3"."""
    defaults = vars(type(recipe)())
    changed = {field: value for field, value in vars(recipe).items() if value != defaults[field]}
    # A field that holds floats has made 1000.0 of 1000; the table shows it as it was written.
    shown = [
        f"{field} {value:g}" if isinstance(value, float) else f"{field} {value}" for field, value in changed.items()
    ]
    return ", ".join([name, *shown])


def splits_line(splits: Iterable[Split]) -> str:
    """The fingerprints of the splits that a row is pooled over."""
    return f"splits {', '.join(split.fingerprint for split in splits)}"


def shared_fingerprints(rows: Iterable[Row]) -> str | None:
    """The fingerprints that all measured rows of one table have in common; data sets of one table have their own.

    Raises:
        EvaluationError: two rows of one data set were measured on different splits or candidates.
    """
    found: dict[str, Row] = {}
    for row in rows:
        first = found.setdefault(row.dataset, row) if row.fingerprints is not None else row
        if first.fingerprints != row.fingerprints:
            raise EvaluationError(
                f"{first.model} and {row.model} cannot stand in one table: {first.fingerprints} against "
                f"{row.fingerprints}. Measure both on one split with one set of candidates"
            )
    lines = [f"{name}: {row.fingerprints}" if len(found) > 1 else str(row.fingerprints) for name, row in found.items()]
    return "; ".join(lines) or None


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
    """

    role: Role
    recipe: Recipe[Any]
    label: str
    figures: dict[tuple[str, int], float] | None = None
    half: bool = False
    feedback: bool = False

    def training(self, options: Options) -> TrainOptions:
        """The training options of this model."""
        return quickest(options.training) if self.half else options.training

    def fit(self, train: Dataset, options: Options, **more: Any) -> tuple[Any, float]:
        """The fitted model and the seconds that took."""
        return fit_timed(self.recipe, train, self.training(options), **more)


def measured_table(
    plan: Iterable[Planned],
    split: Split,
    options: Options,
    metrics: Iterable[tuple[str, int]],
    *,
    system: str,
    protocols: dict[str, str],
) -> Iterator[Row]:
    """Fit each model on the training rows and measure it on the test rows.

    Args:
        plan: models; those of other roles than requested are skipped.
        split: with candidates, if "sampled" is measured.
        options: roles and training.
        metrics: by name and length.
        system: of the rows.
        protocols: of "full" and "sampled" ranking, those to measure; the rows of the first come first.
    """
    later: list[Row] = []
    for one in plan:
        if one.role not in options.roles:
            continue
        options.report(f"training {one.label}")
        found = fit_and_measure(one.recipe, split, one.training(options), k=10, rankings=tuple(protocols))
        for line in found.findings:
            options.report(f"{one.label}: {line}")
        for number, (ranking, protocol) in enumerate(protocols.items()):
            rows = from_report(
                found.reports[ranking], metrics, system=system, protocol=protocol, role=one.role, model=one.label,
                seconds=found.seconds, figures=one.figures,
            )  # fmt: skip
            if number:
                later += rows
            else:
                yield from rows
    yield from later


def clustered(
    values_N: NDArray[Any], user_N: NDArray[np.integer[Any]], *, resamples: int = 1_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over N rows with its 95 % percentile bootstrap interval over users: (mean, low, high).

    Rows of one user are alike, so whole users are drawn (Davison & Hinkley 1997, sec. 3.8).
    """
    _, place_N = np.unique(user_N, return_inverse=True)
    sum_U, count_U = np.bincount(place_N, values_N), np.bincount(place_N).astype(np.float64)
    result = stats.bootstrap(
        (sum_U, count_U),
        lambda sums, counts, axis=-1: sums.sum(axis) / counts.sum(axis),
        n_resamples=resamples,
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(values_N.mean()), float(result.confidence_interval.low), float(result.confidence_interval.high)


def quickest(options: TrainOptions) -> TrainOptions:
    """The options in bfloat16 mixed precision if this machine trains faster with it, otherwise as they are.

    Processors differ: bfloat16 halves the time on one that multiplies it at twice the rate, and costs half as much
    again on one that does not. Either is the same recipe with other roundings, so figures of two machines may differ.
    """
    return replace(options, precision="bf16-mixed") if _half_is_faster() else options


@cache
def _half_is_faster() -> bool:
    """Times the step that takes most of the training, the softmax over a catalog, in both precisions."""
    x_TD, table_ID = torch.randn(512, 64), torch.randn(3_700, 64)
    bias_I, target_T = torch.zeros(3_700), torch.arange(512)

    def seconds(context: Callable[[], AbstractContextManager[object]]) -> float:
        begin = time.thread_time()  # not the clock: other processes may keep the machine busy
        with context():
            chunked_softmax(x_TD, table_ID, bias_I, target_T)
        return time.thread_time() - begin

    def half() -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16)

    with torch.random.fork_rng(), torch.no_grad():
        taken = [(seconds(half), seconds(nullcontext)) for _ in range(7)][1:]  # the first one warms up
    return median(one for one, _ in taken) < 0.9 * median(other for _, other in taken)
