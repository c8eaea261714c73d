"""IdMap, and the binding of a fingerprint to the maps that its rows are numbered by."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.errors import ModelError


def test_the_digest_depends_on_ids_and_order_but_not_on_the_type_of_a_number():
    ids = IdMap(pl.Series("id", ["1", "2", "30"]))
    assert ids.digest == IdMap(pl.Series("id", [1, 2, 30])).digest
    assert len(ids.digest) == 16
    for other in (["2", "1", "30"], ["1", "2"], ["1", "2", "3"], ["1", "2", "30", "4"], []):
        assert IdMap(pl.Series("id", other, dtype=pl.String)).digest != ids.digest


def test_a_fingerprint_is_bound_to_the_ids_of_its_maps():
    one = np.zeros(3, np.int32)
    rows = Interactions(one, one, np.ones(3, np.float32))
    users, items = IdMap.of(["a", "b", "c"]), IdMap.of(["x", "y"])
    trained = Dataset("toy", users, items, rows).fingerprint
    trained.check_same_ids(IdMap.of(["c", "b", "a"]), items)  # sorted: the same map
    for other, differ in (
        (IdMap(pl.Series("id", ["a", "c", "b"])), "3 users and 2 items, this data has 3 users"),
        (IdMap.of(["b", "c"]), "3 users and 2 items, this data has 2 users"),
        (IdMap.of(["a", "b", "d"]), "ids of the users or their order differ"),
    ):
        with pytest.raises(ModelError, match=differ):
            trained.check_same_ids(other, items)
    with pytest.raises(ModelError, match="ids of the items or their order differ"):
        trained.check_same_ids(users, IdMap.of(["x", "z"]))
    with pytest.raises(ModelError, match="ids of the users and items or their order differ"):
        trained.check_same_ids(items, users)


def test_other_maps_do_not_change_what_the_rows_are():
    one = np.zeros(3, np.int32)
    rows = Interactions(one, one, np.ones(3, np.float32))
    small = Dataset("toy", IdMap.of(["a", "b"]), IdMap.of(["x", "y"]), rows).fingerprint
    large = Dataset("toy", IdMap.of(["a", "b", "c"]), IdMap.of(["x", "y"]), rows).fingerprint
    assert small == large
    assert small.ids != large.ids
