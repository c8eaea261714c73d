"""A recipe as a TOML file: its name as ``recipe``, and its fields, as ``palate train --config`` reads them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palate import storage
from palate.base import Recipe
from palate.errors import RecipeError
from palate.experiment.search_space import plain


def read_toml(path: Path, option: str = "") -> dict[str, Any]:
    """The content of a TOML file; ``option`` is the command-line option that named it.

    Raises:
        RecipeError: it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{f'{option} {path}'.strip()} cannot be read as TOML: {error}") from None


def recipe_toml(recipe: Recipe[Any], about: str | None = None) -> str:
    """The text, with a comment on top. Fields that are None are left out, since TOML has no such value."""
    lines = [] if about is None else [f"# {about}"]
    lines += [f"recipe = {json.dumps(recipe.name)}"]
    lines += [f"{name} = {_value(value)}" for name, value in plain(recipe).items() if value is not None]
    return "\n".join(lines) + "\n"


def write_recipe(recipe: Recipe[Any], path: Path, about: str | None = None) -> None:
    """Write the file atomically."""
    with storage.replacing(path) as temporary:
        temporary.write_text(recipe_toml(recipe, about), encoding="utf-8")


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(one)}" for key, one in value.items() if one is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)  # numbers, texts and true are written alike in both
