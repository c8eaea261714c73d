"""Files in forms that are not read: the remedy in the message works when it is typed."""

import json
import re
import subprocess

import pytest

from palate.data.readers import read_interactions
from palate.errors import DataError

ROWS = [(u, i, 1 + (u * i) % 5) for u in range(1, 5) for i in range(11, 16)]

# The text, and how many columns the remedy names.
FORMS = {
    "tuples.txt": "".join(f"('u{u}', 'i{i}', {r})\n" for u, i, r in ROWS),
    "tuples of numbers.txt": "".join(f"({u}, {i}, {r})\r\n" for u, i, r in ROWS),
    "lists.json": "".join(json.dumps([f"u{u}", f"i{i}", r]) + ",\n" for u, i, r in ROWS),
    "users.libsvm": "".join(f"{u} " + " ".join(f"{i}:{r}" for v, i, r in ROWS if u == v) + "\n" for u in range(1, 5)),
    "labels.libsvm": "".join("1 " + " ".join(f"{i}:{r}" for v, i, r in ROWS if u == v) + "\n" for u in range(1, 5)),
    "netflix.txt": "".join(
        f"{u}:\r\n" + "".join(f"{i},{r},2005-09-0{r}\r\n" for v, i, r in ROWS if u == v) for u in range(1, 5)
    ),
    "ratings.json": json.dumps({f"u{u}": {f"i{i}": r for v, i, r in ROWS if u == v} for u in range(1, 5)}),
    "python.json": "".join(f"{{u'user': u'u{u}', 'item': 'i{i}', 'rating': {r}.0}}\n" for u, i, r in ROWS),
    "titled.csv": "Orders, 2021\n\nuser,item,rating\n" + "".join(f"u{u},i{i},{r}\n" for u, i, r in ROWS),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_remedy_works_when_it_is_typed(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(FORMS[name].encode())
    with pytest.raises(DataError) as caught:
        read_interactions(name)
    command, new = re.search(r"  ?((?:sed|awk|python3|tail) .* > (\S+))", str(caught.value)).groups()
    subprocess.run(["sh", "-c", command], check=True)
    names = re.search(r"--columns (\S+)", str(caught.value))
    dataset = read_interactions(new, names=names and names[1].split(","))
    assert (len(dataset), *sorted((dataset.n_users, dataset.n_items))) == (20, 4, 5)
    assert sorted(dataset.interactions.weight.tolist()) == sorted(r for _, _, r in ROWS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-- MySQL dump 10.13\n--\n\nINSERT INTO `r` VALUES (1,2,3),(1,3,4);\n", "an SQL dump: .*--query"),
        ("--\n-- PostgreSQL database dump\n--\n\nCOPY public.r (u, i) FROM stdin;\n1\t2\n\\.\n", "an SQL dump"),
        ("<!DOCTYPE html>\n<html><body>Sign in</body></html>\n", "an HTML or XML document"),
        ('{"user": {"0": "a", "1": "b"}, "item": {"0": "x", "1": "y"}}', "orient='records'"),
        ('{"a": ["x", "y"], "b": ["x"]}', "one list per name: if these are the users"),
        ("user/1\nuser/2\n", "a user and an item are needed, and there is one column"),
    ],
)
def test_other_forms_are_named(tmp_path, text, message):
    (tmp_path / "log.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_interactions(tmp_path / "log.txt")


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("user,item,rating\nu1,i1,5,\nu2,i2,4,\nu1,i2,3,\n", "user=user item=item rating=rating · not used: ''"),
        ('"user","item"\n"1","u1","i1"\n"2","u2","i2"\n"3","u1","i2"\n', "user=user item=item · not used: ''"),
    ],
)
def test_a_column_without_a_name(tmp_path, text, columns):
    (tmp_path / "log.csv").write_text(text)
    dataset = read_interactions(tmp_path / "log.csv")
    assert (len(dataset), dataset.columns) == (3, f"columns: {columns}")


def test_a_field_too_many_is_no_column_without_a_name(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,author\nu1,i1,Le Guin, U.\nu2,i2,Lem, S.\n")
    with pytest.raises(DataError, match="line 2 has 4 fields instead of 3"):
        read_interactions(tmp_path / "log.csv")
