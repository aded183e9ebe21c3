"""Rows of JSONL, CSV and lists: numbers, quotes and encodings, and every line that is no row."""

import io
import json
from typing import Any

import pytest

from pipelines.data.row_files import read_rows

TYPES = {"seed": int, "duration_s": float}
ROWS = {
    2: {"id": "007", "prompt": "slow, sad", "seed": 3, "duration_s": 1.5},
    4: {"id": "b", "prompt": "two\nlines"},
}
TABLE = '\ufeffid,prompt,seed,duration_s\r\n007,"slow, sad",3,1.5\r\n\r\nb,"two\nlines",,\r\n'
LINES = "\ufeff\n" + "\n\n".join(map(json.dumps, ROWS.values())) + "\n"


@pytest.mark.parametrize(("name", "text"), [("a.csv", TABLE), ("a.jsonl", LINES)])
def test_csv_and_jsonl_give_the_same_rows(tmp_path, monkeypatch, name, text):
    (tmp_path / name).write_bytes(text.encode())
    file = read_rows(tmp_path / name, TYPES)
    assert (file.rows, file.faults, file.folder) == (ROWS, [], tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert read_rows("-", TYPES).rows == ROWS
    assert read_rows(ROWS.values()).rows == dict(enumerate(ROWS.values(), start=1))


NO_ROWS: list[tuple[str, bytes, int, str]] = [
    ("a.jsonl", b'{"id": 1}\n{"id": \n', 2, "is not JSON: Expecting value at column"),
    ("a.jsonl", b"\n[1]", 2, "a row must be an object, got [1]"),
    ("a.jsonl", b'{"id": "\xff"}', 1, "is not UTF-8"),
    ("a.jsonl", b'{"id": 1, "id": 2}', 1, "the field 'id' is given twice"),
    ("a.jsonl", b'{"id": ' + b"[" * 10**5, 1, "recursion"),
    ("a.csv", b'id,prompt\n"a\nb",x,y\n', 2, "has 3 cells, the header names 2"),
    ("a.csv", b'id,prompt\na,x\nd,"x\n', 3, "is not CSV: unexpected end of data"),
    ("a.csv", b"id,prompt\na,\xff\n", 2, "is not UTF-8"),
    ("a.csv", b"id,id\na,b\n", 1, "the header names 'id' twice"),
]


@pytest.mark.parametrize(("name", "data", "line", "message"), NO_ROWS)
def test_every_line_that_is_no_row_is_named(tmp_path, name, data, line, message):
    (tmp_path / name).write_bytes(data)
    (fault,) = read_rows(tmp_path / name).faults
    assert fault.line == line
    assert message in fault.message
    assert str(fault) == f"line {line}: {fault.message}"


def test_a_cell_that_is_no_number_stays_a_text(tmp_path):
    (tmp_path / "a.csv").write_text("seed,duration_s\n1.5,x\n")
    assert read_rows(tmp_path / "a.csv", TYPES).rows == {2: {"seed": "1.5", "duration_s": "x"}}


def test_what_is_no_dict_in_a_list_is_named():
    rows: list[Any] = [{"id": 1}, ["c"]]
    (fault,) = read_rows(rows).faults
    assert (fault.line, fault.message) == (2, "a row must be an object, got ['c']")


def test_sources_that_hold_nothing(tmp_path):
    empty = tmp_path / "rows.jsonl"
    empty.write_text("\n")
    for source, error, message in (
        (empty, ValueError, "holds no rows"),
        (tmp_path / "none.csv", FileNotFoundError, "does not exist"),
        (tmp_path / "rows.json", ValueError, "must end in .jsonl"),
        ([], ValueError, "rows holds no rows"),
    ):
        with pytest.raises(error, match=message):
            read_rows(source)
