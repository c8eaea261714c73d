"""`palate cold-start`: a recipe measured on users and items without training interactions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli import options
from palate.cli.console import note, print_json, table

if TYPE_CHECKING:
    pass


@options.reads_rows
def cold_start(
    recipe: Annotated[str, typer.Argument(help="A recipe: two-tower, ials, ease, ...")],
    data: options.Data = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A hyperparameter: --set epochs=5 --set layers=[32,16]")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file with the hyperparameters.")] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Published defaults instead of the fast preset.")
    ] = False,
    cold_users: Annotated[
        float, typer.Option("--cold-users", help="Fraction of the users to hold out entirely.")
    ] = 0.1,
    cold_items: Annotated[
        float, typer.Option("--cold-items", help="Fraction of the items to hold out entirely.")
    ] = 0.1,
    histories: Annotated[
        list[int] | None,
        typer.Option("--history", min=1, help="First rows provided of a cold user; may be repeated. Default: 1, 5."),
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

    Cold users are measured with their first rows provided, all rows but the latest, their features, and nothing.

    Example: palate cold-start two-tower ml-100k
    """
    from palate.cli.train import recipe_and_fields
    from palate.evaluation.cold_start import evaluate_cold_start
    from palate.models import make_recipe

    name, fields = recipe_and_fields(recipe, config, set_ or [])
    assert name is not None
    source = reading.of(data, items)
    found = evaluate_cold_start(
        make_recipe(name, fields, fast=not published), source.dataset(), users=cold_users, items=cold_items,
        histories=(*(histories or (1, 5)), -1), k=k, seed=seed, options=options.make_run(seed, device, threads),
    )  # fmt: skip
    if json:
        print_json(found.to_dict())
        return
    columns, rows = found.cells()
    table(f"{found.recipe} on {found.data}: cold start", columns, rows, caption=found.how)
    for line in found.notes:
        note(f"  {line}")
