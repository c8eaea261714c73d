"""Codes: compressed vectors in a FAISS index that nominates candidates; the only file that imports FAISS.

    ivf    k-means cells by Euclidean distance, searched in order of q . centroid (Jégou et al. 2011)
    hnsw   a navigable small-world graph (Malkov & Yashunin 2018) over v' = [v ; sqrt(L^2 - |v|^2)], q' = [q ; 0]

Both keep 8 bits a coordinate. Scores are not taken from them: whoever asks computes
those from the vectors, so that an approximate list differs from the exact one by missing items alone. Cells are by
distance, not by direction, because the lengths of item vectors carry popularity. In the graph L is the largest length
and a little more, so |q' - v'|^2 = |q|^2 + L^2 - 2 q . v (Bachrach et al. 2014): the nearest is the best, and links by
distance reach everything, which links by dot product do not.

FAISS runs on one thread here, whatever the process is set to, and the setting is put back: a server has a thread per
request, and two thread pools on the same cores wait for each other.

Shape legend: B queries, D width, I items, N new items, F nominated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.errors import BundleError, ModelError

__all__ = ["EFFORT", "Codes", "hnsw", "ivf", "read"]

EFFORT = {"ivf": "nprobe", "hnsw": "efSearch"}
TRAINED = 200_000  # rows that the graph's 8-bit ranges, at most, are learned from, and that are put in at once
POINTS_PER_CELL = 64
ROUNDS = 8
MOST_IN_GRAPH = 4096
HEADROOM = 1.1  # beyond the longest vector, and the largest coordinate, for new items that are a little longer


@dataclass(frozen=True, eq=False)
class Codes:
    """A FAISS index over the rows 0 to I - 1; it never changes.

    Args:
        index: of one of the two kinds.
        longest: L of the graph.
    """

    index: Any
    longest: float = 0.0

    def __len__(self) -> int:
        return int(self.index.ntotal)

    @property
    def kind(self) -> str:
        """ "ivf" or "hnsw"."""
        return "hnsw" if hasattr(self.index, "hnsw") else "ivf"

    @property
    def most(self) -> int:
        """The effort at which every cell is looked at, or beyond which a graph is slower than exact search."""
        return min(len(self), MOST_IN_GRAPH) if self.kind == "hnsw" else int(self.index.nlist)

    def nominate(self, query_BD: Tensor, size: int, effort: int, allowed_I: Tensor | None = None) -> Tensor:
        """Rows (B, F) int64 of about the best ``size`` items, -1 in empty places; effort is nprobe or efSearch."""
        with one_thread() as faiss:
            selector, bits = None, None
            if allowed_I is not None:
                bits = np.packbits(allowed_I.cpu().numpy(), bitorder="little")
                selector = faiss.IDSelectorBitmap(bits)
            if self.kind == "ivf":
                wish = faiss.SearchParametersIVF(nprobe=min(effort, self.most), sel=selector)
            else:
                wish = faiss.SearchParametersHNSW(efSearch=max(effort, size), sel=selector)
            query = query_BD.cpu().numpy()
            asked = _lengthened(query, None) if self.kind == "hnsw" else query
            _, items_BF = self.index.search(asked, size, params=wish)
        return torch.from_numpy(items_BF)

    def add(self, vectors_ND: Tensor) -> Codes:
        """A copy that also holds N new rows."""
        with one_thread() as faiss:
            index = faiss.clone_index(self.index)
            rows = vectors_ND.cpu().numpy()
            _put(faiss, index, _lengthened(rows, self.longest) if self.kind == "hnsw" else rows)
        return Codes(index, self.longest)

    def write(self, path: Path) -> None:
        """Write in FAISS's own format."""
        with one_thread() as faiss:
            faiss.write_index(self.index, str(path))


def ivf(vectors_ID: Tensor, cells: int, seed: int = 0) -> Codes:
    """The items in ``cells`` cells of k-means."""
    rows = vectors_ID.cpu().numpy()
    with one_thread() as faiss:
        dim = rows.shape[1]
        # Fewer points per cell than FAISS likes are fine, and nothing to print about.
        kmeans = faiss.Kmeans(
            dim, cells, niter=ROUNDS, seed=seed, max_points_per_centroid=POINTS_PER_CELL, min_points_per_centroid=1
        )
        kmeans.train(rows)
        centres = faiss.IndexFlatIP(dim)
        centres.add(kmeans.centroids)
        # One range for all coordinates is the fastest to read; it holds every vector, since a cut one would be missed.
        eight_bits = faiss.ScalarQuantizer.QT_8bit_uniform
        index = faiss.IndexIVFScalarQuantizer(centres, dim, cells, eight_bits, faiss.METRIC_INNER_PRODUCT, False)
        ends = HEADROOM * np.array([rows.min(), rows.max()], np.float32)
        index.train(np.repeat(ends[:, None], dim, axis=1))  # the range: the cells are there already
        _put(faiss, index, rows)
    return Codes(index)


def hnsw(vectors_ID: Tensor, links: int, construction: int, seed: int = 0) -> Codes:
    """The items in a graph of ``links`` links a node (twice as many at the bottom)."""
    longest = HEADROOM * max(float(vectors_ID.norm(dim=1).max()), 1e-6)
    rows = _lengthened(vectors_ID.cpu().numpy(), longest)
    with one_thread() as faiss:
        index = faiss.IndexHNSWSQ(rows.shape[1], faiss.ScalarQuantizer.QT_8bit, links, faiss.METRIC_L2)
        index.hnsw.efConstruction = construction
        index.train(_sample(rows, seed))
        _put(faiss, index, rows)
    return Codes(index, longest)


def read(path: Path, longest: float) -> Codes:
    """Codes that ``Codes.write`` wrote.

    Raises:
        BundleError: it is no such file.
        ModelError: FAISS is not installed.
    """
    with one_thread() as faiss:
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            what = str(error).splitlines()[0]
            raise BundleError(f"{path.name} is no index ({what}): save the bundle again") from None
        if not isinstance(index, faiss.IndexIVFScalarQuantizer | faiss.IndexHNSWSQ):
            found = type(index).__name__
            raise BundleError(f"{path.name} holds a {found}, which no save writes: save the bundle again")
    return Codes(index, longest)


@contextmanager
def one_thread() -> Iterator[Any]:
    """FAISS, on one thread while inside.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise ModelError("approximate search needs FAISS: pip install 'palate[index]'") from None
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield faiss
    finally:
        faiss.omp_set_num_threads(before)


def _put(faiss: Any, index: Any, rows: NDArray[np.float32]) -> None:
    """Add rows behind the last; into the cells that are nearest by distance, where there are cells."""
    if not hasattr(index, "nlist"):
        index.add(rows)
        return
    nearest = faiss.IndexFlatL2(index.d)
    nearest.add(index.quantizer.reconstruct_n(0, index.nlist))
    for start in range(0, len(rows), TRAINED):
        part = np.ascontiguousarray(rows[start : start + TRAINED])
        cell = np.ascontiguousarray(nearest.search(part, 1)[1].ravel())
        index.add_core(len(part), faiss.swig_ptr(part), None, faiss.swig_ptr(cell))


def _lengthened(rows: NDArray[np.float32], longest: float | None) -> NDArray[np.float32]:
    """Rows of the graph, or queries where ``longest`` is None; zeros round the width up to what FAISS is fast at."""
    dim = rows.shape[1]
    wide = np.zeros((len(rows), -(-(dim + 1) // 8) * 8), np.float32)
    wide[:, :dim] = rows
    if longest is not None:
        # A new item may be longer than L. It stands in the graph as if it were as long; it is scored by its vector.
        length = np.linalg.norm(rows, axis=1)
        wide[:, :dim] *= np.minimum(1.0, longest / np.maximum(length, longest))[:, None]
        wide[:, dim] = np.sqrt(np.maximum(longest**2 - length**2, 0.0))
    return wide


def _sample(rows: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    if len(rows) <= TRAINED:
        return rows
    return rows[np.sort(np.random.default_rng(seed).choice(len(rows), TRAINED, replace=False))]
