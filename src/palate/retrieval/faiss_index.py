"""Codes: compressed vectors in a FAISS index that nominates candidates; the only file that imports FAISS.

    ivf    k-means cells by Euclidean distance (Jégou et al. 2011), and v - center in 4 bits a coordinate, which FAISS
           looks up in registers (André et al. 2015): memory is what a search waits for
    hnsw   a navigable small-world graph (Malkov & Yashunin 2018) over v' = [v ; sqrt(L^2 - |v|^2)], q' = [q ; 0], in
           8 bits a coordinate

Scores are not taken from codes: whoever asks computes those from the vectors, so that an approximate list differs from
the exact one by missing items alone. Cells are by distance, not by direction, because the lengths of item vectors carry
popularity. Sixteen levels cannot serve everybody: they span what the best items of sampled queries need, for those lie
at the edge of their cells, where levels that suit the average item would cut them short and lose them.

In the graph L is the largest length and a little more, so |q' - v'|^2 = |q|^2 + L^2 - 2 q . v (Bachrach et al. 2014):
the nearest is the best, and links by distance reach everything, which links by dot product do not.

FAISS runs on one thread here, whatever the process is set to, and the setting is put back: a server has a thread per
request, and two thread pools on the same cores wait for each other.

Shape legend: B queries, D width, I items, N new items, A answers, F nominated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from palate.errors import BundleError, ModelError
from palate.retrieval.cells import Cells

__all__ = ["EFFORT", "Codes", "hnsw", "ivf", "read"]

EFFORT = {"ivf": "nprobe", "hnsw": "efSearch"}
TRAINED = 200_000  # rows that ranges, at most, are learned from
LEVELS = 16
CUT = 0.0005  # of the answers' coordinates lie beyond either end of the levels
POINTS_PER_CELL = 48
ROUNDS = 6
MOST_IN_GRAPH = 4096
HEADROOM = 1.1  # beyond the longest vector, for new items that are a little longer


@dataclass(frozen=True, eq=False)
class Codes:
    """A FAISS index over the rows 0 to I - 1; it never changes.

    Args:
        index: of one of the two kinds.
        longest: L of the graph.
        cells: of ``ivf``.
    """

    index: Any
    longest: float = 0.0
    cells: Cells | None = None

    def __len__(self) -> int:
        return int(self.index.ntotal)

    @property
    def kind(self) -> str:
        """ "ivf" or "hnsw"."""
        return "hnsw" if self.cells is None else "ivf"

    @property
    def most(self) -> int:
        """The effort at which every cell is looked at, or beyond which a graph is slower than exact search."""
        return min(len(self), MOST_IN_GRAPH) if self.kind == "hnsw" else int(self.index.nlist)

    def nominate(self, query_BD: Tensor, size: int, effort: int, allowed_I: Tensor | None = None) -> NDArray[np.int64]:
        """Rows (B, F) of about the best ``size`` items, best first, -1 in empty places; effort: nprobe or efSearch."""
        query = query_BD.cpu().numpy()
        with one_thread() as faiss:
            selector, bits = None, None
            if allowed_I is not None:
                bits = np.packbits(allowed_I.cpu().numpy(), bitorder="little")
                selector = faiss.IDSelectorBitmap(bits)
            if self.cells is not None:
                return self._of_cells(faiss, query, size, min(effort, self.most), selector)
            wish = faiss.SearchParametersHNSW(efSearch=max(effort, size), sel=selector)
            found: NDArray[np.int64] = self.index.search(_lengthened(query, None), size, params=wish)[1]
        return found

    def _of_cells(
        self, faiss: Any, query: NDArray[np.float32], size: int, probes: int, selector: Any
    ) -> NDArray[np.int64]:
        """``nominate`` from the most promising cells."""
        assert self.cells is not None
        cell, score = self.cells.best(query, probes)
        wish = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
        found, value = np.empty((len(query), size), np.int64), np.empty((len(query), size), np.float32)
        arrays = (faiss.swig_ptr(array) for array in (cell, score, value, found))
        # FAISS's wrapper in Python of this call takes no parameters, and those of the index must not change.
        self.index.search_preassigned_c(len(query), faiss.swig_ptr(query), size, *arrays, False, wish)
        return found

    def add(self, vectors_ND: Tensor) -> Codes:
        """A copy that also holds N new rows."""
        with one_thread() as faiss:
            index = faiss.clone_index(self.index)
            rows = vectors_ND.cpu().numpy()
            index.add(_lengthened(rows, self.longest) if self.kind == "hnsw" else rows)
        return Codes(index, self.longest, self.cells)

    def write(self, path: Path) -> None:
        """Write in FAISS's own format."""
        with one_thread() as faiss:
            faiss.write_index(self.index, str(path))


def ivf(vectors_ID: Tensor, cells: int, answers_A: Tensor, seed: int = 0) -> Codes:
    """The items in ``cells`` cells of k-means; ``answers_A`` are rows that queries like best."""
    rows = vectors_ID.cpu().numpy()
    with one_thread() as faiss:
        dim = rows.shape[1]
        # Fewer points per cell than FAISS likes are fine, and nothing to print about.
        kmeans = faiss.Kmeans(
            dim, cells, niter=ROUNDS, seed=seed, max_points_per_centroid=POINTS_PER_CELL, min_points_per_centroid=1
        )
        kmeans.train(rows)
        centres = faiss.IndexFlatL2(dim)
        centres.add(kmeans.centroids)
        index = faiss.IndexIVFPQFastScan(centres, dim, cells, dim, 4, faiss.METRIC_INNER_PRODUCT)
        _give(index, centres)
        index.by_residual = True
        answers = _sample(rows[np.unique(answers_A.cpu().numpy())], seed)
        rest = answers - kmeans.centroids[centres.search(answers, 1)[1].ravel()]
        low_D, high_D = np.quantile(rest, (CUT, 1 - CUT), axis=0)
        step_D = (high_D - low_D) / LEVELS
        levels_DL = low_D[:, None] + step_D[:, None] * (np.arange(LEVELS) + 0.5)
        faiss.copy_array_to_vector(levels_DL.astype(np.float32).ravel(), index.pq.centroids)
        index.is_trained = True
        index.add(rows)
        return Codes(index, cells=Cells.of(faiss, index, rows))


def hnsw(vectors_ID: Tensor, links: int, construction: int, seed: int = 0) -> Codes:
    """The items in a graph of ``links`` links a node (twice as many at the bottom)."""
    longest = HEADROOM * max(float(vectors_ID.norm(dim=1).max()), 1e-6)
    rows = _lengthened(vectors_ID.cpu().numpy(), longest)
    with one_thread() as faiss:
        index = faiss.IndexHNSWSQ(rows.shape[1], faiss.ScalarQuantizer.QT_8bit, links, faiss.METRIC_L2)
        index.hnsw.efConstruction = construction
        index.train(_sample(rows, seed))
        index.add(rows)
    return Codes(index, longest)


def read(path: Path, vectors_ID: Tensor, longest: float) -> Codes:
    """Codes of these vectors that ``Codes.write`` wrote, now or when ``ivf`` still had 8 bits.

    Raises:
        BundleError: it is no such file.
        ModelError: FAISS is not installed.
    """
    items, dim = vectors_ID.shape
    with one_thread() as faiss:
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            what = str(error).splitlines()[0]
            raise BundleError(f"{path.name} is no index ({what}): save the bundle again") from None
        graph = isinstance(index, faiss.IndexHNSWSQ)
        if not graph and not isinstance(index, faiss.IndexIVFPQFastScan | faiss.IndexIVFScalarQuantizer):
            found = type(index).__name__
            raise BundleError(f"{path.name} holds a {found}, which no save writes: save the bundle again")
        if index.ntotal != items or index.d != (_width(dim) if graph else dim):
            raise BundleError(
                f"{path.name} holds {index.ntotal:,} items in width {index.d} but the model has {items:,} of width "
                f"{dim}: save the bundle again"
            )
        if graph:
            return Codes(index, longest)
        if isinstance(index, faiss.IndexIVFScalarQuantizer):
            # It was searched by the products with the centres; new items belong to the nearest.
            centres = faiss.IndexFlatL2(dim)
            centres.add(index.quantizer.reconstruct_n(0, index.nlist))
            _give(index, centres)
        return Codes(index, cells=Cells.of(faiss, index, vectors_ID.cpu().numpy()))


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


def _give(index: Any, centres: Any) -> None:
    """Let the index own its centres; not every version of FAISS keeps those alive that came from Python."""
    index.quantizer, index.own_fields = centres, True
    centres.this.disown()


def _width(dim: int) -> int:
    """Of the rows of a graph: one coordinate more, rounded up to what FAISS is fast at."""
    return -(-(dim + 1) // 8) * 8


def _lengthened(rows: NDArray[np.float32], longest: float | None) -> NDArray[np.float32]:
    """Rows of the graph, or queries where ``longest`` is None."""
    dim = rows.shape[1]
    wide = np.zeros((len(rows), _width(dim)), np.float32)
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
