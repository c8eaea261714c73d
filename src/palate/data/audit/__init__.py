"""The audit: problems and facts about rows and splits, before a model is trained or measured on them.

    found = audit(dataset)                          # or audit(split)
    for finding in found.findings:
        print(finding.severity, finding.kind, finding.what)

Each kind of finding is one function of a ``Subject``; it returns an ``Outcome``, or the reason why the check does not
apply. ``KINDS`` lists them; ``advice`` has the reason and remedy of each. docs/check.md describes all kinds.
"""

from __future__ import annotations

from collections.abc import Callable

from palate.data.audit import held_out, rows, shape
from palate.data.audit.advice import ADVICE
from palate.data.audit.finding import SEVERITIES, Audit, Finding, Outcome
from palate.data.audit.profile import profile
from palate.data.audit.subject import Subject
from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.errors import DataError

__all__ = ["KINDS", "SEVERITIES", "Audit", "Finding", "audit"]

CHECKS: dict[str, Callable[[Subject], Outcome | str]] = {
    "dropped-rows": rows.dropped_rows,
    "missing-ids": rows.missing_ids,
    "alike-ids": rows.alike_ids,
    "dominant-ids": rows.dominant_ids,
    "quotes": rows.quotes,
    "time-units": rows.time_units,
    "equal-rows": rows.equal_rows,
    "duplicates": rows.duplicates,
    "sentinels": rows.sentinels,
    "not-positive": rows.not_positive,
    "row-number-ids": rows.row_number_ids,
    "equal-users": rows.equal_users,
    "equal-items": rows.equal_items,
    "ties": held_out.ties,
    "leak": held_out.leak,
    "global-leak": held_out.global_leak,
    "trained-rows": held_out.trained_rows,
    "listed-positives": held_out.listed_positives,
    "unknown-users": held_out.unknown_users,
    "unknown-items": held_out.unknown_items,
    "few-test-users": held_out.few_test_users,
    "short-history": shape.short_history,
    "rows-per-user": shape.rows_per_user,
    "ratings": shape.ratings,
    "concentration": shape.concentration,
    "density": shape.density,
    "activity": shape.activity,
}
KINDS = tuple(CHECKS)


def audit(data: Dataset | Split, *, raw: Dataset | None = None, known_copies: int | None = None) -> Audit:
    """Check the rows of a data set, or a split with all its rows, and return the findings.

    Args:
        data: the data set or split to check.
        raw: the same rows with duplicates and sentinels (``duplicates="keep"``), for the findings about rows. Default:
            the rows of ``data``, in which rows dropped earlier cannot be found.
        known_copies: number of rows that are equal to an earlier one in all columns of their source. Default: counted
            in the columns that the data set holds.

    Raises:
        DataError: there are no rows.
    """
    subject = Subject.of(data, raw, known_copies)
    parts = [subject.rows] if subject.split is None else [subject.rows, subject.split.train, subject.split.test]
    if not all(map(len, parts)):
        sizes = ", ".join(f"{len(part):,}" for part in parts)
        raise DataError(
            f"{subject.rows.name} has no rows to check ({sizes} of all, training, test): provide rows for each"
        )
    outcomes = {kind: check(subject) for kind, check in CHECKS.items()}
    found = []
    for kind, outcome in outcomes.items():
        if isinstance(outcome, Outcome):
            share = None if outcome.share is None else round(float(outcome.share), 6)
            facts = (kind, outcome.severity, outcome.what, outcome.count, share)
            found.append(Finding(*facts, *ADVICE[kind], tuple(outcome.examples)))
    return Audit(
        data=subject.rows.name,
        rows=len(subject.rows),
        users=len(subject.per_user),
        items=len(subject.per_item),
        split=None if subject.split is None else subject.split.how,
        findings=tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity))),
        unchecked={kind: outcome for kind, outcome in outcomes.items() if isinstance(outcome, str)},
        profile=profile(subject),
    )
