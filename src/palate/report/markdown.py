"""The comparison as Markdown: the tables and sentences of the HTML page, without plots."""

from __future__ import annotations

import re
from typing import Any

from palate.report import tables
from palate.report.cells import Cell, Table


def markdown(comparison: dict[str, Any]) -> str:
    """The whole document as text."""
    data, audit = comparison["data"], comparison["audit"]
    parts = [
        f"# Comparison of recommenders on {_escaped(data['name'])}",
        f"**{_escaped(tables.headline(comparison))}** {_escaped(comparison['winner']['why'])}",
        "## Results",
        _table(tables.main_table(comparison)),
    ]
    parts += [_escaped(remark) for remark in tables.remarks(comparison)]
    parts += ["## Significance tests", _table(tables.tests_table(comparison))] if comparison["tests"] else []
    optional = {
        "Beyond accuracy": tables.beyond_table(comparison),
        "Predicted ratings": tables.ratings_table(comparison),
        "Seeds": tables.seeds_table(comparison),
    }
    for title, table in optional.items():
        parts += [f"## {title}", _table(table)] if table is not None else []
    parts += ["## All list lengths", *map(_table, tables.every_number(comparison))]
    segments = tables.segments_tables(comparison)
    parts += ["## Segments", *map(_table, segments)] if segments else []
    parts += _examples(comparison)
    parts += ["## Settings", _table(tables.settings_table(comparison))]
    checks = [] if audit is None else [tables.audit_table(audit), tables.passed_table(audit)]
    parts += ["## Data audit", *(_table(one) for one in checks if one is not None)] if checks else []
    parts += ["## Protocol", *(f"- {_escaped(sentence)}" for sentence in comparison["protocol"])]
    parts += [_table(tables.comparability_table(comparison))]
    return "\n\n".join(parts) + "\n"


def _examples(comparison: dict[str, Any]) -> list[str]:
    users = tables.examples(comparison)
    parts = ["## Example recommendations"] if users else []
    for one in users:
        earlier = f"{one['earlier']:,} earlier, then " if one["earlier"] else ""
        lists = [f"- {_escaped(made['model'])}: {_listed(made['recommended'])}" for made in one["lists"]]
        parts += [
            f"### User {_escaped(one['user'])}",
            f"History: {earlier}{_listed(one['history'])}\n\nHeld out: {_listed(one['held_out'])}",
            "\n".join(lists),
        ]
    return parts


def _listed(items: list[dict[str, Any]]) -> str:
    names = [(_escaped(one["title"] or one["item"]), one.get("hit", False)) for one in items]
    return "; ".join(f"**{name}** (hit)" if hit else name for name, hit in names) or "nothing"


def _table(table: Table) -> str:
    """A caption, then the table; the group of a column is written into its heading, up to its colon."""
    heads = [f"{one.label}, {one.group.partition(':')[0].lower()}" if one.group else one.label for one in table.columns]
    notes = [*(f"{label}." for label, _ in table.groups if ":" in label), *([table.note] if table.note else [])]
    lines = [
        f"{_escaped(table.caption)}\n",
        f"| {' | '.join(map(_escaped, heads))} |",
        f"|{'|'.join('---:' if one.number else '---' for one in table.columns)}|",
        *(f"| {' | '.join(map(_cell, row))} |" for row in table.rows),
    ]
    return "\n".join(lines) + (f"\n\n{_escaped(' '.join(notes))}" if notes else "")


def _cell(cell: Cell) -> str:
    text = f"**{_escaped(cell.text)}**" if cell.best else _escaped(cell.text)
    return f"{text} ({_escaped(cell.detail)})" if cell.detail else text


def _escaped(value: object) -> str:
    """Text that Markdown shows as it is: names and titles come from the data."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(value).split()))
