"""`palate prepare`: a log as a row store, whose rows are mapped into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate import signals
from palate.cli import options
from palate.cli.console import console, print_json


@options.reads_rows
def prepare(
    logs: Annotated[
        list[str], typer.Argument(metavar="LOG ...", help="Files of the same columns, a folder, a pattern, a URL.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the store; every command takes it as DATA.")],
    reading: options.Reading = options.Reading(),
    items: options.ItemFeatures = None,
    json: options.Json = False,
) -> None:
    """Read a log once, with 8 to 12 bytes of memory a row, into a row store: every command takes it for a file.

    A run that is killed resumes where it stopped, if the same command is given again.

    Example: palate prepare clicks-2025.csv clicks-2026.csv --out stores/clicks
    """
    from dataclasses import replace

    from palate.data.row_store import MANIFEST
    from palate.storage import read_json

    signals.on_stop("the same command resumes")
    how = replace(reading, more=[*logs[1:], *(reading.more or [])] or None)
    dataset = how.of(logs[0], items).dataset(store=out)
    manifest = read_json(out / MANIFEST)
    if json:
        print_json({"store": str(out), **{name: manifest[name] for name in ("name", "fingerprint", "statistics")}})
        return
    size = sum(record["bytes"] for record in manifest["files"].values())
    text = f"{dataset} are in {out} ({size / 1e6:,.1f} MB). Next: palate train {out}"
    console().print(text, markup=False, soft_wrap=True)
