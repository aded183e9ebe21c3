"""Time models of other projects, as large as ours and of random weights, in turns with ours.

Speed does not depend on what was learned.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import DiTTransformer2DModel
from encodec import EncodecModel as OriginalEncodec
from torch import Tensor, nn
from transformers import (
    DacConfig,
    DacModel,
    DynamicCache,
    EncodecConfig,
    EncodecModel,
    EncoderDecoderCache,
    MimiConfig,
    MimiModel,
    MusicgenDecoderConfig,
    MusicgenForCausalLM,
)

from codec.encodec_codec import EncodecCodec
from codec.process_settings import kept_process_settings
from codec.spectral_codec import SpectralCodec
from decoder.diffusion_decoder import DiffusionDecoder
from pipelines.benchmarks.part_speed import random_tensor
from pipelines.benchmarks.turn_worker import (
    CLIP_FRAMES,
    CLIPS,
    optimizer_step,
    own_config,
    training_step,
)
from pipelines.benchmarks.turns import Spread, ratio, spread, take_turns
from pipelines.inference.music_generator import MusicGenerator
from prior.condition import Condition
from prior.frame_generator import FrameGenerator
from prior.model import Prior
from prior.sampling import Sampling

TEXT_TOKENS = 16
FRAMES_PER_S = 25
DIT_GRID = 11  # DiT takes squares only: 121 patches, no more than a window of ours


@dataclass(frozen=True)
class TimedModel:
    """Holds a model, what it is called, and a function that does its work once."""

    name: str
    work: Callable[[], object]
    model: nn.Module


@dataclass(frozen=True)
class PeerTask:
    """Describes work for our model and its peers, ``amount`` units ("frame", ...) a call."""

    name: str
    unit: str
    amount: float
    ours: TimedModel
    peers: list[TimedModel]


@dataclass(frozen=True)
class PeerSpeed:
    """Prints our model beside one peer.

    Seconds are per unit of the task, CPU-seconds summed over threads; a ratio is the peer's time
    over ours, round by round: above 1 ours is faster.
    """

    task: str
    unit: str
    threads: int
    ours: str
    peer: str
    our_parameters: int
    peer_parameters: int
    our_seconds: Spread
    peer_seconds: Spread
    our_cpu_seconds: Spread
    peer_cpu_seconds: Spread
    wall_ratio: Spread
    cpu_ratio: Spread

    def __str__(self) -> str:
        def times(found: Spread) -> str:
            return f"{found.median:.2f}x ({found.smallest:.2f}-{found.largest:.2f})"

        ours = f"{1000 * self.our_seconds.median:.1f} ms/{self.unit}"
        sizes = f"{self.our_parameters / 1e6:.1f}M/{self.peer_parameters / 1e6:.1f}M"
        return (
            f"{self.task:22}{self.peer:30}{self.threads:>8}"
            f"{ours:>17}{1000 * self.peer_seconds.median:>10.1f}"
            f"{times(self.wall_ratio):>24}{times(self.cpu_ratio):>24}{sizes:>16}"
        )


def compare(task: PeerTask, repeats: int) -> Iterator[PeerSpeed]:
    """Time a task's models in turns."""
    models = [task.ours, *task.peers]
    with kept_process_settings():  # MusicGen draws from Python's generator
        runs = take_turns([model.work for model in models], repeats)
    (our_wall, our_cpu), *theirs = (
        [[seconds / task.amount for seconds in clock] for clock in clocks] for clocks in runs
    )
    for peer, (wall, cpu) in zip(task.peers, theirs, strict=True):
        yield PeerSpeed(
            task=task.name,
            unit=task.unit,
            threads=torch.get_num_threads(),
            ours=task.ours.name,
            peer=peer.name,
            our_parameters=count_numbers(task.ours.model),
            peer_parameters=count_numbers(peer.model),
            our_seconds=spread(our_wall),
            peer_seconds=spread(wall),
            our_cpu_seconds=spread(our_cpu),
            peer_cpu_seconds=spread(cpu),
            wall_ratio=ratio(wall, our_wall),
            cpu_ratio=ratio(cpu, our_cpu),
        )


def peer_tasks(pipeline: MusicGenerator, duration_s: float) -> Iterator[PeerTask]:
    """Yield everything that has a peer, built when its turn comes."""
    frames = max(1, round(duration_s * pipeline.codec.frame_rate))
    for guidance in sorted({1.0, pipeline.config.guidance}):
        yield prior_task(pipeline.prior, frames, guidance, pipeline.config.top_k)
    yield training_task(pipeline.prior)
    yield from codec_tasks(pipeline.codec, duration_s)
    if pipeline.decoder is not None:
        yield decoder_task(pipeline.decoder)


def count_numbers(model: nn.Module) -> int:
    """Count a model's parameters."""
    return sum(tensor.numel() for tensor in model.parameters())


def prior_task(prior: Prior, num_frames: int, guidance: float, top_k: int) -> PeerTask:
    """Generate frames with our prior and with MusicGen's decoder, which takes as many steps."""
    config = prior.config
    text = Condition(
        random_tensor((1, TEXT_TOKENS, config.text_width), "text"),
        torch.ones(1, TEXT_TOKENS, dtype=torch.bool),
    )
    sampling = Sampling(top_k=top_k, guidance=guidance)

    def ours() -> None:
        for _ in FrameGenerator(prior, text, None, num_frames, sampling, [0]):
            pass

    musicgen = build_musicgen(prior, num_frames)
    accepted = inspect.signature(musicgen.forward).parameters
    cache_name = "cache" if "cache" in accepted else "past_key_values"  # until transformers 5.23
    rows = 1 if guidance == 1 else 2
    states = random_tensor((rows, TEXT_TOKENS, config.width), "states")
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

    return PeerTask(
        "prior" if guidance == 1 else f"prior, guidance {guidance:g}",
        "frame",
        num_frames,
        TimedModel("partita", ours, prior),
        [TimedModel("transformers MusicGen", theirs, musicgen)],
    )


def training_task(prior: Prior) -> PeerTask:
    """Take an optimizer step with our prior and with MusicGen's decoder, on as many codes.

    A quarter of the frames trains our depth head, as in configs/prior.
    """
    config = prior.config
    ours = type(prior)(**own_config(prior))
    musicgen = build_musicgen(prior, CLIP_FRAMES).train()
    shape = (CLIPS, CLIP_FRAMES, config.num_codebooks)
    codes = torch.randint(config.codebook_size, shape)
    states = random_tensor((CLIPS, 20, config.width), "states")
    inputs = codes.transpose(1, 2).flatten(0, 1)  # (B * K, T)
    labels = codes.masked_fill(torch.arange(CLIP_FRAMES)[:, None] == 0, -100)

    def musicgen_loss() -> Tensor:
        return musicgen(inputs, encoder_hidden_states=states, labels=labels).loss

    return PeerTask(
        "prior, training step",
        "s",
        CLIPS * CLIP_FRAMES / FRAMES_PER_S,
        TimedModel("partita", training_step(ours), ours),
        [TimedModel("transformers MusicGen", optimizer_step(musicgen, musicgen_loss), musicgen)],
    )


def build_musicgen(prior: Prior, num_frames: int) -> Any:
    """Build MusicGen's decoder with our width, depth, heads, codebooks and vocabulary."""
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


def codec_tasks(ours: SpectralCodec | EncodecCodec, duration_s: float) -> Iterator[PeerTask]:
    """Encode and decode noise, every codec at its own sample rate, the peers in mono."""

    def noise(channels: int, rate: int) -> Tensor:
        return 0.1 * random_tensor((1, channels, round(duration_s * rate)), "audio")

    audio = noise(ours.channels, ours.sample_rate)
    codes = ours.encode(audio)
    name = f"partita, {ours.sample_rate / 1000:g} kHz x {ours.channels}"
    encoders, decoders = [], []
    for peer, model, encode, decode in build_codecs(noise):
        encoders.append(TimedModel(peer, torch.inference_mode()(encode), model))
        decoders.append(TimedModel(peer, torch.inference_mode()(decode), model))
    encoder = TimedModel(name, lambda: ours.encode(audio), ours)
    decoder = TimedModel(name, lambda: ours.decode(codes), ours)
    yield PeerTask("codec, encode", "s", duration_s, encoder, encoders)
    yield PeerTask("codec, decode", "s", duration_s, decoder, decoders)


@torch.inference_mode()
def build_codecs(noise: Callable[[int, int], Tensor]) -> Iterator[tuple[str, nn.Module, Any, Any]]:
    """Build the peers: name, model, and the calls that encode and decode."""
    for name, model, rate, options in (
        ("EnCodec 24 kHz", EncodecModel(EncodecConfig()), 24000, {"bandwidth": 6.0}),
        ("Mimi 24 kHz", MimiModel(MimiConfig()), 24000, {}),
        ("DAC 44.1 kHz", DacModel(DacConfig(sampling_rate=44100)), 44100, {}),
    ):
        encode = partial(model.eval().encode, noise(1, rate), **options)
        encoded = encode()
        read = {name: encoded[name] for name in ("audio_codes", "audio_scales") if name in encoded}
        yield f"transformers {name}", model, encode, partial(model.decode, **read)
    original = OriginalEncodec.encodec_model_24khz(pretrained=False).eval()
    original.set_target_bandwidth(6.0)
    encode = partial(original.encode, noise(1, 24000))
    yield "encodec 24 kHz", original, encode, partial(original.decode, encode())


def decoder_task(ours: DiffusionDecoder) -> PeerTask:
    """Take one solver step of a window, beside a plain DiT of our width, depth and heads."""
    config = ours.config
    T, F = config.window_frames, config.window_frames * config.patch_frames
    picture = random_tensor((1, config.channels, config.num_mels, F), "picture")
    latents = random_tensor((1, T, config.latent_dim), "latents")
    t, codebooks = torch.tensor([0.5]), torch.tensor([config.num_codebooks])
    numbers = config.channels * config.patch_frames * config.patch_bands
    dit = DiTTransformer2DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.width // config.num_heads,
        in_channels=numbers // 4,
        num_layers=config.num_layers,
        sample_size=2 * DIT_GRID,
        patch_size=2,
    ).eval()
    patches = random_tensor((1, numbers // 4, 2 * DIT_GRID, 2 * DIT_GRID), "patches")
    label = torch.tensor([0])

    @torch.inference_mode()
    def step() -> None:
        ours(picture, t, picture, latents, codebooks)

    @torch.inference_mode()
    def peer_step() -> None:
        dit(patches, timestep=label, class_labels=label)

    peer = TimedModel(f"diffusers DiT, {DIT_GRID**2} patches", peer_step, dit)
    name = f"decoder, {T * ours.rows} patches"
    return PeerTask(name, "step", 1, TimedModel("partita", step, ours), [peer])
