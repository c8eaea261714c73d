"""Compressed vectors in a FAISS index that finds candidates; the only file that imports FAISS.

    ivf    k-means cells by Euclidean distance (Jégou et al. 2011), and v - center in 4 bits a coordinate, which FAISS
           looks up in registers (André et al. 2015): memory is what a search waits for
    hnsw   a navigable small-world graph (Malkov & Yashunin 2018) over v' = [v ; sqrt(L^2 - |v|^2)], q' = [q ; 0], in
           8 bits a coordinate

Scores are computed from the vectors, never from codes, so an approximate list differs from the exact one by missing
items alone. Cells are by distance, not by direction, because the lengths of item vectors carry popularity. Sixteen
levels cannot serve every item: they span the best items of sampled queries, because those lie at the edge of their
cells, where levels that suit the average item would cut them short and lose them.

Cells are looked at in the order of

    promise(q, c) = q . center_c + 2 |q| spread_c

``spread`` is the root mean square difference between the items of a cell and its center, over all coordinates. A wide
cell may hold items that score far above its center, and is looked at before a narrow one of the same center (the
optimism of Bruch et al. 2024). Where spreads differ, up to a third fewer items are looked at for the same recall.

In the graph L is the largest length and a little more, so |q' - v'|^2 = |q|^2 + L^2 - 2 q . v (Bachrach et al. 2014):
the nearest is the best, and links by distance reach every item, which links by dot product do not.

FAISS runs on one thread here, whatever the process is set to, and the setting is put back: a server has a thread per
request, and two thread pools on the same cores wait for each other.

Shape legend: B queries, D width, I items, N new items, A answers, F candidates, C cells, P cells that are looked at,
S items of a cell.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from palate.errors import BundleError, ModelError

EFFORT = {"ivf": "nprobe", "hnsw": "efSearch"}
TRAINING_ROWS = 200_000  # at most, to learn the range of codes from
LEVELS = 16
HEAD, KINDS = (
    struct.Struct("<4siq"),
    (b"IwPf", b"IwSq", b"IwSQ", b"IHNs", b"IHNS"),
)  # kind, width, items: how files begin
CUT = 0.0005  # share of the answers' coordinates beyond either end of the levels
POINTS_PER_CELL = 48
KMEANS_ROUNDS = 6
MAX_EF_SEARCH = 4096  # beyond it a graph is slower than exact search
HEADROOM = 1.1  # beyond the longest vector, for new items that are a little longer
OPTIMISM = 2.0
SPREAD_SAMPLE = 64  # items of a cell to take its spread from


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of an index and the order to look at them in.

    Args:
        center_DC: one column per cell, so that a query's products with all of them are one pass over memory.
        reach_C: the score above that of the center that a query of length 1 may find.
    """

    center_DC: NDArray[np.float32]
    reach_C: NDArray[np.float32]

    @classmethod
    def of(cls, faiss: Any, index: Any, rows: NDArray[np.float32]) -> Cells:
        """The cells of a FAISS index over ``rows``, from the first items of each."""
        center_CD = index.quantizer.reconstruct_n(0, index.nlist)
        spread_C = np.zeros(index.nlist, np.float32)
        for cell, center_D in enumerate(center_CD):
            size = min(SPREAD_SAMPLE, index.invlists.list_size(cell))
            if size:
                items_S = faiss.rev_swig_ptr(index.invlists.get_ids(cell), size)
                spread_C[cell] = np.sqrt(np.square(rows[items_S] - center_D).mean())
        return cls(np.ascontiguousarray(center_CD.T), np.float32(OPTIMISM) * spread_C)

    def best(self, query_BD: NDArray[np.float32], probes: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(the most promising cells (B, P) in any order, q . center of each (B, P))."""
        score_BC = query_BD @ self.center_DC
        length_B = np.sqrt(np.einsum("bd,bd->b", query_BD, query_BD))
        promise_BC = score_BC + length_B[:, None] * self.reach_C
        behind = promise_BC.shape[1] - probes
        chosen_BP = promise_BC.argpartition(behind, axis=1)[:, behind:]
        return np.ascontiguousarray(chosen_BP), score_BC[np.arange(len(query_BD))[:, None], chosen_BP]


@dataclass(frozen=True, eq=False)
class Codes:
    """A FAISS index over the rows 0 to I - 1; it never changes.

    Args:
        index: of one of the two kinds.
        max_norm: L of the graph.
        cells: of ``ivf``.
    """

    index: Any
    max_norm: float = 0.0
    cells: Cells | None = None

    def __len__(self) -> int:
        return int(self.index.ntotal)

    @property
    def kind(self) -> str:
        """ "ivf" or "hnsw"."""
        return "hnsw" if self.cells is None else "ivf"

    @property
    def most(self) -> int:
        """The largest effort: every cell, or efSearch beyond which a graph is slower than exact search."""
        return min(len(self), MAX_EF_SEARCH) if self.kind == "hnsw" else int(self.index.nlist)

    def candidates(
        self, query_BD: Tensor, size: int, effort: int, allowed_I: Tensor | None = None
    ) -> NDArray[np.int64]:
        """Rows (B, F) of about the best ``size`` items, best first, -1 in empty places; effort: nprobe or efSearch."""
        query = query_BD.cpu().numpy()
        with one_thread() as faiss:
            selector, bits = None, None  # FAISS does not keep the bits alive: this frame does
            if allowed_I is not None:
                bits = np.packbits(allowed_I.cpu().numpy(), bitorder="little")
                selector = faiss.IDSelectorBitmap(bits)
            if self.cells is None:
                options = faiss.SearchParametersHNSW(efSearch=max(effort, size), sel=selector)
                graph: NDArray[np.int64] = self.index.search(_lengthened(query, None), size, params=options)[1]
                return graph
            probes = min(effort, self.most)
            cell, score = self.cells.best(query, probes)
            options = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
            found, value = np.empty((len(query), size), np.int64), np.empty((len(query), size), np.float32)
            arrays = (faiss.swig_ptr(array) for array in (cell, score, value, found))
            # FAISS's Python wrapper of this call takes no parameters, and those of the index must not change.
            self.index.search_preassigned_c(len(query), faiss.swig_ptr(query), size, *arrays, False, options)
            return found

    def add(self, vectors_ND: Tensor) -> Codes:
        """A copy that also holds N new rows."""
        with one_thread() as faiss:
            index = faiss.clone_index(self.index)
            rows = vectors_ND.cpu().numpy()
            index.add(_lengthened(rows, self.max_norm) if self.kind == "hnsw" else rows)
        return Codes(index, self.max_norm, self.cells)

    def write(self, path: Path) -> None:
        """Write in FAISS's own format."""
        with one_thread() as faiss:
            faiss.write_index(self.index, str(path))


def ivf(vectors_ID: Tensor, cells: int, answers_A: Tensor, seed: int = 0) -> Codes:
    """The items in ``cells`` cells of k-means; ``answers_A`` are rows that queries like best."""
    rows = vectors_ID.cpu().numpy()
    with one_thread() as faiss:
        dim = rows.shape[1]
        # Fewer points per cell than FAISS recommends are fine here; without the option it prints a warning.
        kmeans = faiss.Kmeans(
            dim,
            cells,
            niter=KMEANS_ROUNDS,
            seed=seed,
            max_points_per_centroid=POINTS_PER_CELL,
            min_points_per_centroid=1,
        )
        kmeans.train(rows)
        centers = faiss.IndexFlatL2(dim)
        centers.add(kmeans.centroids)
        index = faiss.IndexIVFPQFastScan(centers, dim, cells, dim, 4, faiss.METRIC_INNER_PRODUCT)
        _give(index, centers)
        index.by_residual = True
        answers = _sample(rows[np.unique(answers_A.cpu().numpy())], seed)
        rest = answers - kmeans.centroids[centers.search(answers, 1)[1].ravel()]
        low_D, high_D = np.quantile(rest, (CUT, 1 - CUT), axis=0)
        step_D = (high_D - low_D) / LEVELS
        levels_DL = low_D[:, None] + step_D[:, None] * (np.arange(LEVELS) + 0.5)
        faiss.copy_array_to_vector(levels_DL.astype(np.float32).ravel(), index.pq.centroids)
        index.is_trained = True
        index.add(rows)
        return Codes(index, cells=Cells.of(faiss, index, rows))


def hnsw(vectors_ID: Tensor, links: int, ef_construction: int, seed: int = 0) -> Codes:
    """The items in a graph of ``links`` links a node (twice as many at the bottom)."""
    max_norm = HEADROOM * max(float(vectors_ID.norm(dim=1).max()), 1e-6)
    rows = _lengthened(vectors_ID.cpu().numpy(), max_norm)
    with one_thread() as faiss:
        index = faiss.IndexHNSWSQ(rows.shape[1], faiss.ScalarQuantizer.QT_8bit, links, faiss.METRIC_L2)
        index.hnsw.efConstruction = ef_construction
        index.train(_sample(rows, seed))
        index.add(rows)
    return Codes(index, max_norm)


def read(path: Path, vectors_ID: Tensor, max_norm: float) -> Codes:
    """Codes of these vectors as written by ``Codes.write``, with 4 bits or, from older versions, 8.

    Raises:
        BundleError: the file is not an index, or not of these vectors.
        ModelError: FAISS is not installed.
    """
    items, dim = vectors_ID.shape
    with path.open("rb") as file:  # FAISS allocates what a file claims
        head = file.read(HEAD.size)
    kind, width, held = HEAD.unpack(head) if len(head) == HEAD.size else (b"", 0, 0)
    if kind not in KINDS or held != items or width not in (dim, _width(dim)):
        raise BundleError(
            f"{path.name} is no index, or holds {held:,} items in width {width} but the model has {items:,} of width "
            f"{dim}: save the bundle again"
        )
    with one_thread() as faiss:
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise BundleError(f"{path.name} is no index ({reason}): save the bundle again") from None
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
            links = faiss.vector_to_array(index.hnsw.neighbors)
            if len(links) and not -1 <= int(links.min()) <= int(links.max()) < items:
                raise BundleError(f"{path.name} links items that do not exist: save the bundle again")
            return Codes(index, max_norm)
        if isinstance(index, faiss.IndexIVFScalarQuantizer):
            # Older versions searched by the products with the centers; new items belong to the nearest center.
            centers = faiss.IndexFlatL2(dim)
            centers.add(index.quantizer.reconstruct_n(0, index.nlist))
            _give(index, centers)
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


def _give(index: Any, centers: Any) -> None:
    """Let the index own its centers; not every version of FAISS keeps objects alive that came from Python."""
    index.quantizer, index.own_fields = centers, True
    centers.this.disown()


def _width(dim: int) -> int:
    """Width of the rows of a graph: one coordinate more, rounded up to a multiple of 8, which FAISS is fast at."""
    return -(-(dim + 1) // 8) * 8


def _lengthened(rows: NDArray[np.float32], max_norm: float | None) -> NDArray[np.float32]:
    """Rows of the graph, or queries where ``max_norm`` is None."""
    dim = rows.shape[1]
    wide = np.zeros((len(rows), _width(dim)), np.float32)
    wide[:, :dim] = rows
    if max_norm is not None:
        # A new item may be longer than L. It stands in the graph as if it were as long; it is scored by its vector.
        length = np.linalg.norm(rows, axis=1)
        wide[:, :dim] *= np.minimum(1.0, max_norm / np.maximum(length, max_norm))[:, None]
        wide[:, dim] = np.sqrt(np.maximum(max_norm**2 - length**2, 0.0))
    return wide


def _sample(rows: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    if len(rows) <= TRAINING_ROWS:
        return rows
    return rows[np.sort(np.random.default_rng(seed).choice(len(rows), TRAINING_ROWS, replace=False))]
