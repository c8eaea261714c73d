"""`palate check`: an audit of rows and splits, before a model is trained on them."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli import options
from palate.cli.console import console, note, print_json, show_progress
from palate.errors import DataError

if TYPE_CHECKING:
    from rich.text import Text

    from palate.data.audit import Audit, Finding
    from palate.data.dataset import Dataset

STYLES = {"problem": "bold red", "warning": "yellow", "info": "cyan", "ok": "green"}
BAR = 30  # characters of the longest bar


@options.reads_rows
def check(
    data: options.Data = "",
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="leave-one-out, time, random, cold-users or cold-items: also check that split. Default: rows only.",
        ),
    ] = None,
    test_size: options.TestSize = 0.2,
    fail_on: Annotated[
        str | None,
        typer.Option("--fail-on", help="Exit with 1 on these: kinds, or problem or warning; with commas: leak,ties."),
    ] = None,
    reading: options.Reading = options.Reading(),
    items: options.ItemFeatures = None,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Audit rows and a split of them: ties, duplicates, leaks, codes among ratings, wrong id columns and more.

    DATA is a named data set, a file, or a saved split. Rows are checked as they are in the file, with their
    duplicates; unreadable ones are counted. Each finding has a sentence with numbers, a reason and a remedy. For CI:
    --fail-on takes kinds, or the severities problem and warning; such a finding exits with code 1, an error with 2.

    Example: palate check clicks.csv --split leave-one-out --fail-on leak,duplicates
    """
    from palate.data.audit import audit
    from palate.data.row_store import is_store

    wanted = _wanted(fail_on)
    source = reading.of(data, items)
    ready = source.ready_made()
    if ready is not None and split is not None:
        raise DataError(f"--split {split}: {data} is already split ({ready.how}): omit --split")
    if ready is not None:
        raw = ready.train
        found = audit(ready)
    elif split is not None:
        raw = _raw_rows(source)
        valid = source if is_store(source.data) else _reading(source, drop_invalid=True)
        made = options.split_rows(valid, split, test_size, seed)
        found = audit(made, raw=raw, known_copies=_copies(source, raw))
    else:
        raw = _raw_rows(source)
        found = audit(raw, known_copies=_copies(source, raw))
    fired = _fired(found, wanted)
    if json:
        print_json({**found.to_dict(), "columns": raw.columns})
    else:
        _show(found)
    if fired:
        note(f"--fail-on: {', '.join(finding.kind for finding in fired)}")
        sys.exit(1)


def _raw_rows(source: options.Source) -> Dataset:
    """The rows with their duplicates and sentinels; unreadable rows are dropped and counted instead of refused."""
    from palate.data.row_store import is_store
    from palate.datasets import registry
    from palate.datasets.formats import read_anime

    if source.data == "anime":
        entry = replace(registry.REGISTRY["anime"], read=partial(read_anime, keep_unrated=True))
        with show_progress() as progress:
            return registry.load(entry, progress=progress)
    if is_store(source.data):
        return source.dataset()  # its rows are judged already
    strip = source.reading.strip or False  # ids that differ in blanks only are a finding, not an error
    return _reading(source, duplicates="keep", drop_invalid=True, strip=strip).dataset()


def _copies(source: options.Source, raw: Dataset) -> int | None:
    """How many rows of a file repeat an earlier one in all columns; None where the rows hold all of them."""
    from palate.data.audit.subject import Subject
    from palate.data.readers import read_table
    from palate.data.row_store import is_store

    how = source.reading
    if (
        "not used:" not in raw.columns
        or source.data == "-"
        or is_store(source.data)
        or Subject(raw).distinct == len(raw)
    ):
        return None  # most files have no repeated pair, and are not read once more
    table = read_table(
        [source.data, *how.more] if how.more else source.data, separator=how.separator, encoding=how.encoding,
        header=how.header, names=how.columns.split(",") if how.columns else None, query=how.query, table=how.table,
    )  # fmt: skip
    return len(table) - table.n_unique()


def _reading(source: options.Source, **changes: Any) -> options.Source:
    """The same source with other reading options."""
    return replace(source, reading=replace(source.reading, **changes))


def _wanted(fail_on: str | None) -> list[str]:
    from palate.data.audit import KINDS

    names = [name.strip() for name in (fail_on or "").split(",") if name.strip()]
    known = ("problem", "warning", *KINDS)
    if unknown := [name for name in names if name not in known]:
        raise DataError(f"--fail-on {', '.join(unknown)}: no such kind or severity: choose from {', '.join(known)}")
    return names


def _fired(found: Audit, wanted: list[str]) -> list[Finding]:
    """The findings that --fail-on names; a named kind that could not be checked is an error, not a pass."""
    kinds = set(wanted) - {"problem", "warning"}
    for kind in kinds & set(found.unchecked):
        raise DataError(f"--fail-on {kind} cannot be checked: {found.unchecked[kind]}: remove it from --fail-on")
    severities = {"problem", "warning"} if "warning" in wanted else {"problem"} & set(wanted)
    return [one for one in found.findings if one.severity in severities or (one.fires and one.kind in kinds)]


def _show(found: Audit) -> None:
    """Print the findings, most severe first, the kinds without finding in one line, and the distributions."""
    from rich.table import Table

    to = console()
    to.print(
        f"{found.data}: {found.rows:,} rows, {found.users:,} users, {found.items:,} items", style="bold", markup=False
    )
    if found.split is not None:
        to.print(f"split: {found.split}", style="dim", markup=False)
    table = Table(show_lines=True)
    for column in ("severity", "kind"):
        table.add_column(column, no_wrap=True)
    table.add_column("finding, reason, remedy")
    for finding in found.findings:
        if finding.severity != "ok":
            style = STYLES[finding.severity]
            table.add_row(f"[{style}]{finding.severity}[/]", f"[bold]{finding.kind}[/]", _described(finding))
    if table.row_count:
        to.print(table)
    clean = [finding.kind for finding in found.findings if finding.severity == "ok"]
    to.print(f"[{STYLES['ok']}]ok[/]: {', '.join(clean) or 'none'}")
    for reason in dict.fromkeys(found.unchecked.values()):
        kinds = [kind for kind, why in found.unchecked.items() if why == reason]
        to.print(f"not checked, {reason}: {', '.join(kinds)}", style="dim", markup=False)
    _show_profile(found.profile)


def _described(finding: Finding) -> Text:
    from rich.text import Text

    text = Text(finding.what)
    if finding.examples:
        text.append(f" (such as {'; '.join(finding.examples)})", style="dim")
    if finding.fires:
        text.append(f"\n{finding.why}", style="dim")
        text.append(f"\n-> {finding.remedy}")
    return text


def _show_profile(profile: dict[str, Any]) -> None:
    """Print ratings, rows per user and activity as bars."""
    bars = {
        profile["weights"]: [(f"{one['value']:g}", one["rows"]) for one in profile["ratings"] or ()],
        "rows per user": [(_range(one["low"], one["high"]), one["users"]) for one in profile["ratings_per_user"]],
        "rows over time": [(one["start"], one["rows"]) for one in _merged(profile["activity"] or [])],
    }
    to = console()
    for title, rows in bars.items():
        if not rows:
            continue
        width, most = max(len(label) for label, _ in rows), max(count for _, count in rows)
        to.print(f"\n{title}", style="bold", markup=False)
        for label, count in rows:
            bar = "█" * round(BAR * count / most) or ("▏" if count else "")
            to.print(f"  {label:>{width}} {bar} {count:,}", markup=False)


def _merged(periods: list[dict[str, Any]], most: int = 16) -> list[dict[str, Any]]:
    """Neighboring periods added up, so that they fit on a screen."""
    step = -(-len(periods) // most) or 1
    parts = [periods[at : at + step] for at in range(0, len(periods), step)]
    return [{"start": part[0]["start"], "rows": sum(one["rows"] for one in part)} for part in parts]


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
