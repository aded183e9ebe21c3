"""Write where an audio file came from into its tags: enough to make it again."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import soundfile

from codec.audio_tags import read_tags


@dataclass(frozen=True)
class Provenance:
    """Describe how a file came about."""

    generator: str  # program and version, such as "partita 0.1.0"
    pipeline: str  # its name
    pipeline_hash: str  # of its configs and weights
    prompt: str  # this and what follows, up to ``settings``, of the item, as JSON holds them
    negative_prompt: str | None
    seed: int | None
    decoder_seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    license: str = ""  # of the weights; "" where it is not known


def provenance_tags(provenance: Provenance, format: str) -> dict[str, str]:
    """Make the tags of a file, for ``codec.audio_file.write_audio(..., tags=...)``.

    Title, artist, software and license are for people and players; the comment holds every field
    as JSON, in ASCII because WAV names no encoding. The license is named as that of the weights;
    WAV has no tag for one, so it goes into the copyright there.
    """
    license_text = printable(provenance.license)
    if license_text:
        license_text = f"weights of the model: {license_text}"
    tags = {
        "title": printable(provenance.prompt),
        "artist": printable(provenance.pipeline),
        "software": printable(provenance.generator),
        # no rights are claimed in what the weights generate
        "copyright" if format == "wav" else "license": license_text,
        "comment": json.dumps(asdict(provenance)),
    }
    return {tag: text for tag, text in tags.items() if text}


def read_provenance(path: str | os.PathLike[str]) -> Provenance | None:
    """Read what :func:`provenance_tags` wrote; None where a file says nothing of the kind.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not audio.
    """
    with open(path, "rb") as stream:
        try:
            comment = read_tags(stream).get("comment", "")
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{path} is not audio: {error.error_string}") from error
    try:
        values = json.loads(comment)
    except ValueError:
        return None
    names = {item.name for item in fields(Provenance)}
    return Provenance(**values) if isinstance(values, dict) and values.keys() == names else None


def printable(text: str) -> str:
    """Put text on one line that any tag can hold: no control characters, no halves of pairs."""
    whole = text.encode(errors="replace").decode()
    return " ".join("".join(c if c.isprintable() else " " for c in whole).split())
