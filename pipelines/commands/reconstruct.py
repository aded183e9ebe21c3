"""``partita reconstruct``: audio to tokens and back, both ways of decoding, measured."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.commands.encode import BLOCK_S, encode_blocks
from pipelines.inference.loading import add_pipeline_arguments, load_pipeline

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.inference.music_generator import MusicGenerator

MEASURED_S = 10.0
"""The metrics' memory grows with the clip, and their published uses are on clips of this length."""

MAX_MEASURED = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="WAV, FLAC, Ogg Vorbis, Opus or MP3 file")
    parser.add_argument("--output", required=True, type=Path, help="folder, made if missing")
    parser.add_argument("--books", type=int, help="of codes to decode (default: the prior's)")
    parser.add_argument("--steps", type=int, help="of the decoder, 1 to 16")
    parser.add_argument("--seed", type=int, default=0, help="of decoder and vocoder")
    parser.add_argument("--plot", action="store_true", help="draw the audio, a PNG beside it")
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Encode, decode twice, write the three files and the metrics, and print the metrics."""
    from codec.audio_file import read_audio
    from codec.whole_file import write_json
    from pipelines.evaluation.codebooks import bitrate_kbps
    from pipelines.inference.call_arguments import check_before_loading
    from pipelines.inference.shipped import find_shipped

    check_before_loading(find_shipped(args.pipeline), [], None, args.steps, (args.seed,))
    read_audio(args.input, duration_s=0.1)  # a wrong file is found before a model is loaded
    if args.plot:
        from pipelines.inference.plot import check_plotting

        check_plotting()
    pipeline = load_pipeline(args.pipeline, args.quiet)
    codec = pipeline.codec
    books = pipeline.prior.num_codebooks if args.books is None else args.books
    if not 1 <= books <= codec.num_codebooks:
        raise ValueError(f"--books must lie in [1, {codec.num_codebooks}], got {books}")
    args.output.mkdir(parents=True, exist_ok=True)
    clips = reconstruct(pipeline, args.input, books, args.steps, args.seed)
    write_clips(clips, pipeline.sample_rate, args.output, args.plot)
    metrics = {
        "books": books,
        "bitrate_kbps": bitrate_kbps(books, codec.codebook_size, codec.frame_rate),
        "duration_s": clips["original"].shape[-1] / pipeline.sample_rate,
        **measure(clips, pipeline.sample_rate),
    }
    write_json(args.output / "metrics.json", metrics)
    print(f"{args.output}: {', '.join(f'{name}.wav' for name in clips)}, metrics.json")
    print(table(metrics))
    return 0


def reconstruct(
    pipeline: "MusicGenerator", path: str, books: int, steps: int | None, seed: int
) -> "dict[str, Tensor]":
    """Return (C, S) audio under "original", "preview" (the codec's own decode) and "decoded"."""
    from codec.audio_file import read_audio

    codec = pipeline.codec
    rate, channels = pipeline.sample_rate, pipeline.channels
    original = read_audio(path, sample_rate=rate, channels=channels).audio
    heard = pipeline.as_codec_reads(original[None])
    pieces = heard.split(round(BLOCK_S * codec.sample_rate), dim=-1)
    codes = encode_blocks(codec, pieces)[:, :books]
    clips = {"original": original}
    for name in ("preview", "decoded"):
        audio = pipeline.decode(codes, seed, num_inference_steps=steps, preview=name == "preview")
        clips[name] = audio[0, :, : original.shape[-1]].cpu()
    return clips


def write_clips(
    clips: "dict[str, Tensor]", sample_rate: int, folder: Path, with_plots: bool
) -> None:
    """Write ``NAME.wav`` and, if asked, ``NAME.png`` of every clip."""
    from codec.audio_file import write_audio

    for name, audio in clips.items():
        write_audio(folder / f"{name}.wav", audio, sample_rate)
        if with_plots:
            from pipelines.inference.plot import plot_audio

            plot_audio(audio, sample_rate, folder / f"{name}.png", name)


def measure(clips: "dict[str, Tensor]", sample_rate: int) -> dict[str, Any]:
    """Average the metrics of both decodes over at most twelve pieces of ten seconds."""
    from pipelines.evaluation.averages import average
    from pipelines.evaluation.pair_metrics import compare

    total = clips["original"].shape[-1]
    size = min(total, round(MEASURED_S * sample_rate))
    count = min(MAX_MEASURED, max(1, total // size))
    starts = [index * (total - size) // max(1, count - 1) for index in range(count)]
    result: dict[str, Any] = {"measured_pieces": count, "measured_piece_s": size / sample_rate}
    for name in ("preview", "decoded"):
        pieces = [
            compare(
                clips["original"][:, start : start + size],
                clips[name][:, start : start + size],
                sample_rate,
            )
            for start in starts
        ]
        result[name], _ = average(pieces)
    return result


def table(metrics: dict[str, Any]) -> str:
    """Write metrics as lines, the two decodes side by side."""
    lines = [f"{metrics['books']} books, {metrics['bitrate_kbps']:.2f} kbps"]
    lines.append(f"{'':28}{'preview':>10}{'decoded':>10}")
    for name in metrics["preview"]:
        cells = [metrics[decode][name] for decode in ("preview", "decoded")]
        if not any(isinstance(cell, str) for cell in cells):
            lines.append(f"{name:28}" + "".join(f"{cell:10.3f}" for cell in cells))
    return "\n".join(lines)
