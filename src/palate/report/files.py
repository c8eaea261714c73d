"""Read a saved comparison, write it as HTML, Markdown or JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from palate.errors import DataError, PalateError
from palate.storage import replacing

NAME = "comparison.json"
NEEDED = ("data", "split", "k", "lengths", "candidates", "seeds", "protocol", "models", "tests", "winner", "audit")
# Modules of the extra; a missing module of another name is a fault of Palate and must not look like a missing extra.
EXTRA = ("altair", "jinja2", "markupsafe", "vl_convert")


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A saved comparison, from its JSON file or its folder.

    Raises:
        DataError: the file is missing, or is not a comparison.
    """
    file = Path(path) / NAME if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise DataError(f"there is no comparison at {file}: give the folder that palate compare wrote with --out")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is not JSON ({error}): run palate compare again") from None
    missing = [key for key in NEEDED if not isinstance(found, dict) or key not in found]
    if missing:
        raise DataError(f"{file} is no comparison, it lacks {', '.join(missing)}: run palate compare again")
    return dict(found)


def write_html(comparison: dict[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the comparison as one HTML page that opens without a network.

    Raises:
        PalateError: the packages that draw are not installed.
    """
    try:
        from palate.report.page import page
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise PalateError(f"the HTML report needs {error.name}: pip install 'palate[report]'") from None
    return _write(page(comparison), path)


def write_markdown(comparison: dict[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the tables of the comparison as Markdown."""
    from palate.report.markdown import markdown

    return _write(markdown(comparison), path)


def write_json(comparison: dict[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the comparison itself."""
    return _write(json.dumps(comparison, indent=2, ensure_ascii=False) + "\n", path)


def _write(text: str, path: str | os.PathLike[str]) -> Path:
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)
