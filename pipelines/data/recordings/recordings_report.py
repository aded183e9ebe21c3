"""Report what a prepared dataset holds, and what was left out and why."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codec.whole_file import write_json
from pipelines.data.markdown import bullets, table, write_page
from pipelines.data.prepared import SPLITS
from pipelines.data.recordings.cutting import TrackRecord
from pipelines.data.recordings.track_selection import Selection
from pipelines.data.recordings.tracks import TrackList
from pipelines.data.shards import read_split

LOUDNESS_BIN_DB = 3
MAX_LABEL_VALUES = 30
MAX_LABEL_LENGTH = 60
ADVICE = "it takes two recordings or more, or one cut into several files"


def write_report(
    folder: Path,
    records: list[TrackRecord],
    selection: Selection,
    info: dict[str, Any],
    found: TrackList,
) -> dict[str, Any]:
    """Write ``report.json`` and ``report.md``, and return the content."""
    kept = [records[index] for index in selection.kept]
    rates = Counter(record.sample_rate for record in kept)
    report: dict[str, Any] = {
        "tracks_listed": len(records),
        "tracks_kept": len(kept),
        "splits": info["splits"],
        "sources": info["sources"],
        "skipped": [
            {"track": record.name, "reason": record.reason, "detail": record.detail}
            for record in records
            if record.reason
        ],
        "metadata": found.faults,
        "put_right": [
            {"track": record.name, "note": note} for record in records for note in record.notes
        ],
        "other_files": dict(found.other_files.most_common()),
        "duplicates": list_duplicates(records, selection),
        "leakage": list_leaks(records, selection),
        "silent_clips": sum(record.silent_clips for record in kept),
        "scaled_clips": sum(record.scaled_clips for record in kept),
        "sample_rates": {f"{rate} Hz": count for rate, count in sorted(rates.items())},
        "loudness_db": loudness_histogram(kept),
        "labels": label_histograms(folder),
    }
    report["warnings"] = list_warnings(report)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", report)
    write_page(folder / "report.md", report_blocks(report))
    return report


def list_duplicates(records: list[TrackRecord], selection: Selection) -> list[dict[str, Any]]:
    """List dropped tracks, with the one that stayed and how much they share."""
    shared = {frozenset((m.first, m.second)): m.shared_s for m in selection.matches}
    rows = []
    for index, kept in sorted(selection.duplicates.items()):
        seconds = shared.get(frozenset((index, kept)))
        rows.append(
            {
                "track": records[index].name,
                "duplicate_of": records[kept].name,
                "kind": "same file" if seconds is None else "same recording",
                "shared_s": records[index].duration_s if seconds is None else seconds,
            }
        )
    return rows


def list_leaks(records: list[TrackRecord], selection: Selection) -> list[dict[str, Any]]:
    """List kept tracks of different splits that share sound."""
    kept = set(selection.kept)
    return [
        {
            "track": records[match.first].name,
            "other": records[match.second].name,
            "shared_s": match.shared_s,
        }
        for match in selection.matches
        if {match.first, match.second} <= kept
        and records[match.first].split != records[match.second].split
    ]


def loudness_histogram(records: list[TrackRecord]) -> dict[str, int]:
    """Count clips by RMS, in bins of 3 dB named by their lower edge."""
    bins = Counter(
        int(db // LOUDNESS_BIN_DB) * LOUDNESS_BIN_DB
        for record in records
        for db in record.loudness_db
    )
    return {f"{edge} dB": bins[edge] for edge in sorted(bins)}


def label_histograms(folder: Path) -> dict[str, dict[str, int]]:
    """Count clips by the value of each label, the most frequent first; tempi in bins of ten."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in (row for split in SPLITS for row in read_split(folder / split, ["labels"])):
        labels = json.loads(row["labels"])
        labels.pop("plan", None)  # hardly two clips share a list of chords
        if isinstance(labels.get("tempo_bpm"), int | float):
            labels["tempo_bpm"] = f"{labels['tempo_bpm'] // 10 * 10:.0f}-"
        for key, value in labels.items():
            for item in value if isinstance(value, list) else [value]:
                counts[key][str(item)[:MAX_LABEL_LENGTH]] += 1
    return {key: dict(counts[key].most_common(MAX_LABEL_VALUES)) for key in sorted(counts)}


def list_warnings(report: dict[str, Any]) -> list[str]:
    """List what to know before training on the dataset."""
    warnings = []
    for split in SPLITS:
        if split not in report["splits"]:
            warnings.append(f"the split {split!r} is empty, and every trainer needs it: {ADVICE}")
    for name, what in (("metadata", "faulty rows of metadata"), ("put_right", "things put right")):
        if report[name]:
            warnings.append(f"{len(report[name])} {what}")
    if report["leakage"]:
        warnings.append(f"{len(report['leakage'])} pairs of tracks share sound across the splits")
    unlicensed = sum(row["hours"] for row in report["sources"] if not row["license"])
    if unlicensed:
        warnings.append(f"{unlicensed:.2f} h carry no license")
    if report["scaled_clips"]:
        warnings.append(f"{report['scaled_clips']} clips beyond full scale were scaled down")
    return warnings


def report_blocks(report: dict[str, Any]) -> Iterator[str]:
    """Build the blocks of ``report.md``."""
    yield "# Prepared dataset"
    yield f"{report['tracks_kept']} of {report['tracks_listed']} tracks kept."
    yield bullets(f"warning: {warning}" for warning in report["warnings"])
    sections = {
        "Splits": [{"split": name, **row} for name, row in report["splits"].items()],
        "Sources": report["sources"],
        "Leakage between splits": report["leakage"],
        "Duplicates dropped": report["duplicates"],
        "Skipped": report["skipped"],
        "Put right": report["put_right"],
        "Faulty metadata": [{"row": fault} for fault in report["metadata"]],
        "Other files": [{"suffix": s, "files": n} for s, n in report["other_files"].items()],
    }
    for title, rows in sections.items():
        yield f"## {title}"
        yield table(list(rows[0]), [row.values() for row in rows]) if rows else "none"
    yield "## Clips"
    yield bullets(
        (
            f"dropped for silence: {report['silent_clips']}",
            f"scaled down to full scale: {report['scaled_clips']}",
        )
    )
    histograms = {
        "Sample rates of the files (tracks)": report["sample_rates"],
        "Loudness (RMS, clips)": report["loudness_db"],
        **{f"Label {key} (clips)": values for key, values in report["labels"].items()},
    }
    for title, counts in histograms.items():
        yield f"## {title}"
        most = max(counts.values(), default=0)
        rows = [(value, count, "#" * round(30 * count / most)) for value, count in counts.items()]
        yield table(("value", "count", ""), rows) if rows else "none"
