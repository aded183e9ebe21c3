"""Estimates against built models, and what ``partita info`` prints of a saved pipeline."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from codec import SpectralCodec
from codec.losses import spectrogram_loss
from decoder import DiffusionDecoder
from decoder.flow import flow_loss
from pipelines import Pipeline
from pipelines.cli import main
from pipelines.commands.info import describe_pipeline, duration, large, size
from pipelines.training.acceleration import choose_precision
from pipelines.training.cost import (
    CAPTION_FLOPS,
    CAPTION_TOKENS,
    CLASSES,
    HARDWARE,
    Estimate,
    build_on_meta,
    estimate,
    measure_forward,
)
from prior import Condition, PriorBatch, prior_loss

ROOT = Path(__file__).parents[1]

# -- operations and memory ------------------------------------------------------------------

SMALL: dict[str, dict[str, Any]] = {
    "codec": {"width": 192, "encoder_layers": 2, "decoder_layers": 2},
    "transformer": {"backbone": "transformer", "width": 192, "num_layers": 3, "num_heads": 3},
    "lstm": {"backbone": "lstm", "width": 192, "num_layers": 3, "num_heads": 3},
    "lstm-plain": {"backbone": "lstm-plain", "width": 192, "num_layers": 3, "num_heads": 3},
    "decoder": {"width": 192, "num_layers": 3, "num_heads": 3, "patch_bands": 64},
}
B, T = 2, 100


def training_inputs(model: nn.Module, device: str) -> tuple[Any, ...]:
    """The arguments of a model's forward for B items of T frames."""
    spectrogram = torch.randn(B, 2, 128, 4 * T, device=device)
    if isinstance(model, SpectralCodec):
        return (spectrogram,)
    if isinstance(model, DiffusionDecoder):
        latents = torch.randn(B, T, 64, device=device)
        books = torch.full((B,), 2, device=device)
        return spectrogram, torch.rand(B, device=device), spectrogram, latents, books
    codes = torch.zeros(B, 2, T, dtype=torch.long, device=device)
    states = torch.randn(B, 1, 384, device=device)
    return codes, Condition(states, torch.ones(B, 1, dtype=torch.bool, device=device))


def build(name: str) -> Any:
    return build_on_meta(name if name in CLASSES else "prior", SMALL[name])


def size_of(*modules: nn.Module | None) -> int:
    return sum(tensor.numel() for module in modules if module for tensor in module.parameters())


def test_a_decoders_operations_are_those_that_torch_counts():
    model = build("decoder")
    with FlopCounterMode(display=False) as counter:  # plain products in place of fused attention
        model(*training_inputs(model, "meta"))
    flops, _ = measure_forward(model, T)
    assert B * flops == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_a_codecs_operations_are_two_per_weight_and_the_search_of_the_codebooks():
    model = build("codec")
    codebooks = sum(codebook.numel() for codebook in model.quantizer.codebooks())
    flops, _ = measure_forward(model, T)
    assert flops == pytest.approx(2 * T * (size_of(model) + codebooks), rel=0.02)


@pytest.mark.parametrize("name", ["lstm", "lstm-plain", "transformer"])
def test_a_priors_operations_are_two_per_weight_and_its_attention(name):
    model = build(name)
    cross = [block.text_attention.key_value for block in model.network.blocks]  # once per text
    unread = size_of(model.embedding, model.text_summary, model.depth, *cross)
    attentions = {"lstm": 1, "lstm-plain": 0, "transformer": 3}[name]
    depth = 1 / T * 2 * size_of(model.depth)  # of one frame in T
    text = CAPTION_TOKENS * (2 * size_of(*cross) / T + 3 * 4 * 192)
    expected = 2 * (size_of(model) - unread) + attentions * 4 * T * 192 + depth + text
    flops, _ = measure_forward(model, T, depth_share=1 / T)
    assert flops / T == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("name", list(SMALL))
def test_activation_memory_is_about_what_autograd_keeps(name):
    if name.startswith("lstm") and choose_precision("auto", torch.device("cpu")) == "no":
        pytest.skip("PyTorch has no bfloat16 LSTM on this processor")
    torch.manual_seed(0)
    model = CLASSES[name if name in CLASSES else "prior"](**SMALL[name]).train()
    if isinstance(model, SpectralCodec):
        model.quantizer.initialize(torch.randn(1024, 64))
    _, num_bytes = measure_forward(build(name), T)
    assert B * num_bytes == pytest.approx(kept_for_backward(model), rel=0.4)


def kept_for_backward(model: nn.Module) -> int:
    """Bytes that one training forward pass saves, beside parameters and their bf16 copies."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    parameters |= {buffer.untyped_storage().data_ptr() for buffer in model.buffers()}
    shapes = {parameter.shape for parameter in model.parameters() if parameter.dim() == 2}
    shapes |= {torch.Size(reversed(shape)) for shape in shapes}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters and tensor.shape not in shapes:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        loss = training_loss(model)
    loss.backward()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def training_loss(model: nn.Module) -> Tensor:
    inputs = training_inputs(model, "cpu")
    if isinstance(model, SpectralCodec):
        return codec_loss(model, inputs[0])
    if isinstance(model, DiffusionDecoder):
        detail, angles, coarse, latents, books = inputs
        return flow_loss(
            lambda point, angle: model(point, angle, coarse, latents, books),
            torch.randn_like(detail),
            detail,
            angles,
        )
    codes, condition = inputs
    ones = torch.ones(B, T, dtype=torch.bool)
    batch = PriorBatch(codes, ones, torch.zeros(B, dtype=torch.bool), condition)
    return prior_loss(model, batch).loss


def codec_loss(model: SpectralCodec, spectrogram: Tensor) -> Tensor:
    output = model(spectrogram)
    return spectrogram_loss(output.reconstruction, spectrogram) + output.commitment


def test_an_estimate_by_hand():
    model = build_on_meta("prior", {})
    config = {name: value for name, value in model.config.items() if name[0] != "_"}
    sections = {
        "model": config,
        "data": {"crop_s": 4.0, "depth_share": 0.25},
        "training": {"steps": 10, "batch_size": 3, "gradient_accumulation_steps": 2},
    }
    one, four = estimate("prior", sections), estimate("prior", sections, processes=4)
    assert one.parameters == size_of(model)
    assert one.weight_bytes == 4 * size_of(model)
    assert one.frames == 10 * 3 * 2 * 100
    assert one.codes == 2 * one.frames
    assert one.hours_of_audio == pytest.approx(10 * 3 * 2 * 4 / 3600)
    flops, num_bytes = measure_forward(model, 100, 0.25)
    assert one.training_flops == pytest.approx(10 * 3 * 2 * (3 * flops + CAPTION_FLOPS))
    assert one.training_memory == 22 * size_of(model) + 3 * num_bytes
    assert four.training_flops == 4 * one.training_flops
    assert four.hours(HARDWARE[0]) == pytest.approx(one.hours(HARDWARE[0]))
    assert four.training_memory == one.training_memory


def test_rows_of_the_single_step_are_predicted_twice():
    config = build_on_meta("decoder", {}).config
    training = {"steps": 2, "batch_size": 4, "gradient_accumulation_steps": 1}
    plain, once = (
        estimate(
            "decoder",
            {
                "model": {name: value for name, value in config.items() if name[0] != "_"},
                "data": {"crop_s": 0.64, "one_step_share": share},
                "training": training,
            },
        )
        for share in (0.0, 0.5)
    )
    assert once.training_flops == pytest.approx(1.5 * plain.training_flops)
    assert once.training_memory > plain.training_memory


def test_hours_by_hand():
    cost = Estimate("codec", 60_000_000, 0, 25.0, 1, 8, 3.6e18, 1e9, processes=2)
    cores, gpu, _ = HARDWARE
    assert cost.hours(cores) == pytest.approx(3.6e18 / (2 * 0.5e12) / 3600)
    assert cost.fits(cores)
    assert cost.fits(gpu)
    too_large = Estimate("codec", 60_000_000, 0, 25.0, 1, 8, 3.6e18, 25e9, processes=2)
    assert not too_large.fits(gpu)


# -- what is printed ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (large, 999, "999"),
        (large, 1_234_567, "1.23M"),
        (size, 12.3e6, "12 MB"),
        (size, 2.55e9, "2.5 GB"),
        (duration, 0.001, "seconds"),
        (duration, 0.5, "30 min"),
        (duration, 71.94, "71.9 h"),
        (duration, 96, "4.0 days"),
        (duration, 17520, "2.0 years"),
    ],
)
def test_numbers_read_well(function, value, text):
    assert function(value) == text


def test_a_pipeline_is_described(pipeline_folder, capsys):
    pipeline = Pipeline.from_pretrained(pipeline_folder)
    capsys.readouterr()
    assert main(["info", str(pipeline_folder)]) == 0
    out = capsys.readouterr().out
    total = 0
    for name in ("text_encoder", "codec", "planner", "prior", "decoder"):
        count = sum(p.numel() for p in getattr(pipeline, name).parameters())
        total += count
        assert any(line.split() == [*name.split("_"), f"{count:,}"] for line in out.splitlines()), (
            name
        )
    assert ["total", f"{total:,}"] in [line.split() for line in out.splitlines()]
    assert "audio: 44100 Hz, 2 channels" in out
    assert "tokens: 25 frames a second, 4 codebooks of 16" in out
    assert "0.40 kbps with all 4 codebooks, 0.20 kbps with the 2 that the prior generates" in out
    assert "guidance 3, temperature 1, top_k 8, max_duration_s 20, steps 2" in out
    assert "license: not stated" in out


def test_the_bitrate_is_that_of_the_codes(pipeline_folder):
    codec = Pipeline.from_pretrained(pipeline_folder).codec
    audio = torch.zeros(1, 2, 2 * codec.sample_rate)
    codes = codec.encode(audio)
    kbps = codes.numel() * math.log2(codec.codebook_size) / 2 / 1000
    assert f"{kbps:.2f} kbps with all" in "\n".join(describe_pipeline(pipeline_folder))


@pytest.mark.parametrize(
    ("card", "lines"),
    [
        ("---\nlicense: cc-by-4.0\ndatasets: [a, b]\n---\n# Tiny\n",
         ["license: cc-by-4.0", "data: a, b"]),
        ("---\nlicense: cc0-1.0\n---\n# Tiny\n\n## Training data\n\n3 h of Bach.\n\n## End\n",
         ["license: cc0-1.0", "training data", "  3 h of Bach."]),
        ("# Tiny\n", ["license: not stated", "training data: not stated"]),
    ],
)  # fmt: skip
def test_license_and_data_come_from_the_model_card(card, lines, pipeline_folder, tmp_path):
    for item in pipeline_folder.iterdir():
        (tmp_path / item.name).symlink_to(item)
    (tmp_path / "README.md").unlink(missing_ok=True)  # a link to a folder that others use
    (tmp_path / "README.md").write_text(card)
    assert describe_pipeline(tmp_path)[-len(lines) :] == lines


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  width: 64", "  wdith: 64", "wdith"),
        ("  width: 64", "  width: wide", "width"),
        ("  num_heads: 2", "  num_heads: 3", "num_heads must divide width"),
        ("  crop_s: 5.12", "  crop_s: -1", "crop_s must be positive"),
        ("  steps: 120", "  steps: 0", "steps must be at least 1"),
        ("data:", "dta:", "it lacks data.prepared and data.tokens"),
        ("model:", "model: [", "is not YAML"),
    ],
)
def test_a_wrong_config_is_refused(old, new, said, tmp_path, mistake):
    path = tmp_path / "bad.yaml"
    text = (ROOT / "configs/prior/smoke.yaml").read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert said in mistake("info", "--config", path)


@pytest.mark.parametrize("card", [b"---\nlicense: [\n---\n", b"\xff\xfe"])
def test_a_damaged_model_card_is_refused(card, pipeline_folder, tmp_path, mistake):
    for item in pipeline_folder.iterdir():
        (tmp_path / item.name).symlink_to(item)
    (tmp_path / "README.md").unlink(missing_ok=True)
    (tmp_path / "README.md").write_bytes(card)
    assert "README.md: the front matter is not YAML" in mistake("info", tmp_path)
