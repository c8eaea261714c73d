"""`palate index`: add an index over the item vectors to a bundle, and report its recall."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from palate.cli import options
from palate.cli.console import console, note, print_json

if TYPE_CHECKING:
    from palate.recommend import Recommender

LARGE = 100_000  # items; scoring all of a smaller catalog takes less time than an index saves

__all__ = ["index", "index_if_large", "show_index"]


def index(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle; it is replaced by one with the index.")],
    kind: Annotated[
        Literal["auto", "exact", "ivf", "hnsw", "none"],
        typer.Option("--kind", help="auto: exact up to 100,000 items, then ivf. none removes the index."),
    ] = "auto",
    recall: Annotated[
        float,
        typer.Option("--recall", min=0, max=1, help="Share of the exact best 100 that must be found, for known users."),
    ] = 0.98,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Add an index over the item vectors, which replaces scoring the whole catalog: for large catalogs.

    Its recall against exact search is measured with vectors of known users and saved in the bundle.

    Example: palate index bundles/shop --kind ivf --recall 0.99
    """
    from palate.bundle import Bundle

    loaded = Bundle.load(bundle)
    bare = replace(loaded.recommender, index=None)
    made = bare if kind == "none" else bare.indexed(kind, recall=recall, seed=seed)
    replace(loaded, recommender=made).save(bundle)
    if json:
        print_json(None if made.index is None else asdict(made.index.info))
    else:
        console().print(f"{bundle}: {show_index(made)}", markup=False, soft_wrap=True)


def index_if_large(recommender: Recommender) -> Recommender:
    """The recommender with an index if its catalog is large; without FAISS a note names the package to install."""
    from palate.base import Vectors
    from palate.errors import ModelError

    if len(recommender.items) <= LARGE or not isinstance(recommender.model, Vectors):
        return recommender
    try:
        made = recommender.indexed()
    except ModelError as error:
        note(f"no index: {error}")
        return recommender
    note(show_index(made))
    return made


def show_index(recommender: Recommender) -> str:
    """One line that describes the index of a recommender."""
    if recommender.index is None:
        return "no index: the whole catalog is scored"
    info = recommender.index.info
    if info.kind == "exact":
        return f"exact index of {len(recommender.index):,} items"
    settings = ", ".join(f"{name} {value:g}" for name, value in info.parameters.items())
    recall = f"recall@{info.k} {info.recall:.3f} of {info.queries} users (target {info.target_recall:g})"
    return f"{info.kind} index of {info.items:,} items ({settings}): {recall}, built in {info.build_seconds:.1f} s"
