"""The published tables, one per file: data, protocol, recipe, published value."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import cast

from palate.reproduce.rows import Options, Row

__all__ = ["SYSTEMS", "run"]

SYSTEMS = {
    "A": "system_a",
    "B": "system_b",
    "C": "system_c",
    "D": "system_d",
    "E": "system_e",
    "ml-100k-rmse": "ml_100k_rmse",
    "ml-1m-next": "ml_1m_next",
    "ncf-ml-1m": "ncf_ml_1m",
}


def run(system: str, options: Options) -> Iterator[Row]:
    """The rows of one system, as they are computed."""
    module = importlib.import_module(f"palate.reproduce.{SYSTEMS[system]}")
    return cast(Callable[[Options], Iterator[Row]], module.run)(options)
