"""`palate serve`: recommendations over HTTP from a bundle."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from palate import signals
from palate.cli.console import note
from palate.cli.options import expand
from palate.errors import DataError


@dataclass(frozen=True)
class Flags:
    """One flag for each key of [server]; None leaves it to the environment, the file and the default, in this order."""

    host: Annotated[str | None, typer.Option("--host", help="Address; other than loopback needs API keys.")] = None
    port: Annotated[int | None, typer.Option("--port", help="0 takes a free one. Default: 8000.")] = None
    store: Annotated[str | None, typer.Option("--store", help="sqlite:///file.db or postgresql://user@host/db.")] = None
    allowed_hosts: Annotated[
        str | None, typer.Option("--allowed-hosts", help="Accepted Host headers, with commas between them.")
    ] = None
    models: Annotated[
        Path | None, typer.Option("--models", help="Folder that bundles are loaded from while serving.")
    ] = None
    trusted_key: Annotated[
        Path | None,
        typer.Option("--trusted-key", help="File of public keys; bundles that none of them has signed are refused."),
    ] = None
    require_keys: Annotated[
        bool | None,
        typer.Option("--require-keys/--no-require-keys", help="Ask for API keys on a loopback address, too."),
    ] = None
    log_format: Annotated[Literal["text", "json"] | None, typer.Option("--log-format", help="Default: text.")] = None
    traces: Annotated[
        Literal["off", "otlp", "console"] | None, typer.Option("--traces", help="OpenTelemetry. Default: off.")
    ] = None
    threads: Annotated[int | None, typer.Option("--threads", help="Torch threads. Default: 1.")] = None
    impressions: Annotated[
        float | None, typer.Option("--impressions", help="Share of the served lists that are stored. Default: 1.")
    ] = None
    max_body: Annotated[int | None, typer.Option("--max-body", help="Bytes of a body.")] = None
    max_batch: Annotated[int | None, typer.Option("--max-batch", help="Events in one request.")] = None
    max_history: Annotated[int | None, typer.Option("--max-history", help="Events of a posted history.")] = None
    max_k: Annotated[int | None, typer.Option("--max-k", help="List length.")] = None
    max_exclude: Annotated[int | None, typer.Option("--max-exclude", help="Excluded or candidate items.")] = None
    max_page: Annotated[int | None, typer.Option("--max-page", help="Rows of a page.")] = None
    max_requests: Annotated[int | None, typer.Option("--max-requests", help="Requests in progress.")] = None
    max_streams: Annotated[int | None, typer.Option("--max-streams", help="Open streams of /v1/stream.")] = None
    rate: Annotated[float | None, typer.Option("--rate", help="Requests a second for each key or address.")] = None
    header_seconds: Annotated[
        float | None, typer.Option("--header-seconds", help="Time for a client to send the headers of a request.")
    ] = None
    body_seconds: Annotated[
        float | None, typer.Option("--body-seconds", help="Time for a client to send the body of a request.")
    ] = None
    drain_seconds: Annotated[
        float | None, typer.Option("--drain-seconds", help="Time for requests in progress at a shutdown.")
    ] = None
    page_seconds: Annotated[
        float | None, typer.Option("--page-seconds", help="Time during which a list can be continued.")
    ] = None


@expand(Flags)
def serve(
    bundles: Annotated[list[Path], typer.Argument(help="Folders of bundles; the first answers.")],
    flags: Flags,
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file with settings.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check settings, bundles and store, then exit.")] = False,
) -> None:
    """Answer over HTTP, learn from feedback at once, and show a page.

    Example: palate serve bundles/demo

    Each setting may also stand under its name in [server] of the TOML file (max_k = 500) or in the environment
    (PALATE_SERVE_MAX_K=500). Flags come first, then the environment, then the file.
    """
    try:
        from palate.serve.run import check as check_all
        from palate.serve.run import run
    except ModuleNotFoundError as error:
        raise DataError(f"the server needs {error.name}: pip install 'palate[serve]'") from None
    from palate.serve.settings import Settings

    settings = Settings.read(config, asdict(flags))
    if check:
        for line in check_all(settings, bundles):
            note(line)
        return
    signals.release()
    run(settings, bundles, note)
