"""A study: a comparison on validation rows that proposes its own entries, the trials; its journal can be resumed.

    folder/journal.log     every trial, appended as it happens (Optuna's journal)
    folder/best.toml       the best recipe so far, for ``palate train --config``

After a kill finished trials count, and a trial that was cut off is run again.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from palate import storage
from palate.errors import PalateError, RecipeError, StorageError
from palate.experiment.budget import Budget, in_words
from palate.experiment.recipe_file import write_recipe
from palate.experiment.search_space import plain
from palate.experiment.task import Task
from palate.experiment.tune_results import Trial, Tuned
from palate.experiment.worker import side_by_side
from palate.progress import Progress, ProgressEvent, silent

if TYPE_CHECKING:
    import optuna

JOURNAL, BEST, LOCK = "journal.log", "best.toml", ".lock"
STARTUP_TRIALS, STARTUP_STEPS = 5, 2  # that are never stopped early; a step is an epoch, or one of several parts


def tune(
    task: Task,
    folder: str | Path,
    *,
    trials: int = 20,
    minutes: float | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> Tuned:
    """Run trials until ``folder`` has so many of them, those of earlier runs counted, and write down the best recipe.

    The first trial is the preset; the others are proposed by a tree-structured Parzen estimator (Bergstra et al. 2011).

    Args:
        task: recipe, space, rows and metric.
        folder: of the study, resumed if it already holds it.
        trials: number of finished trials.
        minutes: after which no further trial is started.
        workers: processes that run trials side by side, one thread each.
        progress: called after each trial with its value, the best one so far and the time that is left.

    Raises:
        RecipeError: Optuna is not installed, the folder holds another study, or the preset itself fails.
        PalateError: another run is at work in the folder, or a worker process died.
    """
    if trials < 1 or workers < 1:
        raise RecipeError(f"trials={trials}, workers={workers}: must be at least 1")
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    # Above 0, so that a limit of 0 ends with the sentence below.
    budget = Budget.of(None if minutes is None else max(minutes, 1e-9))
    begun, seconds = 0, time.monotonic()
    with _alone_in(place):
        study = open_study(task, place)
        _requeue(study, task)
        for number in _numbers(task, place, study, trials, workers, budget):
            so_far = _tuned(study, task, place)
            trial = next(one for one in so_far.trials if one.number == number)
            if trial.preset and trial.state == "failed":
                raise RecipeError(f"the preset, which is the first trial, failed: {trial.error}")
            if so_far.best.number == number:
                _write_best(so_far)
            begun += 1
            left = (time.monotonic() - seconds) / begun * (trials - len(so_far.trials))
            progress(_event(trial, so_far, trials, min(left, budget.seconds)))
        found = _tuned(study, task, place)
        if not any(trial.preset for trial in found.trials):
            raise RecipeError(f"minutes={minutes:g} were over before the first trial: give more time")
        _write_best(found)
        return found


def open_study(task: Task, folder: Path) -> optuna.Study:
    """The study in the journal of a folder, new or not.

    Raises:
        RecipeError: Optuna is not installed, or the journal is of another study.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalStorage
    except ModuleNotFoundError as error:
        raise RecipeError("tuning needs an extra: pip install 'palate[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / JOURNAL
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(path), lock_obj=cast(Any, _JournalLock(path)))),
        study_name="palate",
        direction="maximize" if task.metric.higher_is_better else "minimize",
        pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS, STARTUP_STEPS + 1),
        load_if_exists=True,
    )
    mine, theirs = task.about(), study.user_attrs.get("about")
    if theirs is None:
        study.set_user_attr("about", mine)
    elif different := sorted(key for key in mine if theirs.get(key) != mine[key]):
        raise RecipeError(
            f"{folder} holds another study ({', '.join(different)} differ): give another folder, or delete this one"
        )
    return study


def run_trial(task: Task, study: optuna.Study, ticket: int) -> int:
    """Run the next trial and write down how it ended; returns its number.

    ``ticket`` differs between trials: with the seed of the run it seeds the proposal, so that a study that was stopped
    between two trials proposes the same as one that was not.
    """
    import optuna

    seed = int(np.random.SeedSequence([task.options.seed, ticket]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    trial = study.ask()
    outside = trial.user_attrs.get("preset", False) and task.preset_values() is None
    values = {} if outside else task.suggest(trial)
    trial.set_user_attr("values", values)

    def so_far(step: int, value: float) -> None:
        trial.report(value, step)
        # The preset is what all others are compared with, so it must run to its end.
        if not trial.user_attrs.get("preset") and trial.should_prune():
            raise optuna.TrialPruned

    try:
        recipe = task.recipe(values)
        trial.set_user_attr("fields", plain(recipe))
        study.tell(trial, task.measure(recipe, so_far))
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except PalateError as error:
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return trial.number


def _numbers(task: Task, folder: Path, study: optuna.Study, trials: int, workers: int, budget: Budget) -> Iterator[int]:
    """Numbers of trials as they end, until there are enough or time is over."""
    first = sum(trial.state.name != "WAITING" for trial in study.get_trials(deepcopy=False))
    tickets = iter(range(first, first + trials - len(_ended(study))))
    before = (ticket for ticket in tickets if not budget.over)
    if workers == 1:
        yield from (run_trial(task, study, ticket) for ticket in before)
    else:
        for _, number in side_by_side(_Here.run, before, workers, setup=(_Here.begin, task, folder)):
            yield number


class _Here:
    """The state of a worker process between trials: members of an ensemble that are the same are not fitted again."""

    task: Task
    study: optuna.Study

    @classmethod
    def begin(cls, task: Task, folder: Path, progress: Progress) -> None:
        cls.task, cls.study = task, open_study(task, folder)

    @classmethod
    def run(cls, ticket: int, progress: Progress) -> int:
        return run_trial(cls.task, cls.study, ticket)


def _requeue(study: optuna.Study, task: Task) -> None:
    """Close the trials that a killed run left open and queue them first, and the preset if it is new."""
    from optuna.trial import TrialState

    existing = study.get_trials(deepcopy=False)
    for trial in existing:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
            if trial.params and not trial.user_attrs.get("preset"):
                study.enqueue_trial(trial.params)
    live = (TrialState.WAITING, TrialState.COMPLETE)
    if not any(trial.user_attrs.get("preset") and trial.state in live for trial in existing):
        study.enqueue_trial(task.preset_values() or {}, user_attrs={"preset": True})


def _ended(study: optuna.Study) -> list[Any]:
    """Trials with an outcome: complete, stopped early, or failed by themselves."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.name in ("COMPLETE", "PRUNED") or _error(t)]


def _error(trial: Any) -> str | None:
    # A trial without an error of its own was cut off by a kill.
    text: str | None = trial.user_attrs.get("error") if trial.state.name == "FAIL" else None
    return text


def _event(trial: Trial, so_far: Tuned, trials: int, left: float) -> ProgressEvent:
    best = so_far.best
    value = trial.state if trial.value is None else f"{trial.value:.4f}"
    words = (
        f"{value}{' (stopped early)' if trial.state == 'pruned' else ''}; best {best.value:.4f} in trial {best.number}"
    )
    if len(so_far.trials) < trials:
        words += f"; about {in_words(left)} left"
    values = {"value": trial.value, "best": best.value}
    numbers = {name: number for name, number in values.items() if number is not None}
    return ProgressEvent("tune", len(so_far.trials), trials, "trial", words, {**numbers, "number": trial.number})


def _tuned(study: optuna.Study, task: Task, folder: Path) -> Tuned:
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    trials = tuple(
        Trial(
            number=one.number,
            state=names[one.state.name],
            value=one.value,
            fields=one.user_attrs.get("fields", {}),
            values=one.user_attrs["values"],
            seconds=one.duration.total_seconds() if one.duration else 0.0,
            preset=one.user_attrs.get("preset", False),
            error=_error(one),
        )
        for one in _ended(study)
    )
    return Tuned(task, trials, _importance(study, task), folder)


def _importance(study: optuna.Study, task: Task) -> dict[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    complete = [t for t in _ended(study) if t.state.name == "COMPLETE" and t.params]
    if len({t.value for t in complete}) < 2 * STARTUP_TRIALS:
        return {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some regimes", UserWarning)  # that one field's share rests on few trials
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), params=list(task.space))
    return {path: float(share) for path, share in found.items()}


def _write_best(found: Tuned) -> None:
    task, best = found.task, found.best
    about = f"{task.metric} {best.value:.4f} on validation rows, the best of {len(found.trials)} trials"
    write_recipe(found.recipe, found.folder / BEST, f"{about}, seed {task.options.seed}")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder, and cut off a line that a killed run has left half written."""
    with ExitStack() as stack:
        try:
            stack.enter_context(storage.lock(folder / LOCK, wait=False))
        except StorageError:
            raise PalateError(f"another study is at work in {folder}: wait for it, or give another folder") from None
        journal = folder / JOURNAL
        if journal.exists():
            # Optuna reads the journal line by line and would refuse the whole of it for half a line.
            os.truncate(journal, journal.read_bytes().rfind(b"\n") + 1)
        yield


class _JournalLock:
    """Optuna's lock of the journal; unlike its own, the system releases it when a process is killed."""

    def __init__(self, journal: Path) -> None:
        self._path = journal.with_suffix(".lock")

    def acquire(self) -> bool:
        self._held = ExitStack()
        self._held.enter_context(storage.lock(self._path))
        return True

    def release(self) -> None:
        self._held.close()
