"""``index.html`` beside rendered files: to listen, to compare, to find; nothing but the folder."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from codec.audio_file import read_audio
from codec.whole_file import write_whole
from pipelines.inference.plot import check_plotting, draw_thumbnail
from pipelines.rendering.manifest import NAME, ManifestEntry, read_manifest

TEMPLATE = Path(__file__).with_name("sheet.html")
THUMBNAILS = "thumbnails"
SORT_KEYS = {
    "number": "order",
    "id": "id",
    "prompt": "prompt",
    "duration": "duration",
    "loudness": "loudness",
    "peak": "true peak",
    "seed": "seed",
    "status": "status",
}
LABELS = {
    "duration_s": "wanted duration (s)",
    "loudness_lufs": "wanted loudness (LUFS)",
    "num_inference_steps": "decoder steps",
    "codes": "tokens of",
}
SHARED = ("pipeline", "pipeline_hash", "license")


def write_sheet(folder: str | Path) -> Path:
    """Write ``index.html``, and thumbnails that are not there yet, for a folder's manifest.

    It may be called while a job is running, and again: a thumbnail is named for the hash of its
    audio and drawn once. A file that is missing or damaged is said to be so in its place.

    Args:
        folder: holds ``manifest.jsonl`` and the audio files.

    Returns:
        The path of ``index.html``.

    Raises:
        FileNotFoundError: the folder has no manifest.
        ValueError: the manifest is damaged.
        MissingPackageError: matplotlib is not installed; ``check_plotting`` tells
            before anything is rendered.
    """
    check_plotting()
    folder = Path(folder)
    if not (folder / NAME).is_file():
        raise FileNotFoundError(f"{folder / NAME} does not exist: nothing was rendered there")
    entries = list(read_manifest(folder).values())
    shared = shared_settings(entries)
    articles = [
        format_item(number, entry, shared, *picture_of(folder, entry))
        for number, entry in enumerate(entries, start=1)
    ]
    values = {
        "title": escape(folder.resolve().name),
        "summary": format_summary(entries, shared),
        "sort_keys": "\n".join(
            f'<option value="{key}">{label}</option>' for key, label in SORT_KEYS.items()
        ),
        "items": "\n".join(articles),
    }
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)
    write_whole(folder / "index.html", page.encode(errors="replace"))
    return folder / "index.html"


def picture_of(folder: Path, entry: ManifestEntry) -> tuple[str, str]:
    """The thumbnail's path in the folder, drawn if need be, or "" and why there is none."""
    if not entry.audio:
        return "", ""
    name = f"{THUMBNAILS}/{entry.audio_sha256[:24]}.png"
    try:
        if not (folder / entry.audio).is_file():
            raise FileNotFoundError(f"{entry.audio} is missing")
        if not (folder / name).is_file():
            clip = read_audio(folder / entry.audio)
            (folder / THUMBNAILS).mkdir(exist_ok=True)
            draw_thumbnail(clip.audio, clip.sample_rate, folder / name)
    except (ValueError, FileNotFoundError) as error:
        return "", str(error)
    return name, ""


def shared_settings(entries: Sequence[ManifestEntry]) -> dict[str, Any]:
    """The settings that all items have in common; none where there are fewer than two items."""
    if len(entries) < 2:
        return {}
    first = entries[0].settings
    return {
        name: value
        for name, value in first.items()
        if all(name in entry.settings and entry.settings[name] == value for entry in entries)
    }


def format_summary(entries: Sequence[ManifestEntry], shared: dict[str, Any]) -> str:
    """The head of the page: how much there is, and what made it."""
    failed = sum(entry.status != "done" for entry in entries)
    seconds = [entry.duration_s for entry in entries if entry.status == "done"]
    lines = [f"{len(seconds)} items, {format_seconds(sum(seconds))} of audio"]
    if failed:
        lines[0] += f", {failed} failed"
    heard = [entry.loudness_lufs for entry in entries if entry.loudness_lufs is not None]
    if heard:
        lines[0] += f", median loudness {statistics.median(heard):.1f} LUFS"
    for name in SHARED:
        found = sorted({str(getattr(entry, name)) for entry in entries} - {""})
        if found:
            lines.append(f"{label(name)}: {', '.join(found)}")
    common = [f"{label(name)} {format_value(v)}" for name, v in shared.items() if not is_unset(v)]
    if common:
        lines.append(f"all items: {', '.join(common)}")
    return "\n".join(f"<p>{escape(line)}</p>" for line in lines)


def format_item(
    number: int, entry: ManifestEntry, shared: dict[str, Any], picture: str, trouble: str
) -> str:
    """One item as HTML."""
    order = {
        "number": number,
        "id": entry.id,
        "prompt": entry.prompt,
        "duration": entry.duration_s,
        "loudness": entry.loudness_lufs,
        "peak": entry.true_peak_db,
        "seed": entry.seed,
        "status": entry.status,
    }
    data = "".join(
        f' data-{key}="{attribute("" if value is None else value)}"' for key, value in order.items()
    )
    sound = ""
    if picture:
        sound = (
            f'<img src="{address(picture)}" loading="lazy" alt="spectrogram">\n'
            f'<audio controls preload="none" src="{address(entry.audio)}"></audio>'
        )
    elif trouble or entry.error:
        sound = f'<p class="error">{escape(trouble or entry.error)}</p>'
    notes = "".join(f'<p class="note">{escape(note)}</p>\n' for note in entry.notes)
    return (
        f"<article{data}>\n<div>{sound}</div>\n<div>\n<h2>{escape(entry.id)}</h2>\n"
        f'<p class="prompt">{escape(entry.prompt)}</p>\n{format_facts(entry, shared)}\n{notes}'
        f"{format_details(entry)}\n</div>\n</article>"
    )


def format_facts(entry: ManifestEntry, shared: dict[str, Any]) -> str:
    """Measurements, seeds, and the settings that not all items share."""
    facts: dict[str, Any] = {}
    if entry.status == "done":
        facts["duration"] = f"{entry.duration_s:.2f} s"
        facts["loudness"] = level(entry.loudness_lufs, "LUFS")
        facts["true peak"] = level(entry.true_peak_db, "dBTP")
    else:
        facts["status"] = entry.status
    facts["seed"] = entry.seed
    if entry.decoder_seed != entry.seed:
        facts["decoder seed"] = entry.decoder_seed
    if entry.negative_prompt:
        facts["away from"] = entry.negative_prompt
    facts |= {
        label(name): value
        for name, value in entry.settings.items()
        if name not in shared and not is_unset(value) and name != "duration_s"
    }
    rows = (
        f"<div><dt>{escape(name)}</dt> <dd>{escape(format_value(value))}</dd></div>"
        for name, value in facts.items()
    )
    return f"<dl>{''.join(rows)}</dl>"


def format_details(entry: ManifestEntry) -> str:
    """The entry as the manifest has it, folded away, and links to the item's files."""
    links = " ".join(
        f'<a href="{address(name)}">{escape(name)}</a>'
        for name in (entry.audio, entry.tokens)
        if name
    )
    text = json.dumps(asdict(entry), indent=1, ensure_ascii=False)
    return f"<details><summary>all of it</summary>{links}<pre>{escape(text)}</pre></details>"


def label(name: str) -> str:
    """What a field is called on the page."""
    return LABELS.get(name, name.replace("_", " "))


def is_unset(value: Any) -> bool:
    """Whether a setting says that something was left out."""
    return value is None or value is False


def format_value(value: Any) -> str:
    """A setting as people write it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def format_seconds(seconds: float) -> str:
    """A length in hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def level(value: float | None, unit: str) -> str:
    """A measured level with its unit."""
    return "none (silent)" if value is None else f"{value:.1f} {unit}"


def attribute(value: object) -> str:
    """A value between double quotes; line breaks survive as references."""
    return escape(str(value)).replace("\n", "&#10;").replace("\r", "&#13;")


def address(name: str) -> str:
    """A file of the folder as a relative URL."""
    return "./" + quote(name)
