"""`palate report`: draw a saved comparison again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli import options
from palate.cli.console import note, print_json
from palate.errors import DataError

__all__ = ["report"]

ENDINGS = (".html", ".md", ".json")


def report(
    comparison: Annotated[Path, typer.Argument(help="Folder that palate compare wrote, or its comparison.json.")],
    out: Annotated[
        list[Path] | None,
        typer.Option("--out", help="A file ending with .html, .md or .json; may be repeated. Default: report.html."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Write a saved comparison as one HTML page that needs no network, as Markdown or as JSON.

    Nothing is trained or measured again. Without --out the page is report.html beside the comparison.

    Example: palate report runs/compare-clicks --out report.html --out report.md
    """
    from palate.report import read, write_html, write_json, write_markdown

    for path in out or ():
        if path.suffix not in ENDINGS:
            raise DataError(f"--out {path}: end its name with {', '.join(ENDINGS)}, which selects the format")
    found = read(comparison)
    folder = comparison if comparison.is_dir() else comparison.parent
    files = out or ([] if json else [folder / "report.html"])
    write = dict(zip(ENDINGS, (write_html, write_markdown, write_json), strict=True))
    for path in files:
        note(f"wrote {write[path.suffix](found, path)}")
    if json:
        print_json(found)
