"""Results as tables: dataframes, JSON, display in notebooks, and the check that two may stand in one table.

check_comparable(reports)             # raises if two reports were measured under different conditions
table(..., caption=comparability_line(reports[0]))
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import polars as pl

from palate.errors import EvaluationError

# Facts that two reports must share, with the remedy where they differ.
REMEDIES = {
    "split": "measure both on one saved split",
    "train": "train both on the training rows of one saved split",
    "candidates": "full ranking and sampled candidates go into separate tables, and sampled ones need the same draw",
    "exclude_seen": "measure both with the same exclude_seen",
    "ties": "measure both with this version of Palate",
    "relevant": "measure both with the same rule for relevant rows (relevant=)",
    "users": "measure both on the same users",
}


class Tabular(ABC):
    """A result that is a table."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per row of the table, with the same keys."""

    def to_polars(self) -> pl.DataFrame:
        """The table as a polars dataframe."""
        # Every row is read for the types: an interval that is missing in the first rows would make a column of nulls.
        return pl.DataFrame(self.rows(), infer_schema_length=None)

    def to_frame(self) -> pl.DataFrame:
        """The same as ``to_polars``."""
        return self.to_polars()

    def to_pandas(self) -> Any:
        """The table as a pandas dataframe; needs pandas."""
        # By name at run time: pandas is not a dependency, and mypy has no types for it.
        return importlib.import_module("pandas").DataFrame(self.rows())

    def _repr_html_(self) -> str:
        return self.to_polars()._repr_html_()


class Plain:
    """A dataclass of results that converts itself for JSON."""

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON: NaN becomes None."""
        found: dict[str, Any] = plain(self)
        return found


def plain(value: Any) -> Any:
    """Dataclasses as dictionaries, tuples as lists, and None for NaN, which JSON does not have."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def check_comparable(reports: Sequence[Tabular | Mapping[str, Any]]) -> None:
    """Refuse reports that differ in training rows, split, candidates, seen items, tie rule or users.

    Args:
        reports: of ``evaluate`` or ``evaluate_ratings``, or their ``to_dict``.

    Raises:
        EvaluationError: two differ; the message gives both values and the remedy.
    """
    if not reports:
        return
    first, *others = map(_facts, reports)
    for other in others:
        for key, remedy in REMEDIES.items():
            mine, theirs = first.get(key), other.get(key)
            if mine != theirs:
                shown = [
                    "full ranking" if one is None and key == "candidates" else str(one)[: None if key == "ties" else 16]
                    for one in (mine, theirs)
                ]
                raise EvaluationError(
                    f"{first['model']} and {other['model']} cannot stand in one table, their {key} "
                    f"differ ({shown[0]} against {shown[1]}): {remedy}"
                )


def comparability_line(report: Tabular | Mapping[str, Any]) -> str:
    """The fingerprints that a number belongs to, for the caption of its table."""
    facts = _facts(report)
    candidates = "" if facts.get("candidates") is None else f", candidates {facts['candidates']}"
    return f"split {facts['split']}{candidates}, training rows {facts['train'][:16]}"


def _facts(report: Any) -> dict[str, Any]:
    """The facts to compare, from a report or its dictionary; a report of ratings has fewer of them."""
    facts = report if isinstance(report, Mapping) else vars(report)
    return {key: facts.get(key) for key in ("model", "exclude_seen", "ties", "users")} | dict(facts["fingerprints"])
