"""Options that diffusers, accelerate and jsonargparse bring along: honored, or refused by name."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_pipeline import tiny_prior
from tiny_training import settings as training_settings

from codec import SpectralCodec
from codec.component import WEIGHTS_NAME
from pipelines import Pipeline
from pipelines.cli import main
from pipelines.train_prior import train_prior
from pipelines.training.acceleration import start_accelerator
from pipelines.training.checkpoints import newest_checkpoint
from pipelines.training.prior_data import PriorData

ROOT = Path(__file__).parents[1]


REFUSED_AT_LOADING: dict[str, Any] = {
    "device_map": "balanced",
    "max_memory": {0: "1GB"},
    "custom_pipeline": "x",
    "custom_revision": "x",
    "use_safetensors": False,
    "low_cpu_mem_usage": True,
    "quantization_config": object(),
    "provider": "x",
    "use_onnx": True,
    "dduf_file": "x",
    "mirror": "x",
    "proxies": {},
    "safety_checker": None,
}
HONORED_AT_LOADING: dict[str, Any] = {
    "torch_dtype": torch.float32,
    "variant": None,
    "guidance": 1.5,
    "temperature": 0.5,
    "top_k": 3,
    "max_duration_s": 5.0,
    "planner": None,
    "local_files_only": True,
    "force_download": False,
}


@pytest.mark.parametrize("name", REFUSED_AT_LOADING)
def test_options_of_from_pretrained_that_are_refused(name: str, pipeline_folder: Path) -> None:
    with pytest.raises(ValueError, match=name):
        Pipeline.from_pretrained(pipeline_folder, **{name: REFUSED_AT_LOADING[name]})


@pytest.mark.parametrize("name", HONORED_AT_LOADING)
def test_options_of_from_pretrained_that_are_honored(name: str, pipeline_folder: Path) -> None:
    value = HONORED_AT_LOADING[name]
    pipeline = Pipeline.from_pretrained(pipeline_folder, **{name: value})
    if name in pipeline.components:
        assert pipeline.components[name] == value


@pytest.mark.parametrize("option", [{"max_shard_size": "1MB"}, {"safe_serialization": False}])
def test_options_of_save_pretrained_that_are_refused(option, pipeline, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        pipeline.save_pretrained(tmp_path / "x", **option)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_another_type_than_float32_is_refused_at_every_door(dtype, pipeline_folder: Path) -> None:
    pipeline = Pipeline.from_pretrained(pipeline_folder).to(dtype)
    doors = (
        lambda: pipeline("a", duration_s=0.1),
        lambda: pipeline.stream("a", 0.1),
        lambda: pipeline.encode(torch.zeros(1, 2, 4410)),
        lambda: pipeline.decode(torch.zeros(1, 2, 3, dtype=torch.long)),
    )
    for door in doors:
        with pytest.raises(ValueError, match=r"computes in torch.float32, the .* is torch"):
            door()
    assert pipeline.to(torch.float32)("a", duration_s=0.1).audio.isfinite().all()


@pytest.mark.parametrize(
    "seed", [np.int64(5), torch.tensor(5), np.array(5), np.array([5]), torch.tensor([5]), (5,)]
)
def test_seeds_of_other_libraries(seed: Any, pipeline: Pipeline) -> None:
    song = pipeline("a", duration_s=0.1, seed=seed, decoder_seed=seed)
    assert song.seeds == song.decoder_seeds == [5]
    assert torch.equal(song.audio, pipeline("a", duration_s=0.1, seed=5).audio)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, "5", [1, 2], [1.5], torch.tensor(1.0), None])
def test_seeds_that_are_refused_alike_everywhere(seed: Any, pipeline, tmp_path, capsys) -> None:
    if seed is None:  # on the command line
        arguments = ["--seed", "-1", "--output", str(tmp_path / "a.wav"), "--quiet"]
        assert main(["generate", "a", *arguments]) == 2
        assert "seed must lie in [0, 9223372036854775807], got -1" in capsys.readouterr().err
        return
    with pytest.raises(ValueError, match="seed must"):
        pipeline("a", duration_s=0.1, seed=seed)
    with pytest.raises(ValueError, match="seed must"):
        pipeline.stream("a", duration_s=0.1, seed=seed)


def test_lists_for_single_arguments(pipeline: Pipeline) -> None:
    both = pipeline(["a", "b"], 0.1, seed=[1, 2], negative_prompt=["slow", None])
    one = pipeline("a", 0.1, seed=1, negative_prompt="slow")
    two = pipeline("b", 0.1, seed=2)
    assert torch.equal(both.codes, torch.cat([one.codes, two.codes]))
    for bad in (["slow"], [1, 2], 3):
        with pytest.raises(ValueError, match="negative_prompt must be"):
            pipeline(["a", "b"], 0.1, negative_prompt=bad)
    for bad in ([1, 2], "1", None, torch.ones(2)):
        with pytest.raises(ValueError, match="duration_s must be one number for all items"):
            pipeline(["a", "b"], duration_s=bad)


def test_a_pipeline_of_the_components_of_another_is_the_same(pipeline: Pipeline) -> None:
    again = Pipeline(**pipeline.components)
    for name in ("guidance", "temperature", "top_k", "max_duration_s", "fine_temperature"):
        assert again.config[name] == pipeline.config[name], name


def test_interrupt_in_a_callback_ends_its_own_call_alone(pipeline: Pipeline) -> None:
    began, lengths = threading.Barrier(2), {}

    def call(name: str, stops: bool) -> None:
        def watch(pipe: Pipeline, frame: int, *_: Any) -> None:
            if frame == 0:
                began.wait(30)
            if stops and frame == 2:
                pipe.interrupt()

        song = pipeline("a", duration_s=0.4, seed=1, callback_on_step_end=watch)
        lengths[name] = song.codes.shape[-1]

    threads = [threading.Thread(target=call, args=args) for args in (("a", True), ("b", False))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == {"a": 3, "b": 10}


def train(parts: dict[str, str], folder: Path, resume: bool = False, **changes: Any) -> Path:
    """Train a tiny prior."""
    torch.manual_seed(0)
    model = changes.pop("model", None) or tiny_prior(2, 16)
    data = PriorData([parts["tokens"]], parts["pipeline"], crop_s=1.0, validation_clips=2)
    return train_prior(model, data, training_settings(folder, **changes), resume)


def test_resume_takes_over_what_is_changed_and_refuses_what_does_not_fit(parts, tmp_path):
    train(parts, tmp_path / "run", steps=2, validate_every=100)
    for name in ("plain", "decayed", "averaged", "other", "damaged"):
        shutil.copytree(tmp_path / "run", tmp_path / name)
    common = {"steps": 4, "validate_every": 100}
    folders = {
        "plain": train(parts, tmp_path / "plain", True, **common),
        "decayed": train(parts, tmp_path / "decayed", True, weight_decay=50.0, **common),
        "averaged": train(parts, tmp_path / "averaged", True, ema_decay=0.0, **common),
    }
    weights = {name: load_file(folder / WEIGHTS_NAME) for name, folder in folders.items()}
    for name in ("decayed", "averaged"):
        key = "first_head.weight"
        assert not torch.equal(weights[name][key], weights["plain"][key]), name
    with pytest.raises(ValueError, match="is of a model of other sizes"):
        train(parts, tmp_path / "other", True, model=tiny_prior(1, 16), **common)
    checkpoint = newest_checkpoint(tmp_path / "damaged")
    assert checkpoint is not None
    (checkpoint / "optimizer.bin").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"is damaged .* delete it to go on from the one before"):
        train(parts, tmp_path / "damaged", True, **common)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", ""),
        ("ACCELERATE_MIXED_PRECISION", "no", ""),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "mixed_precision is no in the config and bf16"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "accelerate's DEEPSPEED engine is not supported"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "accelerate's MEGATRON_LM engine is not supported"),
    ],
)
def test_what_accelerate_launch_sets(name, value, message, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(name, value)
    settings = training_settings(tmp_path, gradient_accumulation_steps=2, mixed_precision="no")
    if message:
        with pytest.raises(ValueError, match=message):
            start_accelerator(settings)
    else:
        assert start_accelerator(settings).gradient_accumulation_steps == 2


@pytest.fixture
def hub(tmp_path: Path, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache, laid out by hand, with the codec of ``user/codec``; return its snapshot."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--user--codec"
    snapshot = repository / "snapshots" / ("0" * 40)
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    pipeline.codec.save_pretrained(snapshot)
    return snapshot


def test_components_from_the_hub_are_checked_as_folders_are(hub: Path) -> None:
    options = {"cache_dir": str(hub.parents[2])}
    assert SpectralCodec.from_pretrained("user/codec", **options).num_codebooks == 4
    whole = load_file(hub / WEIGHTS_NAME)
    name = "patch_in.weight"
    for change, message in (
        ({}, f"lacks the tensor '{name}'"),
        ({name: whole[name], "more": torch.ones(1)}, "holds an unknown tensor 'more'"),
        ({name: whole[name][:1].clone()}, f"tensor '{name}' must be"),
        ({name: whole[name].long()}, f"tensor '{name}' must be floating point, got I64"),
    ):
        rest = {key: value for key, value in whole.items() if key != name}
        save_file(rest | change, hub / WEIGHTS_NAME)
        with pytest.raises(ValueError, match=message):
            SpectralCodec.from_pretrained("user/codec", **options)
    with pytest.raises(FileNotFoundError, match=r"no hub id .* that could be reached"):
        SpectralCodec.from_pretrained("user/other", **options)


def test_a_pipeline_from_the_hub(hub: Path, pipeline: Pipeline) -> None:
    shutil.rmtree(hub)
    pipeline.save_pretrained(hub)
    options = {"cache_dir": str(hub.parents[2])}
    loaded = Pipeline.from_pretrained("user/codec", **options)
    assert loaded.name_or_path == "user/codec"
    index = json.loads((hub / "model_index.json").read_text())
    (hub / "model_index.json").write_text(json.dumps(index | {"volume": 11}))
    with pytest.raises(ValueError, match="unknown key 'volume'"):
        Pipeline.from_pretrained("user/codec", **options)


def test_the_pipeline_that_ships_has_a_name(tmp_path: Path, monkeypatch) -> None:
    from pipelines.inference.shipped import SHIPPED, find_shipped

    monkeypatch.chdir(tmp_path)
    assert find_shipped("partita-tiny") == str(SHIPPED)
    for other in ("partita-small", "a/partita-tiny", "..", "pretrained"):
        assert find_shipped(other) == other
    (tmp_path / "partita-tiny").mkdir()
    assert find_shipped("partita-tiny") == "partita-tiny"


@pytest.mark.parametrize("name", ["decoder", "prior", "codec"])
def test_a_file_of_the_users_that_hides_a_package_of_ours(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "song.py").write_text("from pipelines import Pipeline\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "song.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert f"{name}.py hides Partita's package '{name}': rename it" in done.stderr


@pytest.mark.parametrize(
    ("command", "option"),
    [("render", "--out"), ("reconstruct", "--output-dir"), ("prepare tokens", "--out=x")],
)
def test_former_options_are_refused_with_the_name_of_today(command, option, capsys) -> None:
    assert main([*command.split(), "x", option, "y"]) == 2
    assert f"{option.split('=')[0]} is now --output" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", " "],
        ["generate", "a", "--duration", "0"],
        ["generate", "a", "--steps", "17"],
        ["generate", "a", "--temperature", "-1"],
        ["generate", "a", "--negative-prompt", "slow " * 70],
        ["generate", "slow " * 70],
        ["render", "rows.csv", "--output", "x", "--format", "mid"],
        ["render", "gone.csv", "--output", "x"],
        ["render", "rows.csv", "--output", "x", "--num-variations", "0"],
        ["render", "rows.csv", "--output", "x", "--loudness", "7"],
        ["render", "rows.csv", "--output", "x", "--guidance", "nan"],
        ["render", "twins.csv", "--output", "x"],
        ["render", "long.csv", "--output", "x"],
    ],
)
def test_a_mistake_is_found_before_a_model_is_loaded(
    arguments, tmp_path, monkeypatch, pipeline_folder, capsys
) -> None:
    """The weights are gone, and nobody notices."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("id,prompt\na,b\n")
    (tmp_path / "twins.csv").write_text("id,prompt\na,b\nA,b\n")
    (tmp_path / "long.csv").write_text("id,prompt,duration_s\na,b,1000\n")
    shutil.copytree(pipeline_folder, tmp_path / "p")
    for weights in (tmp_path / "p").rglob("*.safetensors"):
        weights.unlink()
    assert main([*arguments, "--quiet", "--pipeline", "p"]) == 2
    assert "safetensors" not in capsys.readouterr().err
