"""JSONL and CSV files, or standard input, to rows with their line numbers."""

import csv
import io
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}


@dataclass(frozen=True)
class RowFault:
    """What is wrong with one row.

    Attributes:
        line: where the row starts in its file, or its place in a list, from 1.
        message: the field, the rule and the value.
        id: of the row, "" where it has none.
    """

    line: int
    message: str
    id: str = ""

    def __str__(self) -> str:
        return f"line {self.line}{f' ({self.id})' if self.id else ''}: {self.message}"


@dataclass(frozen=True)
class Row:
    """One row as it was written.

    Attributes:
        line: where it starts in its file, or its place in a list, from 1.
        values: field name to value; texts only in a CSV file.
    """

    line: int
    values: dict[str, Any]


@dataclass
class RowFile:
    """All rows of a source, and the lines that are no rows.

    Attributes:
        name: of the source, for messages.
        folder: from which paths in its rows are counted.
        rows: in order.
        faults: lines that could not be read.
        is_text: whether the values are texts, to be read as numbers where a number is wanted.
    """

    name: str
    folder: Path
    rows: list[Row] = field(default_factory=list)
    faults: list[RowFault] = field(default_factory=list)
    is_text: bool = False


def read_rows(source: str | Path | Iterable[dict[str, Any]]) -> RowFile:
    """Read a ``.jsonl``, ``.ndjson`` or ``.csv`` file, "-" for standard input, or a list of dicts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the name says no format, or there is not a single line.
    """
    if not isinstance(source, str | Path):
        return _read_list(source)
    if str(source) == "-":
        data = sys.stdin.buffer.read()
        kind = "jsonl" if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else "csv"
        file = RowFile("standard input", Path())
    else:
        path = Path(source)
        if path.suffix.lower() not in FORMATS:
            raise ValueError(f"{path}: the name must end in .jsonl, .ndjson or .csv")
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist")
        data, kind = path.read_bytes(), FORMATS[path.suffix.lower()]
        file = RowFile(str(path), path.parent)
    (_read_jsonl if kind == "jsonl" else _read_csv)(data.removeprefix(b"\xef\xbb\xbf"), file)
    if not file.rows and not file.faults:
        raise ValueError(f"{file.name} holds no rows")
    return file


def _read_list(values: Iterable[Any]) -> RowFile:
    file = RowFile("rows", Path())
    for line, row in enumerate(values, start=1):
        if isinstance(row, dict):
            file.rows.append(Row(line, row))
        else:
            file.faults.append(RowFault(line, f"a row must be a dict, got {row!r:.80}"))
    if not file.rows and not file.faults:
        raise ValueError("rows is empty")
    return file


def _read_jsonl(data: bytes, file: RowFile) -> None:
    for line, text in enumerate(data.split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            values = json.loads(text.decode(), object_pairs_hook=_without_duplicates)
            if not isinstance(values, dict):
                raise ValueError(f"a row must be a JSON object, got {text.decode().strip():.80}")
            file.rows.append(Row(line, values))
        except UnicodeDecodeError:
            file.faults.append(RowFault(line, "is not UTF-8"))
        except json.JSONDecodeError as error:
            file.faults.append(RowFault(line, f"is not JSON: {error.msg} at column {error.colno}"))
        except (ValueError, RecursionError) as error:
            file.faults.append(RowFault(line, str(error)))


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice!r} is given twice")
    return values


def _read_csv(data: bytes, file: RowFile) -> None:
    """Cells that are empty count as not given."""
    file.is_text = True
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        file.faults.append(RowFault(line, "is not UTF-8"))
        return
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                pass
            elif header is None:
                header = [cell.strip() for cell in cells]
                _check_header(header, line, file)
            elif len(cells) > len(header):
                message = f"has {len(cells)} cells, the header names {len(header)}"
                file.faults.append(RowFault(line, message))
            else:
                given = zip(header, cells, strict=False)
                file.rows.append(Row(line, {name: cell for name, cell in given if cell.strip()}))
            line = reader.line_num + 1
    except csv.Error as error:
        file.faults.append(RowFault(line, f"is not CSV: {error}"))


def _check_header(header: list[str], line: int, file: RowFile) -> None:
    for name in dict.fromkeys(header):
        if header.count(name) > 1:
            file.faults.append(RowFault(line, f"the header names {name!r} twice"))
