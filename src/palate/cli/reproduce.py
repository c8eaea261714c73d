"""`palate reproduce`: published tables, measured again under their own protocols."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate import storage
from palate.cli import options
from palate.cli.console import console, show_progress, table
from palate.errors import DataError

if TYPE_CHECKING:
    from palate.reproduce.rows import Role, Row

ROLES: tuple[Role, ...] = ("trivial", "faithful", "best")


def reproduce(
    systems: Annotated[list[str] | None, typer.Argument(help="Systems to run; all by default.")] = None,
    json: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Also write command, commit, date, seconds and rows to this JSON file (- is stdout)."
        ),
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
        typer.Option(
            "--workers", min=1, help="Systems at a time, a process and a thread each; default: the number of cores."
        ),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Run published systems under their own protocols: published figure, baseline, faithful reproduction, our best.

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
    if wrong := set(role or ()) - set(ROLES):
        raise DataError(f"--role {', '.join(sorted(wrong))}: choose from {', '.join(ROLES)}")
    roles: list[Role] = [one for one in ROLES if not role or one in role]
    for option, path in (("--json", json), ("--markdown", markdown)):
        if path is not None and not path.parent.is_dir():
            raise DataError(f"{option} {path}: there is no folder {path.parent}: make it first")
    at_once = min(workers or (1 if threads else cores()), len(wanted))
    if at_once > 1 and threads:
        raise DataError(f"--threads {threads} with --workers {at_once}: systems side by side have a thread each")
    found: dict[str, list[Row]] = {}
    with show_progress() as progress:
        training = options.make_run(seed, device, threads, progress=progress)
        setting = Options(frozenset(roles), fast, training)
        one_by_one = ((system, list(run(system, setting))) for system in wanted)
        for system, its_rows in run_side_by_side(wanted, setting, at_once) if at_once > 1 else one_by_one:
            found[system] = its_rows
            if json != Path("-"):
                _show(system, its_rows)
    from palate.reproduce.markdown import cpu_seconds, stamp

    rows = [row for system in wanted for row in found[system]]
    flags = [*(["--fast"] if fast else []), *(f"--role {one}" for one in roles if role)]
    command = " ".join(["palate reproduce", *wanted, *flags])
    if json is not None:
        run_of = stamp(command) | {"cpu_seconds": round(cpu_seconds(), 1), "rows": [row.to_dict() for row in rows]}
        text = json_format.dumps(run_of, indent=2)
        if json == Path("-"):
            print(text)  # noqa: T201
        else:
            with storage.replacing(json) as temporary:
                temporary.write_text(text, encoding="utf-8")
    if markdown is not None:
        from palate.reproduce.markdown import markdown as as_markdown

        with storage.replacing(markdown) as temporary:
            temporary.write_text(as_markdown(rows, command), encoding="utf-8")


def _show(system: str, rows: list[Row]) -> None:
    from palate.reproduce.markdown import cell, conclusions, metric_name
    from palate.reproduce.rows import shared_fingerprints

    protocols = list(dict.fromkeys(row.protocol for row in rows))
    for protocol in protocols:
        part = [row for row in rows if row.protocol == protocol]
        candidates = next((row.candidates for row in part if row.candidates), None)
        table(
            f"System {system}, {part[0].dataset}: {protocol}",
            ["role", "model", "request time", "metric", "published", "ours (95 % interval)", "users", "seconds"],
            [
                [
                    row.role, row.model, row.request, metric_name(row), row.published,
                    None if row.value is None else cell(row), row.users,
                    None if row.seconds is None else round(row.seconds, 1),
                ]
                for row in part
            ],
            caption="\n".join(filter(None, (candidates, shared_fingerprints(part)))),
        )  # fmt: skip
        for line in conclusions(part):
            console().print(line, markup=False, soft_wrap=True)
