import csv
import gzip
import io
import random

import pytest

from palate.data.readers import read_interactions, read_table
from palate.data.readers.quotes import RowReader
from palate.errors import DataError

HEADER = "user,item,rating,title\n"


def lines_of(titles):
    return "".join(f"u{i % 9},i{i % 7},{i % 5 + 1},{title}\n" for i, title in enumerate(titles))


def plain(n):
    return [f"thing {i}" for i in range(n)]


def with_marks(n, **marks):
    titles = plain(n)
    for at, title in marks.items():
        titles[int(at[1:])] = title
    return titles


CASES = {
    "lone": with_marks(40, _7='TV 32"'),
    "two inside": with_marks(40, _7='TV 32"', _30='LCD 40"'),
    "adjacent": with_marks(40, _7='TV 32"', _8='LCD 40"'),
    "begin, never closed": with_marks(40, _7='"TV', _30='"LCD'),
    "begin once": with_marks(40, _7='"TV'),
    "begin, closed far away": with_marks(40, _7='"TV', _30='LCD 40"'),
    "begin, closed in the next line": with_marks(40, _7='"TV', _8='LCD 40"'),
    "closed too early": with_marks(40, _7='"TV" 32', _8='"a""b" c'),
    "first and last line": with_marks(40, _0='TV 32"', _39='"LCD'),
    "among quoted fields": [f'"{i}, a ""thing"""' if i % 3 else f'{i}" wide' for i in range(40)],
    "alone": with_marks(40, _7=chr(34), _9=chr(34)),
    "all lines": [f'{i % 12}" vinyl' for i in range(40)],
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("form", ["csv", "tsv", "crlf", "gz"])
def test_no_mark_swallows_rows(tmp_path, name, form):
    text = HEADER + lines_of(CASES[name])
    if form == "tsv":
        # The title keeps its commas.
        text = "\n".join(line.replace(",", "\t", 3) for line in text.splitlines()) + "\n"
    content = (text.replace("\n", "\r\n") if form == "crlf" else text).encode()
    path = tmp_path / f"log.{form}"
    path.write_bytes(gzip.compress(content) if form == "gz" else content)
    dataset = read_interactions(path, duplicates="keep")  # the title is not used
    assert len(dataset) == 40
    table = read_table(path)
    assert len(table) == 40
    assert table["rating"].to_list() == [i % 5 + 1 for i in range(40)]
    used = read_interactions(path, user="user", item="title", duplicates="keep", drop_invalid=True)
    assert len(used) == 40


def test_marks_inside_a_field_are_text_and_doubled_ones_are_one(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(HEADER + lines_of(['TV 32"', '"TV 32"""', '"LCD, flat"', '"TV', '"a" b', '""']))
    table = read_table(path)
    assert table["title"].to_list() == ['TV 32"', 'TV 32"', "LCD, flat", '"TV', '"a" b', ""]
    notes = read_interactions(path, duplicates="keep").notes
    text = "log.csv: rows with an unclosed or misplaced quotation mark, read as text, the first in line 5"
    assert [(note.text, note.rows) for note in notes] == [(text, 2)]


def test_fields_that_span_lines_are_read_and_reported(tmp_path):
    path = tmp_path / "log.csv"
    titles = ["a", '"two\nlines"', "b", '"three\n\nlines, with ""marks"""', "c"]
    path.write_text(HEADER + lines_of(titles) + "u1,i1,bad,d\n")
    assert read_table(path)["title"].to_list() == ["a", "two\nlines", "b", 'three\n\nlines, with "marks"', "c", "d"]
    with pytest.raises(DataError, match=r"'rating' in 1 row: row 6 \(line 10\): 'bad'"):
        read_interactions(path)
    notes = [str(note) for note in read_interactions(path, duplicates="keep", drop_invalid=True).notes]
    assert notes[0] == "log.csv: rows with a quoted field that spans lines, the first in line 3: 2 rows"


def test_a_field_that_makes_no_sense_names_its_line(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item\nu1,i1\nu1,i2\n" + 'u2,"a" b, "c" d, e\n')
    with pytest.raises(DataError, match=r"log.csv: line 4 \('u2,.* cannot be read as 2 fields"):
        read_table(path)


def test_an_unquoted_separator_in_an_unused_column_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,title,item\n" + "u1,x,i1\n" * 3 + "u2,Smith, John,i2\n" + 'u2,"y, z",i2\n')
    with pytest.raises(DataError, match=r"line 5 has 4 fields instead of 3"):
        read_interactions(path)


def test_any_chunks_give_the_rows_of_the_csv_module():
    rng = random.Random(0)
    letters = ["a", "b", ",", '"', '""', "\n", " ", "7"]
    for _ in range(300):
        n_fields = rng.randint(2, 4)
        rows = [
            # A first field without marks: a table in which every line could be a row by itself is ambiguous.
            [f"u{i}", *("".join(rng.choices(letters, k=rng.randint(0, 5))) for _ in range(n_fields - 1)), f"{i}", ""]
            for i in range(rng.randint(1, 12))
        ]
        out = io.StringIO()
        csv.writer(out, lineterminator=rng.choice(["\n", "\r\n"])).writerows(rows)
        text = out.getvalue().encode()
        size = rng.choice([1, 2, 3, 7, 20, 1000])
        reader = RowReader("x", b",", n_fields + 2)
        parts = [text[at : at + size] for at in range(0, len(text), size)]
        blocks = list(reader.blocks(parts))
        assert sum(block.rows for block in blocks) == len(rows)
        got = list(csv.reader(io.StringIO(b"".join(block.data for block in blocks).decode(), newline="")))
        assert got == rows
