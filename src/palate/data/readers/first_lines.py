"""The first lines of a text file: separator, names of the columns, and whether the first line holds names at all."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

from palate.data.columns import SYNONYMS, plain
from palate.data.readers.options import SKIP
from palate.errors import DataError

# In the order in which they are preferred; a blank only where nothing else separates.
SEPARATORS = ("::", "\t", ";", ",", "|")
WORDS = {"tab": "\t", r"\t": "\t", "blank": " ", "space": " ", "comma": ",", "semicolon": ";", "bar": "|"}
SAMPLE = 100
DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}")
CLOCK, YEAR = re.compile(r"\b\d{1,2}:\d{2}"), re.compile(r"\b(19|20)\d\d\b")
LIKELY_SECONDS = (315_532_800, 2_000_000_000)  # 1980 to 2033
UNIX_TIME = re.compile(r"[1-9]\d{8,9}(\d{3}){0,3}(\.\d+)?")


def fields(line: str, separator: str) -> list[str]:
    """The fields of one line."""
    if separator == " ":
        line = re.sub(" +", " ", line.strip(" "))
    if len(separator) > 1:
        return line.split(separator)
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def is_single_quoted(lines: Sequence[str]) -> bool:
    """Whether most lines below the first have a field in single quotation marks, and none has one in double ones."""
    rows = [line for line in lines[1:] if line.strip()]
    pattern = r"(?:^|[,;|:\s])\s*{0}[^{0}]*{0}\s*(?:[,;|:\s]|$)"
    single, double = (re.compile(pattern.format(mark)) for mark in "'\"")
    return 2 * sum(map(bool, map(single.search, rows))) > len(rows) and not any(map(double.search, lines))


def has_blanks(lines: Sequence[str], separator: str) -> bool:
    """Whether there are blanks around each separator outside of quoted fields, as in "u1, i1, 5"."""
    bare = re.compile(rf"(?<! ){re.escape(separator)}(?! |\r?$)")
    rows = [re.sub('"[^"]*"', '""', line) for line in lines if line.strip()]
    return separator != " " and bool(rows) and all(separator in row and not bare.search(row) for row in rows)


def comments(lines: Sequence[str]) -> int:
    """How many of the first lines are comments: those that begin with # or % and have other fields than the table."""
    below = [line for line in lines if line.strip() and line[0] not in "#%"]
    if len(below) < 2:
        return 0
    separator = find_separator(below[:SAMPLE])
    n_fields = len(fields(below[0], separator))
    count = 0
    for line in lines:
        if line.strip() and (line[0] not in "#%" or len(fields(line, separator)) == n_fields):
            break
        count += 1
    return count


def find_separator(lines: Sequence[str]) -> str:
    """The separator that gives all lines the same number of fields, the most of them; the comma where none does."""
    best, most = "", 1
    lines = [line for line in lines if line.strip()] or lines
    for separator in SEPARATORS:
        counts = {len(fields(line, separator)) for line in lines}
        if len(counts) == 1 and max(counts) > most:
            best, most = separator, max(counts)
    if best:
        return best
    blanks = {len(fields(line, " ")) for line in lines}
    if blanks != {1} and len(blanks) == 1:
        return " "
    # Lines that differ: quoted fields may span some of them, or one of them is wrong and is named later.
    first = max(SEPARATORS, key=lambda separator: len(fields(lines[0], separator)))
    return first if len(fields(lines[0], first)) > 1 else ","


def check_separator(separator: str, source: str) -> str:
    """A separator as it is typed: any text without a quotation mark, a line end or a letter, or a word such as "tab".

    Raises:
        DataError: it cannot separate fields.
    """
    separator = WORDS.get(separator, separator)
    if not separator or re.search(r'["\r\n\w]', separator):
        raise DataError(f'{source}: separator={separator!r}: must be a mark such as ";", "::" or "tab"')
    return separator


def is_data(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool | None:
    """Whether a first line is a row like those below it, and not the names of columns; None where nothing shows it.

    It is if a column has a number, a date, an id with digits or a repeated value in the first line as in the others.
    One column with numbers, dates or digits only below the first line shows that it holds names.
    """
    if usual_names(first) > 1:
        return False
    if not rows:
        return all(map(is_number, first)) or None
    alike = None
    for text, *below in zip(first, *rows, strict=False):
        values = [value for value in below if value]
        if not values or not text:
            continue
        for kind in (is_number, _is_date, lambda one: any(map(str.isdigit, one))):
            if all(map(kind, values)):
                if not kind(text):
                    return False
                alike = True
                break
        alike = alike or text in values or None
    return alike


def usual_names(names: Sequence[str]) -> int:
    """How many names are usual ones of users and items."""
    usual = {name for role in ("user", "item") for group in SYNONYMS[role] for name in group}
    return sum(plain(name) in usual for name in names)


def suggested_names(rows: Sequence[Sequence[str]]) -> list[str]:
    """Names for the columns of a file without a header, guessed by their values: user, item, rating, time or "_"."""
    columns = [[value for value in column if value.strip()] for column in zip(*rows, strict=False)]
    times = [bool(values) and all(_is_time(one) for one in values) for values in columns]
    if sum(bool(values) for values in columns) - sum(times) < 2:  # numbers that may be times are then ids
        times = [False for _ in columns]
    broken = [bool(values) and all(map(is_number, values)) and any(number(v) % 1 for v in values) for values in columns]
    left = ["user", "item"]
    # Places have two columns of fractions, or many decimals: they are no ratings. Nor are fractions ids.
    places = sum(broken) > 1
    names = []
    for values, time, fraction in zip(columns, times, broken, strict=True):
        if not values:
            names.append(SKIP)
        elif time and "time" not in names:
            names.append("time")
        elif left and not (fraction and len(columns) - sum(broken) - sum(times) > 1):
            names.append(left.pop(0))
        elif _may_be_rating(values) and not (fraction and places) and not {"rating", "weight"} & set(names):
            names.append("rating" if max(map(number, values)) <= 10 else "weight")
        else:
            names.append(SKIP)
    return names


def no_header(source: str, rows: Sequence[Sequence[str]]) -> str:
    """The message for a file whose first line looks like data."""
    shown = ", ".join(repr(text[:30]) for text in rows[0][:5]) + (", ..." if len(rows[0]) > 5 else "")
    names = suggested_names(rows)
    later = [set(column) for column in zip(*rows, strict=False)][1:]
    both = [value for value in set().union(*later) if sum(value in column for column in later) > 1]
    if len(later) > 2 and 2 * len(both) >= len(set().union(*later)):
        remedy = 'pass --layout lines (layout="lines") where each line is a user followed by items'
    elif "item" not in names:
        counts = sorted(map(len, rows))
        fact = (
            f"these lines have {counts[0]} to {counts[-1]} fields" if counts[0] < counts[-1] else "there is one column"
        )
        remedy = (
            f"a user and an item are needed, and {fact}: pass the mark between columns (--separator) or correct them"
        )
    elif names.count(SKIP) > 6:  # a wide table: the names would fill the screen
        remedy = "pass --no-header (header=False)"
    else:
        quoted = ", ".join(f'"{name}"' for name in names)
        remedy = f"pass --columns {','.join(names)} (names=[{quoted}])"
    return (
        f"{source}: the first line looks like a row, not like names of columns ({shown}): if the file has no header, "
        f"{remedy}; if it has one, pass --header (header=True)"
    )


def is_number(text: str) -> bool:
    """Whether a text is a number, with a decimal point or comma."""
    return re.fullmatch(r"\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*", text) is not None


def number(text: str) -> float:
    """The value of a text that is a number, see ``is_number``."""
    return float(text.replace(",", "."))


def _is_date(text: str) -> bool:
    return DATE.match(text) is not None


def _is_time(text: str) -> bool:
    """Whether a text is likely a date or a time, and no id of as many digits."""
    if UNIX_TIME.fullmatch(text):
        whole = text.split(".", maxsplit=1)[0]
        first, last = LIKELY_SECONDS
        return first <= int(whole[: 9 + len(whole) % 3]) <= last
    return _is_date(text) or (CLOCK.search(text) is not None and YEAR.search(text) is not None)


def _may_be_rating(values: Sequence[str]) -> bool:
    """Whether the values of a column vary as ratings or quantities do, and are no coordinates."""
    if not all(map(is_number, values)) or max(map(number, values)) <= 0:
        return False
    constant = len(values) > 20 and len(set(values)) == 1
    return not constant and not all(re.search(r"[.,]\d{5}", value) for value in values)
