"""What a part costs, computed from its config: parameters, operations, memory, hours.

Operations count a multiplication and an addition as two and attention as if nothing were masked
(what ``torch.utils.flop_counter`` counts too); a training step costs three times its forward pass.
What is left out is small: norms, embeddings, the text's projections, the decoder's frozen codec.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]
PLAN_NUMBERS = 120
"""``prior.plan.PLAN_WIDTH``, written down here so that nothing heavy is imported."""

TRAINING_BYTES = 22
"""Per parameter: float32 weight (4), gradient (4), AdamW's moments (8), average (4), bf16 copy."""

CAPTION_FLOPS = 20 * 2 * 6 * 12 * 384**2
"""Of the frozen text encoder (MiniLM: 6 layers, 384 wide) for a caption of 20 word pieces."""

NOTES_PER_S = 10
"""Of the clips of ``prepare scores``: 208 in 20 s on average."""


@dataclass(frozen=True)
class Hardware:
    """What trains.

    Attributes:
        name: with its article.
        flops: sustained operations per second in bf16.
        memory: bytes.
        smallest: parameters of the smallest model that can keep it that busy.
    """

    name: str
    flops: float
    memory: float
    smallest: float


UTILIZATION = 0.35
HARDWARE = (
    Hardware("two CPU cores", 0.5e12, math.inf, 0),
    Hardware("an RTX 4090", UTILIZATION * 165e12, 24e9, 50e6),
    Hardware("an H100", UTILIZATION * 989e12, 80e9, 50e6),
)
"""The GPUs are assumed to sustain 35 % of their dense peak of 165 and 989 TFLOP/s, which models
under 50M parameters are assumed not to reach. The two cores are measured: two of an AMD EPYC,
otherwise idle, trained ``configs/codec/tiny.yaml`` on 315 to 350 seconds of audio a second."""


@dataclass(frozen=True)
class Estimate:
    """What one config costs.

    Attributes:
        part: "codec", "prior" or "decoder".
        parameters: trained by gradient.
        codebook_numbers: trained by moving averages (the codec's books), else 0.
        frame_rate: token frames per second (Hz); None where frames are notes.
        frames: token frames seen in training, all processes together.
        codes: of them the prior's targets (frames times books); for the others, those of a frame.
        training_flops: of the whole training.
        training_memory: bytes per process.
        inference_memory: bytes.
        processes: that train.
    """

    part: str
    parameters: int
    codebook_numbers: int
    frame_rate: float | None
    frames: int
    codes: int
    training_flops: float
    training_memory: float
    inference_memory: float
    processes: int

    @property
    def hours_of_audio(self) -> float | None:
        """Heard in training, repetitions included; None where frames are notes."""
        return self.frames / self.frame_rate / 3600 if self.frame_rate else None

    def hours(self, hardware: Hardware) -> float:
        """Of training with one such device per process."""
        return self.training_flops / (hardware.flops * self.processes) / 3600

    def fits(self, hardware: Hardware) -> bool:
        """Whether a process finds room on such a device, and keeps it busy."""
        fills = self.parameters >= hardware.smallest
        return fills and self.training_memory < hardware.memory


def count_parameters(part: str, config: Config) -> int:
    """Numbers that a part's optimizer trains: exactly those of the built model."""
    return COUNTS[part](config)


def count_codebook_numbers(part: str, config: Config) -> int:
    """Numbers in the codec's books, which follow the data by moving averages."""
    if part != "codec":
        return 0
    return config["num_codebooks"] * config["codebook_size"] * config["latent_dim"]


def estimate(part: str, settings: Mapping[str, Any], processes: int = 1) -> Estimate:
    """Everything about one training config.

    Args:
        part: "codec", "prior" or "decoder".
        settings: the sections "model", "data" and "training" with every field.
        processes: that train together.
    """
    model, data, training = (settings[name] for name in ("model", "data", "training"))
    frame_rate = model["frame_rate"] if part == "prior" else _frame_rate(model)
    crop = data.get("crop_frames") or max(1, round(data["crop_s"] * frame_rate))
    items = training["steps"] * training["batch_size"] * training["gradient_accumulation_steps"]
    frames = items * crop * processes
    parameters = count_parameters(part, model)
    share = data.get("depth_share", 1.0)
    activations = training["batch_size"] * crop * activation_bytes(part, model, share)
    captions = items * processes if part == "prior" else 0
    return Estimate(
        part=part,
        parameters=parameters,
        codebook_numbers=count_codebook_numbers(part, model),
        frame_rate=frame_rate,
        frames=frames,
        codes=frames * model["num_codebooks"],
        training_flops=3.0 * frames * forward_flops(part, model, crop, share)
        + captions * CAPTION_FLOPS,
        training_memory=TRAINING_BYTES * parameters + activations,
        inference_memory=inference_bytes(part, model),
        processes=processes,
    )


def forward_flops(part: str, config: Config, frames: int, depth_share: float = 1.0) -> float:
    """Operations of a forward pass per token frame, in sequences of ``frames``."""
    if part == "prior":
        return _prior_flops(config, frames, depth_share)
    return {"codec": _codec_flops, "decoder": _decoder_flops}[part](config, frames)


def activation_bytes(part: str, config: Config, depth_share: float = 1.0) -> float:
    """Bytes kept for the backward pass per token frame, in bf16 with attention by SDPA.

    The constants were fitted to what autograd saves (tests/test_info.py holds them to it).
    """
    D, K, V = config["width"], config["num_codebooks"], config.get("codebook_size", 0)
    if part == "codec":
        layers = config["encoder_layers"] + config["decoder_layers"]
        network = 24.0 * D * layers + 6.2 * _codec_patch(config) + 12.0 * D
        return network + K * (12.0 * V + 33.0 * config["latent_dim"])
    if part == "decoder":
        rows, patch = _rows(config), _decoder_patch(config)
        return rows * (79.0 * D * config["num_layers"] + 8.0 * patch + 20.0 * D)
    per_layer = 86.0 if config["backbone"] == "transformer" else 70.0
    depth = config["depth_width"]
    backbone = per_layer * D * config["num_layers"] + 10.0 * (V + 1) + 10.0 * D
    backbone += {"lstm": 75.0, "lstm-plain": 40.0}.get(config["backbone"], 0.0) * D
    later = K * config["depth_layers"] * 86.0 * depth + 10.0 * (K - 1) * V
    return backbone + (depth_share * later if K > 1 else 0.0)


def inference_bytes(part: str, config: Config, minutes: float = 1.0) -> float:
    """Float32 weights and what decoding keeps: the prior's cache, or a window's activations."""
    weights = 4.0 * (count_parameters(part, config) + count_codebook_numbers(part, config))
    D = config["width"]
    if part == "prior":
        frames = minutes * 60 * (config["frame_rate"] or NOTES_PER_S)
        frames = min(frames, config["sliding_window"] or frames)
        caches = {"transformer": config["num_layers"], "lstm": 1, "lstm-plain": 0}
        return (
            weights + 2 * 4.0 * 2 * D * caches[config["backbone"]] * frames
        )  # guidance doubles the rows
    if part == "codec":
        return weights + 1024 * 4.0 * (6 * D + 2 * _codec_patch(config))
    frames = config["window_frames"]
    return weights + frames * _rows(config) * 4.0 * (12 * D + 3 * _decoder_patch(config))


# -- codec ----------------------------------------------------------------------------------


def _codec_patch(config: Config) -> int:
    return config["channels"] * config["num_mels"] * config["patch_frames"]


def _frame_rate(config: Config) -> float:
    """Of codec and decoder; the decoder's config leaves the sample rate to the codec (25 Hz)."""
    if "sample_rate" not in config:
        return 100 / config["patch_frames"]
    return config["sample_rate"] / (config["hop_length"] * config["patch_frames"])


def _codec_parameters(config: Config) -> int:
    D, latent, patch = config["width"], config["latent_dim"], _codec_patch(config)
    block = D * (config["kernel_size"] + 1) + 2 * D + (4 * D * D + 4 * D) + (4 * D * D + D) + D
    layers = config["encoder_layers"] + config["decoder_layers"]
    ends = (patch * D + D) + (D * patch + patch) + (D * latent + latent) + (latent * D + D)
    return layers * block + 2 * 2 * D + ends


def _codec_flops(config: Config, frames: int) -> float:
    D, latent = config["width"], config["latent_dim"]
    layers = config["encoder_layers"] + config["decoder_layers"]
    blocks = layers * (8 * D * D + config["kernel_size"] * D)
    ends = 2 * D * (_codec_patch(config) + latent)
    books = config["num_codebooks"] * config["codebook_size"] * latent
    return 2.0 * (blocks + ends + books)


# -- prior ----------------------------------------------------------------------------------


def _swiglu(width: int) -> int:
    inner = -(-width * 8 // 3 // 32) * 32
    return 3 * width * inner


def _self_attention(width: int, num_heads: int) -> int:
    return 4 * width * width + width // num_heads


def _cross_attention(width: int, text_width: int) -> int:
    return 2 * width * width + 2 * text_width * width


def _prior_parameters(config: Config) -> int:
    D, K, V = config["width"], config["num_codebooks"], config["codebook_size"]
    heads, text = config["num_heads"], config["text_width"]
    attention, cross = _self_attention(D, heads), _cross_attention(D, text)
    if config["backbone"] == "transformer":
        network = config["num_layers"] * (3 * D + attention + cross + _swiglu(D)) + D
    else:
        block = 2 * D + (8 * D * D + 8 * D) + cross
        network = config["num_layers"] * block + 2 * D + _swiglu(D)
        if config["backbone"] == "lstm":
            network += D + attention
    told = 2 * text + 72 * text + 512 * D  # null token, norm, and the summary's 8 queries of 64
    if config["reads_plan"]:
        told += PLAN_NUMBERS * D + D + D * D
    return K * V * D + D + told + network + D * (V + 1) + _depth_parameters(config)


def _depth_parameters(config: Config) -> int:
    D, K, V = config["depth_width"], config["num_codebooks"], config["codebook_size"]
    if K == 1:
        return 0
    block = 2 * D + _self_attention(D, config["depth_heads"]) + _swiglu(D)
    return config["width"] * D + 2 * (K - 1) * V * D + config["depth_layers"] * block + D


def _prior_flops(config: Config, frames: int, depth_share: float) -> float:
    D, V, layers = config["width"], config["codebook_size"], config["num_layers"]
    seen = min(frames, config["sliding_window"] or frames)
    attention = 2.0 * 4 * D * D + 4.0 * seen * D
    cross, feed_forward = 2.0 * 2 * D * D, 2.0 * _swiglu(D)
    if config["backbone"] == "transformer":
        network = layers * (attention + cross + feed_forward)
    else:
        network = layers * (2.0 * 8 * D * D + cross) + feed_forward
        if config["backbone"] == "lstm":
            network += attention
    if config["reads_plan"]:
        network += 2.0 * (PLAN_NUMBERS * D + D * D)
    return network + 2.0 * D * (V + 1) + depth_share * _depth_flops(config)


def _depth_flops(config: Config) -> float:
    D, K, V = config["depth_width"], config["num_codebooks"], config["codebook_size"]
    if K == 1:
        return 0.0
    block = 2.0 * 4 * D * D + 4.0 * K * D + 2.0 * _swiglu(D)
    blocks = K * config["depth_layers"] * block
    return 2.0 * config["width"] * D + blocks + 2.0 * (K - 1) * D * V


# -- decoder --------------------------------------------------------------------------------


def _rows(config: Config) -> int:
    return config["num_mels"] // config["patch_bands"]


def _decoder_patch(config: Config) -> int:
    return config["channels"] * config["patch_frames"] * config["patch_bands"]


def _decoder_hidden(config: Config) -> int:
    return 64 * math.ceil(config["width"] * 8 / 3 / 64)


def _decoder_parameters(config: Config) -> int:
    D, patch, latent = config["width"], _decoder_patch(config), config["latent_dim"]
    block = 6 * D + 4 * D * D + 2 * (D // config["num_heads"]) + 3 * D * _decoder_hidden(config)
    inputs = 2 * patch * D + D + latent * D + D + _rows(config) * D
    condition = (config["num_codebooks"] + 1) * D + (256 * D + D) + (D * D + D)
    modulation = (6 * D * D + 6 * D) + (2 * D * D + 2 * D)
    output = D * patch + patch
    return inputs + condition + modulation + config["num_layers"] * block + output


def _decoder_flops(config: Config, frames: int) -> float:
    D, rows, patch = config["width"], _rows(config), _decoder_patch(config)
    block = 2.0 * (4 * D * D + 3 * D * _decoder_hidden(config)) + 4.0 * frames * rows * D
    return (
        rows * (2.0 * 3 * patch * D + config["num_layers"] * block) + 2.0 * D * config["latent_dim"]
    )


COUNTS = {"codec": _codec_parameters, "prior": _prior_parameters, "decoder": _decoder_parameters}
