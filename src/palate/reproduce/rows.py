"""One row of a reproduction table, and how the systems make them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from palate.base import Recipe, TrainOptions
from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.errors import EvaluationError
from palate.evaluation.evaluate import Report, evaluate
from palate.experiment import comparability_line
from palate.reproduce.precision import quickest

__all__ = [
    "Entry",
    "Options",
    "Role",
    "Row",
    "from_report",
    "in_words",
    "published",
    "sampled_table",
    "shared_ground",
    "splits_line",
]

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
        candidates: what each relevant item had to beat, in words.
        ground: fingerprints of the split or splits, and of the candidates.
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
    ground: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Options:
    """How to run a reproduction.

    Args:
        roles: which roles to compute ("published" rows are always printed).
        fast: use fast presets where the published recipe takes minutes.
        progress: show progress bars.
        log: told one line per step.
        run: seed, device and threads of every fit.
        folder: where bundles may be left, or None.
    """

    roles: frozenset[Role] = frozenset({"trivial", "faithful", "best"})
    fast: bool = False
    progress: bool = False
    log: Callable[[str], None] = field(default=lambda line: None)
    run: TrainOptions = TrainOptions()
    folder: Path | None = None


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
    changed = [f"{field} {value}" for field, value in vars(recipe).items() if value != defaults[field]]
    return ", ".join([name, *changed])


def splits_line(splits: Iterable[Split]) -> str:
    """The fingerprints of the splits that a row is pooled over."""
    return f"splits {', '.join(split.fingerprint for split in splits)}"


def shared_ground(rows: Iterable[Row]) -> str | None:
    """The fingerprints that all measured rows of one table have in common; data sets of one table have their own.

    Raises:
        EvaluationError: two rows of one data set were measured on different ground, so they must not stand together.
    """
    found: dict[str, Row] = {}
    for row in rows:
        first = found.setdefault(row.dataset, row) if row.ground is not None else row
        if first.ground != row.ground:
            raise EvaluationError(
                f"{first.model} and {row.model} cannot stand in one table: {first.ground} against {row.ground}. "
                "Measure both on one split with one set of candidates"
            )
    lines = [f"{name}: {row.ground}" if len(found) > 1 else str(row.ground) for name, row in found.items()]
    return "; ".join(lines) or None


@dataclass(frozen=True)
class Entry:
    """One model of a table: its role, how it is fitted, how it is called, and the published figures of the same.

    With ``half`` it is trained in bfloat16 mixed precision on a machine where that is faster.
    """

    role: Role
    recipe: Recipe[Any]
    label: str
    figures: dict[tuple[str, int], float] | None = None
    half: bool = False

    def fit(self, train: Dataset, options: Options) -> tuple[Any, float]:
        """The fitted model and the seconds it took."""
        run = quickest(options.run) if self.half else options.run
        begin = time.perf_counter()
        model = self.recipe.fit(train, run)
        return model, time.perf_counter() - begin


def sampled_table(
    plan: Iterable[Entry],
    parts: Split,
    options: Options,
    metrics: Iterable[tuple[str, int]],
    *,
    system: str,
    protocol: str,
) -> Iterator[Row]:
    """Fit each model on the training rows and measure it against the candidates of the split."""
    for entry in plan:
        if entry.role not in options.roles:
            continue
        options.log(f"training {entry.label}")
        model, seconds = entry.fit(parts.train, options)
        report = evaluate(model, parts, k=10, candidates=parts.candidates, name=entry.recipe.name)
        yield from from_report(
            report, metrics, system=system, protocol=protocol, role=entry.role, model=entry.label, seconds=seconds,
            figures=entry.figures,
        )  # fmt: skip
