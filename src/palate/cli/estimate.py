"""`palate estimate`: time and memory of training on a log, from a quick run on its first rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli import options
from palate.cli.console import console, print_json, table

if TYPE_CHECKING:
    from palate.data.dataset import Dataset


@options.reads_rows
def estimate(
    data: options.Data,
    recipe: Annotated[str, typer.Option("--recipe", help="The recipe that would be trained.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="A hyperparameter, as of palate train.")] = None,
    reading: options.Reading = options.Reading(),
    k: options.K = 10,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Estimate CPU seconds and memory of reading, splitting, training, evaluating and lists for all users.

    The first rows of the log are run in two sizes. From there the costs go on by rows, or by users x items for
    evaluation and lists, along a straight line and along a power law, which bound the estimate.

    Example: palate estimate clicks.csv --recipe ials
    """
    from palate.cli.train import recipe_and_fields
    from palate.experiment.estimate import estimate_costs
    from palate.models import make_recipe

    name, fields = recipe_and_fields(recipe, None, set_ or [])
    found = estimate_costs(data, _Reader(reading.of(data)), make_recipe(str(name), fields, fast=True), k, seed)
    if json:
        stages = {
            stage: {
                "seconds": [low.seconds, found.high[stage].seconds],
                "memory": [low.memory, found.high[stage].memory],
            }
            for stage, low in found.low.items()
        }
        print_json({"data": data, "recipe": name, "rows": found.rows, "users": found.users, "items": found.items,
                    "measured_rows": list(found.measured), "stages": stages})  # fmt: skip
        return
    shown = [
        [
            stage,
            _range(low.seconds, found.high[stage].seconds, 1),
            _range(low.memory / 1e6, found.high[stage].memory / 1e6),
        ]
        for stage, low in found.low.items()
    ]
    title = f"{name} on about {found.rows:,} rows, {found.users:,} users, {found.items:,} items"
    table(title, ["stage", "CPU s", "memory MB"], shown)
    words = f"From runs on {' and '.join(f'{rows:,}' for rows in found.measured)} rows on this machine, idle or not."
    console().print(words, markup=False, soft_wrap=True)


class _Reader:
    """Reads another file as the options say, with its notes left out; an instance is sent to another process."""

    def __init__(self, source: options.Source) -> None:
        self.source = source

    def __call__(self, data: str) -> Dataset:
        return replace(self.source, data=data).dataset()


def _range(low: float, high: float, digits: int = 0) -> str:
    ends = [f"{one:,.{digits}f}" for one in (low, high)]
    return " to ".join(dict.fromkeys(ends))
