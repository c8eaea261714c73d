"""Sparse matrices in and out: the same cells, with the ids that were given."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import palate
from palate.errors import DataError

CELLS = np.array([[0, 3, 0, 1], [2, 0, 0, 0], [0, 0, 0, 5]], dtype=np.float32)


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csr_matrix, sparse.coo_array, sparse.csc_matrix])
def test_a_matrix_comes_back_without_its_empty_rows_and_columns(kind):
    rows = palate.from_csr(kind(CELLS))
    assert palate.to_csr(rows).toarray().tolist() == CELLS[:, [0, 1, 3]].tolist()
    assert rows.items.ids.to_list() == [0, 1, 3]
    assert not rows.explicit


def test_ids_of_the_matrix_are_kept():
    rows = palate.from_csr(sparse.csr_array(CELLS), ["ann", "bob", "cem"], ["tea", "jam", "rice", "milk"])
    recommender = palate.Recommender.of(palate.Popularity().fit(rows), rows)
    assert set(recommender.recommend("bob", k=3)["item_id"]) == {"jam", "milk"}


def test_ratings_are_read_as_such():
    rows = palate.from_csr(sparse.csr_array(CELLS), explicit=True)
    assert rows.explicit
    assert rows.interactions.weight.max() == 5


def test_repeated_pairs_are_added_in_the_matrix():
    rows = palate.from_csr(sparse.coo_array(([1.0, 2.0, 4.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2)), duplicates="keep")
    assert palate.to_csr(rows).toarray().tolist() == [[0, 3], [4, 0]]


def test_what_is_no_matrix_or_has_other_ids_is_refused():
    with pytest.raises(DataError, match=r"a ndarray is no sparse matrix: pass scipy\.sparse\.csr_array"):
        palate.from_csr(CELLS)
    with pytest.raises(DataError, match="2 ids of user_id for a matrix of 3"):
        palate.from_csr(sparse.csr_array(CELLS), ["ann", "bob"])
