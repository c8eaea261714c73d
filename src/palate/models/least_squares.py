"""The numerical part of ``ials``: rows of least squares problems with a common Gram matrix, and where to start from.

With one side fixed and turned so that its Gram matrix is diagonal (scores do not change), the system of a row with n
entries is diagonal plus rank n. It is solved exactly as D x D, or as n x n where n < D; or approximately, in blocks of
b coordinates by Gauss-Seidel (Rendle, Krichene, Zhang & Koren 2021, "iALS++: Speeding up Matrix Factorization with
Subspace Optimization"): n D b operations instead of n D^2.

Shape legend: R rows of the side being solved, N columns of the other side, D width, n entries of one row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.linalg import get_blas_funcs, get_lapack_funcs

from palate.parallel import one_blas_thread

Floats = NDArray[np.floating[Any]]

POWER_STEPS = 4  # of ``leading_vectors``: more do not start training any lower
RANK = 1e-6  # squared length of a direction, over that of the longest, below which float32 holds its rounding
SHORT = 16  # rows with at most so many entries are solved together: calls from Python take most of their time
SHORT_CELLS = 200_000  # numbers gathered at once for them, which fit in cache


class Rows(NamedTuple):
    """Observed entries of one side in compressed rows.

    offsets (R + 1,); columns, targets (entries,); weights (entries,) or None for ones; ridge (R,), the l_u of each row.
    """

    offsets: NDArray[np.int64]
    columns: NDArray[np.int32]
    targets: Floats
    weights: Floats | None
    ridge: Floats


@one_blas_thread()
def solve_rows(
    other_ND: Floats,
    penalty_D: Floats,
    rows: Rows,
    start_RD: Floats | None = None,
    block: int | None = None,
    prior_RD: Floats | None = None,
) -> Floats:
    """Vectors (R, D) that minimize the objective with the other side fixed, in the precision of ``rows.ridge``.

    A row without entries gets zeros, or what its prior leaves. Short rows are solved in batches of equal length. The
    loop over the others is one of Python because each step is four BLAS or LAPACK calls on arrays that fit in cache:
    from 20 entries on, batches take as long, or twice as long.

    Args:
        other_ND: vectors of the other side, turned so that their Gram matrix is diagonal.
        penalty_D: that diagonal times the unobserved weight.
        rows: the observed entries.
        start_RD: current vectors, needed for blocks.
        block: solve rows with more entries than this in blocks of so many coordinates, one sweep from ``start_RD``.
        prior_RD: vectors that the ridge pulls to. Default: zeros.
    """
    scale_RD = _scale(penalty_D, rows)
    # With y in the units below, the penalty is |y - y0|^2 + a constant: a ridge around y0 = scale l prior.
    solved_RD = np.zeros_like(scale_RD) if prior_RD is None else scale_RD * rows.ridge[:, None] * prior_RD
    solve = _Ridge(scale_RD.dtype)
    root = None if rows.weights is None else np.sqrt(rows.weights)
    targets = rows.targets if root is None else rows.targets * root
    lengths = np.diff(rows.offsets)
    for length in range(1, SHORT + 1):
        same, step = np.flatnonzero(lengths == length), max(1, SHORT_CELLS // (length * len(penalty_D)))
        for first in range(0, len(same), step):
            some_B = same[first : first + step]
            entry_Bn = rows.offsets[some_B, None] + np.arange(length)
            x_BnD = other_ND[rows.columns[entry_Bn]] * scale_RD[some_B, None]
            if root is not None:
                x_BnD *= root[entry_Bn][..., None]
            wanted_Bn1 = targets[entry_Bn][..., None] - x_BnD @ solved_RD[some_B][..., None]
            gram_Bnn = x_BnD @ x_BnD.mT + np.eye(length, dtype=x_BnD.dtype)
            solved_RD[some_B] += (x_BnD.mT @ np.linalg.solve(gram_Bnn, wanted_Bn1))[..., 0]
    for row in np.flatnonzero(lengths > SHORT):
        part = slice(rows.offsets[row], rows.offsets[row + 1])
        # In units in which the penalty is the identity, and every entry weighs 1.
        x_nD = other_ND.take(rows.columns[part], axis=0) * scale_RD[row]
        if root is not None:
            x_nD *= root[part, None]
        wanted = targets[part] if prior_RD is None else targets[part] - x_nD @ solved_RD[row]
        if block is None or start_RD is None or len(x_nD) <= block:
            solved_RD[row] += solve(x_nD, wanted)
        else:
            solved_RD[row] += solve.blocks(x_nD, wanted, start_RD[row] / scale_RD[row] - solved_RD[row], block)
    solved_RD *= scale_RD
    return solved_RD


@one_blas_thread()
def solved_parts(other_ND: Floats, penalty_D: Floats, rows: Rows, candidates_RC: NDArray[np.int64]) -> Floats:
    """Parts by entry, (entries, C), of the scores other[candidates] . solve_rows(...) of each row.

    The solution is A^-1 sum_j w_j t_j y_j, so entry j adds w_j t_j y_i . A^-1 y_j to column i (Hu, Koren & Volinsky
    2008, "Collaborative Filtering for Implicit Feedback Datasets", sec. 5).
    """
    scale_RD = _scale(penalty_D, rows)
    part = np.zeros((len(rows.columns), candidates_RC.shape[1]), scale_RD.dtype)
    weights = np.ones_like(rows.targets) if rows.weights is None else rows.weights
    for row in np.flatnonzero(np.diff(rows.offsets)):
        entries = slice(rows.offsets[row], rows.offsets[row + 1])
        weight_n1 = weights[entries, None]
        x_nD, candidates_CD = (
            other_ND[columns] * scale_RD[row] for columns in (rows.columns[entries], candidates_RC[row])
        )
        system_DD = x_nD.T @ (weight_n1 * x_nD)
        system_DD[np.diag_indices_from(system_DD)] += 1
        solved_DC = linalg.solve(system_DD, candidates_CD.T, assume_a="pos")
        part[entries] = weight_n1 * rows.targets[entries, None] * (x_nD @ solved_DC)
    return part


def _scale(penalty_D: Floats, rows: Rows) -> Floats:
    """Units of each row, (R, D), in which its penalty is the identity."""
    # A row without entries has ridge 0 where a = 0: the floor keeps its unit finite.
    scale_RD: Floats = 1 / np.sqrt(penalty_D + np.maximum(rows.ridge, np.finfo(np.float32).tiny)[:, None])
    return scale_RD


class _Ridge:
    """Ridge regression with unit penalty, min_y |x y - t|^2 + |y|^2, for one precision."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.syrk = get_blas_funcs("syrk", dtype=dtype)
        self.posv = get_lapack_funcs("posv", dtype=dtype)

    def __call__(self, x_nD: Floats, target_n: Floats) -> Floats:
        """y = (x'x + 1)^-1 x't, or the same as x'(xx' + 1)^-1 t where that system is the smaller one."""
        dual = len(x_nD) < x_nD.shape[1]
        gram = self.syrk(1.0, x_nD.T, trans=dual)
        gram.T.reshape(-1)[:: len(gram) + 1] += 1  # the diagonal, in place: np.fill_diagonal would overwrite it
        y: Floats = self.posv(gram, target_n if dual else x_nD.T @ target_n, overwrite_a=True)[1]
        return x_nD.T @ y if dual else y

    def blocks(self, x_nD: Floats, target_n: Floats, y_D: Floats, width: int) -> Floats:
        """One Gauss-Seidel sweep: each block of coordinates solved exactly with the others fixed."""
        residual_n = target_n - x_nD @ y_D
        for first in range(0, len(y_D), width):
            block = slice(first, first + width)
            x_nb = np.ascontiguousarray(x_nD[:, block])
            residual_n += x_nb @ y_D[block]
            y_D[block] = self(x_nb, residual_n)
            residual_n -= x_nb @ y_D[block]
        return y_D


def diagonal(fixed_ND: Floats, *moved: Floats) -> list[Any]:
    """[the fixed side turned so that its Gram matrix is diagonal, that diagonal (largest first), the others turned]."""
    # In double, for the same reason as below: a Gram matrix squares the condition of the vectors.
    _, basis = np.linalg.eigh((fixed_ND.T @ fixed_ND).astype(np.float64))
    basis = basis[:, ::-1].astype(np.float32)
    fixed_ND = fixed_ND @ basis
    return [fixed_ND, np.einsum("nd,nd->d", fixed_ND, fixed_ND), *(vectors @ basis for vectors in moved)]


@one_blas_thread()
def leading_vectors(by_user: Rows, by_item: Rows, start_ID: Floats) -> Floats:
    """Right singular vectors of the matrix weight x target, each times the root of its singular value, (I, D).

    By subspace iteration from ``start_ID`` (Halko, Martinsson & Tropp 2011, "Finding Structure with Randomness",
    algorithm 4.4). Columns beyond the size of the matrix are zero.
    """
    users, items = len(by_user.ridge), len(by_item.ridge)
    matrix_UI, matrix_IU = (
        sparse.csr_array((s.targets if s.weights is None else s.targets * s.weights, s.columns, s.offsets), shape=shape)
        for s, shape in ((by_user, (users, items)), (by_item, (items, users)))
    )
    basis = start_ID[:, : min(users, items)]
    for _ in range(POWER_STEPS):
        for matrix in (matrix_UI, matrix_IU):
            # Orthonormal by the Gram matrix, a fifth of the time of QR; after each product, so that float32 is enough.
            basis, squares_D = diagonal(matrix @ basis)
            basis *= np.where(squares_D > RANK * squares_D[0], squares_D, np.inf) ** np.float32(-0.5)
    image = matrix_UI @ basis
    # In double: squares of singular values need twice the digits.
    squares, turn = np.linalg.eigh((image.T @ image).astype(np.float64))
    leading_ID = np.zeros_like(start_ID)
    leading_ID[:, : basis.shape[1]] = basis @ (turn * np.maximum(squares, 0) ** 0.25).astype(np.float32)
    return leading_ID
