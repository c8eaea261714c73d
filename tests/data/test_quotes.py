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


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", "\t", "::", " "])
def test_lines_without_values_are_left_out_and_counted(tmp_path, separator, end):
    rows = [f"u{i % 9},i{i % 7},{i % 5 + 1}" for i in range(60)]
    lines = ["user,item,rating", ""]
    for i, row in enumerate(rows):
        lines += [row] + [["", "  ", ",,"][i % 3]] * (i % 4)
    path = tmp_path / "log.csv"
    path.write_bytes(end.join(lines).replace(",", separator).encode())
    table = read_table(path)
    assert table["user"].to_list() == [row.split(",")[0] for row in rows]
    assert table["rating"].to_list() == [i % 5 + 1 for i in range(60)]
    while lines[-1] != rows[-1]:  # the file ends with a row
        lines.pop()
    path.write_bytes(end.join(lines).replace(",", separator).encode())
    dataset = read_interactions(path, duplicates="keep")
    noted = next(note for note in dataset.notes if "without any value" in note.text)
    assert "the first is line 2" in noted.text
    assert noted.rows == len(lines) - 61
    # The line of a row counts those that are no rows.
    lines[100] = "u4,i5,bad"
    path.write_bytes(end.join(lines).replace(",", separator).encode())
    with pytest.raises(DataError, match=rf"\(line {lines.index('u4,i5,bad') + 1}\): 'bad'"):
        read_interactions(path)


def test_lines_without_values_keep_the_lines_of_rows_in_any_chunks():
    rng = random.Random(1)
    for _ in range(100):
        text, expected, line = "", [], 1
        for i in range(rng.randint(1, 12)):
            empty = rng.choices(["", " ", ",", "\r"], k=rng.choice([0, 0, 1, 3]))
            row = rng.choice([f"u{i},x", f'u{i},"a ""b"""', f'u{i},"two\n\nlines"', f'u{i},5"'])
            line += len(empty)
            expected.append((line, row.removeprefix(f"u{i},")))
            text += "".join(f"{one}\n" for one in empty) + row + "\n"
            line += row.count("\n") + 1
        reader = RowReader("x", b",", 2)
        size, content = rng.choice([1, 3, 7, 50, 1000]), text.encode()
        blocks = list(reader.blocks(content[at : at + size] for at in range(0, len(content), size)))
        found = [fields for block in blocks for fields in csv.reader(io.StringIO(block.data.decode(), newline=""))]
        assert [one[0] for one in found] == [f"u{i}" for i in range(len(expected))]
        assert [reader.line(i) for i in range(len(expected))] == [line for line, _ in expected]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["user,item,title,rating", "'user','item','title','rating'"])
def test_single_quotation_marks_are_taken_off(tmp_path, separator, header):
    titles = ["plain", "it''s", 'a "name"', "x,y;z\tw", "two\nlines", ""]
    lines = [header, *(f"'u{i % 9}','i{i % 7}','{titles[i % 6]}',{i % 5 + 1}" for i in range(60))]
    # Separators inside a title stay as they are.
    text = "\n".join(line.replace("',", f"'{separator}").replace(",'", f"{separator}'") for line in lines)
    path = tmp_path / "log.csv"
    path.write_text(text.replace(header, header.replace(",", separator)))
    table = read_table(path)
    assert table.columns == ["user", "item", "title", "rating"]
    assert table["user"].to_list() == [f"u{i % 9}" for i in range(60)]
    assert table["title"].to_list()[:5] == ["plain", "it's", 'a "name"', "x,y;z\tw", "two\nlines"]
    assert table["rating"].to_list() == [i % 5 + 1 for i in range(60)]
    notes = list(map(str, read_interactions(path, duplicates="keep").notes))
    assert "log.csv: fields in single quotation marks, which were taken off: 60 rows" in notes


def test_apostrophes_are_no_quotation_marks(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item\n" + "".join(f"'u{i},it's {i % 7}'\n" for i in range(20)))
    assert read_table(path).row(1) == ("'u1", "it's 1'")


@pytest.mark.parametrize("separator", [", ", " | ", "; ", " ;", " :: ", "\t "])
def test_blanks_around_separators_are_taken_off(tmp_path, separator):
    path = tmp_path / "log.csv"
    rows = [
        (f"u{i % 9}", f"i {i % 7}", f'"a, b | c; {i}"' if ":" not in separator else "t", f"{i % 5 + 1}")
        for i in range(60)
    ]
    path.write_text("\n".join(separator.join(row) for row in [("user", "item", "title", "rating"), *rows]))
    table = read_table(path)
    assert table.columns == ["user", "item", "title", "rating"]
    assert table.select("user", "item").rows() == [row[:2] for row in rows]
    assert table["title"][7] == rows[7][2].strip('"')
    assert table["rating"].to_list() == [i % 5 + 1 for i in range(60)]
    assert any("blanks around the separator" in str(note) for note in read_interactions(path, duplicates="keep").notes)


def test_blanks_that_are_not_next_to_every_separator_are_kept(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,rating\nu1, i1, 5\nu2,i2,4\nu2,i3,4\n")
    dataset = read_interactions(path)
    assert " i1" in dataset.items.external(range(len(dataset.items)))
    assert any("have blanks" in note.text for note in dataset.notes)


@pytest.mark.parametrize("separator", ["::", " "])
def test_a_separator_inside_quotes_is_kept_as_it_is(tmp_path, separator):
    path = tmp_path / "log.txt"
    rows = [(f'"u{separator}{i % 9}"', f"i{i % 7}") for i in range(40)]
    path.write_text("\n".join(separator.join(row) for row in [("user", "item"), *rows]))
    assert read_table(path)["user"].to_list() == [f"u{separator}{i % 9}" for i in range(40)]


def test_marks_behind_a_backslash(tmp_path):
    path = tmp_path / "books.csv"
    path.write_text("user,item,title\n" + "".join(f'u{i},i{i % 3},"so \\"it {i}\\", again"\n' for i in range(9)))
    dataset = read_interactions(path)
    assert len(dataset) == 9
    assert "rows with an unclosed or misplaced quotation mark" in str(dataset.notes[0])
    assert read_table(path)["title"][3] == 'so "it 3", again'
