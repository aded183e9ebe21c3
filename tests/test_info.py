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
from pipelines.commands.estimate import (
    CAPTION_FLOPS,
    HARDWARE,
    Estimate,
    activation_bytes,
    count_codebook_numbers,
    count_parameters,
    estimate,
    forward_flops,
    inference_bytes,
)
from pipelines.commands.info import describe_pipeline, duration, large, read_config, size
from pipelines.training.precision import choose_precision
from prior import Condition, Prior, PriorBatch, prior_loss

ROOT = Path(__file__).parents[1]
CLASSES: dict[str, Any] = {"codec": SpectralCodec, "prior": Prior, "decoder": DiffusionDecoder}
CONFIGS = sorted((ROOT / "configs").glob("*/*.yaml"))
VARIANTS = [
    ("codec", {"channels": 1, "kernel_size": 3, "decoder_layers": 1, "patch_frames": 2}),
    ("prior", {"backbone": "lstm"}),
    ("prior", {"backbone": "lstm-plain"}),
    ("prior", {"num_codebooks": 1, "sliding_window": 16}),
    ("prior", {"reads_plan": True}),
    ("prior", {"num_codebooks": 5, "width": 336, "num_heads": 7, "depth_width": 100,
               "depth_heads": 2}),
    ("decoder", {"patch_bands": 16, "channels": 1, "width": 100, "num_heads": 5}),
]  # fmt: skip


def built_count(part: str, config: dict[str, Any]) -> tuple[int, int]:
    """Parameters and codebook numbers of the model itself."""
    with torch.device("meta"):
        model = CLASSES[part](**config)
    books = sum(book.numel() for book in model.quantizer.codebooks()) if part == "codec" else 0
    return sum(parameter.numel() for parameter in model.parameters()), books


def full_config(part: str, **changes: Any) -> dict[str, Any]:
    """The class's defaults with changes."""
    with torch.device("meta"):
        config = CLASSES[part](**changes).config
    return {name: value for name, value in config.items() if not name.startswith("_")}


# -- counts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_configs_count_is_that_of_the_built_model(path: Path):
    part, sections = read_config(str(path))
    config = sections["model"]
    counted = count_parameters(part, config), count_codebook_numbers(part, config)
    assert counted == built_count(part, config)


@pytest.mark.parametrize(("part", "changes"), VARIANTS)
def test_unusual_sizes_count_right_too(part: str, changes: dict[str, Any]):
    config = full_config(part, **changes)
    counted = count_parameters(part, config), count_codebook_numbers(part, config)
    assert counted == built_count(part, config)


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


@pytest.mark.parametrize("name", ["transformer", "decoder"])
def test_operations_are_those_that_torch_counts(name: str):
    """Torch's counter knows neither LSTM nor depthwise convolution nor distances to entries."""
    part = name if name in CLASSES else "prior"
    with torch.device("meta"):  # attention as plain products, which the counter sees
        model = CLASSES[part](**SMALL[name])
    with FlopCounterMode(display=False) as counter:
        model(*training_inputs(model, "meta"))
    expected = B * T * forward_flops(part, full_config(part, **SMALL[name]), T)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.05)


def test_the_codecs_operations_are_two_per_weight_and_the_search_of_the_books():
    config = full_config("codec", **SMALL["codec"])
    dense = 2 * count_parameters("codec", config) + 2 * count_codebook_numbers("codec", config)
    assert forward_flops("codec", config, T) == pytest.approx(dense, rel=0.02)


def test_an_lstms_operations_are_two_per_weight_and_its_attention():
    config = full_config("prior", **SMALL["lstm"])
    text = 3 * 2 * 384 * 192 + 72 * 384 + 512 * 192  # once per item, not per frame
    tables = 2 * 1024 * 192 + 1024 * 192  # looked up
    depth = 192 * 192 + 1024 * 192 + 2 * (4 * 192**2 + 3 * 192 * 512)
    dense = 2 * (count_parameters("prior", config) - text - tables - depth)
    attention = 4 * T * 192
    expected = forward_flops("prior", config, T, depth_share=0.0)
    assert expected == pytest.approx(dense + attention, rel=0.02)


@pytest.mark.parametrize("name", list(SMALL))
def test_activation_memory_is_about_what_autograd_keeps(name: str):
    if name.startswith("lstm") and choose_precision("auto", torch.device("cpu")) == "no":
        pytest.skip("PyTorch has no bfloat16 LSTM on this processor")
    part = name if name in CLASSES else "prior"
    torch.manual_seed(0)
    model = CLASSES[part](**SMALL[name]).train()
    if isinstance(model, SpectralCodec):
        model.quantizer.initialize(torch.randn(1024, 64))
        model.quantizer.vq.quantize_dropout = False
    kept = kept_for_backward(model)
    config = full_config(part, **SMALL[name])
    assert B * T * activation_bytes(part, config) == pytest.approx(kept, rel=0.25)


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


def test_inference_memory_of_the_prior_is_weights_and_cache():
    config = full_config("prior", width=320, num_layers=5, num_heads=5)
    weights = 4 * count_parameters("prior", config)
    cache = 2 * 5 * 2 * 320 * 60 * 25 * 4  # rows, layers, keys and values, width, frames, bytes
    assert inference_bytes("prior", config) == weights + cache
    windowed = inference_bytes("prior", config | {"sliding_window": 150})
    assert windowed == weights + cache / 10


def test_an_estimate_by_hand():
    sections = {
        "model": full_config("prior"),
        "data": {"crop_s": 20.0, "depth_share": 0.25},
        "training": {"steps": 10, "batch_size": 3, "gradient_accumulation_steps": 2},
    }
    one, four = estimate("prior", sections), estimate("prior", sections, processes=4)
    assert one.frames == 10 * 3 * 2 * 500
    assert one.codes == 2 * one.frames
    assert one.hours_of_audio == pytest.approx(10 * 3 * 2 * 20 / 3600)
    text = 10 * 3 * 2 * CAPTION_FLOPS
    network = 3 * one.frames * forward_flops("prior", sections["model"], 500, depth_share=0.25)
    assert one.training_flops == pytest.approx(network + text)
    assert four.training_flops == 4 * one.training_flops
    assert four.hours(HARDWARE[0]) == pytest.approx(one.hours(HARDWARE[0]))
    assert four.training_memory == one.training_memory


def test_hours_by_hand():
    cost = Estimate("codec", 60_000_000, 0, 25.0, 1, 8, 3.6e18, 1e9, 1e9, processes=2)
    cores, gpu, _ = HARDWARE
    assert cost.hours(cores) == pytest.approx(3.6e18 / (2 * 0.5e12) / 3600)
    assert cost.fits(cores)
    assert cost.fits(gpu)
    too_large = Estimate("codec", 60_000_000, 0, 25.0, 1, 8, 3.6e18, 25e9, 1e9, processes=2)
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
def test_numbers_read_well(function: Any, value: float, text: str):
    assert function(value) == text


def test_a_pipeline_is_described(pipeline_folder: Path, capsys: pytest.CaptureFixture[str]):
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
    assert "tokens: 25 frames a second, 4 books of 16" in out
    assert "0.40 kbps with all 4 books, 0.20 kbps with the 2 that the prior writes" in out
    assert "guidance 3, temperature 1, top_k 8, max_duration_s 20, steps 2" in out
    assert "not stated (no README.md" in out


def test_the_bitrate_is_that_of_the_codes(pipeline_folder: Path):
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
def test_license_and_data_come_from_the_model_card(
    card: str, lines: list[str], pipeline_folder: Path, tmp_path: Path
):
    for item in pipeline_folder.iterdir():
        (tmp_path / item.name).symlink_to(item)
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
def test_a_wrong_config_is_refused(
    old: str, new: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "bad.yaml"
    text = (ROOT / "configs/prior/smoke.yaml").read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert main(["info", "--config", str(path)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.startswith("partita: error: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("card", [b"---\nlicense: [\n---\n", b"\xff\xfe"])
def test_a_damaged_model_card_is_refused(
    card: bytes, pipeline_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for item in pipeline_folder.iterdir():
        (tmp_path / item.name).symlink_to(item)
    (tmp_path / "README.md").write_bytes(card)
    assert main(["info", str(tmp_path)]) == 2
    assert "README.md: the front matter is not YAML" in capsys.readouterr().err


def test_processes_must_be_positive(capsys: pytest.CaptureFixture[str]):
    path = str(ROOT / "configs/prior/smoke.yaml")
    assert main(["info", "--config", path, "--processes", "0"]) == 2
    assert "--processes must be at least 1, got 0" in capsys.readouterr().err
