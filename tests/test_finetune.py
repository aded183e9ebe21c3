"""Fine-tuning on an album: captions, an adapter that learns, resume, and mistakes."""

import json
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from tiny_data import chord

from pipelines.cli import main
from pipelines.inference.lora import FILE_NAME, read_adapter


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tracks of six seconds."""
    folder = tmp_path_factory.mktemp("album") / "my-album"
    folder.mkdir()
    for seed, name in enumerate(("01_first song", "02-second", "03 third")):
        sound = torch.cat([chord(10 * seed + part) for part in range(3)], dim=-1)
        soundfile.write(folder / f"{name}.flac", sound.T.numpy(), 44100)
    return folder


def finetune(album: Path, output: Path, pipeline: Path, *options: str) -> int:
    """Run the command on the tiny pipeline."""
    words = ["finetune", str(album), "--output", str(output), "--pipeline", str(pipeline)]
    small = ["--batch-size", "2", "--crop", "2", "--rank", "2", "--quiet"]
    return main([*words, *small, *options])


def test_captions_are_written_for_editing(album, tmp_path, pipeline_folder, capsys):
    """A first run shows captions of what was measured; the next one keeps what was edited."""
    output = tmp_path / "my-style"
    assert finetune(album, output, pipeline_folder, "--captions-only") == 0
    path = output / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["split"] for row in rows] == ["train", "validation", "train"]
    assert rows[0]["file_name"] == "01_first song.flac"
    assert rows[0]["captions"][1] == "my style, 01 first song"
    assert f"{rows[0]['bpm']} bpm, {rows[0]['key']}" in rows[0]["captions"][0]
    rows[0]["captions"] = ["a caption of my own"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert finetune(album, output, pipeline_folder, "--captions-only") == 0
    assert json.loads(path.read_text().splitlines()[0])["captions"] == ["a caption of my own"]
    assert "a caption of my own" in capsys.readouterr().out


def test_learns_and_resumes(album: Path, tmp_path: Path, pipeline_folder: Path) -> None:
    """A run that was stopped and resumed gives the adapter of a whole one, with both parts."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ["--decoder", "--no-figures", "--style", "mine", "--learning-rate", "0.01"]
    assert finetune(album, whole, pipeline_folder, *options, "--steps", "6") == 0
    assert finetune(album, parts, pipeline_folder, *options, "--steps", "6") == 0
    for part in ("prior", "decoder"):
        losses = [
            json.loads(line).get("validation/loss")
            for line in (whole / "runs" / part / "metrics.jsonl").read_text().splitlines()
        ]
        known = [loss for loss in losses if loss is not None]
        assert known[-1] < known[0]
    stopped = parts / "runs" / "decoder"
    for late in sorted(stopped.glob("checkpoint-*"))[-1:]:
        late.rename(tmp_path / "gone")
    (parts / FILE_NAME).unlink()
    assert finetune(album, parts, pipeline_folder, *options, "--steps", "6") == 2  # --resume
    assert finetune(album, parts, pipeline_folder, *options, "--steps", "6", "--resume") == 0
    first, second = load_file(whole / FILE_NAME), load_file(parts / FILE_NAME)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {part for part, _ in read_adapter(whole).layers} == {"prior", "decoder"}
    song = ["generate", "mine", "--duration", "0.4", "--seed", "0", "--quiet", "--output"]
    lora = ["--lora", f"{whole}:0.5", "--pipeline", str(pipeline_folder)]
    assert main([*song, str(tmp_path / "song.wav"), *lora]) == 0


def test_figures_before_and_after(album, tmp_path, pipeline_folder, monkeypatch):
    """The held-out track costs fewer bits than before; card and figures say so."""
    from pipelines.evaluation.prompts import read_prompts
    from pipelines.finetuning import before_after

    rows = [{"id": str(n), "group": "trained", "text": f"a {n}"} for n in range(12)]
    prompts = tmp_path / "prompts.jsonl"  # of few letters: the tiny tokenizer has no words
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(before_after, "read_prompts", lambda: read_prompts(prompts))
    monkeypatch.setattr(before_after, "TAKE_S", 2.0)
    output = tmp_path / "my-style"
    options = ["--steps", "12", "--learning-rate", "0.03"]
    assert finetune(album, output, pipeline_folder, *options) == 0
    figures = json.loads((output / "figures.json").read_text())
    before, after = figures["held_out_bits"]
    assert after < before
    assert figures["held_out_clips"] == 1
    card = (output / "README.md").read_text()
    assert f"{before:.2f} -> {after:.2f}" in card
    assert "base_model:" in card


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--decoder", "--pipeline", "nowhere"], "folder of a saved one"),
        (["--rank", "0"], "rank must be positive"),
        (["--steps", "0"], "steps must be at least 1"),
    ],
)
def test_mistakes(album, tmp_path, pipeline_folder, capsys, options, message):
    assert finetune(album, tmp_path / "out", pipeline_folder, *options) == 2
    assert message in capsys.readouterr().err


def test_albums_that_cannot_be_used(album, tmp_path, pipeline_folder, capsys):
    small = tmp_path / "small"
    small.mkdir()
    for path in sorted(album.iterdir())[:2]:
        (small / path.name).write_bytes(path.read_bytes())
    assert finetune(small, tmp_path / "out", pipeline_folder) == 2
    assert "3 tracks or more, got 2" in capsys.readouterr().err
    (small / "broken.flac").write_bytes(b"no sound")
    assert finetune(small, tmp_path / "out", pipeline_folder) == 2
    assert "broken.flac cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "out" / FILE_NAME).exists()
