"""`palate serve`: recommendations over HTTP from a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli.console import note
from palate.errors import DataError


def serve(
    bundles: Annotated[list[Path], typer.Argument(help="Folders of bundles; the first answers.")],
    host: Annotated[str | None, typer.Option("--host", help="Address; other than loopback needs API keys.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="0 takes a free one. Default: 8000.")] = None,
    store: Annotated[
        str | None, typer.Option("--store", help="sqlite:///file.db or postgresql://user@host/db.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file with settings.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check settings, bundles and store, then exit.")] = False,
) -> None:
    """Answer over HTTP, learn from feedback at once, and show a page.

    Example: palate serve bundles/demo

    Every key of [server] in the TOML file may also be set as an environment variable: PALATE_SERVE_ and its name.
    """
    try:
        from palate.serve.run import check as check_all
        from palate.serve.run import run
    except ModuleNotFoundError as error:
        raise DataError(f"the server needs {error.name}: pip install 'palate[serve]'") from None
    from palate.serve.settings import Settings

    settings = Settings.read(config, {"host": host, "port": port, "store": store})
    if check:
        for line in check_all(settings, bundles):
            note(line)
        return
    run(settings, bundles, note)
