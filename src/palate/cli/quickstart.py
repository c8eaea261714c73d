"""`palate quickstart`: from a file to recommendations and a page about them, in one command."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli import options
from palate.cli.console import console, frame_table, note, print_json, show_progress, table
from palate.cli.saving import save
from palate.errors import PalateError

if TYPE_CHECKING:
    import polars as pl

    from palate.experiment import Comparison, Quickstart
    from palate.recommend import Recommender

METRICS = ("NDCG", "HitRate", "Recall", "MRR", "Coverage")


@options.reads_rows
def quickstart(
    data: options.Data = "",
    reading: options.Reading = options.Reading(),
    items: options.ItemFeatures = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundle; an existing bundle is replaced.")] = Path(
        "bundles/quickstart"
    ),
    minutes: Annotated[
        float, typer.Option("--minutes", help="Time budget: recipes that would take longer are left out.")
    ] = 3.0,
    k: options.K = 10,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """From your own file to recommendations: check it, compare recipes that suit it, save the best one.

    Finds the columns by name, holds out the newest fifth of the rows (a random fifth where there is no time), picks
    the best recipe on validation rows, measures it on the held-out rows beside the most popular items, and saves it,
    fitted again on all rows, as a bundle, with a page about the comparison beside it.

    Example: palate quickstart examples/data/clicks.csv --items examples/data/items.csv
    """
    from palate.bundle import Bundle, check_target
    from palate.cli.index import index_if_large
    from palate.experiment import quickstart as run
    from palate.experiment import wording

    check_target(out)
    dataset = reading.of(data, items).dataset()
    if dataset.interactions.time is None:
        note("no time column: held-out rows are random ones, which flatters models; name one with --time")
    with show_progress() as progress:
        found = run(
            dataset, minutes=minutes, k=k, options=options.make_run(seed, device, threads),
            words=wording(dataset), progress=progress,
        )  # fmt: skip
    for line in (*found.left_out, *(f"{name} failed: {reason}" for name, reason in found.failed.items())):
        note(line)
    bundle = Bundle.of(
        found.recipe, found.model, dataset, found.found.report(found.recipe.name).rows() if found.found else (),
        split_fingerprint=found.split.fingerprint if found.split else None,
    )  # fmt: skip
    recommender = index_if_large(bundle.recommender)
    save(Bundle(bundle.recipe, recommender, bundle.metrics, bundle.split), out)
    page = None if found.found is None else _write_page(found, out.with_name(f"{out.name}.html"))
    example = examples(recommender, k)
    steps = next_steps(found, reading.arguments(data, items), out, example)
    if json:
        print_json({
            "data": dataset.name, "rows": len(dataset), "users": dataset.n_users, "items": dataset.n_items,
            "columns": dataset.columns, "feedback": dataset.feedback_record(),
            "notes": [str(one) for one in (found.split.train.notes if found.split else dataset.notes)],
            "protocol": found.split.how if found.split else None,
            "validation": found.validation, "left_out": found.left_out, "failed": found.failed,
            "best": found.recipe.name, "summary": found.sentences, "bundle": str(out), "page": page and str(page),
            "reports": [found.found.report(one.name).to_dict() for one in found.found.outcomes] if found.found else [],
            "examples": example.to_dicts(), "next": [command for command, _ in steps],
        })  # fmt: skip
        return
    to = console()
    if found.found is not None:
        _show_comparison(found.found, found.validation, k)
    frame_table("Example recommendations", example)
    for line in found.sentences:
        to.print(line, style="bold", markup=False, soft_wrap=True)
    where = f"The bundle is in {out}, the page about the comparison is {page}." if page else f"The bundle is in {out}."
    width = max(len(command) for command, _ in steps)
    shown = [f"  {command.ljust(width)}   {use}" for command, use in steps]
    to.print("\n".join(["", where, "What next:", *shown]), markup=False, soft_wrap=True)


def examples(recommender: Recommender, k: int, users: int = 2) -> pl.DataFrame:
    """The lists of the users with the longest histories, cut to five rows each."""
    import numpy as np

    longest = np.argsort(-recommender.seen.counts, kind="stable")[:users]
    return recommender.recommend(recommender.users.external(longest), min(k, 5))


def next_steps(found: Quickstart, read: list[str], out: Path, example: pl.DataFrame) -> list[tuple[str, str]]:
    """Commands for these data that can be typed as they stand, and what each is for.

    Args:
        found: what was chosen, and how rows were held out.
        read: DATA and the options that it was read with.
        out: folder of the bundle.
        example: lists of users, of which the first is asked for again.
    """
    from palate.cli import app

    steps = []
    if len(example):
        user, item = (str(example[name][0]) for name in ("user_id", "item_id"))
        # Words behind -- are no options, whatever sign an id begins with.
        hyphen = ["--"] if user.startswith("-") or item.startswith("-") else []
        lists = ["-k", "5", *hyphen, user] if hyphen else [user, "-k", "5"]
        steps += [
            (["recommend", str(out), *lists], "the list of a user"),
            (["explain", str(out), *hyphen, user, item], "why this item"),
        ]
    if found.split is not None:
        order = sorted(found.validation, key=lambda name: -found.validation[name])
        best = [name for name in order if name != "popularity"][:2]
        split = ["--split", "leave-one-out"] if found.split.how.startswith("leave one out") else []
        compare = ["compare", *read, *split, *(["--recipes", ",".join(best)] if best else [])]
        steps.append((compare, "the best recipes, tuned baselines, tests, a longer report"))
    steps.append((["serve", str(out)], "lists over HTTP"))
    known = {one.name for one in app.registered_commands}
    return [(shlex.join(["palate", *words]), use) for words, use in steps if words[0] in known]


def _write_page(found: Quickstart, path: Path) -> Path:
    """The report of the comparison, with the result in words on top; as Markdown where the extra is missing."""
    from palate import report

    assert found.found is not None
    document = found.found.document
    document = {**document, "summary": found.sentences, "remarks": [*document["remarks"], *found.left_out]}
    try:
        return report.write_html(document, path)
    except PalateError as error:
        note(f"no HTML page, Markdown instead: {error}")
        return report.write_markdown(document, path.with_suffix(".md"))


def _show_comparison(found: Comparison, validation: dict[str, float], k: int) -> None:
    """One table: the measured recipes in full ranking, then those with validation values alone."""
    from palate.experiment import comparability_line

    rows: list[list[Any]] = []
    for one in found.outcomes:
        report = found.report(one.name)
        values = [report.value(metric, k) for metric in METRICS]
        first = report.measure("NDCG", k)
        interval = f"{first.low:.4f} to {first.high:.4f}"
        seconds = found.fitted(one.name).seconds
        rows.append([one.name, values[0], interval, *values[1:], validation.get(one.name), seconds])
    unmeasured = sorted(set(validation) - {row[0] for row in rows}, key=lambda name: -validation[name])
    rows += [[name, *[None] * (len(METRICS) + 1), validation[name], None] for name in unmeasured]
    report = found.report(found.outcomes[0].name)
    table(
        f"{report.data}: {report.candidates}; {report.ties}; {report.users} users",
        ["model", f"NDCG@{k}", "95 % interval", *(f"{m}@{k}" for m in METRICS[1:]), f"validation NDCG@{k}", "seconds"],
        rows,
        caption=f"{report.protocol}\n{comparability_line(report)}",
    )
