"""`palate cold-start`: a recipe measured on users and items without training interactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli import options
from palate.cli.console import note, print_json, table
from palate.errors import DataError

if TYPE_CHECKING:
    from palate.recommend import Recommender

__all__ = ["cold_start", "told_features", "with_new_items", "with_policy"]


@options.reads_rows
def cold_start(
    recipe: Annotated[str, typer.Argument(help="A recipe: two-tower, ials, ease, ...")],
    data: options.Data,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A hyperparameter: --set epochs=5 --set layers=[32,16]")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file with the hyperparameters.")] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Published defaults instead of the fast preset.")
    ] = False,
    users: Annotated[float, typer.Option("--cold-users", help="Share of the users to hold out entirely.")] = 0.1,
    items_share: Annotated[float, typer.Option("--cold-items", help="Share of the items to hold out entirely.")] = 0.1,
    histories: Annotated[
        list[int] | None,
        typer.Option("--told", min=1, help="First rows told of a cold user; may be repeated. Default: 1 and 5."),
    ] = None,
    reading: options.Reading = options.Reading(),
    items: options.ItemFeatures = None,
    k: options.K = 10,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Hold out whole users and whole items, fit a recipe on the rest, and measure it on both, and on warm users.

    Cold users are asked by their first rows, by all rows but the latest, by their features and by nothing.

    Example: palate cold-start two-tower ml-100k
    """
    from palate.cli.train import recipe_and_fields
    from palate.evaluation.cold_start import evaluate_cold_start
    from palate.models import make_recipe

    name, fields = recipe_and_fields(recipe, config, set_ or [])
    assert name is not None
    source = reading.of(data, items)
    found = evaluate_cold_start(
        make_recipe(name, fields, fast=not published), source.dataset(), users=users, items=items_share,
        histories=(*(histories or (1, 5)), -1), k=k, seed=seed, run=options.make_run(seed, device, threads),
    )  # fmt: skip
    if json:
        print_json(found.to_dict())
        return
    columns, rows = found.cells()
    table(f"{found.recipe} on {found.data}: cold start", columns, rows, caption=found.how)
    for line in found.notes:
        note(f"  {line}")


def with_policy(recommender: Recommender, **wished: Any) -> Recommender:
    """The recommender under its own policy with the fields changed that are not None."""
    given = {name: value for name, value in wished.items() if value is not None}
    return replace(recommender, cold=replace(recommender.cold, **given)) if given else recommender


def with_new_items(recommender: Recommender, path: Path | None) -> Recommender:
    """The recommender with the items of the table of --new-items in its catalog, if there is one."""
    if path is None:
        return recommender
    from palate.data.readers import read_table

    grown = recommender.with_items(read_table(path))
    note(f"{len(grown.items) - len(recommender.items):,} new items of {path} join {len(recommender.items):,}")
    return grown


def told_features(users: Sequence[str], pairs: Sequence[str] | None) -> dict[str, dict[str, str]] | None:
    """The pairs column=value of --user-features, which belong to the one user asked for."""
    if not pairs:
        return None
    if len(users) != 1:
        raise DataError(f"--user-features belong to one user, {len(users)} were given: ask for one at a time")
    values = {}
    for pair in pairs:
        column, sign, value = pair.partition("=")
        if not sign:
            raise DataError(f"--user-features {pair!r} is not column=value: write it like --user-features gender=F")
        values[column] = value
    return {users[0]: values}
