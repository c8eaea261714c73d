"""Finding and Audit: the results of the checks, as values and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from palate.errors import DataError

Severity = Literal["problem", "warning", "info", "ok"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "info", "ok")


@dataclass(frozen=True)
class Outcome:
    """The result of one check.

    Args:
        severity: problem (results are misleading), warning (results need a remark), info, ok.
        what: one sentence with numbers.
        count: number of rows, users or items that the sentence is about.
        share: ``count`` as a fraction of all of them, 0 to 1; None if there is no such fraction.
        examples: at most three, to find the rows at their source.
    """

    severity: Severity
    what: str
    count: int = 0
    share: float | None = None
    examples: Sequence[str] = ()


@dataclass(frozen=True)
class Finding:
    """The result of one check with its kind, reason and remedy; ``what`` is its sentence with numbers."""

    kind: str
    severity: Severity
    what: str
    count: int
    share: float | None
    why: str
    remedy: str
    examples: tuple[str, ...] = ()

    @property
    def fires(self) -> bool:
        """Whether it is a warning or a problem."""
        return self.severity in ("problem", "warning")


@dataclass(frozen=True)
class Audit:
    """All findings about a data set or a split, the most severe first.

    Args:
        data: the name of the data.
        rows, users, items: its size; users and items with rows.
        split: how the split was made, or None.
        findings: one per kind that could be checked, including those that are ok.
        unchecked: the other kinds, each with the reason.
        profile: distributions of the rows, see ``palate.data.audit.profile``.
    """

    data: str
    rows: int
    users: int
    items: int
    split: str | None
    findings: tuple[Finding, ...]
    unchecked: dict[str, str]
    profile: dict[str, Any]

    def of(self, kind: str) -> Finding:
        """The finding of one kind.

        Raises:
            DataError: the kind was not checked, or does not exist.
        """
        for finding in self.findings:
            if finding.kind == kind:
                return finding
        reason = self.unchecked.get(kind, f"no such kind: kinds are {', '.join(sorted(self.kinds))}")
        raise DataError(f"{kind} was not checked in {self.data}: {reason}")

    @property
    def kinds(self) -> set[str]:
        """All kinds, checked or not."""
        return {finding.kind for finding in self.findings} | set(self.unchecked)

    def to_dict(self) -> dict[str, Any]:
        """The audit as a JSON object; ``unchecked`` becomes a list of kind and why."""
        unchecked = [{"kind": kind, "why": why} for kind, why in self.unchecked.items()]
        findings = [{**asdict(one), "examples": list(one.examples)} for one in self.findings]
        facts = {"data": self.data, "rows": self.rows, "users": self.users, "items": self.items, "split": self.split}
        return {**facts, "findings": findings, "unchecked": unchecked, "profile": self.profile}


def graded(
    share: float, *, warning: float = 0.0, problem: float = 2.0, below: Severity = "info", none: Severity = "ok"
) -> Severity:
    """The severity of a share: ``none`` at 0, ``below`` under the limit of a warning, then warning, then problem."""
    if share <= 0:
        return none
    return "problem" if share >= problem else "warning" if share >= warning else below


def many(count: int, noun: str, one: str = "", more: str = "") -> str:
    """A count with its noun and verb, in the singular or plural: "1 row has", "2,000 rows have"."""
    return f"{count:,} {noun} {one}".rstrip() if count == 1 else f"{count:,} {noun}s {more}".rstrip()


def percent(share: float) -> str:
    """A share in percent; only exact 0 and 1 are shown as 0.0% and 100.0%."""
    text = f"{share:.1%}"
    return "<0.1%" if text == "0.0%" and share else ">99.9%" if text == "100.0%" and share < 1 else text
