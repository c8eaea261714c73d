"""`palate compare`: recipes against each other and against tuned baselines, with intervals, tests and a verdict."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from palate.cli import options
from palate.cli.console import console, note, print_json, table
from palate.errors import DataError, PalateError, RecipeError

if TYPE_CHECKING:
    from palate.data.splits.split import Split
    from palate.experiment.run_comparison import Progress

__all__ = ["compare"]

NEGATIVES = 100
ERRORS = ("RMSE", "MAE")
METRICS = ("NDCG", "HitRate")
WIDE = 106  # columns of a terminal that full and sampled metrics need side by side


@options.reads_rows
def compare(
    data: options.Data,
    recipes: Annotated[
        str, typer.Option("--recipes", help="Recipes by name, and TOML files with recipe = NAME and its fields.")
    ] = "neumf,two-tower",
    no_baselines: Annotated[
        bool, typer.Option("--no-baselines", help="Leave out the tuned baselines: popularity, kNN, EASE, iALS.")
    ] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Published settings instead of the fast presets.")
    ] = False,
    lists: Annotated[
        list[str] | None,
        typer.Option("--lists", help="name=file.csv: finished lists of another system (user_id, item_id, rank)."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="leave-one-out, time or random. Default: time, else random.")
    ] = None,
    share: Annotated[float, typer.Option("--share", help="Held-out share of the rows for time and random.")] = 0.2,
    negatives: Annotated[
        int | None,
        typer.Option("--negatives", min=0, help="Sampled candidates per user, 0 for none. Default: 100 if there are."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="How often each model is trained (3), or with which seeds (0,7,9).")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option("--patience", min=1, help="Stop after so many epochs without a better NDCG on validation rows."),
    ] = None,
    resamples: Annotated[
        int, typer.Option("--resamples", min=1, help="Of intervals and tests; no p is below 2 in this.")
    ] = 10_000,
    memory: Annotated[
        str | None, typer.Option("--memory", help="What measuring may hold beside model and data: 512MB.")
    ] = None,
    precision: Annotated[
        Literal["32-true", "bf16-mixed"], typer.Option("--precision", help="Of the numbers in training.")
    ] = "32-true",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for split, results and report. Default: runs/compare-DATA.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what --out holds of an earlier comparison.")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not write report.html and report.md.")] = False,
    reading: options.Reading = options.Reading(),
    items: options.ItemFeatures = None,
    k: options.K = 10,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Which model is better, and is the difference more than luck? Recipes against each other and tuned baselines.

    Every model is trained and measured on one frozen split, in full ranking and against sampled candidates, with 95 %
    intervals over users and paired tests against the best baseline. A winner is named only where the tests allow it.
    Killed in the middle, the same command goes on where it was. Exit code 1: some model failed, the others stand.

    Example: palate compare clicks.csv --recipes neumf,bpr --seeds 3 --out runs/first
    """
    from palate.experiment import Settings, read_entrants, run_comparison

    source = reading.of(data, items)
    entrants = read_entrants([name.strip() for name in recipes.split(",") if name.strip()], published=published)
    settings = Settings(
        k=k, seeds=_seeds(seeds, seed), patience=patience, resamples=resamples, memory=memory, precision=precision,
        device=device, threads=options.make_run(seed, device, threads).threads,
    )  # fmt: skip
    rows = _candidates(options.split_rows(source, split, share, seed), negatives, seed)
    folder = out or Path("runs") / f"compare-{Path(rows.train.name).stem}"
    with _shown_progress() as progress:
        document = run_comparison(
            rows, entrants, folder, settings=settings, with_baselines=not no_baselines, lists=_named_files(lists or []),
            fresh=fresh, progress=progress,
        )  # fmt: skip
    written = [] if no_report else _write_report(document, folder)
    if json:
        print_json(document)
    else:
        _show(document, [folder / "comparison.json", *written])
    for one in document["failed"]:
        console(stderr=True).print(f"failed: {one['name']}: {one['why']}", style="red", markup=False, soft_wrap=True)
    if document["failed"]:
        sys.exit(1)


def _seeds(text: str | None, seed: int) -> tuple[int, ...]:
    """A number says how many seeds, a list says which."""
    if text is None:
        return (seed,)
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts if part) or not any(parts):
        raise RecipeError(f"--seeds {text!r} is no number of seeds and no list of them: write --seeds 3 or --seeds 0,7")
    numbers = [int(part) for part in parts if part]
    return tuple(numbers) if len(parts) > 1 else tuple(range(seed, seed + numbers[0]))


def _candidates(rows: Split, negatives: int | None, seed: int) -> Split:
    """The split with sampled candidates: those it came with, those asked for, or a hundred where there are so many."""
    if negatives is not None:
        return options.with_negatives(rows, negatives, seed)
    if rows.candidates is not None:
        return rows
    try:
        return options.with_negatives(rows, NEGATIVES, seed)
    except DataError as error:
        note(f"no sampled candidates ({error}): full ranking alone, or choose fewer with --negatives")
        return rows


def _named_files(pairs: Sequence[str]) -> dict[str, str]:
    named = {}
    for pair in pairs:
        name, sign, path = pair.partition("=")
        if not (name and sign and path) or name in named:
            raise DataError(f"--lists {pair!r} is not a new name=file: write it like --lists theirs=lists.csv")
        named[name] = path
    return named


@contextmanager
def _shown_progress() -> Iterator[Progress]:
    """A bar on a terminal, one line per model elsewhere."""
    terminal = console(stderr=True)
    if not terminal.is_terminal:
        yield _lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=terminal, transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)


def _lines() -> Progress:
    told = ""

    def tell(done: int, total: int, what: str) -> None:
        nonlocal told
        who, _, step = what.rpartition(": ")
        begun = ": ".join(filter(None, (who, step.partition(",")[0])))
        if begun != told:
            note(f"[{done + 1} of {total}] {begun}" if done < total else begun)
        told = begun

    return tell


def _write_report(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """The report as a page and as text; without the extra, a line that says what is missing."""
    from palate import report

    written = []
    for name, write in (("report.html", report.write_html), ("report.md", report.write_markdown)):
        try:
            write(dict(document), folder / name)
            written.append(folder / name)
        except PalateError as error:
            note(f"no {name}: {error}")
    return written


def _show(document: Mapping[str, Any], files: Sequence[Path]) -> None:
    _show_models(document)
    _show_ratings(document["models"])
    _show_tests(document)
    to = console()
    for line in (document["winner"]["why"], *document["remarks"], *_notes(document["models"])):
        to.print(line, markup=False, soft_wrap=True)
    to.print(f"Written: {', '.join(map(str, files))}", style="dim", markup=False, soft_wrap=True)


def _show_models(document: Mapping[str, Any]) -> None:
    """Full ranking and sampled candidates side by side, each in columns of its own; one below the other if narrow."""
    from palate.experiment import comparability_line

    k, models, candidates = document["k"], document["models"], document["candidates"]
    rankings = ["full", *(["sampled"] if any(one["sampled"] for one in models) else [])]
    groups = [rankings] if console().width >= WIDE else [[ranking] for ranking in rankings]
    for group in groups:
        heads = [f"{ranking}\n{metric}@{k}" for ranking in group for metric in METRICS]
        costs = ["train\nseconds", "score\nseconds", "peak\nMB"] if "full" in group else []
        rows = []
        for one in models:
            cells = [_with_interval(one[ranking], metric, k) for ranking in group for metric in METRICS]
            if any(cells):
                rows.append([_named(one["name"], one["role"]), *cells, *(_costs(one) if costs else [])])
        table(
            f"{document['data']['name']}: {document['split']['test_users']:,} users; {models[0]['full']['ties']}; "
            "95 % intervals over users",
            ["model", *heads, *costs],
            rows,
        )
    notes = [document["split"]["how"], f"sampled: {candidates['how']}" if candidates else None]
    told = next((one["sampled"] for one in models if one["sampled"]), models[0]["full"])
    for line in filter(None, [*notes, comparability_line(told)]):
        console().print(line, style="dim", markup=False, soft_wrap=True)


def _named(name: str, role: str = "") -> str:
    """A name in two lines: what was done to it, and its role, stand below."""
    first, space, more = name.partition(" (")
    return "\n".join(part for part in (first, f"{space.strip()}{more} {role}".strip()) if part)


def _costs(one: Mapping[str, Any]) -> list[str | None]:
    memory = one["peak_memory_mb"]
    return [_short(one["train_seconds"]), _short(one["score_seconds"]), None if memory is None else f"{memory:,.0f}"]


def _short(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:,.1f}"


def _with_interval(report: Mapping[str, Any] | None, metric: str, k: int) -> str | None:
    if report is None:
        return None
    one = next(m for m in report["measures"] if (m["metric"], m["k"]) == (metric, k))
    return f"{one['value']:.4f}" + ("" if one["low"] is None else f"\n{one['low']:.3f}-{one['high']:.3f}")


def _show_ratings(models: Sequence[Mapping[str, Any]]) -> None:
    rated = [one for one in models if one["ratings"]]
    if not rated:
        return
    errors = [{m["metric"]: m for m in one["ratings"]["all"]["measures"]} for one in rated]
    rows = [
        [
            one["name"],
            *(f"{mine[name]['value']:.4f}\n{mine[name]['low']:.3f}-{mine[name]['high']:.3f}" for name in ERRORS),
        ]
        for one, mine in zip(rated, errors, strict=True)
    ]
    count = rated[0]["ratings"]["all"]["rows"]
    table(f"Predicted ratings of {count:,} rows; 95 % intervals over rows", ["model", *ERRORS], rows)


def _show_tests(document: Mapping[str, Any]) -> None:
    words = {True: "better", False: "worse", None: "may be luck"}
    for ranking, what in (("full", "full ranking"), ("sampled", "sampled candidates")):
        tests = [one for one in document["tests"] if one["ranking"] == ranking]
        if not tests:
            continue
        rows = []
        for one in tests:
            bounds = "" if one["low"] is None else f"{one['low']:+.4f} to {one['high']:+.4f}"
            p = "" if one["p_holm"] is None else f"{one['p_holm']:.4f}"
            rows.append([_named(one["model"]), f"{one['difference']:+.4f}", bounds, p, words[one["better"]]])
        table(
            f"{tests[0]['metric']}@{tests[0]['k']}, {what}, against the best baseline: {tests[0]['baseline']}",
            ["model", "difference", "95 % interval", "p (Holm)", ""],
            rows,
        )


def _notes(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is to be said of single models."""
    tuned = [f"{one['name']}: {one['tuned']}" for one in models if one["tuned"] and one["role"] == "model"]
    given = [f"{one['name']}: {line}" for one in models if one["role"] == "external" for line in one["full"]["notes"]]
    return [*tuned, *given]
