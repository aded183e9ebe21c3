"""Give a trained codec's decode the power of its originals, band by band.

``python -m pipelines.training.level_codec CODEC OUTPUT --prepared data/music``

Frames whose phases do not fit cancel a little where they overlap: the vocoder gets a gain for each
of eight groups of bands. Regression on logarithms finds the median, which lies below the mean
power: the bias of the decoder's last layer gets a gain per mel band. Codes do not change.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor

from codec.seeds import generator
from codec.spectral_codec import SpectralCodec
from codec.vocoder import DB_PER_NAT
from pipelines.data.clip_levels import FRAMES_PER_TOKEN, NUM_MELS
from pipelines.data.prepared import read_crop
from pipelines.errors import one_line_errors
from pipelines.training.codec_data import open_all

AUDIBLE_NATS = 6.0
"""Bands further below a crop's loudest say nothing about their gain."""
MAX_GAIN_NATS = 0.7
VOCODER_GAINS = 8


def main(argv: list[str] | None = None) -> int:
    """Read a codec, level it, write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("codec", type=Path, help="folder of the trained codec")
    parser.add_argument("output", type=Path, help="folder of the levelled one")
    parser.add_argument("--prepared", nargs="+", required=True, help="training data")
    parser.add_argument("--books", type=int, nargs="+", default=[4, 8], help="judged by (4 8)")
    parser.add_argument("--crops", type=int, default=100, help="of 4 s (default: 100)")
    parser.add_argument("--seed", type=int, default=0)
    with one_line_errors("level_codec"):
        return run(parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    """Level and save."""
    codec = SpectralCodec.from_pretrained(args.codec).eval()
    crops = draw_crops(codec, open_all(args.prepared, "train"), args.crops, args.seed)
    lost = mean_gain(missing_power(crop, codec.analyze(codec.vocoder(crop))) for crop in crops)
    codec.register_to_config(
        vocoder_gains_db=[
            round(float(band.mean()) * DB_PER_NAT, 2) for band in lost.chunk(VOCODER_GAINS)
        ]
    )
    gain = mean_gain(
        missing_power(crop, codec.decode_spectrogram(codes[:, :books]))
        for crop in crops
        for codes in [codec.encode_spectrogram(crop)]
        for books in args.books
    )
    raise_levels(codec, gain)
    codec.save_pretrained(args.output)
    print(f"{args.output}: the vocoder's gains {codec.config.vocoder_gains_db} dB")
    print(f"{args.output}: bands raised by {gain.mean() * DB_PER_NAT:.2f} dB on average")
    return 0


def draw_crops(codec: SpectralCodec, rows: Dataset, count: int, seed: int) -> list[Tensor]:
    """Read (1, C, R, F) crops of 4 s from rows drawn at random."""
    chosen = torch.randint(len(rows), (count,), generator=generator(seed, "level")).tolist()
    bands, frames = codec.config.stereo_bands, 100 * FRAMES_PER_TOKEN
    return [read_crop(rows, row, 0, frames, bands)[None] for row in chosen]


def mean_gain(gains: Iterable[Tensor]) -> Tensor:
    """Average (M,) gains in nats over crops, of those that hold a band; at most .7."""
    mean = torch.stack(list(gains)).nanmean(0).nan_to_num(0.0)
    return mean.clamp(-MAX_GAIN_NATS, MAX_GAIN_NATS)


def missing_power(original: Tensor, estimate: Tensor) -> Tensor:
    """Measure what an estimate of a (1, C, R, F) log-mel lacks in every band.

    Returns:
        (M,) natural log of the missing magnitude; NaN where the original holds next to nothing.
    """
    levels = [band_levels(x[:, :, :NUM_MELS]) for x in (original, estimate)]
    audible = levels[0] > levels[0].max() - AUDIBLE_NATS
    return torch.where(audible, levels[0] - levels[1], torch.nan)


def band_levels(spectrogram: Tensor) -> Tensor:
    """Return the (M,) natural log of the root mean square magnitude of a (1, C, M, F) log-mel."""
    return (2 * spectrogram).exp().mean(dim=(0, 1, 3)).clamp(min=1e-12).log() / 2


@torch.no_grad()
def raise_levels(codec: SpectralCodec, gain: Tensor) -> None:
    """Add (M,) nats to the decoded levels of every band, in place."""
    config = codec.config
    repeats = config.patch_frames * codec.spectrogram_channels
    levels = codec.patch_out.bias[: repeats * config.num_mels]
    levels += gain.repeat(repeats) / config.spectrogram_std


if __name__ == "__main__":
    sys.exit(main())
