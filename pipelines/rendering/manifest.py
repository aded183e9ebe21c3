"""Keep ``manifest.jsonl``: a line per finished item, with all that is needed to make it again.

A run appends a line when the item's files lie under their final names, so that a kill at any moment
leaves whole lines and at most one torn one at the end, which readers skip and the next run removes.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from codec.whole_file import write_whole

NAME = "manifest.jsonl"


@dataclass(frozen=True)
class ManifestEntry:
    """Hold one item as it came out.

    Attributes:
        id: of the item; no other line of the manifest has it.
        status: "done" or "failed".
        prompt: this and what follows, up to ``settings``, as in ``RenderItem``.
        plan: that was followed, as JSON (docs/plans.md); None where there was none.
        pipeline: name or folder of the pipeline.
        pipeline_hash: BLAKE2b of its configs, weights and vocabulary.
        license: of the weights.
        versions: of partita, torch and so on, by name.
        machine: "device" that rendered it, and the job's "batch_size".
        attempts: 1, or 2 where the first one failed.
        error: what went wrong, for a failed item; "" otherwise.
        audio: file name in the manifest's folder; "" for a failed item, as are the next three.
        tokens: file name in the manifest's folder.
        audio_sha256: of the audio file, hexadecimal.
        tokens_sha256: of the token file, hexadecimal.
        duration_s: length of the audio (s); 0 for a failed item.
        loudness_lufs: integrated loudness as written (LUFS); None for silence.
        true_peak_db: as written (dBTP); None for silence.
        gain_db: applied on the way to that loudness.
        notes: what was done to the audio that was not asked for, one sentence each.
        timings: "prior_s" (the item's share of its batch), "decoder_s", "write_s": seconds of work;
            "finished": seconds since 1970.
    """

    id: str
    status: str
    prompt: str
    negative_prompt: str | None
    seed: int | None
    decoder_seed: int
    settings: dict[str, Any]
    pipeline: str
    pipeline_hash: str
    plan: dict[str, Any] | None = None
    license: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    attempts: int = 1
    error: str = ""
    audio: str = ""
    tokens: str = ""
    audio_sha256: str = ""
    tokens_sha256: str = ""
    duration_s: float = 0.0
    sample_rate: int = 0
    channels: int = 0
    loudness_lufs: float | None = None
    true_peak_db: float | None = None
    gain_db: float = 0.0
    notes: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)


ENTRY_FIELDS = {item.name for item in fields(ManifestEntry)}


def read_manifest(folder: str | Path) -> dict[str, ManifestEntry]:
    """Read the entries of a folder's manifest by id, in order; none where there is no file.

    A torn last line is skipped.

    Raises:
        ValueError: another line is not an entry, or an id occurs twice.
    """
    path = Path(folder) / NAME
    entries: dict[str, ManifestEntry] = {}
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is torn
        where = f"{path}, line {number}"
        try:
            values = json.loads(line)
        except ValueError as error:  # bad JSON and bad UTF-8
            raise ValueError(f"{where} is not JSON: {error}") from error
        if not isinstance(values, dict) or not values.keys() <= ENTRY_FIELDS:
            raise ValueError(f"{where} is not an entry of a manifest")
        try:
            entry = ManifestEntry(**values)
        except TypeError as error:
            raise ValueError(f"{where} is not an entry of a manifest: {error}") from error
        if entry.id in entries:
            raise ValueError(f"{where}: the id {entry.id!r} occurs twice")
        entries[entry.id] = entry
    return entries


def write_manifest(folder: str | Path, entries: Iterable[ManifestEntry]) -> None:
    """Replace a folder's manifest in one step."""
    write_whole(Path(folder) / NAME, b"".join(map(format_entry, entries)))


def append_entry(folder: str | Path, entry: ManifestEntry) -> None:
    """Add one line; a manifest that ends in a torn line must be written anew first."""
    with (Path(folder) / NAME).open("ab") as file:
        file.write(format_entry(entry))


def format_entry(entry: ManifestEntry) -> bytes:
    """Format an entry as a line."""
    return json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n"
