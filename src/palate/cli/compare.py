"""`palate compare`: recipes against each other and against tuned baselines, with intervals and significance tests."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from palate import signals, storage
from palate.cli import options
from palate.cli.console import console, note, print_json, show_place, show_progress, table
from palate.errors import DataError, PalateError, RecipeError

if TYPE_CHECKING:
    from palate.data.splits.split import Split

NEGATIVES = 100
ERRORS = ("RMSE", "MAE")
METRICS = ("NDCG", "HitRate")
WIDE = 106  # columns of a terminal that full and sampled metrics need side by side


@options.reads_rows
def compare(
    data: options.Data = "",
    recipes: Annotated[
        str | None,
        typer.Option(
            "--recipes",
            help="Names of recipes, and TOML files with recipe = NAME and its fields. Default: two or three by the "
            "data, such as sasrec where there are times.",
        ),
    ] = None,
    no_baselines: Annotated[
        bool, typer.Option("--no-baselines", help="Leave out the tuned baselines: popularity, kNN, EASE, iALS.")
    ] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Published settings instead of the fast presets.")
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0, help="Start no fit after so many minutes; cheap strong baselines come first."),
    ] = None,
    lists: Annotated[
        list[str] | None,
        typer.Option("--lists", help="name=file.csv: finished lists of another system (user_id, item_id, rank)."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="leave-one-out, time, random, cold-users or cold-items. Default: time, or as the data allow.",
        ),
    ] = None,
    test_size: options.TestSize = 0.2,
    folds: Annotated[
        int | None, typer.Option("--folds", min=2, help="Cross-validation: so many splits, each row tested once.")
    ] = None,
    windows: Annotated[
        int | None,
        typer.Option("--windows", min=2, help="So many windows of time, each tested by models of all rows before it."),
    ] = None,
    negatives: Annotated[
        int | None,
        typer.Option(
            "--negatives",
            min=0,
            help="Sampled candidates per user, 0 for none. Default: 100 if the catalog has so many.",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", help="Number of seeds (3), or the seeds (0,7,9), that each model is trained with."),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option("--patience", min=1, help="Stop after so many epochs without a better NDCG on validation rows."),
    ] = None,
    no_refit: Annotated[
        bool,
        typer.Option("--no-refit", help="With --patience: keep the fit without the validation rows."),
    ] = False,
    resamples: Annotated[
        int,
        typer.Option(
            "--resamples", min=1, help="Resamples of intervals and tests; no p-value is below 2 divided by this."
        ),
    ] = 10_000,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Memory bound of the evaluation beside model and data: 512MB.")
    ] = None,
    precision: Annotated[
        Literal["32-true", "bf16-mixed"], typer.Option("--precision", help="Precision of training.")
    ] = "32-true",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for split, results and report. Default: runs/compare-DATA.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the results of an earlier comparison in --out.")
    ] = False,
    track: options.Track = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not write report.html and report.md.")] = False,
    reading: options.Reading = options.Reading(),
    items: options.ItemFeatures = None,
    k: options.K = 10,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Compare recipes with each other and with tuned baselines, and test the differences.

    Every model is trained and measured on one frozen split, in full ranking and against sampled candidates, with 95 %
    intervals over users and paired tests against the best baseline. A winner is named only where the tests allow it.
    The same command resumes a comparison that was killed. Exit code 1: some model failed, the results of the others
    are kept.

    --windows 3 cuts the latest rows into three windows of time, --folds 5 deals the rows of each user out to five
    splits; models are trained, tuned and measured on each, and paired by user and split.

    Example: palate compare clicks.csv --recipes neumf,bpr --seeds 3 --out runs/first

    Example of three weeks in a row: palate compare clicks.csv --recipes bpr --windows 3
    """
    from palate.data.splits.strategies import k_folds, rolling_windows
    from palate.experiment import CompareOptions, Entry, compare_folds, read_entries, usual_recipes
    from palate.experiment import compare as run
    from palate.experiment.tracking import check_service, track_comparison, tracked

    check_service(track)
    source = reading.of(data, items)
    names = [name.strip() for name in (recipes or "").split(",") if name.strip()]
    entries = read_entries(names, published=published)  # before the data are read: a name may be misspelled
    settings = CompareOptions(
        k=k, seeds=_seeds(seeds, seed), patience=patience, refit=not no_refit, resamples=resamples, memory=memory,
        precision=precision, device=device, threads=options.make_run(seed, device, threads).threads,
    )  # fmt: skip
    parts = []
    if folds or windows:
        if (folds and windows) or split is not None or lists:
            raise DataError("--folds and --windows make splits of their own: give one of them, no --split, no --lists")
        if source.ready_made() is not None:
            raise DataError(f"{data} is split already: --folds and --windows take rows")
        dataset = source.dataset()
        cut = (
            k_folds(dataset, folds, seed=seed) if folds else rolling_windows(dataset, windows or 0, test_size=test_size)
        )
        parts = [_candidates(one, negatives, seed) for one in cut]
        for one in parts:
            note(f"{one.how}: {len(one.train):,} training rows, {len(one.test):,} test rows")
    rows = parts[0] if parts else _candidates(options.split_rows(source, split, test_size, seed), negatives, seed)
    if recipes is None:
        entries = [Entry.of(one) for one in usual_recipes(rows.train, published=published)]
        note(f"no recipes named: {', '.join(one.name for one in entries)} beside the baselines (--recipes chooses)")
    folder = out or Path("runs") / f"compare-{Path(rows.train.name).stem}"
    signals.on_stop(f"the same command resumes from {folder}")
    # Opened first: a server that cannot be reached is told before anything is trained.
    with tracked(track, folder.name) as tracking, show_progress() as progress:
        if parts:
            document = compare_folds(
                parts, entries, folder, options=settings, with_baselines=not no_baselines, minutes=minutes,
                fresh=fresh, progress=progress,
            ).document  # fmt: skip
            storage.write_json(folder / "folds.json", document)
            files = [folder / "folds.json"]
        else:
            document = run(
                rows, entries, folder, options=settings, with_baselines=not no_baselines, minutes=minutes,
                lists=_named_files(lists or []), fresh=fresh, progress=progress,
            ).document  # fmt: skip
            files = [folder / "comparison.json"]
        files += [] if no_report else _write_report(document, folder)
        track_comparison(tracking, document, files)
        show_place(tracking)
    if json and parts:
        print_json(document)
    elif json:
        reports = [one[ranking] for one in document["models"] for ranking in ("full", "sampled") if one[ranking]]
        print_json({**document, "columns": rows.train.columns, "reports": reports})
    elif parts:
        _show_folds(document, files)
    else:
        _show(document, files)
    _failures(document["failed"])


def _failures(failed: Sequence[Mapping[str, Any]]) -> None:
    """A line for each entry that could not be fitted, and exit code 1 if there is one."""
    for one in failed:
        where = f" (fold {one['fold']})" if "fold" in one else ""
        line = f"failed: {one['name']}{where}: {one['why']}"
        console(stderr=True).print(line, style="red", markup=False, soft_wrap=True)
    if failed:
        sys.exit(1)


def _show_folds(document: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Means and intervals over all splits, the value on each, and the tests."""
    metric = f"{document['metric']}@{document['k']}"
    for ranking, name in (("full", "full ranking"), ("sampled", "sampled candidates")):
        rows = [
            [
                _named(one["name"], one["role"]),
                f"{one[ranking]['value']:.4f}\n" + _bounds(one[ranking]),
                *(f"{value:.4f}" for value in one[ranking]["by_fold"]),
            ]
            for one in document["models"]
            if ranking in one
        ]
        numbers = [f"fold {number}" for number in range(1, len(document["folds"]) + 1)]
        if rows:
            title = (
                f"{document['data']}, {name}: {metric}, mean over {len(numbers)} splits of {document['users']:,} users"
            )
            table(title, ["model", "all", *numbers], rows)
    _show_tests(document)
    to = console()
    for line in (document["winner"]["why"], *document["remarks"], *document["protocol"]):
        to.print(line, markup=False, soft_wrap=True)
    to.print(f"Written: {', '.join(map(str, files))}", style="dim", markup=False, soft_wrap=True)


def _bounds(one: Mapping[str, Any]) -> str:
    return "" if one["low"] is None else f"{one['low']:.3f}-{one['high']:.3f}"


def _seeds(text: str | None, seed: int) -> tuple[int, ...]:
    """A number is a count of seeds, a list holds the seeds."""
    if text is None:
        return (seed,)
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts if part) or not any(parts):
        raise RecipeError(f"--seeds {text!r} is no number of seeds and no list of them: write --seeds 3 or --seeds 0,7")
    numbers = [int(part) for part in parts if part]
    return tuple(numbers) if len(parts) > 1 else tuple(range(seed, seed + numbers[0]))


def _candidates(rows: Split, negatives: int | None, seed: int) -> Split:
    """The split with sampled candidates: its own, the requested number, or a hundred where the catalog has so many."""
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


def _write_report(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """The report as HTML and Markdown; without the extra, a line that names it."""
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
    """Full ranking and sampled candidates side by side in separate columns, or one below the other if narrow."""
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
    shown = next((one["sampled"] for one in models if one["sampled"]), models[0]["full"])
    for line in filter(None, [*notes, comparability_line(shown)]):
        console().print(line, style="dim", markup=False, soft_wrap=True)


def _named(name: str, role: str = "") -> str:
    """A name in two lines, with its settings and role on the second."""
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
    return "\n".join(filter(None, (f"{one['value']:.4f}", _bounds(one))))


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
    conclusions = {True: "better", False: "worse", None: "not significant"}
    for ranking, name in (("full", "full ranking"), ("sampled", "sampled candidates")):
        tests = [one for one in document["tests"] if one["ranking"] == ranking]
        if not tests:
            continue
        rows = []
        for one in tests:
            bounds = "" if one["low"] is None else f"{one['low']:+.4f} to {one['high']:+.4f}"
            p = "" if one["p_holm"] is None else f"{one['p_holm']:.4f}"
            rows.append([_named(one["model"]), f"{one['difference']:+.4f}", bounds, p, conclusions[one["better"]]])
        table(
            f"{tests[0]['metric']}@{tests[0]['k']}, {name}, against the best baseline: {tests[0]['baseline']}",
            ["model", "difference", "95 % interval", "p (Holm)", ""],
            rows,
        )


def _notes(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes about single models."""
    tuned = [f"{one['name']}: {one['tuned']}" for one in models if one["tuned"] and one["role"] == "model"]
    given = [f"{one['name']}: {line}" for one in models if one["role"] == "external" for line in one["full"]["notes"]]
    return [*tuned, *given]
