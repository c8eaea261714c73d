"""The common parts of the published tables: rows, options, intervals over users, precision."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache
from statistics import median
from typing import Any, Literal

import torch

from palate.base import Recipe, TrainOptions
from palate.data.splits.split import Split
from palate.errors import EvaluationError
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
        request: the request time that the model was given, "held-out event" or "last known event"; None where the
            model reads none.
        seeds: number of fits that ``value`` is the mean of.
        least, most: range of the metric over the seeds; None for a single one.
        memory: peak of the process in training, in MB; None where it was not measured.
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
    request: str | None = None
    seeds: int = 1
    least: float | None = None
    most: float | None = None
    memory: float | None = None

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
