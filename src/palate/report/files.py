"""Read a saved comparison, write it as HTML, Markdown or JSON."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from palate.errors import DataError, PalateError
from palate.report import folds, tables
from palate.report.cells import Cell, Table
from palate.storage import replacing

NAME, NAME_OF_FOLDS = "comparison.json", "folds.json"
NEEDED = ("data", "split", "k", "lengths", "candidates", "seeds", "protocol", "models", "tests", "winner", "audit")
NEEDED_OF_FOLDS = ("data", "metric", "k", "users", "folds", "models", "tests", "winner", "protocol")
# Modules of the extra; a missing module of another name is a fault of Palate and must not look like a missing extra.
EXTRA = ("altair", "jinja2", "markupsafe", "vl_convert")


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A saved comparison on one split or on several, from its JSON file or its folder.

    Raises:
        DataError: the file is missing, or is not a comparison.
    """
    file = Path(path)
    if file.is_dir():
        file = next((file / name for name in (NAME, NAME_OF_FOLDS) if (file / name).is_file()), file / NAME)
    if not file.is_file():
        raise DataError(f"there is no comparison at {file}: give the folder that palate compare wrote with --out")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is not JSON ({error}): run palate compare again") from None
    needed = NEEDED_OF_FOLDS if isinstance(found, dict) and "folds" in found else NEEDED
    missing = [key for key in needed if not isinstance(found, dict) or key not in found]
    if missing:
        raise DataError(f"{file} is no comparison, it lacks {', '.join(missing)}: run palate compare again")
    return dict(found)


def write_html(comparison: dict[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the comparison as one HTML page that opens without a network.

    Raises:
        PalateError: the packages that draw are not installed.
    """
    try:
        # Imported here: the packages that draw are an extra, and the other formats do without.
        from palate.report.page import page
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise PalateError(f"the HTML report needs {error.name}: pip install 'palate[report]'") from None
    return _write(page(comparison), path)


def write_markdown(comparison: dict[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the tables of the comparison as Markdown."""
    return _write(markdown(comparison), path)


def write_json(comparison: dict[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the comparison itself."""
    return _write(json.dumps(comparison, indent=2, ensure_ascii=False) + "\n", path)


def _write(text: str, path: str | os.PathLike[str]) -> Path:
    # A run that is stopped leaves the old report in place, not half of a new one.
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def markdown(comparison: dict[str, Any]) -> str:
    """The comparison as Markdown: the tables and sentences of the HTML page, without plots."""
    if "folds" in comparison:
        return _markdown_of_folds(comparison)
    data, audit = comparison["data"], comparison["audit"]
    parts = [
        f"# Comparison of recommenders on {_escaped(data['name'])}",
        f"**{_escaped(tables.headline(comparison))}** {_escaped(tables.verdict(comparison))}",
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
    examples = tables.examples(comparison)
    parts += ["## Example recommendations"] if examples else []
    for one in examples:
        earlier = f"{one['earlier']:,} earlier, then " if one["earlier"] else ""
        parts += [
            f"### User {_escaped(one['user'])}",
            f"History: {earlier}{_listed(one['history'])}\n\nHeld out: {_listed(one['held_out'])}",
            "\n".join(f"- {_escaped(made['model'])}: {_listed(made['recommended'])}" for made in one["lists"]),
        ]
    parts += ["## Settings", _table(tables.settings_table(comparison))]
    checks = [] if audit is None else [tables.audit_table(audit), tables.passed_table(audit)]
    parts += ["## Data audit", *(_table(one) for one in checks if one is not None)] if checks else []
    parts += ["## Protocol", *(f"- {_escaped(sentence)}" for sentence in comparison["protocol"])]
    parts += [_table(tables.comparability_table(comparison))]
    return "\n\n".join(parts) + "\n"


def _markdown_of_folds(comparison: dict[str, Any]) -> str:
    settings = folds.settings_table(comparison)
    parts = [
        f"# Comparison of recommenders on {len(comparison['folds'])} splits of {_escaped(comparison['data'])}",
        f"**{_escaped(tables.headline(comparison))}** {_escaped(tables.verdict(comparison))}",
        "## Results",
        *map(_table, folds.results_tables(comparison)),
        *map(_escaped, tables.remarks(comparison)),
        *(["## Significance tests", _table(tables.tests_table(comparison))] if comparison["tests"] else []),
        "## Splits",
        _table(folds.splits_table(comparison)),
        *(["## Settings", _table(settings)] if settings is not None else []),
        "## Protocol",
        *(f"- {_escaped(sentence)}" for sentence in comparison["protocol"]),
    ]
    return "\n\n".join(parts) + "\n"


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
    # Spaces are joined: a line break inside a cell would end its row.
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(value).split()))
