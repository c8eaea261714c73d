"""The comparison: fit each recipe and baseline, measure all on one frozen split, test the differences.

    found = palate.compare(split, ["ease", palate.NeuMF.fast()])
    found.to_frame()

Without a folder recipes are fitted in this process and the models stay at hand. With a folder each fit has a process of
its own, the folder keeps the split and every finished result, and a comparison that was killed is resumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from palate.base import Recipe, TrainOptions
from palate.data.splits.split import Split
from palate.errors import EvaluationError, PalateError, RecipeError
from palate.evaluation.evaluate import evaluate_lists
from palate.evaluation.report import Report
from palate.experiment.baselines import (
    MOST_ROUNDS,
    Entry,
    as_plain,
    baselines,
    beyond,
    cheapest_first,
    check_names,
    differing_fields,
    from_plain,
    left_out,
)
from palate.experiment.budget import UNLIMITED, Budget
from palate.experiment.examples import example_users, examples, shown
from palate.experiment.external_lists import lists_of, read_lists
from palate.experiment.fitting import CompareOptions, Fitted, by_gradient_descent, fit_and_measure
from palate.experiment.results import Comparison, Outcome
from palate.experiment.run_folder import RunFolder
from palate.experiment.task import Metric, Task
from palate.experiment.validation import validation_split
from palate.experiment.worker import Worker
from palate.progress import Progress, ProgressEvent, silent

LIGHTNING = "palate.training.lightning_driver"  # takes seconds to import
Lists = Mapping[str, str | Path | pl.DataFrame]


def compare(
    split: Split,
    recipes: Sequence[Entry | Recipe[Any] | str],
    folder: str | Path | None = None,
    *,
    options: CompareOptions = CompareOptions(),
    with_baselines: bool = False,
    minutes: float | None = None,
    lists: Lists | None = None,
    fresh: bool = False,
    progress: Progress = silent,
) -> Comparison:
    """Fit, measure and test recipes on one split.

    Args:
        split: shared by all; with candidates, sampled metrics are measured too.
        recipes: recipes or their names, or entries with a name of their own. Entries with the same settings, those of a
            tuned baseline included, are fitted once.
        folder: of the comparison, resumed if it already holds it; None fits in this process and writes nothing.
        options: k, seeds and the like.
        with_baselines: add tuned baselines (``palate.experiment.baselines``).
        minutes: after which no further fit is started. Popularity and strong cheap baselines come first, then the
            recipes, then the other baselines; a remark names those that were left out. None: no limit.
        lists: finished lists of other systems by name: a file or dataframe of user_id, item_id, rank.
        fresh: delete the results of an earlier comparison in the folder.
        progress: called with an event for each fit, and with the events of the fits.

    Raises:
        EvaluationError: the folder belongs to another comparison or is in use, or nothing could be measured.
        RecipeError: two entries of one name, or minutes that are not above 0.
    """
    # An easy mistake: options in the place of the folder, or those of a single fit.
    if not (isinstance(folder, str | Path | None) and isinstance(options, CompareOptions)):
        raise EvaluationError(
            f"folder={folder!r}, options={options!r}: "
            "write compare(split, recipes, options=palate.CompareOptions(seeds=(0, 1)))"
        )
    entries = [Entry.of(one) for one in recipes]
    entries += baselines(split.train, entries) if with_baselines else []
    entries = [one for place, one in enumerate(entries) if one not in entries[:place]]
    check_names([*(one.name for one in entries), *(lists or {})])
    remarks = left_out(split.train) if with_baselines else []
    budget = Budget.of(minutes)
    if minutes is not None:
        entries = cheapest_first(entries)
    if folder is None:
        return _Run(split, options, progress, budget).compared(entries, lists or {}, remarks)
    home = RunFolder(Path(folder))
    with home.locked():
        train, candidates = split.train, split.candidates
        # All that a result depends on beside recipe and seed; a folder holds results of one such identity.
        identity = {
            "palate": version("palate"),
            "split": split.fingerprint,
            "candidates": candidates.fingerprint(train.users, train.items) if candidates else None,
            "validation": str(split.validation.fingerprint.digest) if split.validation else None,
            **{
                name: getattr(options, name) for name in ("lengths", "k", "patience", "refit", "resamples", "precision")
            },
        }
        if not home.claim(identity, fresh=fresh):
            split.save(home.split)
            home.begin(identity)
        with Worker(isolated=True, threads=options.threads, log=home.log) as worker:
            found = _Run(split, options, progress, budget, home, worker).compared(entries, lists or {}, remarks)
        home.finish(found.document)
    return found


def choose(
    recipes: Sequence[Recipe[Any]],
    validation: Split,
    options: TrainOptions = TrainOptions(),
    *,
    k: int = 10,
    budget: Budget = UNLIMITED,
    progress: Progress = silent,
) -> tuple[Recipe[Any], dict[int, float], list[str]]:
    """The recipe with the best NDCG@k on validation rows.

    Args:
        recipes: at least one. Those that cannot be fitted are skipped.
        validation: a split of training rows (``validation_split``): test rows play no part.
        options: seed, device and the like.
        k: list length.
        budget: after which no further one is fitted.
        progress: called with the number of recipes that are done.

    Returns:
        The recipe, the values by the positions of the recipes, and the reasons of those that failed.

    Raises:
        RecipeError: none could be fitted.
    """
    plain = replace(options, validation_callback=None, folder=None, logger="none", callbacks=(), progress=silent)
    task = Task(recipes[0], {}, (validation,), Metric("NDCG", k), plain)
    values: dict[int, float] = {}
    reasons = []
    for number, recipe in enumerate(recipes):
        if values and budget.over:
            break
        progress(ProgressEvent("choose", number, len(recipes), "setting"))
        try:
            values[number] = task.measure(recipe)
        except PalateError as error:
            reasons.append(str(error))
    progress(ProgressEvent("choose", len(recipes), len(recipes), "setting"))
    if not values:
        raise RecipeError(f"none of {len(recipes)} settings of {recipes[0].name} could be fitted: {reasons[0]}")
    return recipes[max(values, key=lambda number: values[number])], values, reasons


def choose_setting(
    rows: Split | Path, grid: Sequence[Recipe[Any]], options: CompareOptions, budget: Budget, progress: Progress
) -> tuple[Recipe[Any], str]:
    """The best setting of a grid on validation rows, and the choice in words; a job of a worker."""
    inner = validation_split(Split.load(rows) if isinstance(rows, Path) else rows)
    training = options.training(options.seeds[0], silent)
    best, values, reasons = choose(grid, inner, training, k=options.k, budget=budget, progress=progress)
    cut = len(grid) - len(values) - len(reasons)
    tried, value = list(grid)[: len(grid) - cut], max(values.values())
    for _ in range(MOST_ROUNDS):
        more = beyond(best, list(grid) + tried)
        if not more or cut or budget.over:
            break
        tried += more
        try:
            found, values, _ = choose(more, inner, training, k=options.k, budget=budget, progress=progress)
        except RecipeError:  # none of them can be fitted
            break
        if max(values.values()) <= value:
            break
        best, value = found, max(values.values())
    grown = f" ({len(tried) - len(grid)} beyond the edges of the grid)" if len(tried) > len(grid) else ""
    words = (
        f"{differing_fields(best, tried)}: best NDCG@{options.k} ({value:.4f}) of {len(tried)} settings{grown} "
        f"on validation rows, {inner.how}"
    )
    words += f"; {cut} settings of the grid not tried for lack of time" if cut else ""
    return best, words + (f"; {len(reasons)} settings could not be fitted: {reasons[0]}" if reasons else "")


def fit_entry(
    rows: Split | Path, recipe: Recipe[Any], name: str, seed: int, options: CompareOptions, progress: Progress
) -> tuple[Fitted, list[dict[str, Any]]]:
    """One fit with its reports and example lists; as a job of a worker it leaves the model behind."""
    split = Split.load(rows) if isinstance(rows, Path) else rows
    stop = None if options.patience is None else (options.patience, options.k)
    fitted = fit_and_measure(
        recipe, split, options.training(seed, progress), k=options.lengths, stop=stop, refit=options.refit, name=name,
        resamples=options.resamples, memory=options.memory, details=True,
    )  # fmt: skip
    lists = examples(fitted.model, split, options.k)
    return (replace(fitted, model=None) if isinstance(rows, Path) else fitted), lists


class _FitError(Exception):
    """A fit that failed: its entry is listed with the reason and the others go on. Errors of the folder do not."""


@dataclass(frozen=True)
class _Run:
    """The steps of one comparison; each is skipped if its result is in the folder."""

    split: Split
    options: CompareOptions
    progress: Progress
    budget: Budget = UNLIMITED
    home: RunFolder | None = None
    worker: Worker | None = None
    fits: dict[str, tuple[Fitted, list[dict[str, Any]]]] = field(default_factory=dict)  # by settings and seed

    def compared(self, entries: Sequence[Entry], lists: Lists, remarks: list[str]) -> Comparison:
        given = [self._external(name, table) for name, table in lists.items()]
        total = sum(len(self.options.seeds) + bool(one.grid) for one in entries)
        outcomes: list[Outcome] = []
        failed: list[dict[str, Any]] = []
        late: list[str] = []
        done = 0
        for entry in entries:
            if self.budget.over and (outcomes or failed) and not self._finished(entry):
                late.append(entry.name)
                continue
            try:
                outcomes.append(self._outcome(entry, done, total))
            except _FitError as error:
                failed.append({"name": entry.name, "why": str(error)})
            done += len(self.options.seeds) + bool(entry.grid)
        if late:
            remarks = [*remarks, f"Left out after {self.budget.words}: {', '.join(late)}."]
        outcomes += given
        if not outcomes:
            reasons = "; ".join(f"{one['name']}: {one['why']}" for one in failed)
            raise EvaluationError(f"nothing could be measured ({reasons or 'no recipes were given'})")
        self.progress(ProgressEvent("compare", total, total, "fit", "testing"))
        return Comparison.of(self.split, self.options, outcomes, failed, remarks)

    def _outcome(self, entry: Entry, done: int, total: int) -> Outcome:
        recipe, words, seeds = entry.recipe, None, self.options.seeds
        if entry.grid:
            grid = [as_plain(one) for one in entry.grid]
            tuned = self._stored(entry.name, "tuned", grid)
            if tuned is None:
                who = f"{entry.name}: tuning {len(grid)} settings"
                # Half of the time that is left, so that one grid cannot take that of all others.
                choice = (entry.grid, self.options, self.budget.half)
                best, words = self._do(choose_setting, *choice, who=who, at=(done, total))
                tuned = {"recipe": grid, "best": as_plain(best), "words": words}
                self._save(entry.name, "tuned", tuned, {})
            recipe, words, done = from_plain(tuned["best"]), tuned["words"], done + 1
        recipe = recipe.for_data(self.split.train)  # the results name the values that are used
        plain = as_plain(recipe)
        results: dict[int, dict[str, Any]] = {}
        users: dict[tuple[int, str], pl.DataFrame] = {}
        models = []
        for number, seed in enumerate(seeds):
            stage = f"seed{seed}"
            result = self._stored(entry.name, stage, plain)
            if result is None or self.home is None:
                key = json.dumps([plain, seed])
                if key not in self.fits:
                    who = f"{entry.name}, seed {seed}: training" if len(seeds) > 1 else f"{entry.name}: training"
                    job = (recipe, entry.name, seed, self.options)
                    fitted, lists = self._do(fit_entry, *job, who=who, at=(done + number, total))
                    # Only the models of the first seed are handed out.
                    self.fits[key] = (fitted if not number else replace(fitted, model=None)), lists
                fitted, lists = self.fits[key]
                reports = {ranking: replace(report, model=entry.name) for ranking, report in fitted.reports.items()}
                ratings = fitted.ratings and replace(fitted.ratings, model=entry.name)
                fitted = replace(fitted, reports=reports, ratings=ratings)
                models.append(fitted)
                result = _as_result(fitted, plain, seed, lists)
                frames = {ranking: self._per_user(report) for ranking, report in fitted.reports.items()}
                self._save(entry.name, stage, result, frames)
            else:
                rankings = [one for one in ("full", "sampled") if result[one]]
                frames = {one: self.home.per_user(entry.name, stage, one) for one in rankings}
            results[seed] = result
            users |= {(seed, ranking): frame for ranking, frame in frames.items()}
        if entry.role == "baseline" and words is None:
            words = "nothing to choose"
        # Models of a folder stay in their processes; those of this process are handed out.
        fitted_here = models[0] if models and models[0].model is not None else None
        return Outcome(entry.name, entry.role, plain, words, results, users, recipe, fitted_here)

    def _do(self, job: Callable[..., Any], *arguments: Any, who: str, at: tuple[int, int]) -> Any:
        """Run a job in the worker, or here where there is none."""
        who += self.budget.left_in_words
        self.progress(ProgressEvent("compare", *at, "fit", who))

        def inside(event: ProgressEvent) -> None:
            self.progress(replace(event, stage=f"{who}: {event.stage}"))

        try:
            if self.worker is None or self.home is None:
                return job(self.split, *arguments, inside)
            imports = (LIGHTNING,) if by_gradient_descent(arguments[0]) else ()
            return self.worker.do(job, self.home.split, *arguments, progress=inside, imports=imports)
        except PalateError as error:
            raise _FitError(str(error)) from error

    def _finished(self, entry: Entry) -> bool:
        """Whether the folder has all results of an entry."""
        grid = [as_plain(one) for one in entry.grid]
        tuned = self._stored(entry.name, "tuned", grid) if grid else None
        if grid and tuned is None:
            return False
        recipe = from_plain(tuned["best"]) if tuned else entry.recipe
        plain = as_plain(recipe.for_data(self.split.train))
        return all(self._stored(entry.name, f"seed{seed}", plain) for seed in self.options.seeds)

    def _stored(self, name: str, stage: str, plain: Any) -> dict[str, Any] | None:
        return None if self.home is None else self.home.result(name, stage, plain)

    def _save(self, name: str, stage: str, result: Mapping[str, Any], users: Mapping[str, pl.DataFrame]) -> None:
        if self.home is not None:
            self.home.save(name, stage, result, users)

    def _per_user(self, report: Report) -> pl.DataFrame:
        """Values per user under external ids, so that the file has a meaning of its own."""
        ids = self.split.train.users.external(report.user_rows).rename("user_id")
        return pl.DataFrame([ids, *(pl.Series(name, values) for name, values in report.per_user.items())])

    def _external(self, name: str, table: str | Path | pl.DataFrame) -> Outcome:
        """The outcome of another system's lists."""
        split, options = self.split, self.options
        given, notes = read_lists(table, split, max(options.lengths))
        report = evaluate_lists(
            given, split, k=options.lengths, name=name, resamples=options.resamples, memory=options.memory
        )
        users = example_users(split)
        fitted = Fitted(None, np.nan, None, [], {"full": replace(report, notes=(*report.notes, *notes))})
        result = _as_result(fitted, None, options.seeds[0], shown(split, users, lists_of(users, given, options.k)))
        result |= {"train_seconds": None, "score_seconds": None}
        seed = options.seeds[0]
        values = self._per_user(report)
        return Outcome(name, "external", None, None, {seed: result}, {(seed, "full"): values})


def _as_result(fitted: Fitted, recipe: dict[str, Any] | None, seed: int, lists: list[dict[str, Any]]) -> dict[str, Any]:
    """A result as it is kept in JSON."""
    full, sampled = fitted.reports["full"], fitted.reports.get("sampled")
    return {
        "recipe": recipe,
        "seed": seed,
        "train_seconds": fitted.seconds,
        "score_seconds": full.seconds,
        "peak_memory_mb": fitted.memory if fitted.model is None else None,  # of its own process only
        "curve": fitted.curve,
        "findings": list(fitted.findings),
        "stopped": fitted.stopped,
        "full": full.to_dict(),
        "sampled": sampled.to_dict() if sampled else None,
        "ratings": fitted.ratings.to_dict() if fitted.ratings else None,
        "examples": lists,
    }
