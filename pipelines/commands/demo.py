"""``make demo``: turn an hour of real music into trained parts, a saved pipeline and a song.

The steps are those of every training: prepare, train the codec, cache its tokens, train the
decoder and the prior, assemble, render, measure. What an earlier run has finished is not done
again, and a run that was stopped continues where it was.
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.audio_file import write_audio
from codec.process_settings import kept_process_settings
from codec.spectral_codec import SpectralCodec
from decoder.diffusion_decoder import DiffusionDecoder
from pipelines.commands.assemble import assemble
from pipelines.data.markdown import table, write_page
from pipelines.data.recordings.debian_music import GAMES, MusicConfig, prepare_music
from pipelines.data.token_cache import build_token_cache
from pipelines.errors import one_line_errors
from pipelines.evaluation.clips import choose_clips
from pipelines.evaluation.pair_metrics import compare
from pipelines.pipeline import Pipeline
from pipelines.train_codec import CodecLosses, train_codec
from pipelines.train_decoder import train_decoder
from pipelines.train_prior import train_prior
from pipelines.training.checkpoints import newest_checkpoint
from pipelines.training.codec_data import SpectrogramData
from pipelines.training.decoder_data import DecoderData
from pipelines.training.preloading import preload_allocator
from pipelines.training.prior_data import PriorData
from pipelines.training.training_config import TrainingConfig
from prior.model import Prior

PACKAGE = "singularity-music"  # CC-BY-SA-3.0; 52 MB, 16 tracks, 64 minutes
PROMPT = "slow ambient electronic music, dark"
METRICS = ("mel_distance", "stft_distance", "movement_ratio", "visqol", "zimtohrli")
BOOKS = 2  # that the prior writes, and that the decoder mostly sees


@dataclass(frozen=True)
class DemoSteps:
    """Optimizer steps of each part."""

    codec: int = 800
    decoder: int = 600
    prior: int = 500


def run_demo(folder: Path, prepared: Path, steps: DemoSteps, song_s: float = 20.0) -> Path:
    """Do all that follows the preparation of the recordings.

    Args:
        folder: of all results.
        prepared: a prepared dataset with audio and both splits.
        steps: how long each part is trained.
        song_s: length of the song (s).

    Returns:
        The report, ``folder/report.md``.

    Raises:
        KeyboardInterrupt: training was stopped; the same call continues it.
    """
    codec_folder = demo_codec(prepared, make_training(folder / "codec", steps.codec, 16, 2e-3))
    tokens = folder / "tokens"
    build_token_cache(prepared, SpectralCodec.from_pretrained(codec_folder).eval(), tokens)
    decoder_data = DecoderData(
        [str(prepared)], [str(tokens)], str(codec_folder), crop_s=5.12, focus_books=BOOKS
    )
    decoder_training = make_training(folder / "decoder", steps.decoder, 8, 1e-3)
    decoder_folder = demo_decoder(decoder_data, decoder_training)
    prior_training = make_training(folder / "prior", steps.prior, 8, 1e-3)
    prior_folder = demo_prior(PriorData([str(tokens)], crop_s=10.0), prior_training)
    assemble(folder / "pipeline", codec_folder, prior_folder, decoder_folder)
    pipeline = Pipeline.from_pretrained(folder / "pipeline")
    song = render(pipeline, folder / "song.wav", song_s)
    clips = reconstruct(pipeline, prepared, folder)
    write_page(folder / "report.md", ["# Demo", song, clips])
    return folder / "report.md"


def make_training(folder: Path, steps: int, batch_size: int, rate: float) -> TrainingConfig:
    """Configure a run with one validation, at its end, and a checkpoint every 100 steps."""
    return TrainingConfig(
        output_dir=str(folder),
        steps=steps,
        batch_size=batch_size,
        learning_rate=rate,
        warmup_steps=min(50, steps),
        ema_decay=0.99,
        checkpoint_every=100,
        keep_checkpoints=1,
        validate_every=steps,
    )


def demo_codec(prepared: Path, training: TrainingConfig) -> Path:
    """Train a codec that quantizes from a fifth of the way on."""
    data = SpectrogramData([str(prepared)], validation_clips=8)
    losses = CodecLosses(quantize_from=training.steps // 5)
    torch.manual_seed(training.seed)
    model = SpectralCodec(width=256, encoder_layers=3, decoder_layers=3)
    return finish(training, lambda resume: train_codec(model, losses, data, training, resume))


def demo_decoder(data: DecoderData, training: TrainingConfig) -> Path:
    """Train a decoder: tokens to the fine spectrogram."""
    torch.manual_seed(training.seed)
    model = DiffusionDecoder(width=256, num_layers=4, num_heads=4)
    return finish(training, lambda resume: train_decoder(model, data, training, resume))


def demo_prior(data: PriorData, training: TrainingConfig) -> Path:
    """Train a prior: captions to tokens."""
    torch.manual_seed(training.seed)
    model = Prior(num_codebooks=BOOKS, width=256, num_layers=4, num_heads=4)
    return finish(training, lambda resume: train_prior(model, data, training, resume))


def finish(training: TrainingConfig, train: Any) -> Path:
    """Train to the last step, from the newest checkpoint if any, and return the model's folder."""
    folder = Path(training.output_dir)
    if not is_finished(training):
        print(f"training the {folder.name}: {training.steps} steps", flush=True)
        train(newest_checkpoint(folder) is not None)
    if not is_finished(training):
        raise KeyboardInterrupt
    return folder / "model"


def is_finished(training: TrainingConfig) -> bool:
    """Tell whether the last step's checkpoint and model are there."""
    folder = Path(training.output_dir)
    newest = newest_checkpoint(folder)
    name = f"{training.steps:08d}"
    return newest is not None and newest.name.endswith(name) and (folder / "model").is_dir()


def render(pipeline: Pipeline, path: Path, duration_s: float) -> str:
    """Render the prompt to a file, and say how long it took."""
    started = time.perf_counter()
    output = pipeline(PROMPT, duration_s=duration_s, seed=0)
    seconds = time.perf_counter() - started
    output.save(path)
    made_s = output.audio.shape[-1] / output.sample_rate
    return f'"{PROMPT}": {made_s:.1f} s of music in {seconds:.1f} s'


def reconstruct(pipeline: Pipeline, prepared: Path, folder: Path) -> str:
    """Write held-out music and what its tokens decode to, and return a table of the metrics."""
    clip = choose_clips([prepared], 1, duration_s=20.0).clips[0].read()
    codes = pipeline.encode(clip.audio[None])
    versions: dict[str, Tensor] = {
        f"codec, {codes.shape[1]} codebooks": pipeline.decode(codes, preview=True),
        f"codec, {BOOKS} codebooks": pipeline.decode(codes[:, :BOOKS], preview=True),
        f"decoder, {BOOKS} codebooks": pipeline.decode(codes[:, :BOOKS]),
    }
    write_audio(folder / "original.wav", clip.audio, clip.sample_rate)
    rows = []
    for name, decoded in versions.items():
        audio = decoded[0, :, : clip.audio.shape[-1]]
        write_audio(
            folder / f"{name.replace(', ', '-').replace(' ', '-')}.wav", audio, clip.sample_rate
        )
        measured = compare(clip.audio, audio, clip.sample_rate)
        figures = (measured[metric] for metric in METRICS)
        rows.append([name, *(f"{x:.3f}" if isinstance(x, float) else "-" for x in figures)])
    return table(["held-out music", *METRICS], rows)


def install_music(package: str) -> None:
    """Install a Debian package of music if it is not there.

    Raises:
        ValueError: it cannot be installed from here.
    """
    if (GAMES / package.removesuffix("-music")).is_dir():
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", package]
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if all(shutil.which(name) for name in ("apt-get", *prefix[:1])):
        print(f"installing {package}", flush=True)
        if subprocess.run([*prefix, *install]).returncode == 0:
            return
        subprocess.run([*prefix, "apt-get", "update"])
        if subprocess.run([*prefix, *install]).returncode == 0:
            return
    raise ValueError(f"the demo learns from the Debian package {package}: {' '.join(install)}")


@kept_process_settings()
def main() -> int:
    """Install, prepare, run, and say where the results are."""
    folder = Path("demo")
    started = time.perf_counter()
    with one_line_errors("demo"):
        install_music(PACKAGE)
        print(f"preparing {PACKAGE}: about a minute", flush=True)
        options = {"validation_fraction": 0.1, "workers": min(2, os.cpu_count() or 1)}
        prepare_music(MusicConfig(str(folder / "prepared"), (PACKAGE,)), **options)
        report = run_demo(folder, folder / "prepared", DemoSteps())
    print(report.read_text())
    print(f"{time.perf_counter() - started:.0f} s in all; everything is in {folder}/")
    return 0


if __name__ == "__main__":
    preload_allocator()
    sys.exit(main())
