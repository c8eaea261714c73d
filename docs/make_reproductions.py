"""Tables of docs/reproductions.md, from the rows of `palate reproduce --json` in docs/reproductions.json.

    python docs/make_reproductions.py [run.json ...]

Rows of the given runs take the place of rows of the same model, metric and protocol in docs/reproductions.json; rows
that are not among them stay, with the command, commit and date of their own run. Then every table of the page, between
`<!-- tables: A -->` and `<!-- end -->`, is made again: a model and metric that no table shows any more is left out of
the page as well. Without runs the page is made again from the file.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from palate.reproduce.markdown import table
from palate.reproduce.rows import Row

FOLDER = Path(__file__).parent
PAGE, ROWS = FOLDER / "reproductions.md", FOLDER / "reproductions.json"
BLOCK = re.compile(r"(<!-- tables: ([A-Za-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
ROLES = ("published", "trivial", "faithful", "best")
KEY = ("system", "dataset", "protocol", "role", "model", "request", "metric", "k")


def merged(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs, oldest first, without rows that a later run has; runs without rows left are dropped."""
    taken: set[tuple[Any, ...]] = set()
    for run in reversed(runs):
        kept = [row for row in run["rows"] if tuple(row.get(name) for name in KEY) not in taken]
        taken |= {tuple(row.get(name) for name in KEY) for row in run["rows"]}
        run["rows"] = kept
    return [run for run in runs if run["rows"]]


def as_text(runs: list[dict[str, Any]]) -> str:
    """The runs as JSON with a line for each row, empty fields left out."""
    lines = []
    for run in runs:
        rows = ",\n".join(
            "  " + json.dumps({name: value for name, value in row.items() if value is not None}) for row in run["rows"]
        )
        head = json.dumps({name: value for name, value in run.items() if name != "rows"})
        lines.append(f'{head[:-1]}, "rows": [\n{rows}\n]}}')
    return "[\n" + ",\n".join(lines) + "\n]\n"


def page(text: str, runs: list[dict[str, Any]]) -> str:
    """The page with every block of tables made from the rows: the first table of a system open, the others folded."""
    empty = {field.name: None for field in fields(Row)} | {"seeds": 1}
    known = [(Row(**empty | row), run) for run in runs for row in run["rows"]]

    def tables(match: re.Match[str]) -> str:
        rows = [(row, run) for row, run in known if row.system == match[2]]
        protocols = dict.fromkeys(row.protocol for row, _ in rows)
        # A protocol that goes on where another ends is of a group of users: one table for all groups of a protocol.
        base = {one: next((other for other in protocols if one.startswith(f"{other}; ")), None) for one in protocols}
        parts = []
        for protocol in sorted((one for one in protocols if base[one] is None), key=lambda one: -len(roles(one, rows))):
            parts.append(section(protocol, [one for one in rows if one[0].protocol == protocol], folded=bool(parts)))
            groups = [(row, run) for row, run in rows if base[row.protocol] == protocol]
            if groups:
                named = [
                    (replace(row, model=f"{row.protocol.removeprefix(protocol)[2:]}: {row.model}"), run)
                    for row, run in sorted(groups, key=lambda one: (one[0].model, str(one[0].request)))
                ]
                parts.append(section(f"{protocol}; groups of rows or users", named, folded=True))
        return match[1] + "".join(parts) + "\n" + match[3]

    return BLOCK.sub(tables, text)


def roles(protocol: str, rows: list[tuple[Row, Any]]) -> set[str]:
    """The roles in the table of a protocol."""
    return {row.role for row, _ in rows if row.protocol == protocol}


def section(protocol: str, rows: list[tuple[Row, dict[str, Any]]], *, folded: bool) -> str:
    """A table with its title and the runs that its rows come from."""
    rows = sorted(rows, key=lambda one: ROLES.index(one[0].role))
    made = dict.fromkeys(f"`{run['command']}`, commit {run['commit']}, {run['date']}" for _, run in rows)
    body = f"{table([row for row, _ in rows])}\n\nFrom {'; '.join(made)}.\n"
    title = f"{', '.join(dict.fromkeys(row.dataset for row, _ in rows))}: {protocol}"
    return f"\n<details><summary>{title}</summary>\n\n{body}\n</details>\n" if folded else f"\n**{title}**\n\n{body}"


def main() -> None:
    """Take in the runs that are named, and write both files."""
    runs = json.loads(ROWS.read_text()) if ROWS.exists() else []
    runs += [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    runs = merged(runs)
    ROWS.write_text(as_text(runs))
    PAGE.write_text(page(PAGE.read_text(), runs))


if __name__ == "__main__":
    main()
