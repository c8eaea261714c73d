"""The whole comparison: train each recipe and baseline, measure all on one frozen split, say what may be said.

    document = run_comparison(split, [palate.NeuMF.fast()], "runs/first")
    document["winner"]["why"]

The folder keeps the split, every finished result and the document, so a run that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from palate.base import Recipe
from palate.data.audit import audit
from palate.data.splits.split import Split
from palate.errors import EvaluationError, RecipeError
from palate.evaluation import winner as verdict
from palate.evaluation.evaluate import REQUEST_TIME, evaluate_lists
from palate.experiment.baselines import Entrant, baselines, left_out
from palate.experiment.examples import example_users, told
from palate.experiment.external_lists import lists_of, read_lists
from palate.experiment.fitting import Fitting, Settings
from palate.experiment.results import Outcome, combined, protocol
from palate.experiment.run_folder import RunFolder, write_json
from palate.experiment.worker_process import Worker

__all__ = ["run_comparison"]

Progress = Callable[[int, int, str], None]


def run_comparison(
    split: Split,
    recipes: Sequence[Entrant | Recipe[Any]],
    folder: str | Path,
    *,
    settings: Settings | None = None,
    with_baselines: bool = True,
    lists: Mapping[str, str | Path | pl.DataFrame] | None = None,
    fresh: bool = False,
    progress: Progress = lambda done, total, what: None,
) -> dict[str, Any]:
    """Train, measure and test everything on one split; the document is also written to ``folder``.

    Args:
        split: shared by all; with candidates, sampled metrics are measured too.
        recipes: recipes, or entrants with a name of their own.
        folder: of this comparison; one that holds it already is gone on with.
        settings: k, seeds and the like; the defaults of ``Settings`` where left out.
        with_baselines: add tuned baselines (``palate.experiment.baselines``).
        lists: finished lists of other systems by name: a file or dataframe of user_id, item_id, rank.
        fresh: forget what the folder holds of an earlier comparison.
        progress: called with steps done, steps in all, and what is going on.

    Returns:
        The document, as in comparison.json: data, split, candidates, protocol, models, tests, winner and more.

    Raises:
        EvaluationError: the folder belongs to another comparison or is in use, or nothing could be measured.
        RecipeError: two entrants of one name.
    """
    settings = settings or Settings()
    entrants = [one if isinstance(one, Entrant) else Entrant(one.name, one) for one in recipes]
    entrants += baselines(split.train, entrants) if with_baselines else []
    _check_names([*(one.name for one in entrants), *(lists or {})])
    home = RunFolder(Path(folder))
    with home.locked():
        identity = _identity(split, settings)
        if not home.claim(identity, fresh=fresh):
            split.save(home.split)
            home.begin(identity)
        given = [_given(name, table, split, settings) for name, table in (lists or {}).items()]
        outcomes, failed = _outcomes(home, entrants, settings, progress)
        outcomes += given
        if not outcomes:
            reasons = "; ".join(f"{one['name']}: {one['why']}" for one in failed)
            raise EvaluationError(f"nothing could be measured ({reasons or 'no recipes were given'})")
        progress(1, 1, "testing")
        remarks = left_out(split.train) if with_baselines else []
        document = _document(split, settings, outcomes, failed, remarks)
        write_json(home.comparison, document)
    return document


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise RecipeError(f"{', '.join(twice)} stands twice in the comparison: give each entrant a name of its own")


def _identity(split: Split, settings: Settings) -> dict[str, Any]:
    """What a result depends on beside recipe and seed; a folder holds results of one such identity."""
    train, candidates = split.train, split.candidates
    return {
        "palate": version("palate"),
        "split": split.fingerprint,
        "candidates": candidates.fingerprint(train.users, train.items) if candidates else None,
        "lengths": settings.lengths,
        "k": settings.k,
        "patience": settings.patience,
        "resamples": settings.resamples,
        "precision": settings.precision,
    }


def _outcomes(
    home: RunFolder, entrants: Sequence[Entrant], settings: Settings, progress: Progress
) -> tuple[list[Outcome], list[dict[str, Any]]]:
    """Every entrant's results, and why there are none of some."""
    total = sum(len(settings.seeds) + bool(one.grid) for one in entrants)
    outcomes, failed, done = [], [], 0
    with Worker(home, settings.threads) as worker:
        for entrant in entrants:

            def tell(more: int, what: str, done: int = done) -> None:
                progress(done + more, total, what)

            found = Fitting(home, worker, entrant, settings, tell).outcome()
            if isinstance(found, Outcome):
                outcomes.append(found)
            else:
                failed.append({"name": entrant.name, "why": found})
            done += len(settings.seeds) + bool(entrant.grid)
    return outcomes, failed


def _given(name: str, table: str | Path | pl.DataFrame, split: Split, settings: Settings) -> Outcome:
    """The outcome of another system's lists."""
    given, notes = read_lists(table, split, max(settings.lengths))
    report = evaluate_lists(
        given, split, k=settings.lengths, name=name, resamples=settings.resamples, memory=settings.memory
    )
    shown = example_users(split)
    examples = told(split, shown, lists_of(shown, given, settings.k))
    nothing: dict[str, Any] = {
        "train_seconds": None,
        "score_seconds": None,
        "peak_memory_mb": None,
        "curve": [],
        "ratings": None,
    }
    full = report.to_dict()
    result = {**nothing, "full": {**full, "notes": [*full["notes"], *notes]}, "sampled": None, "examples": examples}
    seed = settings.seeds[0]
    values = pl.DataFrame({"user_id": report.user_rows, **report.per_user})
    return Outcome(name, "external", None, None, {seed: result}, {(seed, "full"): values})


def _document(
    split: Split, settings: Settings, outcomes: Sequence[Outcome], failed: list[dict[str, Any]], remarks: list[str]
) -> dict[str, Any]:
    standings = [one.standing(settings.k) for one in outcomes]
    candidates, train = split.candidates, split.train
    facts: dict[str, Any] = {
        "palate": version("palate"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "name": train.name,
            "rows": len(train) + len(split.test),
            "users": train.n_users,
            "items": train.n_items,
        },
        "split": {
            "how": split.how,
            "fingerprint": split.fingerprint,
            "train_rows": len(train),
            "test_rows": len(split.test),
            "test_users": len(split.test_users),
            "notes": [str(note) for note in (*train.notes, *split.notes)],
        },
        "k": settings.k,
        "lengths": settings.lengths,
        "candidates": {"how": candidates.how, "fingerprint": candidates.fingerprint(train.users, train.items)}
        if candidates
        else None,
        "seeds": list(settings.seeds),
        "models": combined(outcomes, settings.resamples),
    }
    facts["models"].sort(key=lambda entry: -_deciding(entry["full"], settings.k))
    asked = [
        f"{one['name']}: {REQUEST_TIME}, which the other models are not told"
        for one in facts["models"]
        if REQUEST_TIME in one["full"]["protocol"]
    ]
    remark = verdict.order_remark(standings, settings.k)
    return {
        **facts,
        "protocol": protocol(facts),
        "tests": verdict.against_baseline(standings, settings.k, settings.resamples),
        "winner": verdict.winner(standings, settings.k, settings.resamples),
        "remarks": [*remarks, *asked, *([remark] if remark else [])],
        "failed": failed,
        "audit": audit(split).to_dict(),
    }


def _deciding(report: Mapping[str, Any], k: int) -> float:
    return next(float(m["value"]) for m in report["measures"] if (m["metric"], m["k"]) == (verdict.METRIC, k))
