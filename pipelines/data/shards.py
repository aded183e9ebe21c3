"""Write Arrow shards whole or not at all, and read them without a copy.

Every shard of a folder but the last has the same number of rows. A shard is renamed from a
temporary name when it is whole, so a stopped writer resumes after the last whole shard.
"""

import json
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from codec.whole_file import read_json_object, sync_and_rename, write_json

if TYPE_CHECKING:
    from datasets import Dataset

BATCH_CLIPS = 8
"""Clips held in memory before they go to the shard."""


class ShardWriter:
    """Write rows into numbered Arrow shards, each visible only when it is whole.

    Args:
        folder: folder of ``shard-00000.arrow``..., made when missing.
        schema: schema of the rows.
        shard_rows: rows per shard; only the last shard of a closed writer may have fewer.

    Attributes:
        complete_rows: rows in whole shards so far. A caller that resumes leaves out that many rows
            from the front. A short last shard, which only a finished writer leaves, is whole.
    """

    def __init__(self, folder: str | Path, schema: pa.Schema, shard_rows: int) -> None:
        if shard_rows < 1:
            raise ValueError(f"shard_rows must be at least 1, got {shard_rows}")
        self.folder = Path(folder)
        self.schema = schema
        self.shard_rows = shard_rows
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob("*.partial"):
            leftover.unlink()
        shards = list_shards(self.folder)
        self.complete_rows = sum(count_rows(path) for path in shards)
        self._next_shard = len(shards)
        self._pending: list[dict[str, Any]] = []
        self._rows = 0
        self._sink: pa.OSFile | None = None
        self._stream: pa.RecordBatchStreamWriter | None = None

    def add_row(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self._pending.append(row)
        self._rows += 1
        full = self._rows == self.shard_rows
        if full or len(self._pending) == BATCH_CLIPS:
            self._flush()
        if full:
            self._finish_shard()

    def close(self) -> None:
        """Write the remaining rows as a last, shorter shard."""
        if self._rows:
            self._flush()
            self._finish_shard()

    def abandon(self) -> None:
        """Drop the unfinished shard, as a killed process would."""
        if self._stream is not None and self._sink is not None:
            self._sink.close()
            self._partial.unlink(missing_ok=True)
        self._pending, self._rows, self._stream, self._sink = [], 0, None, None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    @property
    def _final(self) -> Path:
        return self.folder / f"shard-{self._next_shard:05d}.arrow"

    @property
    def _partial(self) -> Path:
        return self._final.with_suffix(".partial")

    def _flush(self) -> None:
        if not self._pending:
            return
        if self._stream is None:
            self._sink = pa.OSFile(str(self._partial), "wb")
            self._stream = pa.ipc.new_stream(self._sink, self.schema)
        self._stream.write_batch(pa.RecordBatch.from_pylist(self._pending, schema=self.schema))
        self._pending = []

    def _finish_shard(self) -> None:
        assert self._stream is not None
        assert self._sink is not None
        self._stream.close()
        self._sink.close()
        sync_and_rename(self._partial, self._final)
        self._next_shard += 1
        self.complete_rows += self._rows
        self._rows, self._stream, self._sink = 0, None, None


def open_shards(shards: list[Path]) -> "Dataset":
    """Concatenate Arrow shards as one memory-mapped dataset."""
    from datasets import Dataset, concatenate_datasets

    return concatenate_datasets([Dataset.from_file(str(path)) for path in shards])


def as_arrow(dataset: "Dataset") -> "Dataset":
    """Format a dataset to give Arrow tables, whose values are not copied.

    Formatting costs as much as many reads, so format once before reading row after row.
    """
    return dataset if dataset.format["type"] == "arrow" else dataset.with_format("arrow")


def read_columns(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    """Read some columns of one shard as rows."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_stream(source).read_all().select(columns).to_pylist()


def read_split(folder: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Read some columns of all whole shards of a folder as rows, one shard in memory at a time."""
    for path in list_shards(folder):
        yield from read_columns(path, columns)


def count_rows(path: Path) -> int:
    """Count the rows of one shard.

    Raises:
        ValueError: the file is not a whole Arrow stream.
    """
    try:
        with pa.memory_map(str(path)) as source:
            return sum(batch.num_rows for batch in pa.ipc.open_stream(source))
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is not a whole Arrow shard: {error}") from error


def read_description(
    folder: str | Path, name: str, kind: str, command: str, version: int
) -> dict[str, Any]:
    """Read the JSON file that is written last to a folder of shards.

    Args:
        folder: of the shards.
        name: of the file.
        kind: what the folder should be, for messages.
        command: that makes such folders, for messages.
        version: the ``format_version`` that can be read.

    Raises:
        ValueError: the file is missing, unreadable or of another format version.
    """
    path = Path(folder) / name
    if not Path(folder).is_dir():
        raise ValueError(f"{folder} is not a folder: no {kind} there")
    if not path.is_file():
        raise ValueError(
            f"{folder} is not a finished {kind}: {name} is missing "
            f"(run the same `{command}` again to finish it)"
        )
    content = read_json_object(path)
    found = content.get("format_version")
    if found != version:
        raise ValueError(f"{path}: format_version must be {version}, got {found}")
    return content


def begin_or_resume(folder: Path, path: Path, settings: dict[str, Any], what: str) -> None:
    """Store the settings of a folder of shards in ``path``, or check them where that exists.

    Raises:
        ValueError: the folder was begun with other settings, or holds shards of unknown ones.
    """
    if path.is_file():
        refuse_other(folder, json.loads(path.read_text()), settings, what)
    elif any(folder.glob("*/shard-*.arrow")):
        raise ValueError(f"{folder} already holds shards of another origin: choose another folder")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)


def refuse_other(folder: Path, found: dict[str, Any], wanted: dict[str, Any], what: str) -> None:
    """Raise ValueError unless the settings are equal, naming the first that differs."""
    for key, value in wanted.items():
        if found.get(key) != value:
            changed = f"{key}={found.get(key)!r} (now {value!r})"
            if key in ("tracks", "tracks_digest"):  # of ``prepare audio``
                changed = "other or changed audio files"
            raise ValueError(
                f"{folder} holds {what} made with {changed}: choose another folder or delete it"
            )


def list_shards(folder: Path) -> list[Path]:
    """List the whole shards of a folder in order."""
    return sorted(folder.glob("shard-*.arrow"))


def evenly_spaced(rows: Sized, most: int) -> list[int]:
    """Choose up to ``most`` row numbers, spread evenly."""
    count = min(most, len(rows))
    return [index * len(rows) // count for index in range(count)]
