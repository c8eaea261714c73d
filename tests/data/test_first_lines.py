import numpy as np
import pytest

from palate.data.frame import to_frame
from palate.data.readers import read_interactions, read_table
from palate.data.readers.first_lines import find_separator, is_data
from palate.errors import DataError

# First lines of real files: four columns, of which the ids look like those of the file.
BARE = {
    "amazon": (
        "A3EBHHCZO6V2A4,5555991584,5.0,1158019200\nAZPWAXJG9OJXV,B0001,4.0,991526400\n",
        "user,item,rating,time",
    ),
    "movielens": ("196\t242\t3\t881250949\n186\t302\t3\t891717742\n", "user,item,rating,time"),
    "filmtrust": ("1050 215 3\n1050 250 2.5\n1051 213 3\n", "user,item,rating"),
    "double colons": ("1::1193::5::978300760\n2::661::3::978302109\n", "user,item,rating,time"),
    "counts": ("u1;a1;1000\nu2;a1;3\nu1;a2;17\n", "user,item,weight"),
    "time first": ("2015-04-02 23:53:47,u1,a,x\n2015-04-03,u2,b,y\n", "time,user,item,_"),
    "check-ins": (
        "0\t2010-10-19T23:55:27Z\t30.2359091\t-97.7951395\t22847\n1\t2010-10-18T22:17:43Z\t30.2691029\t-97.7493953\t42\n",
        "user,time,_,_,item",
    ),
    "venues": (
        "470\t49bbd6c0\tShop\t40.7198\t-74.0025\t-240\tTue Apr 03 18:00:09 +0000 2012\n979\t4a43c0ae\tBridge\t40.6067\t"
        "-74.0441\t-240\tTue Apr 03 18:00:25 +0000 2012\n",
        "user,item,_,_,_,_,time",
    ),
    "ids of nine digits": ("420374,214537888\n420374,214537850\n281626,214537888\n", "user,item"),
    "repeated": ("ann,tea\nann,jam\nbob,tea\n", "user,item"),
}


@pytest.mark.parametrize("name", BARE)
def test_a_first_row_is_never_eaten_as_names(tmp_path, name):
    text, columns = BARE[name]
    path = tmp_path / "log.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=f"looks like a row.*pass --columns {columns} .*pass --header"):
        read_interactions(path)
    for header in (None, False):
        dataset = read_interactions(path, header=header, names=columns.split(","), duplicates="keep")
        assert len(dataset) == text.count("\n")
        first = to_frame(dataset).row(0)[:2]
        assert all(str(one) in text.splitlines()[0] for one in first)
    assert len(read_table(path, header=True)) == text.count("\n") - 1


def test_empty_columns_are_no_ids(tmp_path):
    path = tmp_path / "jokes.csv"
    path.write_text("1\t\t5\t\t-0.219\n1\t\t7\t\t9.281\n2\t\t5\t\t-6.781\n")
    with pytest.raises(DataError, match="pass --columns user,_,item,_,rating "):
        read_interactions(path)
    assert len(read_interactions(path, names=["user", "_", "item", "_", "rating"])) == 3


@pytest.mark.parametrize(
    "text",
    [
        "user,item\nu1,i1\nu2,i2\n",
        "u1,item,user\n1,2,3\n4,5,6\n",
        "kunde,artikel,wann\nk1,a1,2015-04-02\nk2,a1,2015-04-02\n",
        "user,101,102\nu1,5,3\nu2,4,1\n",
        "name,kind\ntea,drink\njam,food\n",
    ],
)
def test_names_are_names(tmp_path, text):
    path = tmp_path / "log.csv"
    path.write_text(text)
    assert read_table(path).columns == text.splitlines()[0].split(",")


def test_a_first_line_with_a_chosen_column_is_a_header(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("c1,c2\nu1,i1\nu2,i2\nu2,i1\n")
    with pytest.raises(DataError, match="looks like a row"):
        read_interactions(path)
    assert len(read_interactions(path, user="c1", item="c2")) == 3


def test_columns_can_be_skipped_and_renamed(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("x,u1,5,i1\ny,u2,4,i2\n")
    dataset = read_interactions(path, header=False, names=["_", "user", "_", "item"])
    assert to_frame(dataset).rows() == [("u1", "i1", 1.0), ("u2", "i2", 1.0)]
    path.write_text("kunde,artikel,note\nu1,i1,5\nu2,i2,4\n")
    dataset = read_interactions(path, names=["user", "item", "rating"])
    assert len(dataset) == 2
    assert dataset.explicit


@pytest.mark.parametrize(
    ("lines", "separator"),
    [
        (["user;rating", "1;3,5", "2;4,5"], ";"),
        (["1::Tea, The::Animation|Comedy", "2::Coffee (1995)::Adventure|Children"], "::"),
        (["1,Toy Story,Animation|Comedy", "2,Heat,Action|Crime"], ","),
        (["a b 2015-01-01", "c d 2015-01-02"], " "),
        (["user,time", "1,2015-01-01 00:00:00", "2,2015-01-01 00:00:01"], ","),
        (["item\ttitle", "1\tTea, black", "2\tJam"], "\t"),
        (["one"], ","),
    ],
)
def test_the_separator_is_the_one_that_all_lines_agree_on(lines, separator):
    assert find_separator(lines) == separator


def test_one_line_is_data_only_if_it_is_all_numbers():
    assert is_data(["1", "2"], [])
    assert not is_data(["a", "2"], [])


def test_a_first_line_of_texts_is_kept_as_a_row_where_names_are_given(tmp_path):
    path = tmp_path / "bare.csv"
    path.write_text("dan,fig\nbob,pear\ncem,apple\nbob,plum\n")
    data = read_interactions(path, names=["user", "item"])
    assert (len(data), "dan" in data.users.ids) == (4, True)
    assert any("--header if it holds names" in str(note) for note in data.notes)
    assert len(read_interactions(path, names=["user", "item"], header=True)) == 3
    path.write_text("customer,fruit\nbob,pear\ncem,apple\nbob,plum\n")
    assert len(read_interactions(path, names=["user", "item"])) == 3


def test_random_bytes_are_no_text_of_another_encoding(tmp_path):
    path = tmp_path / "noise.csv"
    path.write_bytes(np.random.default_rng(0).integers(1, 256, 4000, dtype=np.uint8).tobytes())
    with pytest.raises(DataError, match="not a text file"):
        read_interactions(path)
    path.write_bytes("user,item\nJosé,Käse\nZoë,Crème\n".encode("latin-1"))
    with pytest.raises(DataError, match="--encoding latin-1"):
        read_interactions(path)
