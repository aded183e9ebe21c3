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
    """Hold one item as it came out."""

    id: str  # of the item; no other line of the manifest has it
    status: str  # "done" or "failed"
    prompt: str  # this and what follows, up to ``settings``, as in ``RenderItem``
    negative_prompt: str | None
    seed: int | None
    decoder_seed: int
    settings: dict[str, Any]
    pipeline: str  # name or folder of the pipeline
    pipeline_hash: str  # BLAKE2b of its configs, weights and vocabulary
    # that was followed, as JSON (docs/plans.md); None where there was none
    plan: dict[str, Any] | None = None
    license: str = ""  # of the weights
    versions: dict[str, str] = field(default_factory=dict)  # of partita, torch and so on, by name
    # "device" that rendered it, and the job's "batch_size"
    machine: dict[str, Any] = field(default_factory=dict)
    attempts: int = 1  # 1, or 2 where the first one failed
    error: str = ""  # what went wrong, for a failed item; "" otherwise
    # file name in the manifest's folder; "" for a failed item, as are the next three
    audio: str = ""
    tokens: str = ""  # file name in the manifest's folder
    audio_sha256: str = ""  # of the audio file, hexadecimal
    tokens_sha256: str = ""  # of the token file, hexadecimal
    duration_s: float = 0.0  # length of the audio (s); 0 for a failed item
    sample_rate: int = 0
    channels: int = 0
    loudness_lufs: float | None = None  # integrated loudness as written (LUFS); None for silence
    true_peak_db: float | None = None  # as written (dBTP); None for silence
    gain_db: float = 0.0  # applied on the way to that loudness
    # what was done to the audio that was not asked for, one sentence each
    notes: list[str] = field(default_factory=list)
    # "prior_s" (the item's share of its batch), "decoder_s", "write_s": seconds of work;
    # "finished": seconds since 1970
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


def format_entry(entry: ManifestEntry) -> bytes:
    """Format an entry as a line."""
    return json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n"
