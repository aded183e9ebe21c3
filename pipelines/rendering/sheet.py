"""Write ``index.html`` beside rendered files, to listen and compare; it needs only the folder."""

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
from pipelines.inference.plan_schema import draft_plan
from pipelines.inference.plot import check_plotting, draw_thumbnail
from pipelines.rendering.manifest import NAME, ManifestEntry, read_manifest

TEMPLATE = Path(__file__).with_name("sheet.html")
THUMBNAILS = "thumbnails"
LABELS = {
    "duration_s": "wanted duration (s)",
    "loudness_lufs": "wanted loudness (LUFS)",
    "num_inference_steps": "decoder steps",
    "codes": "tokens of",
}


def write_sheet(folder: str | Path) -> Path:
    """Write ``index.html``, and thumbnails that are not there yet, and return the page's path.

    It may be called while a job is running, and again: a thumbnail is named for the hash of its
    audio and drawn once. The page names a file that is missing or damaged in its place.

    Raises:
        FileNotFoundError: the folder has no manifest.
        ValueError: the manifest is damaged.
        MissingPackageError: matplotlib is not installed; ``check_plotting`` finds out before
            anything is rendered.
    """
    check_plotting()
    folder = Path(folder)
    if not (folder / NAME).is_file():
        raise FileNotFoundError(f"{folder / NAME} does not exist: nothing was rendered there")
    entries = list(read_manifest(folder).values())
    shared = shared_settings(entries)
    items = [format_item(folder, *pair, shared) for pair in enumerate(entries, start=1)]
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(folder.resolve().name),
        summary=format_summary(entries, shared),
        items="\n".join(items),
    )
    write_whole(folder / "index.html", page.encode(errors="replace"))
    return folder / "index.html"


def draw_once(folder: Path, entry: ManifestEntry) -> str:
    """Return the name of an item's thumbnail, drawn where it is missing.

    Raises:
        FileNotFoundError: the audio file is missing.
        ValueError: it is damaged.
    """
    name = f"{THUMBNAILS}/{entry.audio_sha256[:24]}.png"
    if not (folder / entry.audio).is_file():
        raise FileNotFoundError(f"{entry.audio} is missing")
    if not (folder / name).is_file():
        clip = read_audio(folder / entry.audio)
        (folder / THUMBNAILS).mkdir(exist_ok=True)
        draw_thumbnail(clip.audio, clip.sample_rate, folder / name)
    return name


def shared_settings(entries: Sequence[ManifestEntry]) -> dict[str, Any]:
    """Find the settings that all items have in common; none for fewer than two items."""
    if len(entries) < 2:
        return {}
    return {
        name: value
        for name, value in entries[0].settings.items()
        if all(name in entry.settings and entry.settings[name] == value for entry in entries)
    }


def format_summary(entries: Sequence[ManifestEntry], shared: dict[str, Any]) -> str:
    """Format the head of the page: how much there is, and what made it."""
    done = [entry for entry in entries if entry.status == "done"]
    minutes, seconds = divmod(round(sum(entry.duration_s for entry in done)), 60)
    hours, minutes = divmod(minutes, 60)
    length = f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
    lines = [f"{len(done)} items, {length} of audio"]
    if len(done) < len(entries):
        lines[0] += f", {len(entries) - len(done)} failed"
    levels = [entry.loudness_lufs for entry in entries if entry.loudness_lufs is not None]
    if levels:
        lines[0] += f", median loudness {statistics.median(levels):.1f} LUFS"
    for name in ("pipeline", "pipeline_hash", "license"):
        found = sorted({str(getattr(entry, name)) for entry in entries} - {""})
        if found:
            lines.append(f"{label(name)}: {', '.join(found)}")
    if common := readable(shared):
        lines.append("all items: " + ", ".join(f"{name} {text}" for name, text in common.items()))
    return "\n".join(f"<p>{escape(line)}</p>" for line in lines)


def format_item(folder: Path, number: int, entry: ManifestEntry, shared: dict[str, Any]) -> str:
    """Format one item as HTML: what the page sorts by, its sound, settings and whole entry."""
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
    try:
        sound = f'<p class="error">{escape(entry.error)}</p>' if entry.error else ""
        if entry.audio:
            sound = (
                f'<img src="{address(draw_once(folder, entry))}" loading="lazy" '
                f'alt="spectrogram">\n'
                f'<audio controls preload="none" src="{address(entry.audio)}"></audio>'
            )
    except (ValueError, FileNotFoundError) as error:
        sound = f'<p class="error">{escape(str(error))}</p>'
    facts = "".join(
        f"<div><dt>{escape(name)}</dt> <dd>{escape(text)}</dd></div>"
        for name, text in list_facts(entry, shared).items()
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>\n' for note in entry.notes)
    files = filter(None, (entry.audio, entry.tokens))
    links = " ".join(f'<a href="{address(name)}">{escape(name)}</a>' for name in files)
    whole = escape(json.dumps(asdict(entry), indent=1, ensure_ascii=False))
    return (
        f"<article{data}>\n<div>{sound}</div>\n<div>\n<h2>{escape(entry.id)}</h2>\n"
        f'<p class="prompt">{escape(entry.prompt)}</p>\n<dl>{facts}</dl>\n{notes}'
        f"<details><summary>all of it</summary>{links}<pre>{whole}</pre></details>\n"
        "</div>\n</article>"
    )


def list_facts(entry: ManifestEntry, shared: dict[str, Any]) -> dict[str, str]:
    """List measurements, seeds, and the settings that not all items share."""
    facts: dict[str, Any] = {"status": entry.status, "seed": entry.seed}
    if entry.status == "done":
        facts = {
            "duration": f"{entry.duration_s:.2f} s",
            "loudness": level(entry.loudness_lufs, "LUFS"),
            "true peak": level(entry.true_peak_db, "dBTP"),
            "seed": entry.seed,
        }
    if entry.decoder_seed != entry.seed:
        facts["decoder seed"] = entry.decoder_seed
    own = {name: value for name, value in entry.settings.items() if name not in shared}
    for name in ("duration_s", "plan"):  # what came of them is said
        own.pop(name, None)
    if entry.plan is not None:
        facts["plan"] = str(draft_plan(entry.plan).completed(None, 0.0))
    return readable(facts | {"away from": entry.negative_prompt or None} | own)


def readable(values: dict[str, Any]) -> dict[str, str]:
    """Format values as people write them, by their labels; without those that are left out."""
    return {
        label(name): f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in values.items()
        if value is not None and value is not False
    }


def label(name: str) -> str:
    """Return what a field is called on the page."""
    return LABELS.get(name, name.replace("_", " "))


def level(value: float | None, unit: str) -> str:
    """Format a measured level with its unit."""
    return "none (silent)" if value is None else f"{value:.1f} {unit}"


def attribute(value: object) -> str:
    """Escape a value between double quotes; line breaks survive as references."""
    return escape(str(value)).replace("\n", "&#10;").replace("\r", "&#13;")


def address(name: str) -> str:
    """Make a relative URL of a file of the folder."""
    return "./" + quote(name)
