"""Declares what a request may say; unknown fields are refused by name."""

import json
import secrets
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from pipelines.inference.endings import Ending
from pipelines.inference.plan_schema import draft_plan
from prior.plan_draft import PlanDraft

LARGEST_PLAN = 1 << 18  # bytes of a plan's JSON
PLAN_FIELDS = ("bpm", "key", "meter", "chords", "instruments", "drums", "sections")
LARGEST_SEED = 2**53 - 1  # the largest integer that every JSON reader keeps exactly


def printable_text(text: str) -> str:
    """Return a text as given; raise where it holds what no prompt needs."""
    if any(0xD800 <= ord(c) < 0xE000 or (ord(c) < 32 and c not in "\t\n\r") for c in text):
        raise ValueError("must hold no control characters and no halves of surrogate pairs")
    return text


Text = Annotated[str, Field(max_length=2000), AfterValidator(printable_text)]
Prompt = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(printable_text)]
JobName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
TakeName = JobName
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


class StrictFields(BaseModel):
    """Refuses unknown fields, NaN and infinity."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=False)


def small_plan(plan: dict[str, Any]) -> dict[str, Any]:
    """Return a plan's JSON as given; raise where it is larger than any piece's."""
    if len(json.dumps(plan)) > LARGEST_PLAN:
        raise ValueError(f"must have at most {LARGEST_PLAN} bytes")
    return plan


PlanJson = Annotated[dict[str, Any], AfterValidator(small_plan)]
Symbols = Annotated[str, Field(max_length=10_000), AfterValidator(printable_text)]


class PlanOptions(StrictFields):
    """Holds a plan, whole or in part (docs/plans.md), and fields that go before its own."""

    plan: PlanJson | None = None
    bpm: float | None = None
    key: Text | None = None
    meter: Text | None = None
    chords: Symbols | None = None
    instruments: Symbols | list[Text] | None = None
    drums: bool | None = None
    sections: Symbols | None = None

    def plan_fields(self) -> dict[str, Any]:
        """Return the fields that are given, without ``plan``."""
        return self.model_dump(include=set(PLAN_FIELDS), exclude_none=True)

    def draft(self) -> PlanDraft:
        """Read all of it; ValueError where it is no plan."""
        try:
            return draft_plan(self.plan, self.plan_fields())
        except (TypeError, AttributeError, KeyError, OverflowError) as error:
            raise ValueError(f"plan cannot be read: {error}") from error


class SoundFields(PlanOptions):
    """Holds what new pieces and edits have in common."""

    seed: Seed | None = None
    negative_prompt: Text | None = None
    guidance: Annotated[float, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    num_inference_steps: Annotated[int, Field(ge=1, le=16)] | None = None


class PieceFields(SoundFields):
    """Holds the arguments of ``Pipeline.stream``."""

    prompt: Prompt
    duration_s: Annotated[float, Field(gt=0)] = 10.0
    model: str | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    decoder_seed: Seed | None = None
    preview: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of ``Pipeline.stream``."""
        names = PieceFields.model_fields.keys() - {"model"}
        return self.model_dump(include=names, exclude_none=True)

    def with_seed(self) -> Self:
        """Return the fields with a seed; one is drawn where none is given."""
        return self.model_copy(update={"seed": self.seed if self.seed is not None else draw_seed()})


class WholePiece(PieceFields):
    """Holds the arguments of ``Pipeline.__call__``."""

    ending: Ending = "ring"


Format = Literal["wav", "flac", "ogg", "opus", "pcm"]


class MusicRequest(WholePiece):
    """Declares the body of ``POST /v1/audio/music``; a stream takes no ending but "cut"."""

    format: Format = "wav"
    stream: bool = False


class JobRequest(WholePiece):
    """Declares the body of ``POST /v1/jobs``: a piece that is kept on the shelf."""

    id: JobName | None = None


class EditRequest(SoundFields):
    """Declares the body of ``POST /v1/edits``: a take that is made from another."""

    edit: Literal["extend", "inpaint", "vary", "loop"]
    take: TakeName
    id: JobName | None = None
    prompt: Prompt | None = None
    add_s: Annotated[float, Field(gt=0)] = 10.0
    spans_s: Annotated[list[tuple[float, float]], Field(max_length=100)] = []
    strength: Annotated[float, Field(gt=0, le=1)] = 0.4
    bars: Annotated[int, Field(ge=1, le=256)] = 8


class SpeechRequest(StrictFields):
    """Declares the body of OpenAI's ``POST /v1/audio/speech``: ``input`` is the prompt."""

    input: Prompt
    model: str | None = None
    voice: Annotated[str, Field(max_length=100)] | None = None
    instructions: Text | None = None
    response_format: Format = "wav"
    speed: Annotated[float, Field(ge=1, le=1)] = 1.0
    stream_format: Literal["audio"] = "audio"
    duration_s: Annotated[float, Field(gt=0)] = 10.0
    seed: Seed | None = None

    def to_music(self) -> MusicRequest:
        """Say it in our words; ``instructions`` are more of the prompt, ``voice`` says nothing."""
        prompt = ", ".join(filter(None, (self.input, self.instructions)))
        same = self.model_dump(include={"duration_s", "seed", "model"})
        return MusicRequest(prompt=prompt, format=self.response_format, **same)


class SteerFields(PlanOptions):
    """Declares what a live piece goes on with."""

    prompt: Prompt
    negative_prompt: Text | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of ``Stream.steer``."""
        return self.model_dump(include=set(SteerFields.model_fields), exclude_none=True)


class LiveStart(PieceFields):
    """Declares the first message over ``WS /v1/live``."""

    type: Literal["start"]
    encoding: Literal["s16", "f32"] = "f32"
    keep: bool = False


class LiveSteer(SteerFields):
    """Steers from the next frame on."""

    type: Literal["steer"]


class LivePlayed(StrictFields):
    """Says how much has been heard, so that no more than a few seconds are made ahead."""

    type: Literal["played"]
    seconds: Annotated[float, Field(ge=0)]


class LiveStop(StrictFields):
    """Ends the piece."""

    type: Literal["stop"]


LiveMessage: TypeAdapter[LiveSteer | LivePlayed | LiveStop] = TypeAdapter(
    Annotated[LiveSteer | LivePlayed | LiveStop, Field(discriminator="type")]
)


def draw_seed() -> int:
    """Draw a seed as ``partita generate`` does."""
    return secrets.randbelow(2**31)
