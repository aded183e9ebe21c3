"""Write Arrow or Parquet shards whole or not at all; Arrow ones are read without a copy.

Every shard of a folder but the last has the same number of rows. A stopped writer resumes after the
last whole shard.
"""

import json
from collections.abc import Iterator, Sized
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa

from codec.process_settings import kept_process_settings
from codec.whole_file import read_json_object, whole_file, write_json

if TYPE_CHECKING:
    from datasets import Dataset

ShardKind = Literal["arrow", "parquet"]
BATCH_CLIPS = 8  # clips held in memory before they go to the shard


class ShardWriter:
    """Write rows into numbered shards of ``shard_rows``, each visible only when it is whole.

    Parquet is what the hub shows, and smaller. Only the last shard of a closed writer may be
    short.

    Attributes:
        complete_rows: rows in whole shards so far. A caller that resumes leaves out that many rows
            from the front. A short last shard, which only a finished writer leaves, is whole.
    """

    def __init__(
        self, folder: str | Path, schema: pa.Schema, shard_rows: int, kind: ShardKind = "arrow"
    ) -> None:
        if shard_rows < 1:
            raise ValueError(f"shard_rows must be at least 1, got {shard_rows}")
        self.folder, self.schema, self.shard_rows = Path(folder), schema, shard_rows
        self.kind = kind
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob("*.partial*"):
            leftover.unlink()
        shards = list_shards(self.folder)
        self.complete_rows = sum(count_rows(path) for path in shards)
        self._next_shard = len(shards)
        self._pending: list[dict[str, Any]] = []
        self._rows = 0  # of the unfinished shard
        self._shard = ExitStack()
        self._stream: Any = None  # a writer of pyarrow's

    def add_row(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self._pending.append(row)
        self._rows += 1
        if self._rows == self.shard_rows:
            self._finish_shard()
        elif len(self._pending) == BATCH_CLIPS:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        """Write the remaining rows as a last, shorter shard, or drop them after an error."""
        if error[0] is not None:
            self._shard.__exit__(*error)
        elif self._rows:
            self._finish_shard()

    def _flush(self) -> None:
        if self._stream is None:
            path = self.folder / f"shard-{self._next_shard:05d}.{self.kind}"
            sink = pa.OSFile(str(self._shard.enter_context(whole_file(path))), "wb")
            self._shard.enter_context(sink)
            if self.kind == "parquet":
                from pyarrow.parquet import ParquetWriter

                self._stream = ParquetWriter(sink, self.schema)
            else:
                self._stream = pa.ipc.new_stream(sink, self.schema)
        self._stream.write_batch(pa.RecordBatch.from_pylist(self._pending, schema=self.schema))
        self._pending = []

    def _finish_shard(self) -> None:
        if self._pending:
            self._flush()
        assert self._stream is not None
        self._stream.close()
        self._shard.close()
        self._next_shard += 1
        self.complete_rows += self._rows
        self._rows, self._stream = 0, None


def open_split(folder: str | Path, split: str, kind: str) -> "Dataset":
    """Open the shards of one split, memory-mapped; ``kind`` says in messages what the folder is.

    Raises:
        ValueError: there is no clip in this split.
    """
    shards = list_shards(Path(folder) / split)
    if not shards:
        raise ValueError(f"the {kind} {folder} has no clip in its split {split!r}")
    return open_shards(shards)


def open_shards(shards: list[Path]) -> "Dataset":
    """Concatenate shards as one memory-mapped dataset; of Parquet, datasets keeps a copy.

    Raises:
        ValueError: a shard is not whole.
    """
    from datasets import Dataset, concatenate_datasets
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if shards[0].suffix == ".parquet":
        for shard in shards:  # the error of datasets does not name it
            count_rows(shard)
        shown = not are_progress_bars_disabled()
        disable_progress_bars()
        try:
            with kept_process_settings():  # datasets sets a variable of the environment
                return Dataset.from_parquet([str(path) for path in shards])
        finally:
            if shown:
                enable_progress_bars()
    opened = []
    for shard in shards:
        try:
            opened.append(Dataset.from_file(str(shard)))
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{shard} is not a whole Arrow shard: {error}") from error
    return concatenate_datasets(opened)


def as_arrow(dataset: "Dataset") -> "Dataset":
    """Format a dataset to give Arrow tables, whose values are not copied.

    Formatting costs as much as many reads, so format once before reading row after row.
    """
    return dataset if dataset.format["type"] == "arrow" else dataset.with_format("arrow")


def read_split(folder: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Read some columns of all whole shards of a folder as rows, one shard in memory at a time."""
    for path in list_shards(folder):
        with pa.memory_map(str(path)) as source:
            yield from pa.ipc.open_stream(source).read_all().select(columns).to_pylist()


def count_rows(path: Path) -> int:
    """Count the rows of one shard.

    Raises:
        ValueError: the file is not a whole Arrow stream or Parquet file.
    """
    try:
        if path.suffix == ".parquet":
            from pyarrow.parquet import read_metadata

            return read_metadata(path).num_rows
        with pa.memory_map(str(path)) as source:
            return sum(batch.num_rows for batch in pa.ipc.open_stream(source))
    except (pa.ArrowInvalid, OSError) as error:
        kind = path.suffix.removeprefix(".").capitalize()
        raise ValueError(f"{path} is not a whole {kind} shard: {error}") from error


def read_description(
    folder: str | Path, name: str, kind: str, command: str, version: int
) -> dict[str, Any]:
    """Read the JSON file that is written last to a folder of shards.

    ``kind`` says what the folder should be, ``command`` what makes such folders, both for messages.

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
    elif any(folder.glob("*/shard-*.*")):
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
    return sorted([*folder.glob("shard-*.arrow"), *folder.glob("shard-*.parquet")])


def is_remote(folder: str) -> bool:
    """Return whether a folder is a URL: an object store, the hub, a web server."""
    return "://" in folder


def read_remote(url: str) -> bytes:
    """Read a file through fsspec.

    Raises:
        ValueError: it is not there, access is refused, or its kind of URL needs another package.
    """
    import fsspec

    try:
        # a new connection: those of the parent of a data-loading process cannot be used there
        with fsspec.open(url, "rb", skip_instance_cache=True) as file:
            return file.read()
    except Exception as error:  # every file system has a library and exceptions of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{url} cannot be read: {reason}") from error


def evenly_spaced(rows: Sized, most: int) -> list[int]:
    """Choose up to ``most`` row numbers, spread evenly."""
    count = min(most, len(rows))
    return [index * len(rows) // count for index in range(count)]
