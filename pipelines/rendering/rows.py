"""Turn rows into items: check every field, fill in every default, report all faults at once."""

import math
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from codec.audio_file import FORMATS
from codec.seeds import derive_seed
from codec.validation import check_codes
from pipelines.data.row_files import RowFault, RowFile, has_surrogate, read_rows
from pipelines.errors import check_name
from pipelines.inference.endings import FADE_S
from pipelines.inference.music_generator import MusicGenerator
from pipelines.inference.plan_schema import FLAG_FIELDS, draft_json, draft_plan
from pipelines.inference.text import MAX_TOKENS
from pipelines.inference.token_file import check_tokens, load_tokens
from pipelines.rendering.edit_files import hash_file, open_edit
from pipelines.rendering.item import RenderItem, RenderSettings
from pipelines.rendering.mastering import LOUDNESS_RANGE
from pipelines.rendering.row_limits import RowLimits

FIELDS: dict[str, type] = {
    "id": str,
    "prompt": str,
    "negative_prompt": str,
    "duration_s": float,
    "seed": int,
    "decoder_seed": int,
    "guidance": float,
    "temperature": float,
    "steps": int,
    "num_variations": int,
    "format": str,
    "ending": str,
    "loudness_lufs": float,
    "codes": str,
    "edit": str,
    "plan": str,
    "bpm": float,
    **dict.fromkeys(("key", "meter", "chords", "instruments", "drums", "sections"), str),
}
OF_THE_PLAN = ("plan", *FLAG_FIELDS)  # fields that ``plan_schema`` checks together
RANGES: dict[str, tuple[float, float]] = {
    "duration_s": (0, math.inf),  # the pipeline knows the longest
    "seed": (0, 2**63 - 1),
    "decoder_seed": (0, 2**63 - 1),
    "guidance": (0, math.inf),
    "temperature": (0, math.inf),
    "steps": (1, 16),
    "num_variations": (1, 1000),
    "loudness_lufs": LOUDNESS_RANGE,
}
CHOICES = {"format": tuple(FORMATS), "ending": tuple(FADE_S)}
OF_THE_PRIOR = (
    *("negative_prompt", "duration_s", "seed", "guidance", "temperature", "num_variations"),
    "ending",
    *OF_THE_PLAN,
)
"""Fields that change nothing where the tokens are given."""
LONGEST_ID = 160
FORBIDDEN_IN_ID = set('/\\:*?"<>|')


@dataclass(frozen=True)
class Defaults:
    """Hold what a row gets for a field that it leaves out; None takes the pipeline's own default.

    ``loudness_lufs`` of None leaves the level alone; ``preview`` takes the codec's own decode in
    place of the diffusion decoder.
    """

    duration_s: float = 10.0
    negative_prompt: str | None = None
    guidance: float | None = None
    temperature: float | None = None
    steps: int | None = None
    num_variations: int = 1
    format: str = "wav"
    ending: str = "ring"
    loudness_lufs: float | None = None
    preview: bool = False


class BadRowsError(ValueError):
    """Report all rows that cannot be rendered, as ``faults`` by line."""

    def __init__(self, name: str, faults: list[RowFault]) -> None:
        self.faults = faults
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        super().__init__("\n".join([f"{name}: {count}", *(f"  {fault}" for fault in faults)]))


@dataclass
class RenderRequest:
    """Hold what is to be rendered: the items of the good rows, and the faults of the others."""

    name: str
    items: list[RenderItem] = field(default_factory=list)
    faults: list[RowFault] = field(default_factory=list)


def read_row_file(source: str | Path | Iterable[dict[str, Any]] | RowFile) -> RowFile:
    """Read rows, unless they were read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the source holds nothing.
    """
    return source if isinstance(source, RowFile) else read_rows(source, FIELDS)


def read_request(
    source: str | Path | Iterable[dict[str, Any]] | RowFile,
    pipeline: MusicGenerator | RowLimits,
    defaults: Defaults,
) -> RenderRequest:
    """Read and check every row; nothing is rendered.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the source holds nothing, or a default is out of range.
    """
    checker = RowChecker(pipeline, defaults)
    file = read_row_file(source)
    request = RenderRequest(file.name, faults=list(file.faults))
    taken: dict[str, int] = {}
    for line, values in file.rows.items():
        items, messages = checker.check_row(values, file.folder)
        messages += claim_ids(items, line, taken)
        name = items[0].id if items and not messages else str(values.get("id", ""))[:40]
        request.faults += [RowFault(line, message, name) for message in messages]
        if not messages:
            request.items += items
    request.faults.sort(key=lambda fault: fault.line)
    return request


def claim_ids(items: Sequence[RenderItem], line: int, taken: dict[str, int]) -> list[str]:
    """Note the ids of a line, and return the faults of those that an earlier line has."""
    messages = []
    for item in items:
        # some file systems keep neither case nor the composition of letters apart
        name = unicodedata.normalize("NFC", item.id).casefold()
        if taken.setdefault(name, line) != line:
            messages.append(f"the id {item.id!r} is already that of line {taken[name]}")
    return messages


class RowChecker:
    """Turn rows into items for one pipeline.

    Raises:
        ValueError: a default is out of range.
    """

    def __init__(self, pipeline: MusicGenerator | RowLimits, defaults: Defaults) -> None:
        self.pipeline: Any = pipeline
        self.codecs_checked: set[str] = set()
        given = {name: value for name, value in asdict(defaults).items() if value is not None}
        self.preview = given.pop("preview")
        self.defaults = {name: self.check_field(name, value) for name, value in given.items()}
        if self.preview and "steps" in given:
            raise ValueError("steps are of the diffusion decoder, which a preview leaves out")

    def check_row(self, values: dict[str, Any], folder: Path) -> tuple[list[RenderItem], list[str]]:
        """Turn a row into its items, or name every fault that it has; null is not given."""
        given = {name: value for name, value in values.items() if value is not None}
        row, messages = {}, []
        for name, value in given.items():
            try:
                row[name] = self.check_field(name, value)
            except ValueError as error:
                messages.append(str(error))
        if "id" not in given:
            messages.append("id is missing")
        if not {"prompt", "codes", "edit"} & given.keys():
            messages.append("prompt is missing")
        if messages:
            return [], messages
        try:
            if "codes" not in row:
                items = self.generate(row, folder)
            elif self.pipeline.codec is None:  # once there is one
                return [], []
            else:
                items = [self.rerender(row, folder)]
            if "edit" in row:
                items = [open_edit(item, row, folder) for item in items]
        except (ValueError, OSError) as error:
            return [], [" ".join(str(error).split())]
        return items, []

    def check_field(self, name: str, value: Any) -> Any:
        """Return the value of a field in its type, or raise ValueError with the rule."""
        if name not in FIELDS:
            raise ValueError(f"there is no field {name!r}: choose from {', '.join(FIELDS)}")
        if name in OF_THE_PLAN or name == "edit":
            return value
        value = check_text(name, value) if FIELDS[name] is str else check_number(name, value)
        if name == "duration_s":
            self.pipeline.num_frames(value)
        if name == "steps" and self.pipeline.decoder is None:
            raise ValueError("steps are of the diffusion decoder, which this pipeline lacks")
        if name in ("prompt", "negative_prompt"):
            tokens = len(self.pipeline.tokenizer(value)["input_ids"])
            if tokens > MAX_TOKENS:
                raise ValueError(f"{name} may have at most {MAX_TOKENS} tokens, got {tokens}")
        return value

    def generate(self, row: dict[str, Any], folder: Path) -> list[RenderItem]:
        """Make the items of a row with a prompt: one, or ``id-0``, ``id-1``... by seed."""
        config = self.pipeline.config
        chosen = {"guidance": config.guidance, "temperature": config.temperature}
        chosen |= self.defaults | row
        settings = RenderSettings(
            duration_s=chosen["duration_s"],
            guidance=chosen["guidance"],
            temperature=chosen["temperature"],
            top_k=config.top_k,
            top_p=None,
            plan=self.plan(row, folder),
            ending=chosen["ending"],
            **self.decoding(row),
        )
        # the same seed for the same id, everywhere; 31 bits, like the random seeds of generate
        seed = row.get("seed", derive_seed(0, "render", row["id"]) >> 32)
        decoder_seed = row.get("decoder_seed", seed)
        negative = chosen.get("negative_prompt")
        prompt = row.get("prompt", "")
        item = RenderItem(row["id"], prompt, negative, seed, decoder_seed, settings)
        count = chosen["num_variations"]
        if count == 1:
            return [item]
        return [
            replace(item, id=f"{item.id}-{n}", seed=seed + n, decoder_seed=decoder_seed + n)
            for n in range(count)
        ]

    def plan(self, row: dict[str, Any], folder: Path) -> dict[str, Any] | None:
        """Return the JSON of what a row fixes of its plan; None where it fixes nothing."""
        source = row.get("plan")
        source = folder / source if isinstance(source, str) else source
        if not isinstance(source, Path | dict | None):
            raise ValueError(f"plan must be an object or the name of a file, got {source!r:.40}")
        draft = draft_plan(source, {name: row[name] for name in FLAG_FIELDS if name in row})
        if draft and not self.pipeline.prior.config.reads_plan:
            raise ValueError("plan was given, but this pipeline's prior reads none")
        return draft_json(draft) if draft else None

    def decoding(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the settings from the tokens on."""
        chosen = self.defaults | row
        preview = self.preview and "steps" not in row
        return {
            "num_inference_steps": self.pipeline.check_steps(chosen.get("steps"), preview),
            "preview": preview,
            "format": chosen["format"],
            "loudness_lufs": chosen.get("loudness_lufs"),
        }

    def rerender(self, row: dict[str, Any], folder: Path) -> RenderItem:
        """Make the item of a row with a token file."""
        for name in OF_THE_PRIOR:
            if name in row:
                raise ValueError(f"{name} has no effect on codes, which are already there")
        path, codec = folder / row["codes"], self.pipeline.codec
        tokens = load_tokens(path)
        if tokens.codec_hash not in self.codecs_checked:  # hashing a codec takes a while
            check_tokens(tokens, codec, path)
            self.codecs_checked.add(tokens.codec_hash)
        check_codes(tokens.codes[None], codec.num_codebooks, codec.codebook_size)
        prompt = row.get("prompt", tokens.prompt)
        if tokens.prompt and prompt != tokens.prompt:
            raise ValueError(f"the prompt of {path} is {tokens.prompt!r}, got {prompt!r}")
        made, decoding = tokens.settings, self.decoding(row)
        if not self.preview and "steps" not in self.defaults | row:
            decoding["preview"] = bool(made.get("preview", False))
            decoding["num_inference_steps"] = self.pipeline.check_steps(
                made.get("num_inference_steps"), decoding["preview"]
            )
        settings = RenderSettings(
            duration_s=tokens.duration_s,
            guidance=made.get("guidance", 1.0),
            temperature=made.get("temperature", 0.0),
            top_k=made.get("top_k"),
            top_p=made.get("top_p"),
            codes=hash_file(path),
            plan=made.get("plan"),
            ending=made.get("ending", "cut"),
            **decoding,
        )
        negative, decoder_seed = made.get("negative_prompt"), tokens.decoder_seed
        seeds = tokens.seed, row.get("decoder_seed", decoder_seed)
        codes = tokens.codes.int().numpy()
        return RenderItem(row["id"], prompt, negative, *seeds, settings, codes)


def check_number(name: str, value: Any) -> float:
    """Return a number in its field's type and range, or raise ValueError."""
    noun, kind = ("whole", Integral) if FIELDS[name] is int else ("finite", Real)
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{name} must be a {noun} number, got {value!r:.80}")
    low, high = RANGES[name]
    if not low <= value <= high:
        rule = f"be at least {low}" if math.isinf(high) else f"lie in [{low}, {high}]"
        raise ValueError(f"{name} must {rule}, got {value!r}")
    return FIELDS[name](value)


def check_text(name: str, value: Any) -> str:
    """Return a text that its field may hold, or raise ValueError."""
    if name in CHOICES:
        check_name(name, value, CHOICES[name])
    if name == "id" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not empty, got {value!r:.80}")
    if has_surrogate(value):
        raise ValueError(f"{name} holds half a surrogate pair, got {value!a:.80}")
    if name == "id":
        check_id(value)
    return value


def check_id(id: str) -> None:
    """Raise ValueError unless an id can name files in the output folder on any file system."""
    if len(id.encode()) > LONGEST_ID:
        raise ValueError(f"id may have at most {LONGEST_ID} bytes, got {id!r:.60}")
    odd = [c for c in id if c in FORBIDDEN_IN_ID or unicodedata.category(c)[0] == "C"]
    if odd:
        raise ValueError(f"id names files and may not hold {odd[0]!r}, got {id!r:.80}")
    if id != id.strip() or id[0] in ".-" or id[-1] == ".":
        raise ValueError(
            "id names files and may not begin with a dot, a dash or a space, or end with a dot or "
            f"a space, got {id!r:.80}"
        )
