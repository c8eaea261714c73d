"""An index as a bundle keeps it: what is known about it, and the codes; the vectors are the model's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from palate.base import Model, Vectors
from palate.errors import BundleError
from palate.retrieval.approximate import Approximate
from palate.retrieval.base import About, Index
from palate.retrieval.exact import Exact
from palate.retrieval.faiss_index import read

__all__ = ["record", "restored"]


def record(index: Index, model: Model) -> dict[str, Any]:
    """The fields of ``index.about``.

    Raises:
        BundleError: the index is not over the model's item vectors, so it could not be had back.
    """
    exact = _exact(model)
    if exact.vectors.shape != index.vectors.shape or not torch.allclose(
        exact.vectors, index.vectors.to(exact.vectors.device), rtol=1e-4, atol=1e-6
    ):
        raise BundleError(
            f"the index holds {len(index):,} vectors that are not the {len(exact):,} item vectors of the model: "
            "build it over model.item_vectors()"
        )
    return asdict(index.about)


def restored(about: Mapping[str, Any], model: Model, codes: Path | None) -> Index:
    """The index that ``record`` tells of, over the model's item vectors.

    Raises:
        BundleError: the parts do not belong together.
        ModelError: FAISS is needed and not installed.
    """
    try:
        told = About(**about)
    except TypeError as error:
        raise BundleError(f"the bundle's index cannot be read ({error}): upgrade palate or save it again") from None
    exact = _exact(model)
    if told.kind == "exact":
        return exact
    if codes is None:
        raise BundleError(f"the bundle tells of an index ({told.kind}) that it lacks: save it again")
    index = Approximate(exact, read(codes, exact.vectors, told.parameters.get("longest", 0.0)), told)
    if index.codes.kind != told.kind or told.dim != exact.vectors.shape[1]:
        raise BundleError(
            f"{codes.name} holds {len(index.codes):,} items ({index.codes.kind}) but the model has {len(exact):,} of "
            f"width {exact.vectors.shape[1]}: save the bundle again"
        )
    return index


def _exact(model: Model) -> Exact:
    if not isinstance(model, Vectors):
        raise BundleError(f"{type(model).__name__} has no item vectors to search: save it without an index")
    with torch.inference_mode():
        return Exact.of(model.item_vectors())
