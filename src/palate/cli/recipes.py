"""`palate recipes`: the recipes, one line each, or the fields of one."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, Any

import typer

from palate.cli import options
from palate.cli.console import console, print_json, table


def recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe, whose fields are shown. Default: all recipes.")] = None,
    json: options.Json = False,
) -> None:
    """List the recipes with one line each, or the fields of one with their defaults.

    Example: palate recipes

    Example: palate recipes ials
    """
    from palate.models import RECIPES, make_recipe

    if name is None:
        lines = [{"recipe": key, "description": first_sentence(kind)} for key, kind in RECIPES.items()]
        if json:
            print_json(lines)
        else:
            caption = "palate recipes NAME shows the fields of one; docs/models.md tells which recipe suits which data"
            table("Recipes", ["recipe", "description"], [list(line.values()) for line in lines], caption)
        return
    published, fast = make_recipe(name), make_recipe(name, fast=True)
    about = describe_fields(type(published))
    fields = [
        {
            "field": one.name,
            "fast": getattr(fast, one.name),
            "published": getattr(published, one.name),
            "description": about.get(one.name, ""),
        }
        for one in dataclasses.fields(published)
    ]
    if json:
        print_json({"recipe": name, "description": first_sentence(type(published)), "fields": fields})
        return
    console().print(f"{name}: {first_sentence(type(published))}", markup=False, soft_wrap=True)
    if fields:
        rows = [
            [row["field"], *(_short(row[key]) for key in ("fast", "published")), row["description"]] for row in fields
        ]
        caption = f"palate train {name} DATA --set field=value; None is chosen by the data"
        table("Fields", ["field", "fast preset", "published", "description"], rows, caption)


def first_sentence(kind: type[Any]) -> str:
    """The first sentence of a class's docstring."""
    first = " ".join((kind.__doc__ or "").strip().partition("\n\n")[0].split())
    return first.replace("``", "")


def describe_fields(kind: type[Any]) -> dict[str, str]:
    """The descriptions of the fields, from the docstrings of the class and of those it is derived from."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        part = (one.__doc__ or "").partition("Args:")[2].partition("\n\n")[0]
        for names, text in re.findall(r"^ {8}(\w[\w, ]*): (.+(?:\n {12}.+)*)", part, re.MULTILINE):
            found |= {field.strip(): " ".join(text.split()).replace("``", "") for field in names.split(",")}
    return found


def _short(value: Any) -> str:
    """A value in a cell: a member of an ensemble by its name alone."""
    if isinstance(value, tuple | list):
        return ", ".join(_short(one) for one in value)
    return str(value["recipe"] if isinstance(value, dict) and "recipe" in value else value)
