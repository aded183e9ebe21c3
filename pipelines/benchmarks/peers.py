"""Peers of equal size with random weights: speed does not depend on what was learnt."""

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import codec  # noqa: F401  (its torchaudio guard runs before transformers and encodec)
from codec.seeds import generator
from pipelines.benchmarks.contest import Contest, Runner
from prior.condition import Condition
from prior.generate import generate
from prior.sampling import Sampling

if TYPE_CHECKING:
    from codec.encodec_codec import EncodecCodec
    from codec.spectral_codec import SpectralCodec
    from decoder.diffusion_decoder import DiffusionDecoder
    from pipelines.pipeline import Pipeline
    from prior.model import Prior

TEXT_TOKENS = 16
DIT_GRID = 11  # DiT takes squares only: 121 patches, no more than a window of ours


def contests(pipeline: "Pipeline", duration_s: float) -> Iterator[Contest]:
    """Everything that has a peer, built when its turn comes."""
    frames = max(1, round(duration_s * pipeline.codec.frame_rate))
    for guidance in sorted({1.0, pipeline.config.guidance}):
        yield prior_contest(pipeline.prior, frames, guidance, pipeline.config.top_k)
    yield from codec_contests(pipeline.codec, duration_s)
    if pipeline.decoder is not None:
        yield decoder_contest(pipeline.decoder)


def size(model: nn.Module) -> int:
    """How many parameters, the weights of quantized layers among them."""
    weights = [tensor for tensor in model.buffers() if tensor.dtype == torch.int8]
    return sum(tensor.numel() for tensor in (*model.parameters(), *weights))


def random(shape: tuple[int, ...], name: str) -> Tensor:
    """Normal numbers, the same in every run."""
    return torch.randn(shape, generator=generator(0, "bench", name))


def prior_contest(prior: "Prior", num_frames: int, guidance: float, top_k: int) -> Contest:
    """Our prior against MusicGen's decoder; its delay pattern writes a frame per step too."""
    config = prior.config
    text = Condition(
        random((1, TEXT_TOKENS, config.text_width), "text"),
        torch.ones(1, TEXT_TOKENS, dtype=torch.bool),
    )
    sampling = Sampling(top_k=top_k, guidance=guidance)

    def ours() -> None:
        for _ in generate(prior, text, None, num_frames, sampling, [0]):
            pass

    from transformers import DynamicCache, EncoderDecoderCache

    musicgen = build_musicgen(prior, num_frames)
    accepted = inspect.signature(musicgen.forward).parameters
    cache_name = "cache" if "cache" in accepted else "past_key_values"  # until transformers 5.23
    rows = 1 if guidance == 1 else 2
    states = random((rows, TEXT_TOKENS, config.width), "states")
    begin = torch.full((config.num_codebooks, 1), config.codebook_size)

    @torch.inference_mode()
    def theirs() -> None:
        musicgen.generate(
            begin,
            encoder_hidden_states=states,
            **{cache_name: EncoderDecoderCache(DynamicCache(), DynamicCache())},
            decoder_start_token_id=config.codebook_size,
            pad_token_id=config.codebook_size,
            max_new_tokens=num_frames,
            do_sample=True,
            num_return_sequences=1,
            use_cache=True,
            top_k=top_k,
            guidance_scale=None if guidance == 1 else guidance,
        )

    task = "prior" if guidance == 1 else f"prior, guidance {guidance:g}"
    peers = [Runner("transformers MusicGen", theirs, size(musicgen))]
    return Contest(task, "frame", num_frames, Runner("partita", ours, size(prior)), peers)


def build_musicgen(prior: "Prior", num_frames: int) -> Any:
    """Equal width, depth, heads, inner width, codebooks and vocabulary."""
    from transformers import MusicgenDecoderConfig, MusicgenForCausalLM

    config = prior.config
    return MusicgenForCausalLM(
        MusicgenDecoderConfig(
            vocab_size=config.codebook_size,
            max_position_embeddings=num_frames + config.num_codebooks + 1,
            num_hidden_layers=config.num_layers,
            ffn_dim=4 * config.width,
            num_attention_heads=config.num_heads,
            hidden_size=config.width,
            num_codebooks=config.num_codebooks,
            pad_token_id=config.codebook_size,
            bos_token_id=config.codebook_size,
        )
    ).eval()


def codec_contests(
    ours: "SpectralCodec | EncodecCodec", duration_s: float
) -> tuple[Contest, Contest]:
    """Encode and decode: ours at its own rate and channels, each peer at its."""
    audio = 0.1 * random((1, ours.channels, round(duration_s * ours.sample_rate)), "audio")
    codes = ours.encode(audio)
    us = f"partita, {ours.sample_rate / 1000:g} kHz x {ours.channels}"
    encoders, decoders = [], []
    for name, model, encode, decode in build_codecs(duration_s):
        encoders.append(Runner(name, encode, size(model)))
        decoders.append(Runner(name, decode, size(model)))
    parameters = size(ours)
    return (
        Contest(
            "codec, encode",
            "s",
            duration_s,
            Runner(us, lambda: ours.encode(audio), parameters),
            encoders,
        ),
        Contest(
            "codec, decode",
            "s",
            duration_s,
            Runner(us, lambda: ours.decode(codes), parameters),
            decoders,
        ),
    )


def build_codecs(duration_s: float) -> Iterator[tuple[str, nn.Module, Any, Any]]:
    """Name, model, and the calls that encode and decode ``duration_s`` of mono noise."""
    from encodec import EncodecModel as OriginalEncodec
    from transformers import (
        DacConfig,
        DacModel,
        EncodecConfig,
        EncodecModel,
        MimiConfig,
        MimiModel,
    )

    def noise(rate: int) -> Tensor:
        return 0.1 * random((1, 1, round(duration_s * rate)), "audio")

    no_grad = torch.inference_mode()
    encodec = EncodecModel(EncodecConfig()).eval()
    wave = noise(24000)
    encoded = no_grad(encodec.encode)(wave, bandwidth=6.0)
    yield (
        "transformers EnCodec 24 kHz",
        encodec,
        lambda: no_grad(encodec.encode)(wave, bandwidth=6.0),
        lambda: no_grad(encodec.decode)(encoded.audio_codes, encoded.audio_scales),
    )
    original = OriginalEncodec.encodec_model_24khz(pretrained=False).eval()
    original.set_target_bandwidth(6.0)
    frames = no_grad(original.encode)(wave)
    yield (
        "encodec 24 kHz",
        original,
        lambda: no_grad(original.encode)(wave),
        lambda: no_grad(original.decode)(frames),
    )
    mimi = MimiModel(MimiConfig()).eval()
    mimi_codes = no_grad(mimi.encode)(wave).audio_codes
    yield (
        "transformers Mimi 24 kHz",
        mimi,
        lambda: no_grad(mimi.encode)(wave),
        lambda: no_grad(mimi.decode)(mimi_codes),
    )
    dac = DacModel(DacConfig(sampling_rate=44100)).eval()
    wide = noise(44100)
    dac_codes = no_grad(dac.encode)(wide).audio_codes
    yield (
        "transformers DAC 44.1 kHz",
        dac,
        lambda: no_grad(dac.encode)(wide),
        lambda: no_grad(dac.decode)(audio_codes=dac_codes),
    )


def decoder_contest(ours: "DiffusionDecoder") -> Contest:
    """One solver step of one window against a plain DiT of equal width, depth and heads."""
    from diffusers import DiTTransformer2DModel

    config = ours.config
    T, F = config.window_frames, config.window_frames * config.patch_frames
    picture = random((1, config.channels, config.num_mels, F), "picture")
    latents = random((1, T, config.latent_dim), "latents")
    t, books = torch.tensor([0.5]), torch.tensor([config.num_codebooks])
    numbers = config.channels * config.patch_frames * config.patch_bands
    dit = DiTTransformer2DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.width // config.num_heads,
        in_channels=numbers // 4,
        num_layers=config.num_layers,
        sample_size=2 * DIT_GRID,
        patch_size=2,
    ).eval()
    patches = random((1, numbers // 4, 2 * DIT_GRID, 2 * DIT_GRID), "patches")
    label = torch.tensor([0])

    @torch.inference_mode()
    def step() -> None:
        ours(picture, t, picture, latents, books)

    @torch.inference_mode()
    def peer_step() -> None:
        dit(patches, timestep=label, class_labels=label)

    return Contest(
        f"decoder, {T * ours.rows} patches",
        "step",
        1,
        Runner("partita", step, size(ours)),
        [Runner(f"diffusers DiT, {DIT_GRID**2} patches", peer_step, size(dit))],
    )
