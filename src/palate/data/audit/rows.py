"""Checks of the rows: dropped rows, duplicates, ratings that are codes, id columns that are row numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.audit.finding import Outcome, Severity, graded, many
from palate.data.audit.subject import Subject, pairs
from palate.data.columns import is_weight
from palate.data.feedback import far_off, zero_code
from palate.data.ids import IdMap, plain_text

ENOUGH = 5  # fewest rows of users that are compared: equal sets of fewer rows occur by chance
RARE = 1000  # a rating given so many times less than usual is off the scale: a 6 among 1 to 5
FEW = 20  # with fewer rows, ids that are all different are no sign of an error


def dropped_rows(subject: Subject) -> Outcome:
    """Rows that were dropped while reading, including those that training refuses."""
    left = [note for note in subject.rows.notes if note.kind in ("refused", "dropped")]
    count = sum(note.rows for note in left)
    refused = sum(note.rows for note in left if note.kind == "refused")
    whole = len(subject.rows) + count
    if not count:
        return Outcome("ok", f"all {many(whole, 'row')} could be read")
    what = f"{many(count, 'row')} of {whole:,} dropped while reading"
    if refused:
        what += f", {'all' if refused == count else f'{refused:,}'} because of a missing or unreadable value"
    examples = [str(note).removeprefix("dropped: ") for note in left[:3]]
    return Outcome("warning" if refused else "info", what, count, count / whole, examples)


def equal_rows(subject: Subject) -> Outcome:
    """Rows that are equal to an earlier row in every column."""
    count = subject.copies
    if not count:
        return Outcome("ok", "no row is an exact copy of another")
    narrow = subject.known_copies is None and "not used:" in subject.rows.columns
    columns = "in every column in use" if narrow else "in every column"
    again = subject.frame.filter(subject.frame.is_duplicated()).unique(maintain_order=True)
    what = f"{many(count, 'row', 'repeats', 'repeat')} an earlier row {columns}"
    share = count / len(subject.frame)
    # Rows that are equal in some columns only may be two purchases at different prices, and rows of a user and an item
    # alone two visits; but no visits are all repeated equally often.
    bare = subject.rows.interactions.time is None and subject.rows.feedback.kind == "none"
    visits = bare and np.gcd.reduce(subject.pair_counts) == 1
    severity = "info" if narrow or visits else graded(share, problem=0.01)
    return Outcome(severity, what, count, share, _events(subject, again) if len(again) <= count else ())


def duplicates(subject: Subject) -> Outcome:
    """Rows whose pair of user and item occurs in an earlier row."""
    frame = subject.frame
    count = len(frame) - subject.distinct
    if not count:
        return Outcome("ok", "no pair of user and item occurs twice")
    # One number for each pair: finding duplicates of a struct is slower.
    numbered = frame.with_columns(pair=pairs(subject.rows.interactions, subject.rows.n_items))
    repeated = numbered.filter(pl.col("pair").is_duplicated())
    first = repeated.unique("pair", keep="first", maintain_order=True)
    what = f"{many(count, 'row', 'repeats', 'repeat')} the user and item of an earlier row"
    what += f" ({many(len(first), 'pair')}), {subject.copies:,} of them exact copies"
    if subject.rows.explicit:
        rated = repeated.group_by("pair").agg(low=pl.col("weight").min(), high=pl.col("weight").max())
        different = int((rated["low"] < rated["high"]).sum())
        what += f"; {many(different, 'pair')} with different values of {subject.weight_name}"
    share = count / len(frame)
    # Users who buy or play an item again are behavior, not an error; two ratings of one item are a question.
    bare = subject.rows.interactions.time is None and subject.rows.feedback.kind == "none"
    copied = count == subject.copies and not (bare and np.gcd.reduce(subject.pair_counts) == 1)
    severity: Severity = "warning" if subject.rows.explicit or copied else "info"
    return Outcome(severity, what, count, share, _events(subject, first))


def missing_ids(subject: Subject) -> Outcome:
    """Rows whose id is a text that a program writes for a missing value; such rows are dropped while reading."""
    notes = [note for note in subject.rows.notes if "stands for a missing id" in note.text]
    count = sum(note.rows for note in notes)
    if not count:
        return Outcome("ok", "no id stands for a missing value")
    share = count / (len(subject.rows) + count)
    what = f"{many(count, 'row')} with a text such as nan or NULL for an id, dropped while reading"
    return Outcome("problem", what, count, share, [str(note).removeprefix("dropped: ") for note in notes[:3]])


def alike_ids(subject: Subject) -> Outcome:
    """Ids that differ from another only in case, blanks, invisible characters or Unicode form."""
    found, examples, total, padded = 0, list[str](), 0, list[str]()
    for side, ids in (("user", subject.rows.users.ids), ("item", subject.rows.items.ids)):
        total += len(ids)
        if ids.dtype != pl.String:
            continue
        stripped = plain_text(ids)
        padded += [f"{side} {one!r}" for one in ids.filter(stripped != ids)]
        plain = stripped.str.to_lowercase()
        again = plain.is_duplicated()
        found += int(again.sum())
        groups = (
            pl.DataFrame({"id": ids, "plain": plain}).filter(again).group_by("plain", maintain_order=True).agg("id")
        )
        examples += [f"{side}s {', '.join(map(repr, one[:3]))}" for one in groups["id"].head(3)]
    if not found and padded:
        what = f"{many(len(padded), 'id', 'has', 'have')} blanks around or invisible characters"
        return Outcome("info", what, len(padded), len(padded) / total, padded[:3])
    if not found:
        return Outcome("ok", "no two ids differ in case or blanks only")
    what = f"{many(found, 'id', 'differs', 'differ')} from another only in case, blanks or invisible characters"
    return Outcome("warning", what, found, found / total, examples[:3])


def dominant_ids(subject: Subject) -> Outcome:
    """Users or items far above all others, such as a crawler that has visited every item."""
    rows = subject.rows.interactions
    examples, worst = list[str](), 0
    for side, own, n_others, ids in (
        ("user", rows.user, len(subject.per_item), subject.rows.users),
        ("item", rows.item, len(subject.per_user), subject.rows.items),
    ):
        counts = np.bincount(own)
        known = np.sort(counts[counts > 0])
        if len(known) < FEW:
            continue
        # Far above: ten times as many rows as all but the top percent, or nearly everything where others have little.
        usual = max(np.quantile(known, 0.99, method="lower"), 1) if len(known) > 100 else known[-2]
        least = np.full(len(counts), 10.0 * usual)
        if side == "user" and np.median(known) <= 0.5 * n_others and n_others >= FEW:
            least = np.minimum(least, max(0.95 * n_others, 1.5 * known[-2]))
        far = np.flatnonzero(counts >= least)
        named = zip(far[:3], ids.external(far[:3]), strict=True)
        examples += [f"{side} {one}: {many(int(counts[row]), 'row')}" for row, one in named]
        worst += len(far)
    if not worst:
        return Outcome("ok", "no user and no item is far above all others")
    what = f"{worst:,} of the users and items have far more rows than all others"
    return Outcome("warning", what, worst, None, examples[:3])


def time_units(subject: Subject) -> Outcome | str:
    """Times that were read in several units, or are no dates."""
    if subject.rows.interactions.time is None:
        return "the rows have no time"
    notes = [note for note in subject.rows.notes if note.kind in ("mixed-times", "relative-times")]
    if not notes:
        return Outcome("ok", "all times have one unit")
    mixed = any(note.kind == "mixed-times" for note in notes)
    return Outcome("warning" if mixed else "info", notes[0].text, notes[0].rows)


def quotes(subject: Subject) -> Outcome:
    """Quotation marks that were read as text, or fields that span lines."""
    notes = [note for note in subject.rows.notes if "quot" in note.text]
    if not notes:
        return Outcome("ok", "no stray quotation mark was found while reading")
    return Outcome("info", notes[0].text, sum(note.rows for note in notes), None, [str(note) for note in notes[:3]])


def equal_users(subject: Subject) -> Outcome:
    """Users with exactly the rows of another user: equal items, weights and times."""
    content = [column for column in subject.frame.columns if column != "user"]
    # A sum of 44-bit numbers cannot overflow; with the smallest and largest hash added, two sets do not collide.
    hashed = subject.frame.lazy().select("user", hash=pl.struct(content).hash())
    sets = (
        hashed.group_by("user")
        .agg(rows=pl.len(), sum=(pl.col("hash") // 2**20).sum(), low=pl.col("hash").min(), high=pl.col("hash").max())
        .filter(pl.col("rows") >= ENOUGH)
        .collect()
    )
    same = sets.filter(pl.struct("rows", "sum", "low", "high").is_duplicated())
    if same.is_empty():
        return Outcome("ok", f"no two users with {ENOUGH} or more rows have the same rows")
    groups = same.n_unique(["rows", "sum", "low", "high"])
    what = f"{many(len(same), 'user')} have exactly the rows of another user ({many(groups, 'group')})"
    share = len(same) / len(subject.per_user)
    first = same.sort("sum", "user").group_by("sum", maintain_order=True).agg("user").head(3)["user"]
    examples = ["users " + ", ".join(_ids(subject.rows.users, one.to_numpy())) for one in first]
    return Outcome(graded(share, problem=0.05), what, len(same), share, examples)


def equal_items(subject: Subject) -> Outcome | str:
    """Items with rows that have the title of another item."""
    if subject.rows.titles is None:
        return "the items have no titles"
    items = np.flatnonzero(np.bincount(subject.rows.interactions.item, minlength=subject.rows.n_items))
    titles = subject.rows.titles.gather(items).str.strip_chars().str.to_lowercase()
    table = pl.DataFrame({"item": items, "title": titles}).filter(titles.is_not_null() & titles.is_duplicated())
    if table.is_empty():
        return Outcome("ok", "no two items have the same title")
    groups = table.group_by("title", maintain_order=True).agg("item")
    what = f"{many(len(table), 'item')} share their title with another item ({many(len(groups), 'title')})"
    share = len(table) / len(items)
    examples = [
        f"{subject.rows.titles[int(one[0])]}: items {', '.join(_ids(subject.rows.items, one.to_numpy()))}"
        for one in groups["item"].head(3)
    ]
    return Outcome(graded(share, warning=0.05), what, len(table), share, examples)


def sentinels(subject: Subject) -> Outcome | str:
    """Weights so far from the others that they are codes rather than ratings."""
    values, counts = np.unique(subject.rows.interactions.weight, return_counts=True)
    if len(values) < 2:
        return "the rows have no ratings or weights"
    kind = subject.rows.feedback.kind
    if kind in ("event", "label"):
        return Outcome("ok", f"the values are those of a {kind}")
    odd = (values < 0) & bool((values < 0).sum() <= 2 < len(values))  # a scale with negative ratings has more of them
    odd &= (values != -1) | (kind == "rating") | (counts < counts.sum() / RARE)  # else -1 pieces were returned
    zero = np.zeros_like(odd)
    if subject.rows.explicit:
        odd |= far_off(values, counts) | (counts < np.median(counts) / RARE)
        zero = zero_code(values, counts)
    severity: Severity = "problem" if odd.any() else "warning"
    odd |= zero
    if not odd.any():
        return Outcome("ok", f"no value is far from the others ({values[0]:g} to {values[-1]:g})")
    count, share = int(counts[odd].sum()), float(counts[odd].sum() / counts.sum())
    rest = values[~odd]
    listed = ", ".join(f"{value:g}" for value in values[odd][:3])
    what = f"{many(count, 'row', 'has', 'have')} the value {listed}"
    what += f" in {subject.weight_name}, far from the others ({rest[0]:g} to {rest[-1]:g})"
    examples = [f"{value:g}: {many(int(n), 'row')}" for value, n in zip(values[odd], counts[odd], strict=True)]
    return Outcome(severity, what, count, share, examples[:3] if len(examples) > 1 else ())


def not_positive(subject: Subject) -> Outcome:
    """Rows that are seen but not positive by the rule of the data set, and rules that leave hardly any other."""
    rows, kept = subject.rows, subject.rows.positive
    count, about = int((~kept).sum()), rows.feedback
    if not count:
        return Outcome("ok", f"all rows are positive ({about.rule})")
    share = count / len(rows)
    if about.kind == "rating":
        what = f"{many(count, 'row', 'is', 'are')} not positive; the rule is {about.rule}"
        return Outcome(graded(share, warning=0.95), what, count, share)
    weight = rows.interactions.weight
    parts = [
        f"{many(int(found.sum()), 'row', 'has', 'have')} {text}"
        for found, text in (
            (weight == 0, "weight 0 (shown but not chosen)"),
            (weight < 0, "a weight below 0 (returned or disliked)"),
            (~kept & (weight > 0), f"a weight that is not positive by the rule ({about.rule})"),
        )
        if found.any()
    ]
    # Labels and events are made to say so; among quantities such rows are easily taken for positives.
    known = about.kind == "event" or (
        about.kind == "label" and about.column is not None and not is_weight(about.column)
    )
    return Outcome("info" if known else "warning", "; ".join(parts), count, share)


def row_number_ids(subject: Subject) -> Outcome | str:
    """Id columns in which almost every row has a different id."""
    n = len(subject.rows)
    if n < FEW:
        return f"fewer than {FEW} rows"
    rows, found, worst = subject.rows.interactions, [], 0
    for side, numbers, ids in (("user", rows.user, subject.rows.users), ("item", rows.item, subject.rows.items)):
        distinct = int(np.count_nonzero(np.bincount(numbers)))
        if distinct < 0.9 * n:
            continue
        found.append(f"{distinct:,} different {side} ids in {n:,} rows{_rising(ids, numbers)}")
        worst = max(worst, distinct)
    if not found:
        return Outcome("ok", "ids repeat in both id columns")
    return Outcome("problem", "; ".join(found), worst, worst / n)


def _rising(ids: IdMap, numbers: NDArray[np.int32]) -> str:
    # Ids that rise by one are a row number read as an id; texts cannot be ordered this way.
    values = ids.ids.cast(pl.Int64, strict=False)
    if values.has_nulls():
        return ""
    steps = np.diff(values.to_numpy()[numbers])
    return (
        ", each one more than the last"
        if (steps == 1).all()
        else ", increasing from row to row"
        if (steps > 0).all()
        else ""
    )


def _events(subject: Subject, frame: pl.DataFrame) -> list[str]:
    users = _ids(subject.rows.users, frame["user"].head(3).to_numpy())
    items = _ids(subject.rows.items, frame["item"].head(3).to_numpy())
    return [f"user {user} with item {item}" for user, item in zip(users, items, strict=True)]


def _ids(ids: IdMap, numbers: NDArray[Any]) -> list[str]:
    return [str(one) for one in ids.external(numbers[:3])]
