"""Runs in MLflow or Weights & Biases: parameters, metrics of each epoch, final figures and files.

    with tracked("mlflow", "neumf on clicks") as run:
        run.parameters({"recipe": "neumf", "dim": 16})
        recipe.fit(train, TrainOptions(progress=by_epoch(run, "neumf")))
        run.figures({"full/NDCG_at_10": 0.12})

The services keep their own settings for where runs go and how they are called: MLFLOW_TRACKING_URI and
MLFLOW_EXPERIMENT_NAME, WANDB_MODE=offline, WANDB_PROJECT, WANDB_DIR. Both names default to "palate". Names of metrics
have "_at_" for "@", which MLflow does not take.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from palate.errors import PalateError
from palate.experiment.fitting import RANKINGS
from palate.progress import Progress, ProgressEvent, silent

Service = Literal["mlflow", "wandb"]
NAMES: dict[Service, str] = {"mlflow": "MLflow", "wandb": "Weights & Biases"}
REMEDIES: dict[Service, str] = {
    "mlflow": "check MLFLOW_TRACKING_URI, or unset it to write into the current folder",
    "wandb": "run wandb login, or set WANDB_MODE=offline to write into the current folder",
}
PROJECT = "palate"
MOST_METRICS = 1_000  # in one request to MLflow


class TrackedRun(Protocol):
    """A run that is open."""

    @property
    def place(self) -> str:
        """The address or folder of the run, for people."""

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Values that do not change during the run; nested ones are written as text."""

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Metrics of one epoch, counted from 1."""

    def figures(self, values: Mapping[str, float | None]) -> None:
        """Final figures; None is omitted."""

    def file(self, path: Path) -> None:
        """Keep a copy of a file as an artifact."""

    def child(self, name: str) -> TrackedRun:
        """A run inside this one: nested in MLflow, in the same group at Weights & Biases. The caller ends it."""

    def end(self, *, failed: bool = False) -> None:
        """Close the run."""


def check_service(service: Service | None) -> None:
    """Import the service's library, if one is named.

    Raises:
        PalateError: it is not installed.
    """
    if service is None:
        return
    try:
        __import__(service)
    except ModuleNotFoundError as error:
        raise PalateError(f"{NAMES[service]} needs an extra: pip install 'palate[{service}]'") from error


@contextmanager
def tracked(service: Service | None, name: str) -> Iterator[TrackedRun]:
    """A run of this name, closed at the end and marked as failed after an error; None writes nothing.

    Raises:
        PalateError: the library is not installed, or the service refuses or does not answer.
    """
    check_service(service)
    if service is None:
        yield _NoRun()
        return
    kinds: dict[Service, type[_MLflow | _WandB]] = {"mlflow": _MLflow, "wandb": _WandB}
    with _explained(service):
        run = kinds[service](name)
    try:
        with _explained(service):
            yield run
    except BaseException:
        run.end(failed=True)
        raise
    run.end()


def by_epoch(run: TrackedRun, recipe: str, then: Progress = silent) -> Progress:
    """A progress function that logs the figures of each epoch, and passes each event on.

    Args:
        run: an open run.
        recipe: its own metrics have plain names; those of its members, or of a second fit, begin with theirs.
        then: called with each event.
    """
    last: dict[str, tuple[int, int]] = {}  # by stage: number of the fit, its latest epoch

    def progress(event: ProgressEvent) -> None:
        then(event)
        if event.done is None or not event.values:
            return
        fit, before = last.get(event.stage, (1, 0))
        fit += event.done <= before
        last[event.stage] = (fit, event.done)
        member = event.stage.removeprefix("train ")
        parts = [*([] if member == recipe else [member]), *([] if fit == 1 else [f"fit_{fit}"])]
        run.epoch(event.done, {"/".join([*parts, name]): value for name, value in event.values.items()})

    return progress


def figures_of(report: Mapping[str, Any]) -> dict[str, float | None]:
    """The measures of a report (``report.to_dict()``) by names such as "full/NDCG_at_10", or "ratings/RMSE"."""
    if "all" in report:
        return {f"ratings/{one['metric']}": one["value"] for one in report["all"]["measures"]}
    ranking = "full" if report["fingerprints"]["candidates"] is None else "sampled"
    return {f"{ranking}/{one['metric']}_at_{one['k']}": one["value"] for one in report["measures"]}


def track_comparison(run: TrackedRun, document: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Log a finished comparison: data and protocol, a run inside it for each model, and its files.

    Args:
        run: an open run, for the comparison.
        document: of ``Comparison`` or ``FoldedComparison``.
        files: reports to keep as artifacts.
    """
    kept = {name: document[name] for name in ("palate", "k", "seeds")}
    if "folds" in document:
        splits = "; ".join(f"{one['how']} ({one['fingerprint']})" for one in document["folds"])
        run.parameters({**kept, "data": document["data"], "splits": splits})
    else:
        split = document["split"]
        run.parameters(
            {**kept, "data": document["data"]["name"], "split": split["how"], "fingerprint": split["fingerprint"]}
        )
    run.parameters({"winner": document["winner"]["name"] or "none"})
    for one in document["models"]:
        inside = run.child(one["name"])
        recipe = one.get("recipe") or {}
        settings = {"recipe": recipe["recipe"], **recipe["fields"]} if recipe else {}
        tuned = {"tuned": one["tuned"]} if isinstance(one["tuned"], str) else {}
        inside.parameters({"role": one["role"], **tuned, **settings})
        listen = by_epoch(inside, "")
        for point in one.get("curve", ()):
            values = {name: value for name, value in point.items() if name != "epoch" and value is not None}
            listen(ProgressEvent("", int(point["epoch"]), values=values))
        if "folds" in document:
            inside.figures(_figures_of_folds(one, document))
        else:
            for report in (*(one[ranking] for ranking in RANKINGS), one["ratings"]):
                inside.figures(figures_of(report) if report else {})
            inside.figures({name: one[name] for name in ("train_seconds", "score_seconds", "peak_memory_mb")})
        inside.end()
    for path in files:
        run.file(path)


def _figures_of_folds(model: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for ranking in (one for one in RANKINGS if one in model):
        name = f"{ranking}/{document['metric']}_at_{document['k']}"
        found |= {name: model[ranking]["value"], **{f"{name}/{end}": model[ranking][end] for end in ("low", "high")}}
        found |= {f"{name}/fold_{number}": value for number, value in enumerate(model[ranking]["by_fold"], 1)}
    return found


@contextmanager
def _explained(service: Service) -> Iterator[None]:
    """An error of the service's library becomes a line with a remedy."""
    try:
        yield
    except Exception as error:
        # The service's own errors, and those of the connection to it; all others are not about tracking.
        if not any(kind.__module__.partition(".")[0] in (service, "requests") for kind in type(error).__mro__):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise PalateError(f"{NAMES[service]} refused a run ({reason}): {REMEDIES[service]}") from error


class _NoRun:
    place = ""

    def parameters(self, values: Mapping[str, Any]) -> None:
        pass

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        pass

    def figures(self, values: Mapping[str, float | None]) -> None:
        pass

    def file(self, path: Path) -> None:
        pass

    def child(self, name: str) -> TrackedRun:
        return self

    def end(self, *, failed: bool = False) -> None:
        pass


class _MLflow:
    # By the client, not by mlflow.start_run: the calling program may have an active run of its own.
    def __init__(self, name: str, parent: _MLflow | None = None) -> None:
        import mlflow
        from mlflow.entities import Metric

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it reports each table that it creates
        self._metric = Metric
        self._client: Any = mlflow.MlflowClient() if parent is None else parent._client
        if parent is None:
            project = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            found = self._client.get_experiment_by_name(project)
            self._experiment = self._client.create_experiment(project) if found is None else found.experiment_id
        else:
            self._experiment = parent._experiment
        tags = {} if parent is None else {"mlflow.parentRunId": parent._id}
        self._id: str = self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id
        self._failed: Exception | None = None

    @property
    def place(self) -> str:
        return f"{self._client.tracking_uri}, run {self._id}"

    def parameters(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self._client.log_param(self._id, name, value)

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        # A server that is down must not end the training; the next final figures tell.
        if self._failed is None:
            try:
                self._log(values, number)
            except Exception as error:
                self._failed = error

    def figures(self, values: Mapping[str, float | None]) -> None:
        if self._failed is not None:
            raise self._failed
        self._log({name: value for name, value in values.items() if value is not None}, 0)

    def file(self, path: Path) -> None:
        self._client.log_artifact(self._id, str(path))

    def child(self, name: str) -> _MLflow:
        return _MLflow(name, self)

    def end(self, *, failed: bool = False) -> None:
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")

    def _log(self, values: Mapping[str, float], step: int) -> None:
        from time import time

        now = int(1000 * time())
        metrics = [self._metric(name, float(value), now, step) for name, value in values.items()]
        for first in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self._id, metrics[first : first + MOST_METRICS])


class _WandB:
    def __init__(self, name: str, group: str | None = None) -> None:
        import wandb

        self._wandb, self._group = wandb, group or name
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=name,
            group=self._group,
            reinit="create_new",  # the calling program may have an active run of its own
            settings=wandb.Settings(silent=True, console="off"),
        )
        # Epochs are an axis of their own: steps of W&B only grow, and a second fit begins at 1 again.
        self._run.define_metric("epoch", hidden=True)

    @property
    def place(self) -> str:
        return str(self._run.url or Path(self._run.dir).parent)

    def parameters(self, values: Mapping[str, Any]) -> None:
        self._run.config.update(dict(values))

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        for name in values:
            self._run.define_metric(name, step_metric="epoch")
        self._run.log({"epoch": number, **values})

    def figures(self, values: Mapping[str, float | None]) -> None:
        self._run.summary.update({name: value for name, value in values.items() if value is not None})

    def file(self, path: Path) -> None:
        name = re.sub(r"[^\w.-]", "-", f"{path.name}-{self._run.id}")
        artifact = self._wandb.Artifact(name, type="report")
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def child(self, name: str) -> _WandB:
        return _WandB(name, self._group)

    def end(self, *, failed: bool = False) -> None:
        self._run.finish(exit_code=int(failed))
