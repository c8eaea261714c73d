"""The number of cells of an IVF index: the power of two next to the root of the number of items."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from palate.retrieval import build_index

pytest.importorskip("faiss")


@pytest.mark.parametrize(("items", "cells"), [(500, 16), (1_000, 32), (3_000, 64)])
def test_cells_grow_with_the_root_of_the_items(items: int, cells: int) -> None:
    vectors = torch.from_numpy(np.random.default_rng(0).normal(size=(items, 8)).astype(np.float32))
    index = build_index(vectors, "ivf", k=5)
    assert index.info.parameters["nlist"] == cells
