"""Rows to items: every field checked, every default filled in, all faults in one report."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.seeds import derive_seed
from pipelines.data.row_files import Row, RowFault, RowFile, read_rows
from pipelines.inference.text import MAX_TOKENS
from pipelines.inference.token_file import TokenFile, load_tokens
from pipelines.rendering.item import RenderItem, RenderSettings
from pipelines.rendering.row_fields import FIELDS, check_field, from_text

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline

WRITTEN_BY_PRIOR = (
    *("negative_prompt", "duration_s", "seed", "guidance", "temperature", "num_variations"),
)
"""Fields that change nothing about tokens that are already written."""


@dataclass(frozen=True)
class Defaults:
    """What a row that does not say gets; None takes the pipeline's own default.

    Attributes:
        duration_s: length (s).
        negative_prompt: what to move away from.
        guidance: of the prior.
        temperature: of the prior.
        steps: of the diffusion decoder.
        num_variations: items per row.
        format: of the audio files.
        loudness_lufs: to reach; None leaves the level alone.
        preview: the codec's own decode in place of the diffusion decoder.
    """

    duration_s: float = 10.0
    negative_prompt: str | None = None
    guidance: float | None = None
    temperature: float | None = None
    steps: int | None = None
    num_variations: int = 1
    format: str = "wav"
    loudness_lufs: float | None = None
    preview: bool = False


class BadRowsError(ValueError):
    """Rows that cannot be rendered.

    Attributes:
        faults: all of them, by line.
    """

    def __init__(self, name: str, faults: list[RowFault]) -> None:
        self.faults = faults
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        super().__init__("\n".join([f"{name}: {count}", *(f"  {fault}" for fault in faults)]))


@dataclass
class RenderRequest:
    """What is to be rendered.

    Attributes:
        name: of the source.
        items: in the order of the rows.
        faults: rows that were left out, by line.
    """

    name: str
    items: list[RenderItem] = field(default_factory=list)
    faults: list[RowFault] = field(default_factory=list)


def read_request(
    source: "str | Path | Iterable[dict[str, Any]]", pipeline: "Pipeline", defaults: Defaults
) -> RenderRequest:
    """Read and check every row; nothing is rendered.

    Args:
        source: a JSONL or CSV file, "-" for standard input, or dicts.
        pipeline: that will render them.
        defaults: for what rows do not say.

    Returns:
        The items of the good rows and the faults of the others.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the source holds nothing, or a default is out of range.
    """
    check = RowCheck(pipeline, defaults)
    file = read_rows(source)
    request = RenderRequest(file.name, faults=list(file.faults))
    lines: dict[str, int] = {}
    for row in file.rows:
        items, messages = check.items_of(row, file)
        messages += _claim_ids(items, row.line, lines)
        name = items[0].id if items and not messages else str(row.values.get("id", ""))[:40]
        request.faults += [RowFault(row.line, message, name) for message in messages]
        if not messages:
            request.items += items
    request.faults.sort(key=lambda fault: fault.line)
    return request


def _claim_ids(items: Sequence[RenderItem], line: int, lines: dict[str, int]) -> list[str]:
    """Faults of ids that earlier rows have, on any file system."""
    messages = []
    for item in items:
        name = unicodedata.normalize("NFC", item.id).casefold()
        if name in lines:
            messages.append(f"the id {item.id!r} is already that of line {lines[name]}")
        else:
            lines[name] = line
    return messages


class RowCheck:
    """Turns rows into items for one pipeline.

    Raises:
        ValueError: a default is out of range.
    """

    def __init__(self, pipeline: "Pipeline", defaults: Defaults) -> None:
        self.pipeline = pipeline
        self.defaults = defaults
        self.codec_hash: str | None = None
        values = {name: getattr(defaults, name) for name in FIELDS if hasattr(defaults, name)}
        for name, value in values.items():
            if value is not None:
                self._check(name, value)
        if defaults.preview and defaults.steps is not None:
            raise ValueError("steps are of the diffusion decoder, which a preview leaves out")

    def items_of(self, row: Row, file: RowFile) -> tuple[list[RenderItem], list[str]]:
        """The items of a row, or every fault that it has."""
        values, messages = self._read_values(row, file.is_text)
        if "id" not in row.values:
            messages.append("id is missing")
        if "prompt" not in row.values and "codes" not in row.values:
            messages.append("prompt is missing")
        if messages:
            return [], messages
        try:
            if "codes" in values:
                return [self._item_of_tokens(values, file.folder)], []
            return self._items_of_prompt(values), []
        except (ValueError, OSError) as error:
            return [], [" ".join(str(error).split())]

    def _read_values(self, row: Row, is_text: bool) -> tuple[dict[str, Any], list[str]]:
        """The row's values in their types, and the faults among them; null is not given."""
        values: dict[str, Any] = {}
        messages = []
        for name, value in row.values.items():
            if name not in FIELDS:
                messages.append(f"there is no field {name!r}: choose from {', '.join(FIELDS)}")
            elif value is not None:
                try:
                    values[name] = self._check(name, from_text(name, value) if is_text else value)
                except ValueError as error:
                    messages.append(str(error))
            elif name in ("id", "prompt", "codes"):
                messages.append(f"{name} is null")
        return values, messages

    def _check(self, name: str, value: Any) -> Any:
        """A value that a row or a default may have, in its type."""
        value = check_field(name, value)
        if name == "duration_s":
            self.pipeline.num_frames(value)  # refuses what is out of range
        if name in ("prompt", "negative_prompt"):
            self._check_prompt(name, value)
        if name == "steps" and self.pipeline.decoder is None:
            raise ValueError("steps are of the diffusion decoder, which this pipeline lacks")
        return value

    def _check_prompt(self, name: str, text: str) -> None:
        tokens = len(self.pipeline.tokenizer(text)["input_ids"])
        if tokens > MAX_TOKENS:
            raise ValueError(f"{name} may have at most {MAX_TOKENS} tokens, got {tokens}")

    def _items_of_prompt(self, values: dict[str, Any]) -> list[RenderItem]:
        config = self.pipeline.config
        chosen = {
            name: getattr(self.defaults, name)
            for name in ("negative_prompt", "duration_s", "num_variations", "guidance")
        }
        chosen["guidance"] = config.guidance if chosen["guidance"] is None else chosen["guidance"]
        temperature = self.defaults.temperature
        chosen["temperature"] = config.temperature if temperature is None else temperature
        chosen |= values
        settings = RenderSettings(
            duration_s=chosen["duration_s"],
            guidance=chosen["guidance"],
            temperature=chosen["temperature"],
            top_k=config.top_k,
            top_p=None,
            **self._decoding(values),
        )
        seed = values.get("seed", seed_of_id(values["id"]))
        decoder_seed = values.get("decoder_seed", seed)
        item = RenderItem(
            values["id"], values["prompt"], chosen["negative_prompt"], seed, decoder_seed, settings
        )
        return spread(item, chosen["num_variations"])

    def _decoding(self, values: dict[str, Any]) -> dict[str, Any]:
        """The settings from the tokens on."""
        steps = values.get("steps", self.defaults.steps)
        preview = self.defaults.preview and "steps" not in values
        return {
            "num_inference_steps": self.pipeline.check_steps(steps, preview),
            "preview": preview,
            "format": values.get("format", self.defaults.format),
            "loudness_lufs": values.get("loudness_lufs", self.defaults.loudness_lufs),
        }

    def _item_of_tokens(self, values: dict[str, Any], folder: Path) -> RenderItem:
        for name in WRITTEN_BY_PRIOR:
            if name in values:
                raise ValueError(f"{name} has no effect on codes, which are already written")
        path = folder / values["codes"]
        tokens = load_tokens(path)
        self._check_tokens(tokens, path)
        prompt = values.get("prompt", tokens.prompt)
        if tokens.prompt and prompt != tokens.prompt:
            raise ValueError(f"the prompt of {path} is {tokens.prompt!r}, got {prompt!r}")
        made = tokens.settings
        decoding = self._decoding(values)
        if "steps" not in values and self.defaults.steps is None and not self.defaults.preview:
            preview = bool(made.get("preview", False))
            steps = made.get("num_inference_steps")
            decoding["num_inference_steps"] = self.pipeline.check_steps(steps, preview)
            decoding["preview"] = preview
        settings = RenderSettings(
            duration_s=tokens.duration_s,
            guidance=made.get("guidance", 1.0),
            temperature=made.get("temperature", 0.0),
            top_k=made.get("top_k"),
            top_p=made.get("top_p"),
            codes=hash_file(path),
            **decoding,
        )
        return RenderItem(
            values["id"],
            prompt,
            made.get("negative_prompt"),
            tokens.seed,
            values.get("decoder_seed", tokens.decoder_seed),
            settings,
            str(path.resolve()),
        )

    def _check_tokens(self, tokens: TokenFile, path: Path) -> None:
        """As ``check_tokens``, with the codec hashed once for all rows."""
        from codec.validation import check_codes
        from pipelines.data.tokens import hash_codec

        codec = self.pipeline.codec
        self.codec_hash = self.codec_hash or hash_codec(codec)
        if tokens.codec_hash != self.codec_hash:
            raise ValueError(
                f"{path} holds the tokens of another codec ({tokens.codec_hash[:8]}, this "
                f"pipeline's is {self.codec_hash[:8]})"
            )
        check_codes(tokens.codes[None], codec.num_codebooks, codec.codebook_size)


def seed_of_id(id: str) -> int:
    """The seed of an item that names none: the same for the same id, everywhere, always."""
    return derive_seed(0, "render", id) >> 32  # 31 bits, as those that are drawn


def spread(item: RenderItem, count: int) -> list[RenderItem]:
    """``item`` itself, or ``id-0``, ``id-1``... whose seeds count up."""
    if count == 1:
        return [item]
    return [
        replace(
            item,
            id=f"{item.id}-{index}",
            seed=(item.seed or 0) + index,
            decoder_seed=item.decoder_seed + index,
        )
        for index in range(count)
    ]


def hash_file(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
