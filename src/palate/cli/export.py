"""`palate export`: vectors and ONNX graphs of a bundle, for programs without Palate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from palate.cli import options
from palate.cli.console import note, print_json
from palate.errors import DataError


def export(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    vectors: Annotated[
        Path | None, typer.Option("--vectors", help="Write the vectors of users and items to this folder.")
    ] = None,
    form: Annotated[
        Literal["parquet", "numpy"],
        typer.Option("--format", help="Of --vectors: a column of the tables, or .npy files."),
    ] = "parquet",
    onnx: Annotated[
        Path | None, typer.Option("--onnx", help="Write the network as an ONNX graph to this folder.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Write the vectors of a bundle as Parquet or NumPy files, and its network as an ONNX graph.

    Example: palate export bundles/shop --vectors vectors --onnx onnx
    """
    if vectors is None and onnx is None:
        raise DataError("nothing to write: give --vectors FOLDER, --onnx FOLDER or both")
    from palate.bundle import Bundle
    from palate.export import export_onnx, export_vectors

    recommender = Bundle.load(bundle).recommender
    written = [] if vectors is None else export_vectors(recommender, vectors, form)
    written += [] if onnx is None else export_onnx(recommender, onnx)
    if json:
        print_json([str(path) for path in written])
        return
    for path in written:
        typer.echo(path)
    note(f"{len(recommender.users):,} users and {len(recommender.items):,} items")
