"""Estimate what a training config costs: parameters, operations, memory, hours.

The model is built on the meta device and one forward pass is counted on fake tensors, which have
shapes and no numbers. An operation is a multiplication or an addition; a training step takes three
forward passes. Left out is what is small: norms, sums, and the decoder's frozen codec.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from codec.spectral_codec import SpectralCodec
from decoder.diffusion_decoder import DiffusionDecoder
from prior.condition import Condition
from prior.model import Prior

CLASSES: dict[str, Any] = {"codec": SpectralCodec, "prior": Prior, "decoder": DiffusionDecoder}

TRAINING_BYTES = 22
"""Per parameter: float32 weight (4), gradient (4), AdamW's moments (8), average (4), bf16 copy."""

CAPTION_TOKENS = 20
CAPTION_FLOPS = CAPTION_TOKENS * 2 * 6 * 12 * 384**2
"""Operations of the frozen text encoder (MiniLM: 6 layers, 384 wide) for one caption."""

COMMITMENT_BYTES = 8
"""Kept for every number of every codebook's vector and entry, per token frame."""

UTILIZATION = 0.35


@dataclass(frozen=True)
class Hardware:
    """Describe a device to train on: bf16 operations per second sustained, and bytes of memory.

    ``smallest`` is the number of parameters of the smallest model that can keep it that busy.
    """

    name: str
    flops: float
    memory: float
    smallest: float


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
    """Hold the cost of one config.

    Attributes:
        part: "codec", "prior" or "decoder".
        parameters: trained by gradient.
        codebook_numbers: trained by moving averages (the codec's codebooks), else 0.
        frame_rate: token frames per second (Hz); None where frames are notes.
        frames: token frames seen in training, all processes together.
        codes: frames times codebooks.
        training_flops: operations of the whole training.
        training_memory: bytes per process.
        processes: how many train together.
    """

    part: str
    parameters: int
    codebook_numbers: int
    frame_rate: float | None
    frames: int
    codes: int
    training_flops: float
    training_memory: float
    processes: int

    @property
    def hours_of_audio(self) -> float | None:
        """Return the audio seen in training, with repetitions; None where frames are notes."""
        return self.frames / self.frame_rate / 3600 if self.frame_rate else None

    @property
    def weight_bytes(self) -> int:
        """Return the size of the weights in float32."""
        return 4 * (self.parameters + self.codebook_numbers)

    def hours(self, hardware: Hardware) -> float:
        """Return the hours of training with one such device per process."""
        return self.training_flops / (hardware.flops * self.processes) / 3600

    def fits(self, hardware: Hardware) -> bool:
        """Tell whether a process has enough memory on such a device, and keeps it busy."""
        fills = self.parameters >= hardware.smallest
        return fills and self.training_memory < hardware.memory


def estimate(part: str, settings: Mapping[str, Any], processes: int = 1) -> Estimate:
    """Estimate the cost of a part's sections "model", "data" and "training", with every field."""
    config, data, training = (settings[name] for name in ("model", "data", "training"))
    model = build_on_meta(part, config)
    frame_rate = model.frame_rate if part == "codec" else config.get("frame_rate")
    if part == "decoder":  # its config leaves the sample rate to the codec
        frame_rate = 100 / config["patch_frames"]
    crop = data.get("crop_frames") or max(1, round(data["crop_s"] * frame_rate))
    flops, kept = measure_forward(model, crop, data.get("depth_share", 1.0))
    passes = 1 + data.get("one_step_share", 0.0)  # two samples of those rows
    flops, kept = passes * flops, passes * kept
    flops += CAPTION_FLOPS / 3 if part == "prior" else 0  # which has no backward pass
    items = training["steps"] * training["batch_size"] * training["gradient_accumulation_steps"]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    frames = items * crop * processes
    return Estimate(
        part=part,
        parameters=parameters,
        codebook_numbers=count_codebook_numbers(model),
        frame_rate=frame_rate,
        frames=frames,
        codes=frames * config["num_codebooks"],
        training_flops=3.0 * items * processes * flops,
        training_memory=TRAINING_BYTES * parameters + training["batch_size"] * kept,
        processes=processes,
    )


def build_on_meta(part: str, config: Mapping[str, Any]) -> Any:
    """Build a part without memory for its weights; its constructor checks the config."""
    with torch.device("meta"):
        return CLASSES[part](**config)


def count_codebook_numbers(model: nn.Module) -> int:
    """Count the numbers in a codec's codebooks; 0 for other parts."""
    if not isinstance(model, SpectralCodec):
        return 0
    images = sum(book.entries.numel() for book in model.image_books)
    return images + sum(codebook.numel() for codebook in model.quantizer.codebooks())


def forward_flops(part: str, config: Mapping[str, Any], frames: int, depth_share: float) -> float:
    """Count the operations of a forward pass per token frame, in sequences of ``frames``."""
    return measure_forward(build_on_meta(part, config), frames, depth_share)[0] / frames


def measure_forward(model: Any, frames: int, depth_share: float = 1.0) -> tuple[float, float]:
    """Run a forward pass on fake tensors, in mixed precision as a trainer would.

    Args:
        model: codec, prior or decoder on the meta device.
        frames: token frames of the one sequence.
        depth_share: share of frames for which a prior predicts the later codebooks.

    Returns:
        Operations, and bytes kept for the backward pass.
    """
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.shape not in weights:  # neither a weight nor its copy in bf16
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    for module in model.modules():
        if isinstance(module, nn.LSTM):
            module.forward = partial(multiply_at_once, module)  # type: ignore[method-assign, assignment]
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        FlopCounterMode(display=False, custom_mapping={attention: attention_flops}) as counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        model.to_empty(device="cpu")
        shapes = [parameter.shape for parameter in model.parameters()]
        weights = {*shapes, *(shape[::-1] for shape in shapes)}
        run_forward(model, frames, depth_share)
    flops = counter.get_total_flops()
    num_bytes = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    if isinstance(model, SpectralCodec):  # searching does not run on fake tensors
        flops += 2 * frames * count_codebook_numbers(model)
        vectors = frames * model.quantizer.num_codebooks
        num_bytes += COMMITMENT_BYTES * vectors * model.config.latent_dim
    return flops, num_bytes


def run_forward(model: Any, frames: int, depth_share: float) -> None:
    """Call a part as its trainer does, with one sequence of zeros."""
    config = model.config
    if isinstance(model, Prior):
        reader = model.plan_reader
        plan = torch.zeros(1, frames, reader.num_features) if reader else None
        text = torch.zeros(1, CAPTION_TOKENS, config.text_width)
        condition = Condition(text, torch.ones(1, CAPTION_TOKENS, dtype=torch.bool), plan)
        codes = torch.zeros(1, config.num_codebooks, frames, dtype=torch.long)
        depth_frames = torch.zeros(1, max(1, round(depth_share * frames)), dtype=torch.long)
        model(codes, condition, depth_frames)
        return
    channels = model.spectrogram_channels if isinstance(model, SpectralCodec) else config.channels
    shape = (1, channels, config.num_mels, frames * config.patch_frames)
    if isinstance(model, SpectralCodec):
        model(torch.zeros(shape), quantize=False)
    else:
        start, num_books = (torch.zeros(shape), torch.zeros(1)), torch.ones(1).long()
        if model.vocoder is not None:
            tokens = math.ceil(frames * model.tokens_per_patch) + 2
            codes = torch.zeros(1, config.num_codebooks, tokens, dtype=torch.long)
            model(*start, None, codes, num_books, torch.zeros(1, frames * model.slots))
            return
        model(*start, torch.zeros(shape), torch.zeros(1, frames, config.latent_dim), num_books)


def multiply_at_once(lstm: nn.LSTM, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Do an LSTM layer's products for all frames at once; frame by frame takes half a minute."""
    of_input, of_output = map(lstm.get_parameter, ("weight_ih_l0", "weight_hh_l0"))
    gates = F.linear(x, of_input) + F.linear(x, of_output)  # (1, T, 4 D)
    first, second, third, fourth = gates.sigmoid().chunk(4, dim=-1)
    cell = first * second
    output = third * (fourth * cell).tanh()
    return output, (output[:, -1:], cell[:, -1:])


def attention_flops(
    query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any
) -> int:
    """Count fused attention on a CPU, which PyTorch's counter does not know."""
    return sdpa_flop_count(query, key, value)
