"""What a request may say, checked before any work is done; unknown fields are refused by name."""

import secrets
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from prior.plan import ChordChange, Plan

LARGEST_SEED = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""


def printable_text(text: str) -> str:
    """Return a text as given; raise where it holds what no prompt needs."""
    if any(0xD800 <= ord(c) < 0xE000 or (ord(c) < 32 and c not in "\t\n\r") for c in text):
        raise ValueError("must hold no control characters and no halves of surrogate pairs")
    return text


Text = Annotated[str, Field(max_length=2000), AfterValidator(printable_text)]
Prompt = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(printable_text)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


class StrictFields(BaseModel):
    """Refuses unknown fields, NaN and infinity."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=False)


class ChordFields(StrictFields):
    """A chord of a plan, as ``prior.plan.ChordChange``."""

    beat: float
    root: int
    quality: str


class PlanFields(StrictFields):
    """A plan, as ``prior.plan.Plan``."""

    tempo_bpm: float
    beats_per_bar: int = 4
    tonic: int | None = None
    mode: str | None = None
    chords: Annotated[list[ChordFields], Field(max_length=4096)] = []
    first_beat: float = 0.0
    instruments: Annotated[list[str], Field(max_length=64)] = []
    drums: bool | None = None

    def to_plan(self) -> Plan:
        """Make the plan; ValueError where a value is out of its range."""
        values = self.model_dump()
        chords = tuple(ChordChange(**chord) for chord in values["chords"])
        return Plan(**(values | {"chords": chords, "instruments": tuple(values["instruments"])}))


class PieceFields(StrictFields):
    """What a piece is made from: the arguments of ``Pipeline.stream``."""

    prompt: Prompt
    duration_s: Annotated[float, Field(gt=0)] = 10.0
    seed: Seed | None = None
    model: str | None = None
    negative_prompt: Text | None = None
    guidance: Annotated[float, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    num_inference_steps: Annotated[int, Field(ge=1, le=16)] | None = None
    decoder_seed: Seed | None = None
    preview: bool = False
    plan: PlanFields | None = None

    def arguments(self) -> dict[str, Any]:
        """Arguments of ``Pipeline.stream``."""
        names = set(PieceFields.model_fields) - {"model", "plan"}
        plan = None if self.plan is None else self.plan.to_plan()
        return {**self.model_dump(include=names), "plan": plan}

    def with_seed(self) -> Self:
        """Return the fields with a seed; one is drawn where none is given."""
        return self.model_copy(update={"seed": self.seed if self.seed is not None else draw_seed()})


Format = Literal["wav", "flac", "ogg", "opus", "pcm"]


class MusicRequest(PieceFields):
    """The body of ``POST /v1/audio/music``."""

    format: Format = "wav"
    stream: bool = False


class JobRequest(PieceFields):
    """The body of ``POST /v1/jobs``: a piece that is kept on the shelf."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")] | None = None


class SpeechRequest(StrictFields):
    """The body of OpenAI's ``POST /v1/audio/speech``: ``input`` is the prompt."""

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
        return MusicRequest(
            prompt=prompt,
            duration_s=self.duration_s,
            seed=self.seed,
            model=self.model,
            format=self.response_format,
        )


class SteerFields(StrictFields):
    """What a live piece goes on with."""

    prompt: Prompt
    negative_prompt: Text | None = None
    plan: PlanFields | None = None


class LiveStart(PieceFields):
    """The first message over ``WS /v1/live``."""

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
