"""A piece to be edited: from a token file, from what a call returned, or from any audio."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from codec.validation import check_audio
from pipelines.inference.endings import with_ending
from pipelines.inference.piece_generator import PieceGenerator
from pipelines.inference.plan_schema import read_plan
from pipelines.inference.token_file import TokenFile, check_tokens, load_tokens
from pipelines.music_output import MusicOutput
from prior.plan import Plan


@dataclass(frozen=True)
class EditSource:
    """A piece to be edited."""

    codes: Tensor  # (K, T) int64 of the codec's first K codebooks
    audio: Tensor  # (C, S) float32 at the pipeline's rate, on the CPU
    plan: Plan | None = None  # that it follows; None where it is not known
    prompt: str = ""  # that it was made from; "" where there was none
    is_decoded: bool = False  # whether the audio is the codes' own sound
    decoder_seed: int = 0  # of that sound
    num_inference_steps: int | None = None  # of that sound; None for the codec's own decode
    ending: str = "cut"  # of that sound (``inference.endings``)


def open_tokens_to_edit(pipeline: PieceGenerator, tokens: TokenFile, name: str) -> EditSource:
    """Decode a token file, whose codes are edited as they are.

    Raises:
        ValueError: the tokens are another codec's, too few codebooks, or too long.
    """
    check_tokens(tokens, pipeline.codec, name)
    settings = tokens.settings
    steps = pipeline.check_steps(
        settings.get("num_inference_steps"), bool(settings.get("preview", False))
    )
    audio = pipeline.decode(
        tokens.codes[None], tokens.decoder_seed, num_inference_steps=steps, preview=steps is None
    )
    made, plan = settings.get("plan"), None
    if made:
        plan = read_plan(made).completed(None, 0.0)
    elif tokens.prompt and tokens.seed is not None and pipeline.planner is not None:
        plan = pipeline.plan(tokens.prompt, tokens.duration_s, tokens.seed)
    ending = settings.get("ending", "cut")
    sound = (True, tokens.decoder_seed, steps, ending)
    audio = audio[0, :, : round(tokens.duration_s * pipeline.sample_rate)].cpu()
    audio = with_ending(audio, pipeline.sample_rate, ending)
    return EditSource(tokens.codes, audio, plan, tokens.prompt, *sound)


def open_audio_to_edit(pipeline: PieceGenerator, audio: Tensor, plan: Plan | None) -> EditSource:
    """Encode audio of the pipeline's rate and channels, (C, S)."""
    check_audio(audio[None], pipeline.channels)
    pipeline.num_frames(audio.shape[-1] / pipeline.sample_rate)  # refuses what is too long
    if not float(audio.abs().max()) > 0:
        raise ValueError("the source is silent: there is nothing to go on from")
    codes = pipeline.encode(audio[None])[0].cpu()
    return EditSource(codes, audio.float(), plan)


def open_output_to_edit(pipeline: PieceGenerator, song: MusicOutput) -> EditSource:
    """Take the only item of what a call of the pipeline returned."""
    if len(song.audio) != 1:
        raise ValueError(f"an edit takes one item, got {len(song.audio)}")
    if "first_sample" in song.settings.get("edit", {}):
        raise ValueError("a loop's codes begin before it: continue or vary the piece that it is of")
    (prompt,), (plan,) = song.settings["prompt"], song.plans
    steps, ending = (song.settings.get(name) for name in ("num_inference_steps", "ending"))
    sound = (True, song.decoder_seeds[0], steps, ending or "cut")
    return EditSource(song.codes[0].cpu(), song.audio[0].cpu(), plan, prompt, *sound)


SourceToEdit = EditSource | MusicOutput | TokenFile | str | Path


def open_to_edit(pipeline: PieceGenerator, source: SourceToEdit) -> EditSource:
    """Open what may be edited; a name is that of a token file."""
    if isinstance(source, MusicOutput):
        return open_output_to_edit(pipeline, source)
    if isinstance(source, str | Path):
        return open_tokens_to_edit(pipeline, load_tokens(source), str(source))
    if isinstance(source, TokenFile):
        return open_tokens_to_edit(pipeline, source, "the source")
    return source
