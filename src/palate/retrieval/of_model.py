"""The index of a model: over its item vectors, tuned on the vectors of its users."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from palate.base import Model, Query, Vectors
from palate.data.dataset import History
from palate.errors import ModelError
from palate.retrieval.base import Index
from palate.retrieval.build import QUERIES, Kind, build

__all__ = ["index_of"]

CHECKED = 16  # users and items whose scores must be the dot products of their vectors


def index_of(
    model: Model, seen: History, kind: Kind = "auto", *, recall: float = 0.98, k: int = 100, seed: int = 0
) -> Index:
    """An index that finds what ``model`` scores highest.

    Args:
        model: whose score is the dot product of its vectors.
        seen: the training history, one per user row; vectors of a sample of these users tune and measure.
        kind, recall, k, seed: see ``build``.

    Raises:
        ModelError: the model has no vectors, or scores otherwise; or as ``build``.
    """
    name = type(model).__name__
    if not isinstance(model, Vectors):
        raise ModelError(f"{name} has no item vectors to search: recommend without an index")
    cast(nn.Module, model).eval()
    users = np.random.default_rng(seed).permutation(np.flatnonzero(seen.counts > 0))[:QUERIES]
    with torch.inference_mode():
        item_ID = model.item_vectors()
        query = Query.of(users, seen.select(users)).to(item_ID.device)
        query_QD = model.query_vectors(query)
        _check(model, Query.of(users[:CHECKED], seen.select(users[:CHECKED])).to(item_ID.device), query_QD, item_ID)
    # Clones: tensors of inference mode cannot be used outside of it.
    return build(item_ID.clone(), kind, queries_QD=query_QD.clone(), recall=recall, k=k, seed=seed)


def _check(model: Model, query: Query, query_QD: Tensor, item_ID: Tensor) -> None:
    """Raises ModelError if scores are no dot products of the vectors: some models have those for likeness only."""
    item_C = torch.linspace(0, len(item_ID) - 1, CHECKED, device=item_ID.device).round().to(torch.int64)
    score_BC = model.score(query, item_C.expand(len(query), -1))
    if query_QD.shape[1] == item_ID.shape[1]:
        dot_BC = query_QD[: len(query)] @ item_ID[item_C].T
        scale = float(score_BC.abs().max()) + 1e-6
        if torch.allclose(score_BC / scale, dot_BC / scale, rtol=1e-3, atol=1e-3):
            return
    raise ModelError(
        f"scores of {type(model).__name__} are no dot products of its vectors, so no index can search them: "
        "recommend without an index"
    )
