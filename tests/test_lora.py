"""LoRA adapters of a pipeline: read, stacked, taken out, saved and refused."""

from pathlib import Path

import peft
import pytest
import torch
from tiny_pipeline import tiny_pipeline
from torch import nn

from pipelines import Pipeline
from pipelines.cli import main
from pipelines.inference.loading import parse_loras
from pipelines.inference.lora import FILE_NAME, add_loras


def write_adapter(folder: Path, seed: int = 1, rank: int = 4, alpha: int = 8) -> Path:
    """An adapter of random factors for every linear layer of the tiny prior."""
    prior = tiny_pipeline().prior
    names = [name for name, module in prior.named_modules() if isinstance(module, nn.Linear)]
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=names)
    model = peft.inject_adapter_in_model(config, prior)
    torch.manual_seed(seed)
    layers = {
        name: torch.randn_like(tensor) * 0.3
        for name, tensor in peft.get_peft_model_state_dict(model).items()
    }
    facts = {"r": rank, "lora_alpha": alpha}
    Pipeline.save_lora_weights(folder, layers, prior_lora_adapter_metadata=facts)
    return folder


def weights(pipeline: Pipeline) -> dict[str, torch.Tensor]:
    """Copies of the prior's tensors."""
    return {name: tensor.clone() for name, tensor in pipeline.prior.state_dict().items()}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A saved adapter."""
    return write_adapter(tmp_path / "one")


def test_same_weights_as_peft_merges(adapter: Path) -> None:
    """The adapter adds to every layer what peft's own merging adds."""
    pipeline = tiny_pipeline()
    pipeline.load_lora_weights(adapter)
    prior = tiny_pipeline().prior
    names = [name for name, module in prior.named_modules() if isinstance(module, nn.Linear)]
    model = peft.inject_adapter_in_model(
        peft.LoraConfig(r=4, lora_alpha=8, target_modules=names), prior
    )
    from safetensors.torch import load_file

    layers = {k.removeprefix("prior."): v for k, v in load_file(adapter / FILE_NAME).items()}
    peft.set_peft_model_state_dict(model, layers)
    for name in names:
        layer = model.get_submodule(name)
        layer.merge()
        ours = pipeline.prior.get_submodule(name).weight
        torch.testing.assert_close(ours, layer.base_layer.weight)


def test_two_adapters_add_up_and_leave_no_trace(adapter: Path, tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    before = weights(pipeline)
    song = pipeline("a", 0.4, seed=0).codes
    pipeline.load_lora_weights(adapter, adapter_name="one")
    first = weights(pipeline)
    assert not torch.equal(pipeline("a", 0.4, seed=0).codes, song)
    pipeline.load_lora_weights(write_adapter(tmp_path / "two", seed=2), adapter_name="two")
    second = weights(pipeline)
    pipeline.set_adapters(["one", "two"], [0.5, 0.25])
    assert pipeline.get_active_adapters() == ["one", "two"]
    assert pipeline.get_list_adapters() == {"prior": ["one", "two"]}
    for name, tensor in weights(pipeline).items():
        expected = before[name] + 0.5 * (first[name] - before[name])
        expected = expected + 0.25 * (second[name] - before[name])
        torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-5)
    pipeline.disable_lora()
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(pipeline).items())
    pipeline.enable_lora()
    pipeline.delete_adapters("two")
    pipeline.set_adapters("one")
    assert all(torch.equal(tensor, first[name]) for name, tensor in weights(pipeline).items())
    pipeline.unload_lora_weights()
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(pipeline).items())
    assert torch.equal(pipeline("a", 0.4, seed=0).codes, song)


def test_fused_pipeline_is_saved(adapter: Path, tmp_path: Path, pipeline_folder: Path) -> None:
    pipeline = Pipeline.from_pretrained(pipeline_folder)
    pipeline.load_lora_weights(adapter)
    with pytest.raises(ValueError, match="LoRA adapters are in use"):
        pipeline.save_pretrained(tmp_path / "saved")
    song = pipeline("a", 0.4, seed=0).codes
    folder = str(tmp_path / "merged")
    command = ["merge", "--lora", str(adapter), "--pipeline", str(pipeline_folder), "--quiet"]
    assert main([*command, "--output", folder]) == 0
    assert torch.equal(Pipeline.from_pretrained(folder)("a", 0.4, seed=0).codes, song)


def test_mistakes_name_both_sides(adapter: Path, tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    pipeline.load_lora_weights(adapter, adapter_name="one")
    with pytest.raises(ValueError, match=r"'one' is taken by .*one"):
        pipeline.load_lora_weights(adapter, adapter_name="one")
    with pytest.raises(ValueError, match="'two' is not loaded; loaded: one"):
        pipeline.set_adapters("two")
    with pytest.raises(ValueError, match="2 adapter_names and 1 adapter_weights"):
        pipeline.set_adapters(["one", "two"], [1.0])
    with pytest.raises(ValueError, match="named once"):
        pipeline.set_adapters(["one", "one"])
    with pytest.raises(FileNotFoundError, match="is not an adapter"):
        pipeline.load_lora_weights(tmp_path)
    other = {"network.blocks.0.attention.qkv": (torch.ones(2, 32), torch.ones(96, 2))}
    layers = {
        f"{name}.lora_{factor}.weight": tensor
        for name, pair in other.items()
        for factor, tensor in zip("AB", pair, strict=True)
    }
    Pipeline.save_lora_weights(tmp_path / "large", layers)
    with pytest.raises(ValueError, match=r"qkv is \(96, 32\), this pipeline's is \(48, 16\)"):
        pipeline.load_lora_weights(tmp_path / "large")
    Pipeline.save_lora_weights(
        tmp_path / "deep", {k.replace("0", "7"): v for k, v in layers.items()}
    )
    with pytest.raises(ValueError, match=r"a prior with .*blocks.7.*this has none"):
        pipeline.load_lora_weights(tmp_path / "deep")
    file = adapter / FILE_NAME
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        tiny_pipeline().load_lora_weights(adapter)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        parse_loras(["nowhere:0.5"])


def test_strengths_on_the_command_line(adapter: Path, tmp_path: Path) -> None:
    other = write_adapter(tmp_path / "two", seed=2)
    entries = [f"{adapter}:0.7", str(other)]
    assert parse_loras(entries) == ((str(adapter), 0.7), (str(other), 1.0))
    pipeline = tiny_pipeline()
    add_loras(pipeline, parse_loras(entries))
    assert [strength for _, strength in pipeline.list_loras()] == [0.7, 1.0]
    with pytest.raises(ValueError, match="is taken"):
        add_loras(tiny_pipeline(), parse_loras([str(adapter), f"{adapter}:0.5"]))
