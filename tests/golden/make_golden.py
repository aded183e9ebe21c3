"""Write the golden data beside this file: ``PYTHONPATH=.:tests python -m golden.make_golden``.

Tiny weights, inputs and outputs are data, not seeds, so that a change of initialization, of a
generator or of a library cannot hide a change of what the code computes. Run it only when an
output is meant to change, and say why in the commit.
"""

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file
from tiny_codec import noise_audio, tiny_codec
from torch import Tensor

from codec.spectral_codec import SpectralCodec
from decoder.diffusion_decoder import DiffusionDecoder
from decoder.sampler import FlowSampler

FOLDER = Path(__file__).parent
SEED = 3


def outputs(codec: SpectralCodec, decoder: DiffusionDecoder, audio: Tensor) -> dict[str, Tensor]:
    """Everything that codec and decoder make of (1, C, S) audio."""
    codes = codec.encode(audio)
    fine = FlowSampler(codec, decoder, FlowMatchEulerDiscreteScheduler()).decode_spectrogram(
        codes[:, :2], [SEED], num_steps=3
    )
    return {
        "spectrogram": codec.log_mel(audio),
        "codes": codes,
        "coarse": codec.decode_spectrogram(codes),
        "preview": codec.decode(codes, seed=SEED),
        "fine": fine,
    }


def tiny_decoder() -> DiffusionDecoder:
    """Random weights, large enough that every condition shows."""
    decoder = DiffusionDecoder(
        num_mels=16,
        patch_bands=8,
        latent_dim=8,
        num_codebooks=3,
        width=32,
        num_layers=1,
        num_heads=2,
        window_frames=8,
        overlap_frames=4,
    )
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return decoder.eval()


def main() -> None:
    """Write weights, input and outputs."""
    torch.manual_seed(0)
    codec, decoder = tiny_codec(encoder_layers=1, decoder_layers=1), tiny_decoder()
    codec.save_pretrained(FOLDER / "codec")
    decoder.save_pretrained(FOLDER / "decoder")
    audio = noise_audio(codec, 1, 20 * codec.hop_length - 5)
    values = {"audio": audio, **outputs(codec, decoder, audio)}
    save_file(
        {name: value.contiguous() for name, value in values.items()}, FOLDER / "values.safetensors"
    )


if __name__ == "__main__":
    main()
