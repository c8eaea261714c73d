"""`palate drift`: new events against the training rows of a bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from palate.cli import options
from palate.cli.console import note, print_json, table
from palate.errors import DataError


@options.reads_rows
def drift(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    data: options.Data = "",
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", help="Largest value that passes: --limit new-items=0.2; may be repeated."),
    ] = None,
    reading: options.Reading = options.Reading(),
    k: options.K = 10,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """How far new events are from the rows that a bundle was trained on; exits with 1 past a limit.

    DATA holds the new events: those of today, or since the last training. Compared are the popularity of items, new
    items and users, events a day, activity of users, ratings or weights, and the scores of the lists. Distances are
    Jensen-Shannon and PSI without the noise of samples of this size. A job that runs it each day trains again when it
    exits with 1; errors exit with 2.

    Default limits: popularity=0.1 new-items=0.1 new-users=0.5 volume=1 activity=0.25 weights=0.25 scores=0.25

    Example: palate drift bundles/quickstart today.csv --limit new-items=0.2 --limit volume=2
    """
    from palate.bundle import Bundle
    from palate.evaluation.drift import drift as measure

    limits = {}
    for text in limit or []:
        name, _, number = text.partition("=")
        try:
            limits[name.strip()] = float(number)
        except ValueError:
            raise DataError(f"--limit {text!r} is not NAME=NUMBER: write it like --limit new-items=0.2") from None
    recommender = Bundle.load(bundle).recommender
    found = measure(recommender, reading.of(data).dataset(), limits, k=k, seed=seed)
    if json:
        print_json({"past": [one.name for one in found.past], **found.to_dict()})
    else:
        rows = [
            [one.name, None if one.value != one.value else one.value, one.limit, "past" if one.past else "", one.about]
            for one in found.measures
        ]
        columns = ["measure", "value", "limit", "", "compared"]
        table(f"{found.data} ({found.events:,} events) against the training rows of {bundle}", columns, rows)
    if found.past:
        note(f"past their limits: {', '.join(one.name for one in found.past)}")
        sys.exit(1)
