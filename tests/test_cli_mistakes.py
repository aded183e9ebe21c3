"""What the command line says to mistakes: one line, exit code 2, and nothing half done."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from tiny_pipeline import save_tiny_pipeline, tiny_codec

from pipelines import Pipeline
from pipelines.cli import main
from pipelines.inference.music_generator import MusicGenerator
from pipelines.inference.token_file import check_tokens, describe_codes, load_tokens, save_tokens

RATE = 44_100


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["", "--duration", "1"], "prompt must be a text that is not empty"),
        (["a", "--duration", "0"], "duration_s must lie in"),
        (["a", "--duration", "-1"], "duration_s must lie in"),
        (["a", "--duration", "nan"], "duration_s must lie in"),
        (["a", "--duration", "21"], "duration_s must lie in (0, 20], got 21"),
        (["a", "--duration", "long"], "invalid float value"),
        (["a", "--steps", "17"], "num_inference_steps must lie in [1, 16], got 17"),
        (["a", "--temperature", "-1"], "temperature must be"),
        (["a", "--guidance", "inf"], "guidance must be"),
        (["z" * 70], "a prompt may have at most 64 tokens"),
        (["a", "--num-variations", "0"], "num_variations must lie in [1, 100], got 0"),
        (["a", "--loudness", "3"], "loudness must lie in [-60, 0], got 3"),
        (["a", "--stdout", "wav", "--ending", "ring"], "a stream has one take"),
        (["a", "--chords", "Dm Q"], "chords, symbol 2: chord must be a symbol"),
        (["a", "--key", "H minor"], "key must be like D minor"),
        (["a", "--instruments", "kazoo"], "instruments: 'kazoo' is not known"),
        (["a", "--sections", "verse:0"], "sections, entry 1 (verse): bars must be"),
        (["a", "--melody", "none.mid"], "none.mid does not exist"),
        (["a", "--plan", "none.json"], "none.json does not exist"),
        (["a", "--volume", "11"], "unrecognized arguments: --volume 11"),
        (["a", "--output", "song.mid"], "must end in one of .wav, .flac, .ogg, .opus"),
        (["a", "--output", "missing/song.wav"], "missing does not exist"),
        (["a", "--tokens", "song.pt"], "must end in one of .safetensors"),
    ],
)
def test_generate_refuses(options, said, tmp_path, pipeline_folder, mistake, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = mistake("generate", *options, "--quiet", "--pipeline", pipeline_folder)
    assert said in line
    assert list(tmp_path.iterdir()) == []


def damage(kind: str, path: Path) -> None:
    """Write a file that is no audio, in the way that ``kind`` says."""
    whole = 0.1 * np.ones((RATE, 2))
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is not audio\n" * 20)
    elif kind == "no samples":
        soundfile.write(path, whole[:0], RATE)
    elif kind == "truncated":
        soundfile.write(path, whole, RATE)
        path.write_bytes(path.read_bytes()[:50_000])
    elif kind == "nan":
        whole[100] = np.nan
        soundfile.write(path, whole, RATE, subtype="FLOAT")
    elif kind == "six channels":
        soundfile.write(path, 0.1 * np.ones((RATE, 6)), RATE)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "No such file"),
        ("empty", "is empty"),
        ("text", "is not audio or is damaged"),
        ("no samples", "holds no samples"),
        ("truncated", "is truncated"),
        ("nan", "NaN or infinite"),
        ("six channels", "only mono and stereo are converted"),
    ],
)
@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_damaged_audio_is_refused(command, kind, said, tmp_path, pipeline_folder, mistake):
    source, output = tmp_path / "in.wav", tmp_path / "out.safetensors"
    damage(kind, source)
    line = mistake(command, source, "--output", output, "--pipeline", pipeline_folder)
    assert said in line
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != source]
    assert written == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("missing", "does not exist"),
        ("pickle", "is not a whole safetensors file"),
        ("truncated", "is not a whole safetensors file"),
        ("other tensors", "a token file holds the tensor 'codes', got ['weights']"),
        ("floats", "codes must be (K, T) int16 or int32, got (4, 3) torch.float32"),
        ("no version", "format_version must be 1, got None"),
        ("other codec", "holds the tokens of another codec"),
        ("too large", "codes must lie in [0, 16), got 3 to 99"),
    ],
)
def test_decode_refuses(content, said, tmp_path, pipeline_folder, mistake):
    path, output = tmp_path / "bad.safetensors", tmp_path / "out.wav"
    codec = Pipeline.from_pretrained(pipeline_folder).codec
    codes = torch.full((4, 3), 3)
    if content == "pickle":
        path.write_bytes(pickle.dumps({"codes": [1, 2]}))
    elif content == "truncated":
        save_tokens(path, describe_codes(codes, codec, 5000))
        path.write_bytes(path.read_bytes()[:-5])
    elif content == "other tensors":
        save_file({"weights": codes}, path)
    elif content == "floats":
        save_file({"codes": codes.float()}, path)
    elif content == "no version":
        save_file({"codes": codes.short()}, path)
    elif content == "other codec":
        save_tokens(path, describe_codes(codes, tiny_codec(width=8), 5000))
    elif content == "too large":
        codes[1, 1] = 99
        save_tokens(path, describe_codes(codes, codec, 5000))
    line = mistake("decode", path, "--output", output, "--pipeline", pipeline_folder)
    assert said in line
    assert not output.exists()


def test_reconstruct_refuses_more_books_than_there_are(sound, pipeline_folder, mistake):
    folder = sound.parent / "out"
    arguments = (sound, "--output", folder, "--pipeline", pipeline_folder, "--books", 5)
    assert "--books must lie in [1, 4], got 5" in mistake("reconstruct", *arguments)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("model_index.json", b"{", "is not JSON"),
        ("model_index.json", b"\xff{", "model_index.json is not JSON"),
        ("model_index.json", b"[]", "model_index.json is not a JSON object"),
        ("model_index.json", {"prior": 5}, "prior must be [library, class], got 5"),
        ("model_index.json", {"prior": ["a"]}, "prior must be [library, class], got ['a']"),
        ("model_index.json", {"guidance": "four"}, "json: guidance must be float, got 'four'"),
        ("model_index.json", {"frobnicate": 3}, "unknown key 'frobnicate'"),
        ("model_index.json", None, "is not a saved pipeline"),
        ("prior/config.json", b'{"depth": 3}', "unknown key 'depth'"),
        ("prior/config.json", {"num_heads": 3}, "num_heads must divide width"),
        ("codec/config.json", b"\xff\xfe", "codec/config.json is not JSON"),
        ("prior/diffusion_pytorch_model.safetensors", b"\x80\x04K", "not a whole safetensors"),
        ("codec/diffusion_pytorch_model.safetensors", None, "does not exist"),
        ("text_encoder/model.safetensors", b"torn", "safetensors"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "info"])
def test_damaged_pipelines_are_refused(
    command, file, content, said, tmp_path, pipeline_folder, mistake
):
    folder, output = tmp_path / "pipeline", tmp_path / "song.wav"
    shutil.copytree(pipeline_folder, folder)
    if content is None:
        (folder / file).unlink()
    elif isinstance(content, dict):
        whole = json.loads((folder / file).read_bytes())
        (folder / file).write_text(json.dumps(whole | content))
    else:
        (folder / file).write_bytes(content)
    if command == "generate":
        line = mistake("generate", "a", "--pipeline", folder, "--output", output)
    else:
        line = mistake("info", folder)
    assert said in line
    assert not output.exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer/tokenizer.json", b"\xff\xfe"),
        ("tokenizer/tokenizer.json", b"{}"),
        ("text_encoder/config.json", b"\x00garbage"),
    ],
)
def test_damaged_text_encoders_are_refused(file, content, tmp_path, pipeline_folder, mistake):
    folder = shutil.copytree(pipeline_folder, tmp_path / "pipeline")
    (folder / file).write_bytes(content)
    line = mistake("generate", "a", "--pipeline", folder, "--output", tmp_path / "a.wav")
    assert file.split("/")[0] in line
    assert content == b"{}" or file in line


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["compose"], "no command 'compose': choose from generate, plan, vocabulary, score"),
        (["train", "vocoder"], "choose from train recognizer, train codec, train prior"),
        (["prepare", "muisc"], "no command 'prepare muisc'"),
        (["prepare", "report", "nowhere"], "nowhere is no prepared dataset"),
        (["decode"], "required: input, --output"),
        (["generate", "a", "--pipeline", "./nowhere"], "./nowhere is not a folder"),
        (["generate", "a", "--pipeline", "nowhere"], "nowhere is not a folder, and no hub id"),
        (["generate", "a", "--pipeline", "no/where"], "no/where is not a folder, and no hub id"),
        (["assemble", "--codec", "nowhere", "--prior", "b", "--output", "c"], "no hub id (user/"),
        (["assemble", "--codec", "no/where", "--prior", "b", "--output", "c"], "no hub id (user/"),
        (["decode", ".", "--output", "a.wav"], ". is a folder, not a safetensors file"),
        (["train", "codec", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "codec", "--config", "bytes.yaml"], "bytes.yaml"),
        (["train", "codec", "--config", "torn.yaml"], "torn.yaml"),
        (["info", "--config", "bytes.yaml"], "bytes.yaml is no trainer's config"),
        (["info", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (
            ["info", "--config", "a.yaml", "--processes", "0"],
            "--processes must be at least 1, got 0",
        ),
    ],
)
def test_other_mistakes(argv, said, mistake, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Path("bytes.yaml").write_bytes(b"\xff\xfe")
    Path("torn.yaml").write_text("a: [")
    assert said in mistake(*argv)


def test_a_dataset_without_a_usable_file_is_refused(tmp_path, mistake):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "readme.wav").write_text("not audio")
    output = tmp_path / "dataset"
    mistake("prepare", tmp_path / "music", "--output", output, "--quiet")
    assert not (output / "dataset.json").exists()


def test_a_full_disk_leaves_nothing(song, pipeline_folder, mistake, request):
    before = {path: path.read_bytes() for path in song.parent.iterdir()}
    request.getfixturevalue("full_disk")
    tokens = song.with_suffix(".safetensors")
    shared = ("--pipeline", pipeline_folder, "--quiet")
    assert "No space" in mistake("encode", song, "--output", tokens, *shared)
    assert "No space" in mistake("decode", tokens, "--output", song, *shared)
    assert {path: path.read_bytes() for path in song.parent.iterdir()} == before


def test_ctrl_c_is_one_line_and_no_file(tmp_path, pipeline_folder, capsys, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MusicGenerator, "decode", interrupted)
    output = tmp_path / "song.wav"
    arguments = ["--output", str(output), "--pipeline", str(pipeline_folder), "--quiet"]
    assert main(["generate", "a", "--duration", "1", *arguments]) == 130
    assert capsys.readouterr().err == "partita: stopped\n"
    assert not output.exists()


def test_another_saved_pipeline_refuses_the_tokens(song, tmp_path):
    other = Pipeline.from_pretrained(save_tiny_pipeline(tmp_path / "other", seed=1))
    with pytest.raises(ValueError, match=r"song.* holds the tokens of another codec"):
        check_tokens(load_tokens(song.with_suffix(".safetensors")), other.codec, "song")
