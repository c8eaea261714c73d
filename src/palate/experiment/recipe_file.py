"""A recipe as a TOML file: its name as ``recipe``, and its fields, which is what ``palate train --config`` reads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palate.base import Recipe
from palate.experiment.search_space import plain

__all__ = ["recipe_toml", "write_recipe"]


def recipe_toml(recipe: Recipe[Any], about: str | None = None) -> str:
    """The text, with a comment on top. Fields that are None are left out, since TOML has no such value."""
    lines = [] if about is None else [f"# {about}"]
    lines += [f"recipe = {json.dumps(recipe.name)}"]
    lines += [f"{name} = {_value(value)}" for name, value in plain(recipe).items() if value is not None]
    return "\n".join(lines) + "\n"


def write_recipe(recipe: Recipe[Any], path: Path, about: str | None = None) -> None:
    """Write the file in one step."""
    part = path.with_suffix(".part")
    part.write_text(recipe_toml(recipe, about))
    os.replace(part, path)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(one)}" for key, one in value.items() if one is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)  # numbers, texts and true are written alike in both
