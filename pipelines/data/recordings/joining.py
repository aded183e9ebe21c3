"""Join the staged clips of many tracks into the shards of a dataset."""

from pathlib import Path

from pipelines.data.prepared import SPLITS, PreparedWriter, iterate_clips
from pipelines.data.recordings.cutting import TrackRecord
from pipelines.data.recordings.track_selection import Selection


def join_clips(
    folder: Path,
    records: list[TrackRecord],
    selection: Selection,
    shard_clips: int,
    staged: list[Path],
) -> None:
    """Write the staged clips of each split in order, and delete those that whole shards hold."""
    for split in SPLITS:
        chosen = [index for index in selection.kept if records[index].split == split]
        if not chosen:
            continue
        with PreparedWriter(folder, split, shard_clips) as writer:
            join_split(writer, [(staged[i], records[i].num_clips) for i in chosen])


def join_split(writer: PreparedWriter, staged: list[tuple[Path, int]]) -> None:
    """Append the clips that the writer's whole shards do not hold yet."""
    done, end = writer.complete_rows, 0
    ends: list[tuple[Path, int]] = []
    for path, num_clips in staged:
        start, end = end, end + num_clips
        if end <= done:
            continue
        for number, clip in enumerate(iterate_clips([path]), start=start):
            if number >= done:
                writer.add(clip)
        ends.append((path, end))
        while ends and ends[0][1] <= writer.complete_rows:
            ends.pop(0)[0].unlink()
