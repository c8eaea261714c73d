"""Comparability of reports: a table may hold several only if their numbers mean the same.

check_comparable(reports)             # raises if two reports were measured under different conditions
table(..., caption=comparability_line(reports[0]))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from palate.errors import EvaluationError

if TYPE_CHECKING:
    from palate.evaluation.rating_prediction import RatingsReport
    from palate.evaluation.report import Report

# Facts that two reports must share, with the remedy where they differ.
REMEDIES = {
    "split": "measure both on one saved split",
    "train": "train both on the training rows of one saved split",
    "candidates": "full ranking and sampled candidates go into separate tables, and sampled ones need the same draw",
    "exclude_seen": "measure both with the same exclude_seen",
    "ties": "measure both with this version of Palate",
    "users": "measure both on the same users",
}


def check_comparable(reports: Sequence[Report | RatingsReport | Mapping[str, Any]]) -> None:
    """Refuse reports that differ in training rows, split, candidates, seen items, tie rule or users.

    Args:
        reports: of ``evaluate`` or ``evaluate_ratings``, or their ``to_dict``.

    Raises:
        EvaluationError: two differ; the message gives both values and the remedy.
    """
    if not reports:
        return
    first, *others = (_facts(one) for one in reports)
    for other in others:
        for key, remedy in REMEDIES.items():
            mine, theirs = first.get(key), other.get(key)
            if mine != theirs:
                raise EvaluationError(
                    f"{first['model']} and {other['model']} cannot stand in one table, their {key} "
                    f"differ ({_shown(key, mine)} against {_shown(key, theirs)}): {remedy}"
                )


def comparability_line(report: Report | RatingsReport | Mapping[str, Any]) -> str:
    """The fingerprints that a number belongs to, for the caption of its table."""
    facts = _facts(report)
    candidates = "" if facts.get("candidates") is None else f", candidates {facts['candidates']}"
    return f"split {facts['split']}{candidates}, training rows {facts['train'][:16]}"


def _facts(report: Any) -> dict[str, Any]:
    """The facts to compare, from a report or its dictionary; a report of ratings has fewer of them."""
    plain = report if isinstance(report, Mapping) else vars(report)
    return {key: plain.get(key) for key in ("model", "exclude_seen", "ties", "users")} | dict(plain["fingerprints"])


def _shown(key: str, value: Any) -> str:
    if value is None and key == "candidates":
        return "full ranking"
    return value[:16] if isinstance(value, str) and key != "ties" else str(value)
