"""Several processes: sharded or whole, equal to one, and resumed by another number of them."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from tiny_pipeline import CODEBOOK_SIZE, NUM_BOOKS, TEXT_WIDTH
from tiny_training import metrics, run_codec, run_decoder, run_prior, settings

from codec.component import WEIGHTS_NAME
from pipelines.training.checkpoints import newest_checkpoint, read_step

ROOT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
ITEMS = 4  # of a step, all processes together
MODELS = {
    "prior": {"width": 32, "num_layers": 2, "num_heads": 2, "codebook_size": CODEBOOK_SIZE}
    | {"text_width": TEXT_WIDTH, "depth_width": 16, "depth_layers": 1, "depth_heads": 2}
    | {"fills": True},
    "decoder": {"width": 32, "num_layers": 2, "num_heads": 2, "latent_dim": 8}
    | {"num_codebooks": NUM_BOOKS},
    "codec": {"width": 16, "encoder_layers": 1, "decoder_layers": 1, "latent_dim": 8}
    | {"num_codebooks": 2, "codebook_size": 16},
}


def command(
    parts: dict[str, str], trainer: str, folder: Path, processes: int, *options: str
) -> list[str]:
    """Write the command that trains on some processes, the items of a step shared among them."""
    data = {"crop_s": "0.64", "validation_clips": "2"}
    if trainer != "codec":
        data |= {"tokens": f"[{parts['tokens']}]", "codec": parts["codec"]}
    if trainer == "prior":
        data |= {"text_encoder": parts["pipeline"], "fill_share": "0.5"}
    else:
        data["prepared"] = f"[{parts['prepared']}]"
    training = {"output_dir": folder, "steps": 4, "checkpoint_every": 2, "log_every": 1}
    training |= {"mixed_precision": "no", "warmup_steps": 1, "batch_size": ITEMS // processes}
    training |= {"validate_every": 4}
    groups = {"model": MODELS[trainer], "data": data, "training": training}
    words = [
        word
        for group, values in groups.items()
        for name, value in values.items()
        for word in (f"--{group}.{name}", str(value))
    ]
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [sys.executable, *launch, f"pipelines/train_{trainer}.py", *words, *options]


def train(*given: Any) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    options: dict[str, Any] = {"cwd": ROOT, "env": ENVIRONMENT, "text": True}
    return subprocess.run(command(*given), check=False, capture_output=True, **options)


def losses(folder: Path) -> dict[int, float]:
    """The loss of every step; a repeated step counts once."""
    return {line["step"]: line["loss"] for line in metrics(folder) if "loss" in line}


def assert_equal(folder: Path, other: Path) -> None:
    """Losses within 1e-4 of one another, averaged weights within 5e-5."""
    assert losses(folder) == pytest.approx(losses(other), rel=1e-4)
    weights, others = (load_file(f / "model" / WEIGHTS_NAME) for f in (folder, other))
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=0, atol=5e-5)


@pytest.mark.slow  # seven processes that import everything
@pytest.mark.parametrize("trainer", ["prior", "decoder"])
def test_sharded_processes_equal_one(parts, tmp_path, trainer):
    """Two sharded processes train as one, and four go on from their checkpoint."""
    sharded, whole = tmp_path / "sharded", tmp_path / "whole"
    options = ["--training.sharding", "true", "--training.activation_checkpointing", "true"]
    assert train(parts, trainer, whole, 1).returncode == 0
    result = train(parts, trainer, sharded, 2, *options)
    assert (sharded / "model").is_dir(), result.stderr[-3000:]
    assert_equal(sharded, whole)
    shutil.rmtree(sharded / "checkpoint-00000004")
    shutil.rmtree(sharded / "model")
    result = train(parts, trainer, sharded, 4, *options, "--resume")
    assert (sharded / "model").is_dir(), result.stderr[-3000:]
    assert "at step 2" in result.stdout
    assert_equal(sharded, whole)


@pytest.mark.slow  # seven processes
def test_codec_processes_equal_one(parts: dict[str, str], tmp_path: Path) -> None:
    """Its codebooks follow all processes' vectors; four go on from the checkpoint of two."""
    whole, split = tmp_path / "whole", tmp_path / "split"
    options = ["--losses.quantize_from", "1"]
    assert train(parts, "codec", whole, 1, *options).returncode == 0
    assert train(parts, "codec", split, 2, *options).returncode == 0
    assert_equal(split, whole)
    shutil.rmtree(split / "checkpoint-00000004")
    shutil.rmtree(split / "model")
    result = train(parts, "codec", split, 4, *options, "--resume")
    assert "at step 2" in result.stdout, result.stderr[-3000:]
    assert_equal(split, whole)


@pytest.mark.slow  # three processes, one of which dies
def test_a_process_that_dies_ends_the_run(parts: dict[str, str], tmp_path: Path) -> None:
    """In bounded time, with one line; the newest checkpoint is whole and the run goes on."""
    folder, log = tmp_path / "run", tmp_path / "log"
    words = command(parts, "prior", folder, 2, "--training.steps", "100000")
    with log.open("w") as file:
        launcher = subprocess.Popen(words, cwd=ROOT, env=ENVIRONMENT, stdout=file, stderr=file)
    while not list(folder.glob("checkpoint-*")):
        assert launcher.poll() is None, log.read_text()[-3000:]
        time.sleep(0.5)
    workers = psutil.Process(launcher.pid).children()
    victim = next(w for w in workers if w.environ().get("LOCAL_RANK") == "1")
    victim.kill()
    killed = time.monotonic()
    assert launcher.wait(timeout=120) != 0
    assert time.monotonic() - killed < 60
    said = log.read_text()
    assert "another process of this run has ended" in said, said[-3000:]
    assert "train_prior.py: error: " in said
    assert not list(folder.glob(".partial-*"))
    checkpoint = newest_checkpoint(folder)
    assert checkpoint is not None
    step = read_step(checkpoint, ITEMS, 1)
    again = train(parts, "prior", folder, 1, "--resume", "--training.steps", str(step + 2))
    assert again.returncode == 0, again.stderr[-3000:]


def test_other_numbers_of_items_are_refused(parts: dict[str, str], tmp_path: Path) -> None:
    run_prior(parts, settings(tmp_path, steps=2))
    with pytest.raises(ValueError, match=r"is of 2 items a step, got 3 on 1 process: batch_size"):
        run_prior(parts, settings(tmp_path, batch_size=3), resume=True)
    with pytest.raises(ValueError, match="got 9 on 3 processes: 3 processes cannot share 2"):
        read_step(tmp_path / "checkpoint-00000002", 9, 3)


@pytest.mark.parametrize("run", [run_prior, run_decoder])
def test_activations_computed_twice_change_nothing(parts, tmp_path, run):
    plain = settings(tmp_path / "plain")
    again = replace(plain, output_dir=str(tmp_path / "again"), activation_checkpointing=True)
    for config in (plain, again):
        run(parts, config)  # type: ignore[operator]
    assert_equal(tmp_path / "again", tmp_path / "plain")


def test_what_needs_blocks_or_processes_says_so(parts, tmp_path):
    config = settings(tmp_path / "codec", activation_checkpointing=True)
    with pytest.raises(ValueError, match="need a prior or a decoder, got CodecTraining"):
        run_codec(parts, config)
    with pytest.raises(ValueError, match="needs several processes"):
        run_prior(parts, settings(tmp_path / "prior", sharding=True))
    run_prior(parts, settings(tmp_path / "prior", steps=2))
    (tmp_path / "prior" / "checkpoint-00000002" / "shards").mkdir()
    with pytest.raises(ValueError, match="written with sharding=true, got sharding=false"):
        run_prior(parts, settings(tmp_path / "prior"), resume=True)
    with pytest.raises(ValueError, match="with sharding, got 'fp16'"):
        settings(tmp_path, sharding=True, mixed_precision="fp16")
