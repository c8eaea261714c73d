"""Texts whose interactions are in a form that is not read: what it is, and a command that makes a table of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from palate.data.readers.first_lines import SAMPLE, fields, find_separator, suggested_names, usual_names
from palate.data.readers.sources import Opened
from palate.errors import DataError

SQL = re.compile(
    r"-- (MySQL|MariaDB|PostgreSQL database|SQLite|phpMyAdmin)\b.*|PRAGMA |BEGIN TRANSACTION|DROP TABLE|CREATE TABLE|"
    r"INSERT INTO|COPY .* FROM stdin",
    re.IGNORECASE,
)
MARKUP = re.compile(r"\s*<(\?xml|!doctype|html\b|[a-z]+>\s*(<|$))", re.IGNORECASE)
BRACKETS = re.compile(r"\s*(\(.*\)|\[.*\]),?\s*")
PAIRS = re.compile(r"\S+(\s+[^\s:]+:[-+]?\d*\.?\d+)+\s*")  # libsvm: a label, then index:value
GROUP = re.compile(r"\d+:\s*")  # of the Netflix Prize: an item, and below it its ratings


def check_form(file: Opened, lines: Sequence[str]) -> None:
    """Refuse a text in another form than rows with separators.

    Raises:
        DataError: with what it is, and a command for it.
    """
    lines = [line for line in lines[:SAMPLE] if line.strip()]
    if any(map(SQL.match, lines[:30])):
        raise DataError(
            f"{file.name}: an SQL dump: load it into its database and read that (--query 'SELECT ...'), or export the "
            "table as CSV"
        )
    if lines and MARKUP.match(lines[0]):
        raise DataError(f"{file.name}: an HTML or XML document: export or download the table in it as CSV")
    if len(lines) < 2:
        return
    if all(map(BRACKETS.fullmatch, lines)):
        rows = [fields(line.strip()[1:].rstrip(" ,")[:-1].replace("'", '"'), ",") for line in lines]
        program = r"s/^ *[[(]//; s/[])],? *\r?$//"
        raise DataError(
            f"{file.name}: each line is in brackets, as programs print tuples and lists: take them off with "
            f"{_command(file, 'sed -E', program)} and read that with --columns {','.join(suggested_names(rows))}"
        )
    if all(map(PAIRS.fullmatch, lines)) and max(line.count(":") for line in lines) > 1:
        firsts = [line.split()[0] for line in lines]
        user, what = ("$1", "the user") if len(set(firsts)) == len(firsts) else ("NR", "a label")
        program = f'{{for (i = 2; i <= NF; i++) {{split($i, p, ":"); print {user} "," p[1] "," p[2]}}}}'
        raise DataError(
            f"{file.name}: each line holds {what} and pairs such as {lines[0].split()[1]}, as in the libsvm format: "
            f"write one line per pair with {_command(file, 'awk', program)} and read that with --columns "
            "user,item,rating"
        )
    groups = [line for line in lines if GROUP.fullmatch(line)]
    if GROUP.fullmatch(lines[0]) and len(groups) < len(lines):
        rows = [fields(line, ",") for line in lines if line not in groups]
        names = ["user", *suggested_names([["a", "b", *row[1:]] for row in rows])[2:], "item"]
        program = r'/:[ \r]*$/ {sub(/:[ \r]*$/, ""); item = $0; next} {sub(/\r$/, ""); print $0 "," item}'
        raise DataError(
            f"{file.name}: rows below lines such as {lines[0].strip()!r}, as in the Netflix Prize: write the item into "
            f"each row with {_command(file, 'awk', program)} and read that with --columns {','.join(names)}"
        )


def check_start(file: Opened, lines: Sequence[str], width: int, separator: str) -> None:
    """Refuse a table below a title: all later lines have the same number of fields, more than the first one.

    Args:
        file: the file.
        lines: its first lines.
        width: fields of the first line.
        separator: the mark between them.

    Raises:
        DataError: with the line where the table begins.
    """
    below = [line for line in lines[1:SAMPLE] if line.strip()]
    if len(below) < 4:
        return
    separator = find_separator(below[len(below) // 2 :]) if width == 1 else separator
    widths = [len(fields(line, separator)) for line in lines[:SAMPLE]]
    usual = max(widths[len(widths) // 2 :])
    first = next((at for at in range(len(widths)) if set(widths[at:]) == {usual}), 0)
    # One field more in all lines but the first is rather a comma in a text.
    if (
        usual > (1 if width == 1 or first > 1 else width + 1)
        and usual > width
        and 0 < first <= 20
        and len(widths) - first > 3
    ):
        raise DataError(
            f"{file.name}: line {first} has fewer fields than the lines below it: if the table begins in line "
            f"{first + 1}, take it with {_command(file, f'tail -n +{first + 1}')}"
        )


def check_object(file: Opened, found: Mapping[str, Any]) -> None:
    """Refuse a JSON object whose names are ids, or that holds columns as pandas writes them.

    Raises:
        DataError: with a command that makes a table of it.
    """
    inner = list(found.values())
    if len(inner) < 2 or not all(isinstance(one, list | dict) for one in inner):
        return
    if usual_names(list(found)) > 1:
        if all(isinstance(one, dict) and all(key.isdecimal() for key in one) for one in inner):
            raise DataError(
                f"{file.name}: an object with one object per column, as pandas writes it: write it with "
                "to_json(path, orient='records')"
            )
        return
    values = [value for one in inner for value in (one.values() if isinstance(one, dict) else one)]
    if any(isinstance(value, list | dict) for value in values) or len({type(one) for one in inner}) > 1:
        return
    rated = isinstance(inner[0], dict)
    row, pairs, columns = (
        ("u, i, r", "i, r in x.items()", "user,item,rating") if rated else ("u, i", "i in x", "user,item")
    )
    program = (
        f"import csv, json, sys; csv.writer(sys.stdout).writerows(({row}) for u, x in json.load(sys.stdin).items() "
        f"for {pairs})"
    )
    raise DataError(
        f"{file.name}: an object with one {'object' if rated else 'list'} per name: if these are the users, write one "
        f"row per item with {_command(file, 'python3 -c', program, '<')} and read that with --columns {columns}"
    )


def python_records(file: Opened) -> str:
    """The remedy for lines of Python dictionaries, as some public data sets have them."""
    program = "import ast, json, sys; [print(json.dumps(ast.literal_eval(line))) for line in sys.stdin]"
    return f"rewrite lines of Python dictionaries with {_command(file, 'python3 -c', program, '<', 'jsonl')}"


def _command(file: Opened, program: str, argument: str = "", before: str = "", ending: str = "csv") -> str:
    """A command of the shell that writes the text in another form, surrounded by blanks to be copied."""
    new = f"{file.name.split('.')[0].replace(' ', '-')}-table.{ending}"
    words = [program, f"'{argument}'" if argument else "", before, file.path, ">", new]
    return f" {' '.join(word for word in words if word)} "
