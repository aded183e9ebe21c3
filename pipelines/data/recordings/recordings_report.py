"""The report of a preparation: what is in, what was left out and why."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.whole_file import write_json
from pipelines.data.prepared import SPLITS
from pipelines.data.shards import list_shards, read_columns

if TYPE_CHECKING:
    from pipelines.data.recordings.cutting import TrackRecord
    from pipelines.data.recordings.track_selection import Selection

LOUDNESS_BIN_DB = 3
MAX_LABEL_VALUES = 30
MAX_LABEL_LENGTH = 60


def write_report(
    folder: Path, records: "list[TrackRecord]", selection: "Selection", info: dict[str, Any]
) -> dict[str, Any]:
    """Write ``report.json`` and ``report.md``.

    Args:
        folder: the dataset.
        records: of every track that was listed.
        selection: which of them stayed.
        info: the content of ``dataset.json``.

    Returns:
        The content of ``report.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = build_report(folder, records, selection, info)
    partial = folder / "report.md.partial"
    partial.write_text(render(report))
    partial.replace(folder / "report.md")
    write_json(folder / "report.json", report)
    return report


def build_report(
    folder: Path, records: "list[TrackRecord]", selection: "Selection", info: dict[str, Any]
) -> dict[str, Any]:
    """Everything the report says, as plain data."""
    kept = [records[index] for index in selection.kept]
    report: dict[str, Any] = {
        "tracks_listed": len(records),
        "tracks_kept": len(kept),
        "splits": info["splits"],
        "sources": info["sources"],
        "skipped": list_skipped(records),
        "duplicates": list_duplicates(records, selection),
        "leakage": list_leaks(records, selection),
        "silent_clips": sum(record.silent_clips for record in kept),
        "scaled_clips": sum(record.scaled_clips for record in kept),
        "sample_rates": count_rates(kept),
        "loudness_db": loudness_histogram(kept),
        "labels": label_histograms(folder),
    }
    report["warnings"] = list_warnings(report)
    return report


def list_skipped(records: "list[TrackRecord]") -> list[dict[str, str]]:
    """Tracks that gave no clip, with the reason."""
    return [
        {"track": record.name, "reason": record.reason, "detail": record.detail}
        for record in records
        if record.reason
    ]


def list_duplicates(records: "list[TrackRecord]", selection: "Selection") -> list[dict[str, Any]]:
    """Dropped tracks, with the one that stayed and how much they share."""
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


def list_leaks(records: "list[TrackRecord]", selection: "Selection") -> list[dict[str, Any]]:
    """Kept tracks of different splits that share sound."""
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


def count_rates(records: "list[TrackRecord]") -> dict[str, int]:
    """Tracks by sample rate of their files."""
    rates = Counter(record.sample_rate for record in records)
    return {f"{rate} Hz": count for rate, count in sorted(rates.items())}


def loudness_histogram(records: "list[TrackRecord]") -> dict[str, int]:
    """Clips by RMS, in bins of 3 dB named by their lower edge."""
    bins = Counter(
        int(db // LOUDNESS_BIN_DB) * LOUDNESS_BIN_DB
        for record in records
        for db in record.loudness_db
    )
    return {f"{edge} dB": bins[edge] for edge in sorted(bins)}


def label_histograms(folder: Path) -> dict[str, dict[str, int]]:
    """Clips by value of each label, the most frequent values first."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for split in SPLITS:
        for path in list_shards(folder / split):
            for row in read_columns(path, ["labels"]):
                for key, value in json.loads(row["labels"]).items():
                    for item in value if isinstance(value, list) else [value]:
                        counts[key][str(item)[:MAX_LABEL_LENGTH]] += 1
    return {key: dict(counts[key].most_common(MAX_LABEL_VALUES)) for key in sorted(counts)}


def list_warnings(report: dict[str, Any]) -> list[str]:
    """What a person should know before training on this."""
    warnings = []
    for split in SPLITS:
        if split not in report["splits"]:
            warnings.append(f"the split {split!r} is empty")
    if report["leakage"]:
        warnings.append(f"{len(report['leakage'])} pairs of tracks share sound across the splits")
    unlicensed = sum(row["hours"] for row in report["sources"] if not row["license"])
    if unlicensed:
        warnings.append(f"{unlicensed:.2f} h carry no license")
    if report["scaled_clips"]:
        warnings.append(f"{report['scaled_clips']} clips beyond full scale were scaled down")
    return warnings


def render(report: dict[str, Any]) -> str:
    """``report.md``."""
    kept, listed = report["tracks_kept"], report["tracks_listed"]
    lines = ["# Prepared dataset", "", f"{kept} of {listed} tracks kept."]
    lines += [f"- warning: {warning}" for warning in report["warnings"]]
    splits = [{"split": name, **row} for name, row in report["splits"].items()]
    sections: list[tuple[str, list[dict[str, Any]]]] = [
        ("Splits", splits),
        ("Sources", report["sources"]),
        ("Leakage between splits", report["leakage"]),
        ("Duplicates dropped", report["duplicates"]),
        ("Skipped", report["skipped"]),
    ]
    for title, rows in sections:
        lines += ["", f"## {title}", "", *table(rows)]
    lines += ["", "## Clips", "", f"- dropped for silence: {report['silent_clips']}"]
    lines += [f"- scaled down to full scale: {report['scaled_clips']}"]
    histograms = {
        "Sample rates of the files (tracks)": report["sample_rates"],
        "Loudness (RMS, clips)": report["loudness_db"],
        **{f"Label {key} (clips)": values for key, values in report["labels"].items()},
    }
    for title, counts in histograms.items():
        lines += ["", f"## {title}", "", *bars(counts)]
    return "\n".join(lines) + "\n"


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Rows as a Markdown table; "none" when there are none."""
    if not rows:
        return ["none"]
    keys = list(rows[0])
    lines = [f"| {' | '.join(keys)} |", "|" + "---|" * len(keys)]
    for row in rows:
        cells = [str(row[key]).replace("|", "\\|").replace("\n", " ") for key in keys]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def bars(counts: dict[str, int]) -> list[str]:
    """A histogram as a Markdown table with bars of up to 30 characters."""
    most = max(counts.values(), default=0)
    rows = [
        {"value": value, "count": count, "": "#" * round(30 * count / most)}
        for value, count in counts.items()
    ]
    return table(rows)
