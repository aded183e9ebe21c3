"""Read rows with their line numbers from JSONL and CSV files, standard input or a list."""

import codecs
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROW_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}


@dataclass(frozen=True)
class RowFault:
    """Report an error in the row that starts at a line, or at a position in a list, from 1."""

    line: int
    message: str
    id: str = ""

    def __str__(self) -> str:
        return f"line {self.line}{f' ({self.id})' if self.id else ''}: {self.message}"


@dataclass
class RowFile:
    """Hold the rows of a source by line number, and its faulty lines.

    ``name`` is what messages call the source; ``folder`` is the base of relative paths in the rows.
    """

    name: str
    folder: Path
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    faults: list[RowFault] = field(default_factory=list)


def read_rows(
    source: str | Path | Iterable[dict[str, Any]],
    types: Mapping[str, Callable[[str], Any]] | None = None,
) -> RowFile:
    """Read rows in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Args:
        source: a ``.jsonl``, ``.ndjson`` or ``.csv`` file, "-" for either format on standard input,
            or dicts.
        types: types of CSV columns, such as ``{"seed": int}``; a cell that its type cannot read
            stays text, and an empty cell is left out.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the name has another suffix, or there is no row.
    """
    if not isinstance(source, str | Path):
        file = RowFile("rows", Path())
        found: Iterable[tuple[int, Any]] = enumerate(source, start=1)
    else:
        file, data, kind = _read_source(source)
        if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            data = data.decode("utf-16", "replace").encode()
        data = data.removeprefix(codecs.BOM_UTF8)
        found = _parse_jsonl(data) if kind == "jsonl" else _parse_csv(data, types or {})
    for line, row in found:
        if isinstance(row, dict):
            file.rows[line] = row
        elif isinstance(row, RowFault):
            file.faults.append(row)
        else:
            file.faults.append(RowFault(line, f"a row must be an object, got {row!r:.80}"))
    if not file.rows and not file.faults:
        raise ValueError(f"{file.name} holds no rows")
    return file


def _read_source(source: str | Path) -> tuple[RowFile, bytes, str]:
    """Read a source; return the file to fill, the bytes and the format."""
    if str(source) == "-":
        data = sys.stdin.buffer.read()
        is_jsonl = data.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")
        return RowFile("standard input", Path()), data, "jsonl" if is_jsonl else "csv"
    path = Path(source)
    if path.suffix.lower() not in ROW_FORMATS:
        raise ValueError(f"{path}: the name must end in .jsonl, .ndjson or .csv")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    return RowFile(str(path), path.parent), path.read_bytes(), ROW_FORMATS[path.suffix.lower()]


def _parse_jsonl(data: bytes) -> Iterator[tuple[int, Any]]:
    for line, text in enumerate(data.split(b"\n"), start=1):
        if not text.strip():
            continue
        row: Any
        try:
            row = json.loads(text.decode(), object_pairs_hook=_check_names)
        except UnicodeDecodeError:
            row = RowFault(line, "is not UTF-8")
        except json.JSONDecodeError as error:
            row = RowFault(line, f"is not JSON: {error.msg} at column {error.colno}")
        except (ValueError, RecursionError) as error:
            row = RowFault(line, str(error))
        yield line, row


def _check_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"the field {name!r} is given twice")
        values[name] = value
    return values


def _parse_csv(data: bytes, types: Mapping[str, Callable[[str], Any]]) -> Iterator[tuple[int, Any]]:
    text = data.decode(errors="surrogateescape")  # so that a bad byte costs its own row alone
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                pass
            elif not "".join(cells).isascii() and has_surrogate("".join(cells)):
                yield line, RowFault(line, "is not UTF-8")
                if not header:
                    return
            elif not header:
                header = [cell.strip() for cell in cells]
                for name in sorted({name for name in header if header.count(name) > 1}):
                    yield line, RowFault(line, f"the header names {name!r} twice")
            elif len(cells) > len(header):
                message = f"has {len(cells)} cells, the header names {len(header)}"
                yield line, RowFault(line, message)
            else:
                given = [pair for pair in zip(header, cells, strict=False) if pair[1].strip()]
                yield line, {name: _parse_cell(cell, types.get(name)) for name, cell in given}
            line = reader.line_num + 1  # a quoted cell may hold line breaks
    except csv.Error as error:
        yield line, RowFault(line, f"is not CSV: {error}")


def has_surrogate(text: str) -> bool:
    """Return whether a text holds half a surrogate pair, which no file can hold in UTF-8."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _parse_cell(text: str, kind: Callable[[str], Any] | None) -> Any:
    try:
        return kind(text) if kind else text
    except ValueError:
        return text
