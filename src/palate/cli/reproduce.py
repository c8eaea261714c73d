"""`palate reproduce`: the published tables, run again and beaten."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli import options
from palate.cli.console import console, note, show, table
from palate.errors import DataError
from palate.progress import silent

if TYPE_CHECKING:
    from palate.reproduce.rows import Role, Row

__all__ = ["reproduce"]

ROLES: tuple[Role, ...] = ("trivial", "faithful", "best")


def reproduce(
    systems: Annotated[list[str] | None, typer.Argument(help="Which systems; all if left out.")] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="Also write the rows to this JSON file (- is stdout).")
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", help="Also write the tables, with command, commit and date, to this file."),
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Leave out the slow faithful runs.")] = False,
    role: Annotated[
        list[str] | None,
        typer.Option("--role", help="Only trivial, faithful or best rows beside the published ones; may be repeated."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Systems at a time, a process and a thread each; default: the cores."),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Run published systems under their own protocols: published figure, baseline, faithful re-run, our best.

    Several systems run side by side, one for each core, and their tables appear as they end. With --workers 1 the
    training seconds are those of a process alone.

    Example: palate reproduce B --json rows.json
    """
    from palate.parallel import cores
    from palate.reproduce import SYSTEMS, run, run_side_by_side
    from palate.reproduce.rows import Options

    wanted = list(dict.fromkeys(systems or SYSTEMS))
    unknown = [one for one in wanted if one not in SYSTEMS]
    if unknown:
        raise DataError(f"unknown system {unknown[0]!r}: there are {', '.join(SYSTEMS)}")
    roles = _roles(role)
    for option, path in (("--json", json), ("--markdown", markdown)):
        if path is not None and not path.parent.is_dir():
            raise DataError(f"{option} {path}: there is no folder {path.parent}: make it first")
    setting = Options(
        roles=frozenset(roles),
        fast=fast,
        log=note,
        progress=console(stderr=True).is_terminal,
        run=options.make_run(seed, device, threads, progress=show if console(stderr=True).is_terminal else silent),
    )
    at_once = min(workers or (1 if threads else cores()), len(wanted))
    if at_once > 1 and threads:
        raise DataError(f"--threads {threads} with --workers {at_once}: systems side by side have a thread each")
    one_by_one = ((system, list(run(system, setting))) for system in wanted)
    found: dict[str, list[Row]] = {}
    for system, its_rows in run_side_by_side(wanted, setting, at_once) if at_once > 1 else one_by_one:
        found[system] = its_rows
        if json != Path("-"):
            _show(system, its_rows)
    rows = [row for system in wanted for row in found[system]]
    if json is not None:
        text = json_format.dumps([row.to_dict() for row in rows], indent=2)
        if json == Path("-"):
            print(text)  # noqa: T201
        else:
            json.write_text(text)
    if markdown is not None:
        from palate.reproduce.markdown import markdown as as_markdown

        flags = [*(["--fast"] if fast else []), *(f"--role {one}" for one in roles if role)]
        markdown.write_text(as_markdown(rows, " ".join(["palate reproduce", *wanted, *flags])))


def _roles(names: list[str] | None) -> list[Role]:
    """Those that were asked for, all where none was."""
    if unknown := set(names or ()) - set(ROLES):
        raise DataError(f"--role {', '.join(sorted(unknown))}: choose from {', '.join(ROLES)}")
    return [one for one in ROLES if not names or one in names]


def _show(system: str, rows: list[Row]) -> None:
    from palate.reproduce.markdown import verdicts
    from palate.reproduce.rows import shared_ground

    protocols = list(dict.fromkeys(row.protocol for row in rows))
    for protocol in protocols:
        part = [row for row in rows if row.protocol == protocol]
        candidates = next((row.candidates for row in part if row.candidates), None)
        table(
            f"System {system}, {part[0].dataset}: {protocol}",
            ["role", "model", "metric", "published", "ours", "95 % interval", "users", "seconds"],
            [
                [
                    row.role, row.model, row.metric if row.k is None else f"{row.metric}@{row.k}", row.published,
                    row.value, None if row.low is None else f"{row.low:.4f} to {row.high:.4f}", row.users,
                    None if row.seconds is None else round(row.seconds, 1),
                ]
                for row in part
            ],
            caption="\n".join(filter(None, (candidates, shared_ground(part)))),
        )  # fmt: skip
        for line in verdicts(part):
            console().print(line, markup=False, soft_wrap=True)
