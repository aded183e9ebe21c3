"""Give a trained codec's decode the power of its originals, band by band.

``python -m pipelines.training.level_codec CODEC OUTPUT --prepared data/music``

Regression on logarithms finds the median, which lies below the mean power, and a vocoder's phases
cancel a little of what they share. Both are nearly constant in a band, so one gain per mel band,
added to the bias of the last layer, gives them back: nothing else changes, codes included.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from codec.seeds import generator
from codec.spectral_codec import SpectralCodec
from pipelines.data.prepared import FRAMES_PER_TOKEN, read_crop
from pipelines.errors import one_line_errors
from pipelines.training.codec_data import open_all

AUDIBLE_NATS = 6.0
"""Bands further below a crop's loudest say nothing about their gain."""
MAX_GAIN_NATS = 0.7


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
    rows = open_all(args.prepared, "train")
    draws = generator(args.seed, "level")
    gains = []
    for row in torch.randint(len(rows), (args.crops,), generator=draws).tolist():
        crop = read_crop(rows, row, 0, 100 * FRAMES_PER_TOKEN, codec.config.stereo_bands)
        gains += [missing_power(codec, crop[None], books) for books in args.books]
    gain = torch.stack(gains).nanmean(0).nan_to_num(0.0).clamp(-MAX_GAIN_NATS, MAX_GAIN_NATS)
    raise_levels(codec, gain)
    codec.save_pretrained(args.output)
    print(f"{args.output}: bands raised by {gain.mean() * 8.686:.2f} dB on average")
    return 0


@torch.no_grad()
def missing_power(codec: SpectralCodec, crop: Tensor, num_books: int) -> Tensor:
    """Measure what the decoded sound lacks in every band.

    Args:
        codec: in evaluation mode.
        crop: (1, C, R, F) as the codec analyzes audio.
        num_books: books that decode it.

    Returns:
        (M,) natural log of the missing magnitude; NaN where the crop holds next to nothing.
    """
    codes = codec.encode_spectrogram(crop)[:, :num_books]
    heard = codec.analyze(codec.vocoder(codec.decode_spectrogram(codes)))
    levels = [band_levels(x[:, :, : codec.config.num_mels]) for x in (crop, heard)]
    audible = levels[0] > levels[0].max() - AUDIBLE_NATS
    return torch.where(audible, levels[0] - levels[1], torch.nan)


def band_levels(spectrogram: Tensor) -> Tensor:
    """(1, C, M, F) log-mel -> (M,) natural log of the root mean square magnitude."""
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
