"""Table-like results: conversion to dataframes, and display in notebooks."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import Any

import polars as pl


class Tabular(ABC):
    """A result that is a table."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per row of the table, with the same keys."""

    def to_polars(self) -> pl.DataFrame:
        """The table as a polars dataframe."""
        return pl.DataFrame(self.rows(), infer_schema_length=None)

    def to_frame(self) -> pl.DataFrame:
        """The same as ``to_polars``."""
        return self.to_polars()

    def to_pandas(self) -> Any:
        """The table as a pandas dataframe; needs pandas."""
        return importlib.import_module("pandas").DataFrame(self.rows())

    def _repr_html_(self) -> str:
        return self.to_polars()._repr_html_()
