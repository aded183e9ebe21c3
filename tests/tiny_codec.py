"""A codec small enough for tests, its books set from data, and audio to feed it."""

import torch
from torch import Tensor

from codec.seeds import generator
from codec.spectral_codec import SpectralCodec
from pipelines.train_codec import set_image_books

SIZES = {
    "sample_rate": 8000,
    "channels": 2,
    "n_fft": 256,
    "hop_length": 64,
    "num_mels": 16,
    "patch_frames": 4,
    "width": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "kernel_size": 3,
    "latent_dim": 8,
    "num_codebooks": 3,
    "codebook_size": 16,
    "vocoder_iterations": 2,
}


def noise_audio(codec: SpectralCodec, batch: int, samples: int, seed: int = 0) -> Tensor:
    """(B, C, S) white noise in [-0.8, 0.8] whose level wanders, so that frames differ."""
    shape = (batch, codec.channels, samples)
    level = torch.linspace(0, 40, samples).sin().abs()
    return (torch.rand(shape, generator=generator(seed, "noise")) * 1.6 - 0.8) * level


def tiny_codec(**sizes: float) -> SpectralCodec:
    """A seeded, untrained codec in evaluation mode with initialized books."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = SpectralCodec(**(SIZES | sizes)).eval()
        frames = 4 * codec.codebook_size
        audio = noise_audio(codec, 1, frames * codec.hop_length)
        with torch.no_grad():
            spectrogram = codec.analyze(audio)
            codec.quantizer.initialize(codec.latents(spectrogram)[0])
            set_image_books(codec, spectrogram)
    return codec
