"""`palate evaluate`: measure a saved bundle on held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from palate.cli import options
from palate.cli.console import console, note, print_json, table
from palate.errors import DataError

if TYPE_CHECKING:
    from palate.data.feedback import MinRating
    from palate.data.splits.split import Split
    from palate.evaluation.rating_prediction import RatingsReport
    from palate.evaluation.report import Report
    from palate.models.two_stage import TwoStageModel

__all__ = ["evaluate", "show_ratings", "show_reports", "show_segments"]

SEGMENT_METRICS = ("HitRate", "NDCG", "Recall")  # measured for users and for items


@options.reads_rows
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle; omit it with --lists.", metavar="[BUNDLE]")],
    data: options.Data = "",
    lists: Annotated[
        Path | None,
        typer.Option(
            "--lists", help="Measure finished lists in place of a bundle: user_id, item_id, rank; or a run file."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="leave-one-out, time, random, cold-users, cold-items: that part of DATA. Default: all rows.",
        ),
    ] = None,
    test_size: options.TestSize = 0.2,
    negatives: Annotated[
        int, typer.Option("--negatives", min=0, help="Also measure against this many sampled candidates.")
    ] = 0,
    exclude_seen: Annotated[
        bool,
        typer.Option(
            "--exclude-seen/--include-seen", " /--keep-seen", help="Take items of the training rows out of the lists."
        ),
    ] = True,
    allow_trained_rows: Annotated[
        bool, typer.Option("--allow-trained-rows", help="Measure even rows the model was trained on.")
    ] = False,
    relevant: options.Relevant = "auto",
    reading: options.Reading = options.Reading(),
    k: Annotated[
        list[int] | None, typer.Option("-k", "--k", min=1, help="Length of the lists, 10; may be repeated.")
    ] = None,
    segments: Annotated[
        bool, typer.Option("--segments", help="Also show results by user activity and item popularity.")
    ] = False,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Bound on the memory beyond model and data, such as 512MB or 2GiB.")
    ] = None,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Measure a bundle on rows it was not trained on: full ranking, sampled candidates if asked, errors of ratings.

    DATA is a saved split (palate train --save-split), or rows: with --split the held-out part of them, otherwise all of
    them. Rows that the model was trained on are refused. Rows of users or items that the bundle does not know are
    counted and left out.

    Example: palate evaluate bundles/mlp new-clicks.csv -k 5 -k 10 --segments --memory 512MB

    Example for the lists of another system: palate evaluate clicks.csv --split leave-one-out --lists theirs.csv
    """
    from palate.bundle import Bundle
    from palate.data.feedback import as_min_rating

    if lists is not None:
        if data or negatives or not exclude_seen:
            raise DataError("--lists measures given lists: give DATA alone, no bundle, --negatives or --include-seen")
        held = options.split_rows(reading.of(str(bundle)), split, test_size, seed)
        reports = [_measure_lists(lists, held, k or [10], as_min_rating(relevant), memory)]
        if json:
            print_json([report.to_dict() for report in reports])
            return
        show_reports(reports)
        if segments:
            show_segments(reports)
        return
    loaded = Bundle.load(bundle)
    source = reading.of(data)
    rows = source.ready_made()
    if rows is None and split is not None:
        rows = options.split_rows(source, split, test_size, seed)
    if rows is None or (rows.train.users, rows.train.items) != (loaded.recommender.users, loaded.recommender.items):
        rows = loaded.recommender.against(source.dataset() if rows is None else rows.test)
        for line in rows.notes:
            note(f"  {line}")
    if (min_rating := as_min_rating(reading.min_rating)) != "auto":
        rows = replace(rows, test=rows.test.with_min_rating(min_rating))
    rows = options.with_negatives(rows, negatives, seed)
    reports = options.measure(
        loaded.recommender.model, rows, k or 10, loaded.recipe.name,
        exclude_seen=exclude_seen, relevant=as_min_rating(relevant), allow_trained_rows=allow_trained_rows,
        memory=memory,
    )  # fmt: skip
    ratings = options.measure_ratings(
        loaded.recommender.model, rows, loaded.recipe.name, allow_trained_rows=allow_trained_rows
    )
    stages = None
    if loaded.recipe.name == "two-stage":
        from palate.evaluation.two_stage import evaluate_stages

        stages = evaluate_stages(
            cast("TwoStageModel", loaded.recommender.model), rows, (k or [10])[0],
            exclude_seen=exclude_seen, allow_trained_rows=allow_trained_rows,
        )  # fmt: skip
    if json:
        plain = [report.to_dict() for part in (reports, ratings) for report in part]
        print_json(plain if stages is None else [*plain, {"stages": stages.to_dict()}])
        return
    show_reports(reports)
    if segments:
        show_segments(reports)
    show_ratings(ratings)
    if stages is not None:
        table(
            f"stages of two-stage on {stages.data}; {stages.users} users",
            *stages.cells(),
            caption="\n".join(stages.lifts()),
        )


def _measure_lists(lists: Path, rows: Split, k: list[int], relevant: MinRating, memory: str | None) -> Report:
    """The report of finished lists, with the notes of both their reading and their measurement."""
    from palate.evaluation.evaluate import evaluate_lists
    from palate.experiment.external_lists import read_lists

    given, notes = read_lists(lists, rows, max(k))
    report = evaluate_lists(given, rows, k=k, name=lists.stem, relevant=relevant, memory=memory)
    return replace(report, notes=(*notes, *report.notes))


def show_ratings(reports: Sequence[RatingsReport]) -> None:
    """Errors of predicted ratings: all rows, those of known users and items, and the others apart."""
    from palate.evaluation.tables import comparability_line

    for report in reports:
        rows = []
        for label, part in (("all", report.all), ("known", report.known), ("cold", report.cold)):
            rows += [[label, part.rows, m.metric, m.value, f"{m.low:.4f} to {m.high:.4f}"] for m in part.measures]
        table(
            f"{report.model} on {report.data}: predicted ratings; cold rows by {report.fallback}",
            ["rows", "count", "error", "value", "95 % interval over rows"],
            rows,
            caption=f"{report.protocol}\n{comparability_line(report)}",
        )


def show_reports(reports: Sequence[Report]) -> None:
    """One table per report: sampled and full ranking never share one."""
    from palate.evaluation.tables import comparability_line

    for report in reports:
        rows = [[str(m), m.value, "" if m.low != m.low else f"{m.low:.4f} to {m.high:.4f}"] for m in report.measures]
        table(
            f"{report.model} on {report.data}: {report.candidates}; {report.ties}; {report.users} users",
            ["metric", "value", "95 % interval"],
            rows,
            caption=f"{report.protocol}\n{comparability_line(report)}",
        )
        for line in report.notes:
            console().print(f"note: {line}", markup=False, soft_wrap=True)


def show_segments(reports: Sequence[Report]) -> None:
    """One table per report: accuracy by user activity and item popularity, at the largest k."""
    from palate.evaluation.tables import comparability_line

    for report in reports:
        length = max(one.k for one in report.measures)
        rows = []
        for part in report.segments:
            shown = {m.metric: m for m in part.measures if m.k == length}
            cells = [f"{m.value:.4f} ({m.low:.4f} to {m.high:.4f})" for m in map(shown.get, SEGMENT_METRICS) if m]
            rows.append([part.by, part.segment, part.users, part.rows, *cells])
        table(
            f"{report.model} on {report.data} by segment: {report.candidates}; {report.ties}",
            ["by", "segment", "users", "relevant", *(f"{metric}@{length}" for metric in SEGMENT_METRICS)],
            rows,
            caption=f"{report.protocol}\n{comparability_line(report)}",
        )
