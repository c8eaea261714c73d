"""Write docs/configuration.md: recipes, options of training and comparing, and the settings of a server, from the code.

python docs/make_configuration.py
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter

import palate
from palate.cli.recipes import describe_fields, first_sentence
from palate.rules import Rules
from palate.serve.settings import EVENTS, PREFIX, EventType, Scenario, Settings

PAGE = Path(__file__).with_name("configuration.md")
# Callables and objects, of which JSON knows nothing.
IN_WORDS = {"progress": "function", "validation_callback": "function", "callbacks": "list", "device": "text"}
INTRODUCTION = """# Configuration

Every setting with its type, bounds and default, made from the code (`python docs/make_configuration.py`). Values out of
bounds are refused by name before any data are read. The options of commands are on the page of the
[command line](cli.md); columns and formats of files on that of [data](data.md).

"""
RECIPES = """## Recipes

`palate train NAME DATA --set field=value` sets a field, and so does a TOML file (`--config`, or
`palate compare --recipes file.toml`):

```toml
recipe = "ials"
dim = 32
```

In Python a field is an argument: `palate.IALS(dim=32)`. *Fast* is the preset of the command line, *published* that of
`--published` and of Python. `none` in a default leaves the value to the data, and `palate train` says which was chosen.
[Models](models.md) describes what the recipes do."""
SERVER = f"""## Settings of a server

Keys of `[server]` in the TOML file of `palate serve --config`; each is a flag (`--max-k`) and an environment variable
(`{PREFIX}MAX_K`), too. [Serve](serve.md) shows them at work."""
ENVIRONMENT = f"""## Environment variables

| variable | meaning |
|---|---|
| `PALATE_DATA` | folder with data sets that were downloaded before; a named data set is taken from there |
| `PALATE_CACHE` | folder for downloads and for what is made of them |
| `OMP_NUM_THREADS` | threads of the libraries; `--threads` and `TrainOptions(threads=...)` come before it |
| `{PREFIX}...` | a key of `[server]`, in capitals |
| `NO_COLOR` | tables and errors without colors |
| `MLFLOW_TRACKING_URI`, `WANDB_MODE`, ... | where [tracked runs](compare.md#tracked-runs) go |
| `HF_TOKEN`, `HF_ENDPOINT`, `HF_HOME` | of the [Hugging Face hub](bundle.md#on-the-hugging-face-hub) |
"""


def page() -> str:
    """The content of docs/configuration.md."""
    parts = [RECIPES]
    for name, kind in palate.RECIPES.items():
        published, fast = kind(), kind.fast()
        parts.append(f"### `{name}`\n\n{first_sentence(kind)}\n\n{table(kind, {'fast': fast, 'published': published})}")
    parts.append("## Training options\n\n`palate.TrainOptions(...)`: how to fit, not what is learned; nothing of it is "
                 f"saved in a bundle.\n\n{table(palate.TrainOptions)}")  # fmt: skip
    parts.append(f"## Comparison options\n\n`palate.CompareOptions(...)`.\n\n{table(palate.CompareOptions)}")
    parts.append(f"## Cold-start policy\n\n`palate.ColdStart(...)`, saved in a bundle.\n\n{table(palate.ColdStart)}")
    parts.append(
        f"## Rules\n\nKeys of a rules file, and arguments of `palate.Rules`: [rules](rules.md).\n\n{table(Rules)}"
    )
    parts.append(f"{SERVER}\n\n{table(Settings, leave_out=('events', 'scenarios'))}")
    parts.append(f"### `[events.NAME]`\n\nAdds a type of events, or changes one.\n\n{table(EventType)}\n\n{types()}")
    parts.append(f"### `[scenarios.NAME]`\n\nOptions of a request under a name.\n\n{table(Scenario)}")
    return INTRODUCTION + "\n\n".join([*parts, ENVIRONMENT])


def types() -> str:
    """The types of events that a server knows."""
    names = [one.name for one in dataclasses.fields(EventType) if one.name != "lifetime_days"]
    rows = [f"| `{key}` | {' | '.join(value(getattr(one, name)) for name in names)} |" for key, one in EVENTS.items()]
    return "\n".join([f"| type | {' | '.join(names)} |", f"|---|{'---|' * len(names)}", *rows])


def table(kind: Any, presets: dict[str, Any] | None = None, leave_out: tuple[str, ...] = ()) -> str:
    """A line for each field: name, type and bounds, defaults, meaning."""
    about, hints = describe_fields(kind), get_type_hints(kind, include_extras=True)
    fields = [one for one in dataclasses.fields(kind) if one.name not in leave_out]
    if not fields:
        return "No fields."
    instances = {"default": kind()} if presets is None else presets
    rows = []
    for one in fields:
        meaning = re.sub(r" ?Default: [^.]*\.?$", "", about.get(one.name, "")).rstrip()
        defaults = " | ".join(value(getattr(instance, one.name)) for instance in instances.values())
        made = TypeAdapter(hints[one.name], config=ConfigDict(arbitrary_types_allowed=True))
        kinds = IN_WORDS.get(one.name) or shape(made.json_schema())
        rows.append(f"| `{one.name}` | {kinds} | {defaults} | {meaning} |".replace("\n", " "))
    return "\n".join(
        [f"| field | type | {' | '.join(instances)} | meaning |", f"|---|---|{'---|' * len(instances)}---|", *rows]
    )


def shape(made: dict[str, Any]) -> str:
    """Type and bounds of a schema in words."""
    if "anyOf" in made:
        return " or ".join(shape(one) for one in made["anyOf"])
    if "enum" in made or "const" in made:
        return ", ".join(f"`{one}`" for one in made.get("enum", [made.get("const")]))
    kind = made.get("type")
    if kind == "array":
        inside = made.get("items") or made.get("prefixItems") or {}
        of = shape(inside) if isinstance(inside, dict) and inside else ""
        return f"list of {of}" if (of and of != "text") or inside.get("type") else "list"
    name = {"integer": "integer", "number": "number", "boolean": "true or false", "string": "text", "null": "none",
            "object": "table"}.get(str(kind), "text")  # fmt: skip
    low, above = made.get("minimum"), made.get("exclusiveMinimum")
    high, below = made.get("maximum"), made.get("exclusiveMaximum")
    bounds = []
    if low is not None and high is not None:
        bounds = [f"{number(low)} to {number(high)}"]
    else:
        for bound, words in ((low, "at least"), (above, "above"), (high, "at most"), (below, "below")):
            bounds += [] if bound is None else [f"{words} {number(bound)}"]
    return ", ".join([name, *bounds])


def number(bound: float) -> str:
    """A bound; very large ones in powers."""
    return f"{bound:.0e}".replace("e+", "e") if abs(bound) >= 1e9 else f"{bound:,g}" if bound % 1 else f"{int(bound):,}"


def value(default: Any) -> str:
    """A default in a cell."""
    if default is None:
        return "none"
    if isinstance(default, bool):
        return "true" if default else "false"
    if callable(default):
        return "" if default.__name__ == "silent" else f"`{default.__name__}`"
    if isinstance(default, dict) and "recipe" in default:
        return f"`{default['recipe']}`"
    if isinstance(default, list | tuple):
        return ", ".join(value(one) for one in default) or "none"
    if isinstance(default, dict) or default == "":
        return "none" if not default else f"`{default}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(page())
