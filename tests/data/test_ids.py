"""IdMap, and the binding of a fingerprint to the maps that its rows are numbered by."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data import ids as module
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.errors import DataError, ModelError

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(max_size=40) | st.sampled_from(
    ["", "a", "é" * 20, "x" * 11, "x" * 12, "x" * 13, "5", "-5", "\0", "\0\0"]
)

HASHES = [16294208416658607535, 14359151529401549074, 1492306508582000744]
STABLE = [10776770685243991114, 8820412187630416983]


def known_and_others(ids, values, few):
    """The rows of some values by a dictionary and by the map, in one call and one by one."""
    rows = IdMap(pl.Series("id", ids, dtype=pl.Int64 if isinstance(ids[0], int) else pl.String))
    expected = [{one: row for row, one in enumerate(ids)}.get(value, -1) for value in values]
    assert [rows.row(value) for value in values] == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEW", few)
        patch.setattr(module, "CHUNK", 7)
        assert rows.rows(pl.Series("id", values, dtype=rows.ids.dtype)).tolist() == expected


@settings(deadline=None, max_examples=100)
@given(st.lists(TEXTS, min_size=1, max_size=30, unique=True), st.lists(TEXTS, max_size=30), st.sampled_from([0, 64]))
def test_texts_are_found(ids, others, few):
    known_and_others(ids, [*ids, *others], few)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(INT64 | st.integers(-9, 9), min_size=1, max_size=30, unique=True),
    st.lists(INT64 | st.integers(-20, 20), max_size=30),
    st.sampled_from([0, 2, 64]),
    st.booleans(),
)
def test_integers_are_found_in_any_order(ids, others, few, ascending):
    known_and_others(sorted(ids) if ascending else ids, [*ids, *others], few)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(TEXTS, max_size=30), st.sampled_from(["", "shop-0-", "é" * 9]), st.sampled_from(["", "\0" * 20, "z" * 20])
)
def test_many_texts_are_sorted_by_their_bytes(texts, beginning, end):
    ids = [beginning + text + end for text in [*texts, *texts]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", 0)
        found = IdMap.of(pl.Series("id", ids, dtype=pl.String))
    assert found.ids.to_list() == sorted(set(ids), key=str.encode)


def test_texts_with_equal_hashes_are_told_apart(monkeypatch):
    monkeypatch.setattr(module, "_hash_texts", lambda texts: np.full(len(texts), 7 << 32, np.uint64))
    monkeypatch.setattr(module, "_hash_one", lambda text: 7 << 32)
    known_and_others(["a", "b", "c" * 20], ["c" * 20, "a", "z", "b", "c" * 21], 0)


@settings(deadline=None, max_examples=100)
@given(st.lists(TEXTS, max_size=20), st.integers(0, 5))
def test_one_hash_is_the_hash_of_many(texts, skipped):
    hashes = module._hash_texts(pl.Series("id", texts, dtype=pl.String).slice(skipped))
    assert hashes.tolist() == [module._hash_one(text) for text in texts[skipped:]]


def test_hashes_do_not_depend_on_how_many_are_computed_at_once():
    texts = pl.Series("id", [str(number) + "x" * (number % 5) for number in range(40_000)])
    assert len(texts) > 2 * module.PART
    expected = np.concatenate([IdMap(texts.slice(first, 1000)).hashes for first in range(0, len(texts), 1000)])
    assert IdMap(texts).hashes.tolist() == expected.tolist()


def test_hashes_are_those_of_other_machines():
    assert IdMap(pl.Series("id", ["", "42", "a" * 30])).hashes.tolist() == HASHES
    assert IdMap(pl.Series("id", [42])).hashes[0] == HASHES[1]
    assert module.stable_hashes(pl.Series(["word", None, "42"]).drop_nulls()).tolist() == STABLE


def test_values_of_the_other_kind_are_converted():
    numbers, texts = IdMap.of([5, 42, -7]), IdMap.of(["5", "42"])
    assert numbers.rows(["42", "-7", "x", "", "9" * 30, "4.2"]).tolist() == [2, 0, -1, -1, -1, -1]
    assert texts.rows([42, 5, 7]).tolist() == [0, 1, -1]
    assert numbers.rows(pl.Series(["42", None, "5"])).tolist() == [2, -1, 1]
    assert numbers.rows(np.array([], np.int64)).tolist() == []
    many = [str(number) for number in range(100)]  # the path of long columns
    assert numbers.rows(many).tolist() == [{5: 1, 42: 2}.get(number, -1) for number in range(100)]


def test_extending_keeps_rows_and_finds_new_ids():
    ids = IdMap.of(["b", "d"]).extend(["e", "a", "b", None])
    assert ids.ids.to_list() == ["b", "d", "a", "e"]
    assert ids.rows(["a", "b", "c", "d", "e"]).tolist() == [2, 0, -1, 1, 3]
    assert ids.external([3, -1, 0]).to_list() == ["e", None, "b"]


def _answer(ids: IdMap, wanted: pl.Series, answers) -> None:
    rows = ids.rows(wanted)
    answers.put((rows.sum(), ids.row(wanted[3]), (ids.external(rows) == wanted).all(), ids.digest))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
def test_lookups_work_in_a_forked_process(used):
    wanted = pl.Series("id", [f"user number {number}" for number in range(100_000)])
    ids = IdMap.of(wanted)
    wanted.to_frame().join(wanted.to_frame(), on="id")  # the thread pool of polars, which no child can use, is running
    if used:
        ids.rows(wanted)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_answer, args=(ids, wanted, answers), daemon=True)
    child.start()
    try:
        total, row, equal, digest = answers.get(timeout=60)
    finally:
        child.kill()
    assert (total, row, equal, digest) == (sum(range(100_000)), ids.row(wanted[3]), True, ids.digest)


def test_threads_share_a_map():
    ids = IdMap.of([f"user number {number}" for number in range(20_000)])
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: ids.rows(ids.ids), range(16)))
    assert all(np.array_equal(rows, np.arange(20_000)) for rows in found)


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


def test_an_integer_is_found_only_as_it_is_written():
    numbers, texts = IdMap.of([7, -5, 0]), IdMap.of(["2.10", "007", "Ann", "Caf\u00e9"])
    odd = ["007", "+7", "7.0", " 7", "7 ", "-0", "\u0667", "1e0", "07", "9" * 5000, "--7"]
    assert numbers.rows(odd).tolist() == [-1] * len(odd)
    assert numbers.rows(odd * 10).tolist() == [-1] * len(odd) * 10  # the path of long columns
    assert numbers.rows(["7", "-5", "0"]).tolist() == [2, 0, 1]
    assert texts.rows(["2.1", "7", "ann", "2.10"]).tolist() == [-1, -1, -1, texts.row("2.10")]
    assert [numbers.suggest(one) for one in ("007", "+7", "7.0", " 7", "8", "x")] == [7, 7, 7, 7, None, None]
    assert [texts.suggest(one) for one in ("7", "ann ", "Cafe\u0301", "2.1")] == ["007", "Ann", "Caf\u00e9", None]
    with pytest.raises(DataError, match="the id '008' is no integer, as the ids here are"):
        numbers.extend(["9", "008"])
    assert numbers.extend(["9"]).ids.to_list() == [-5, 0, 7, 9]
