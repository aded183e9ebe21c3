"""Read token caches where they lie: in an object store, on the hub, on another machine's disk.

A cache is put there as it is (``aws s3 cp --recursive data/music-tokens s3://...``). Shards are
fetched whole when their first clip is wanted, and dropped when the next ones are; which clip is
item n of an endless stream follows from the seed and n alone, so that a run resumes exactly and
the number of processes changes nothing.
"""

import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch

from codec.seeds import generator
from codec.whole_file import whole_file
from pipelines.data.shards import BATCH_CLIPS, as_arrow, count_rows, open_shards, read_remote
from pipelines.data.tokens import TokenInfo, hash_text, read_token_infos

if TYPE_CHECKING:
    from datasets import Dataset

KEPT_SHARDS = 8  # shards that a process keeps on its disk: twice what it draws from at a time


@dataclass(frozen=True)
class RemoteShard:
    """Locate a shard, with the number of its rows and the name of its copy here."""

    url: str
    rows: int
    copy: str


class ShardStore:
    """Fetch the shards of a split of caches, and keep those used last on this machine's disk.

    Raises:
        ValueError: a cache cannot be read, or none has the split.
    """

    def __init__(self, urls: list[str], split: str) -> None:
        self.folder = Path(tempfile.gettempdir()) / "partita-shards"
        self._open: OrderedDict[int, Dataset] = OrderedDict()
        self.shards: list[RemoteShard] = []
        for url, info in zip(urls, read_token_infos(urls), strict=True):
            clips, folder = info.clips.get(split, 0), f"{url.rstrip('/')}/{split}"
            first = f"{folder}/shard-00000.{info.shards}"
            size = count_rows(self._fetch(first, copy_name(first, info))) if clips else 1
            for number in range(-(-clips // size)):  # all have as many rows but the last
                shard = f"{folder}/shard-{number:05d}.{info.shards}"
                rows = min(size, clips - number * size)
                self.shards.append(RemoteShard(shard, rows, copy_name(shard, info)))
        if not self.shards:
            raise ValueError(f"none of the token caches {urls} has a split {split!r}")

    def spread(self, most: int) -> list[tuple[int, int]]:
        """List up to ``most`` rows, evenly spaced over the shards that are drawn from at a time."""
        drawn = enumerate(self.shards[: ShardOrder.shards_at_once])
        places = [(shard, row) for shard, found in drawn for row in range(found.rows)]
        count = min(most, len(places))
        return [places[index * len(places) // count] for index in range(count)]

    def find(self, place: tuple[int, int]) -> "tuple[Dataset, int]":
        """Return a dataset of Arrow tables, and the place in it, of a shard's row.

        Raises:
            ValueError: the shard is missing, truncated, or does not hold its rows.
        """
        shard, row = place
        if shard not in self._open:
            wanted = self.shards[shard]
            path = self._fetch(wanted.url, wanted.copy)
            if (rows := count_rows(path)) != wanted.rows:
                raise ValueError(f"{wanted.url} must hold {wanted.rows} rows, got {rows}")
            self._open[shard] = as_arrow(open_shards([path]))
            if len(self._open) > KEPT_SHARDS:
                old, _ = self._open.popitem(last=False)
                (self.folder / self.shards[old].copy).unlink(missing_ok=True)
        self._open.move_to_end(shard)
        return self._open[shard], row

    def _fetch(self, url: str, copy: str) -> Path:
        path = self.folder / copy
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as partial:
                data = read_remote(url)
                try:
                    write_arrow(partial, data, url.rpartition(".")[2])
                except ValueError as error:  # pyarrow's is one
                    raise ValueError(f"{url} is truncated or no shard") from error
        return path

    def __getstate__(self) -> dict[str, Any]:
        """Let data-loading processes open shards of their own."""
        return self.__dict__ | {"_open": OrderedDict()}


def write_arrow(path: Path, data: bytes, kind: str) -> None:
    """Write the content of a shard as Arrow, from which single rows are read without a copy.

    Raises:
        ValueError: it is not whole.
    """
    if kind == "parquet":
        from pyarrow.parquet import read_table

        table = read_table(pa.BufferReader(data))
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table, max_chunksize=BATCH_CLIPS)
    else:
        path.write_bytes(data)
        count_rows(path)


def copy_name(url: str, info: TokenInfo) -> str:
    """Name the copy of a shard: another codec's or dataset's at the same URL has another name."""
    return f"{hash_text(f'{url} {info}')}.arrow"


class ShardOrder:
    """Order the rows of shards: every epoch shuffles shards, then the rows of four at a time."""

    shards_at_once = KEPT_SHARDS // 2

    def __init__(self, rows: list[int], seed: int) -> None:
        self.rows = torch.tensor(rows)
        self.seed = seed
        self._epoch = -1
        self._order = torch.empty(0, 2, dtype=torch.int64)

    def __call__(self, item: int) -> tuple[int, int]:
        """Find where item ``item`` of the stream comes from."""
        epoch, position = divmod(item, int(self.rows.sum()))
        if epoch != self._epoch:
            self._order, self._epoch = self._shuffle(epoch), epoch
        shard, row = self._order[position].tolist()
        return shard, row

    def _shuffle(self, epoch: int) -> torch.Tensor:
        draws = generator(self.seed, "epoch", epoch)
        parts = []
        for group in torch.randperm(len(self.rows), generator=draws).split(self.shards_at_once):
            places = [
                torch.stack([torch.full((count,), shard), torch.arange(count)], dim=1)
                for shard, count in zip(group.tolist(), self.rows[group].tolist(), strict=True)
            ]
            joined = torch.cat(places)
            parts.append(joined[torch.randperm(len(joined), generator=draws)])
        return torch.cat(parts)
