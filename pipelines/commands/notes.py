"""``partita notes``: a prompt in, a MIDI file out, and its sound if asked."""

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.inference.loading import SHIPPED, check_output

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.data.notes.note_tokenizer import NoteTokenizer
    from prior.condition import Condition
    from prior.model import Prior
    from prior.sampling import Sampling

MAX_NOTES_PER_S = 50  # a prior that writes more is stopped before the time is up


def write_notes(
    prior: "Prior",
    codec: "NoteTokenizer",
    text: "Condition",
    duration_s: float,
    sampling: "Sampling",
    seed: int,
) -> "Tensor":
    """Write one prompt's notes, (1, K, T) int64 codes of ``codec``'s, which gives them their time.

    They go on until the piece ends, the time is up, or there are 50 for every second.
    """
    import torch

    from prior.frame_generator import FrameGenerator

    most = math.ceil(duration_s * MAX_NOTES_PER_S)
    written: list[torch.Tensor] = []
    seconds = 0.0
    for frame in FrameGenerator(prior, text, None, most, sampling, [seed], min_frames=min(1, most)):
        seconds += float(codec.shift_s(frame.codes))
        if seconds >= duration_s and written:
            break
        written.append(frame.codes)
    return torch.stack(written, dim=-1).cpu()


def check_fit(prior: "Prior", codec: "NoteTokenizer") -> None:
    """Raise unless the prior writes the notes of this codec."""
    from pipelines.data.codecs import refuse_other_codec

    if prior.codebook_size != codec.codebook_size or prior.num_codebooks > codec.num_codebooks:
        raise ValueError(
            f"the prior writes {prior.num_codebooks} codes in [0, {prior.codebook_size}) a frame: "
            f"notes have at most {codec.num_codebooks} in [0, {codec.codebook_size})"
        )
    if found := prior.config.get("_codec_hash"):
        refuse_other_codec(found, codec, "the prior")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help='for example "a slow sad piano piece in D minor, 70 bpm"')
    parser.add_argument("--prior", required=True, help="folder of a prior trained on notes")
    parser.add_argument("--codec", help="folder of its codec, if its grid is not the default one")
    parser.add_argument("--duration", type=float, default=20.0, help="at most, in s")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds, equal notes")
    parser.add_argument("--output", default="song.mid", help=".mid file")
    parser.add_argument("--audio", help="play it too: .wav, .flac, .ogg or .opus file")
    parser.add_argument("--soundfont", type=Path, help="SF2 file (default: FluidR3_GM)")
    parser.add_argument("--guidance", type=float, default=3.0, help="1: off")
    parser.add_argument("--temperature", type=float, default=1.0, help="0: likeliest")
    parser.add_argument(
        "--text-encoder",
        default=str(SHIPPED),
        help="saved pipeline that lends its text encoder (default: the one that ships)",
    )


def run(args: argparse.Namespace) -> int:
    """Write, play if asked, and print what came of it."""
    from codec.audio_file import FORMATS
    from codec.whole_file import write_whole
    from pipelines.data.midi_file import midi_bytes
    from pipelines.data.notes.note_tokenizer import NoteTokenizer
    from pipelines.data.scores.score_sound import SOUNDFONT, check_programs
    from pipelines.inference.call_arguments import check_before_loading, check_prompt
    from pipelines.inference.shipped import find_shipped
    from pipelines.inference.text import encode_text, load_text_encoder
    from prior.model import Prior
    from prior.sampling import Sampling

    check_before_loading(find_shipped(args.text_encoder), [check_prompt(args.prompt)])
    output = check_output(args.output, ("mid",))
    if not args.duration > 0:
        raise ValueError(f"--duration must be positive, got {args.duration}")
    soundfont = args.soundfont or SOUNDFONT
    if args.audio:
        check_output(args.audio, tuple(FORMATS))
        check_programs(["fluidsynth"], soundfont)
    if not Path(args.prior).is_dir():
        raise FileNotFoundError(f"{args.prior} is not a folder: no trained prior there")
    sampling = Sampling(temperature=args.temperature, guidance=args.guidance)
    start = time.perf_counter()
    prior = Prior.from_pretrained(args.prior).eval()
    codec = NoteTokenizer.from_pretrained(args.codec) if args.codec else NoteTokenizer()
    check_fit(prior, codec)
    text = encode_text(*load_text_encoder(find_shipped(args.text_encoder)), [args.prompt])
    codes = write_notes(prior, codec, text, args.duration, sampling, args.seed)
    (score,) = codec.decode(codes)
    write_whole(output, midi_bytes(score))
    print(f"{output}: {score.note_num()} notes, seed {args.seed}")
    if args.audio:
        write_sound(score, Path(args.audio), soundfont)
    print(f"made in {time.perf_counter() - start:.2f} s")
    return 0


def write_sound(score: object, path: Path, soundfont: Path) -> None:
    """Play a score into an audio file."""
    import torch

    from codec.audio_file import write_audio
    from pipelines.data.notes.note_sound import play
    from pipelines.data.scores.score_sound import SAMPLE_RATE, RenderError

    try:
        audio = play(score, soundfont)  # type: ignore[arg-type]
    except RenderError as error:
        raise OSError(str(error)) from error
    write_audio(path, torch.from_numpy(audio), SAMPLE_RATE)
    print(f"{path}: {audio.shape[1] / SAMPLE_RATE:.2f} s")
