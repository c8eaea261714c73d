"""One process per job: `python -m palate.experiment.worker` imports what is heavy once and forks for each job.

A job fits and measures one recipe with one seed, or chooses among the settings of a baseline. In a process of its own
its peak memory is its own, and a crash or a kill for memory takes nothing else along. Jobs come as JSON lines on stdin;
what happens goes back as JSON lines on the former stdout: events {"step": ...}, then {"done": true} or
{"failed": reason}. Whatever else is printed goes to stderr, which the parent keeps in a file.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

from palate.base import PredictsRatings, Recipe, Trainable, TrainOptions
from palate.data.splits.split import Split
from palate.errors import PalateError
from palate.evaluation.evaluate import Report, evaluate, validation_callback
from palate.evaluation.rating_prediction import evaluate_ratings
from palate.experiment.baseline_tuning import tune
from palate.experiment.baselines import as_plain, from_plain
from palate.experiment.examples import examples
from palate.experiment.run_folder import RunFolder
from palate.experiment.validation import validation_split
from palate.progress import Progress, ProgressEvent, silent

__all__ = ["main"]

ROW_RESAMPLES = 1_000  # of rows, which are many more than users: enough for three digits
Emit = Callable[[dict[str, Any]], None]


def main() -> None:
    """Serve jobs for the folder and the parent process named on the command line, until stdin ends."""
    folder, parent = RunFolder(Path(sys.argv[1])), int(sys.argv[2])
    _die_with(parent)
    channel = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not get between the events

    def emit(event: dict[str, Any]) -> None:
        os.write(channel, (json.dumps(event) + "\n").encode())

    for line in iter(sys.stdin.readline, ""):
        job = json.loads(line)
        if job["do"] == "fit" and isinstance(from_plain(job["recipe"]), Trainable):
            import palate.training.lightning_driver  # noqa: F401  # Lightning takes seconds to import: once, before the forks
        if sys.platform == "linux":
            _forked(folder, job, emit)
        else:  # where a fork after heavy imports is not safe, the parent starts a new process for each job
            _serve(folder, job, emit)


def _forked(folder: RunFolder, job: dict[str, Any], emit: Emit) -> None:
    """Do a job in a child, and say so if the child ends without having said how it went."""
    mine = os.getpid()
    child = os.fork()
    if child == 0:
        _die_with(mine)
        code = 1
        try:
            _serve(folder, job, emit)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        reason = f"its process was killed by {signal.Signals(number).name}"
        if number == signal.SIGKILL:
            reason += ", as the system does when memory runs out: use less data or a smaller recipe"
        emit({"failed": reason})
    elif status:
        emit({"failed": "its process ended at once: see log.txt in the folder"})


def _serve(folder: RunFolder, job: dict[str, Any], emit: Emit) -> None:
    try:
        if job["threads"] is not None:
            torch.set_num_threads(job["threads"])
        split = Split.load(folder.split)
        (_tune if job["do"] == "tune" else _fit)(folder, split, job, emit)
        emit({"done": True})
    except PalateError as error:
        emit({"failed": str(error)})
    except MemoryError:
        emit({"failed": "memory ran out: use less data or a smaller recipe"})
    except Exception as error:
        traceback.print_exc()
        emit({"failed": f"{type(error).__name__}: {error} (a fault of Palate or of the recipe: see log.txt)"})


def _tune(folder: RunFolder, split: Split, job: dict[str, Any], emit: Emit) -> None:
    grid = [from_plain(plain) for plain in job["grid"]]
    begin = time.perf_counter()

    def progress(done: int) -> None:
        emit({"step": f"tuning, {done} of {len(grid)} settings"})

    best, words = tune(split, grid, _run(job), k=job["k"], progress=progress)
    result = {"recipe": job["grid"], "best": as_plain(best), "words": words, "seconds": time.perf_counter() - begin}
    folder.save(job["name"], "tuned", result, {})


def _fit(folder: RunFolder, split: Split, job: dict[str, Any], emit: Emit) -> None:
    curve: list[dict[str, float]] = []

    def progress(event: ProgressEvent) -> None:
        curve.append({"epoch": event.done or 0, **event.values})
        emit({"step": str(event)})

    emit({"step": "training"})
    recipe = from_plain(job["recipe"])
    begin = time.perf_counter()
    model = _trained(recipe, split, _run(job, progress), job["patience"], job["k"])
    seconds, memory = time.perf_counter() - begin, _peak_mb()
    emit({"step": "measuring"})
    reports = _measured(model, split, job)
    ratings = None
    if split.test.explicit and isinstance(model, PredictsRatings):
        resamples = min(job["resamples"], ROW_RESAMPLES)
        ratings = evaluate_ratings(model, split, name=job["name"], resamples=resamples).to_dict()
    result = {
        "recipe": job["recipe"],
        "seed": job["seed"],
        "train_seconds": seconds,
        "score_seconds": reports["full"].seconds,
        "peak_memory_mb": memory,
        "curve": curve,
        "full": reports["full"].to_dict(),
        "sampled": reports["sampled"].to_dict() if "sampled" in reports else None,
        "ratings": ratings,
        "examples": examples(model, split, job["k"]),
    }
    users = {ranking: _per_user(report, split) for ranking, report in reports.items()}
    folder.save(job["name"], f"seed{job['seed']}", result, users)


def _measured(model: Any, split: Split, job: dict[str, Any]) -> dict[str, Report]:
    """Full ranking, and sampled candidates where the split has them."""
    common = {"k": job["lengths"], "name": job["name"], "resamples": job["resamples"], "memory": job["memory"]}
    reports = {"full": evaluate(model, split, **common)}
    if split.candidates is not None:
        reports["sampled"] = evaluate(model, split, candidates=split.candidates, **common)
    return reports


def _trained(recipe: Recipe[Any], split: Split, run: TrainOptions, patience: int | None, k: int) -> Any:
    """The fitted model; one trained by gradients, with patience, on a part of the rows, stopped where the rest says."""
    if patience is None or not isinstance(recipe, Trainable):
        return recipe.fit(split.train, run)
    inner = validation_split(split, seed=run.seed)
    return recipe.fit(inner.train, replace(run, validation_callback=validation_callback(inner, k=k), patience=patience))


def _run(job: dict[str, Any], progress: Progress = silent) -> TrainOptions:
    return TrainOptions(
        seed=job["seed"], device=job["device"], threads=job["threads"], precision=job["precision"], progress=progress
    )


def _per_user(report: Report, split: Split) -> pl.DataFrame:
    """Values per user under external ids, so that the file means something alone."""
    ids = split.train.users.external(report.user_rows).rename("user_id")
    return pl.DataFrame([ids, *(pl.Series(name, values) for name, values in report.per_user.items())])


def _peak_mb() -> float | None:
    """Most memory this process held so far, in MB; the kernel's own count, None where it gives none."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    # Not ru_maxrss: that counts what the parent held before the process became itself.
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return None if line is None else int(line.split()[1]) / 1024


def _die_with(parent: int) -> None:
    """End when the parent does, even if that is killed: nobody would wait for the result."""
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
        if os.getppid() != parent:  # it went before the line above
            os._exit(1)


if __name__ == "__main__":
    main()
