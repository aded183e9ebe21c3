"""The command line, in process, on a tiny pipeline."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from codec.audio_file import read_audio
from pipelines import Pipeline, cli
from pipelines.cli import COMMANDS, TRAINERS, main
from pipelines.inference.music_generator import MusicGenerator
from pipelines.inference.token_file import load_tokens

REPOSITORY = Path(__file__).parents[1]
RATE = 44_100


# -- help -----------------------------------------------------------------------------------


def test_help_lists_every_command_without_torch():
    """Instant because nothing heavy is imported, which a clock would tell less surely."""
    code = (
        "import sys; from pipelines.cli import main; status = main(['--help']); "
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    for name in (*COMMANDS, *TRAINERS):
        assert f"  {name} " in result.stdout


@pytest.mark.parametrize("name", [*COMMANDS, *TRAINERS])
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([*name.split(), "--help"])
    assert exit_.value.code == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize("group", ["prepare", "evaluate", "train"])
def test_a_group_lists_its_commands(group, capsys):
    assert main([group, "--help"]) == 0
    listed = capsys.readouterr().out
    for name in (*COMMANDS, *TRAINERS):
        assert (f"  {name} " in listed) == name.startswith(group + " ")


# -- generate, encode, decode, reconstruct --------------------------------------------------


def test_generate_writes_the_pipelines_own_audio(song, pipeline_folder):
    audio = Pipeline.from_pretrained(pipeline_folder)("a slow piano", 1.27, 3).audio[0]
    clip = read_audio(song)
    assert clip.sample_rate == RATE
    assert clip.audio.shape == audio.shape == (2, round(1.27 * RATE))
    gain = min(1.0, (1 - 2**-23) / float(audio.abs().max()))
    torch.testing.assert_close(clip.audio, audio * gain, atol=2**-22, rtol=0)


def test_generate_reports(capsys, tmp_path, pipeline_folder):
    output = tmp_path / "a.flac"
    options = ["--duration", "0.5", "--seed", "7", "--output", str(output), "--steps", "1"]
    sampling = ["--guidance", "1", "--temperature", "0.5", "--negative-prompt", "drums"]
    code = main(["generate", "a", *options, *sampling, "--pipeline", str(pipeline_folder)])
    out = capsys.readouterr().out
    assert code == 0
    assert f"{output}: 0.50 s, seed 7" in out
    assert "times as fast as it plays" in out


def test_decode_of_a_songs_tokens_is_the_song_bit_for_bit(song, pipeline_folder):
    again = song.with_name("again.wav")
    tokens = song.with_suffix(".safetensors")
    arguments = [str(tokens), "--output", str(again), "--pipeline", str(pipeline_folder)]
    assert main(["decode", *arguments, "--quiet"]) == 0
    assert again.read_bytes() == song.read_bytes()
    main(["decode", *arguments, "--quiet", "--preview"])
    assert again.read_bytes() != song.read_bytes()


def test_encode_then_decode(sound, pipeline_folder):
    tokens, output = sound.with_suffix(".safetensors"), sound.with_name("out.wav")
    options = ["--pipeline", str(pipeline_folder), "--quiet"]
    assert main(["encode", str(sound), "--output", str(tokens), *options]) == 0
    saved = load_tokens(tokens)
    pipeline = Pipeline.from_pretrained(pipeline_folder)
    assert torch.equal(saved.codes, pipeline.encode(read_audio(sound).audio[None])[0])
    assert main(["decode", str(tokens), "--output", str(output), "--steps", "1", *options]) == 0
    assert soundfile.info(output).frames == 57_331


def test_encode_resamples_and_says_so(tmp_path, pipeline_folder, capsys):
    source, tokens = tmp_path / "mono.wav", tmp_path / "mono.safetensors"
    soundfile.write(source, 0.1 * np.random.default_rng(0).standard_normal(24_000), 24_000)
    assert main(["encode", str(source), "--output", str(tokens),
                 "--pipeline", str(pipeline_folder)]) == 0  # fmt: skip
    notes = [line for line in capsys.readouterr().err.splitlines() if "note" in line]
    assert notes == [
        "partita: note: resampled 24000 -> 44100 Hz",
        "partita: note: doubled mono to stereo",
    ]
    assert load_tokens(tokens).codes.shape == (4, 25)


@pytest.mark.usefixtures("measuring_packages")
def test_reconstruct(sound, pipeline_folder, capsys):
    folder = sound.parent / "new" / "folder"
    options = ["--output", str(folder), "--pipeline", str(pipeline_folder), "--quiet"]
    assert main(["reconstruct", str(sound), "--books", "3", *options]) == 0
    assert "3 books, 0.30 kbps" in capsys.readouterr().out
    names = {"original.wav", "preview.wav", "decoded.wav", "metrics.json"}
    assert {path.name for path in folder.iterdir()} == names
    original, given = (read_audio(path).audio for path in (folder / "original.wav", sound))
    assert torch.equal(original, given)
    assert soundfile.info(folder / "decoded.wav").frames == 57_331
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["preview"]["mel_distance"] > 0
    assert metrics["decoded"].keys() == metrics["preview"].keys()


def test_prepare_of_a_folder_alone_is_prepare_audio(sound, capsys):
    output = sound.parent / "dataset"
    arguments = [str(sound.parent), "--output", str(output), "--min-track", "1", "--clip", "1"]
    assert main(["prepare", *arguments, "--quiet"]) == 0
    capsys.readouterr()
    assert main(["prepare", "report", str(output)]) == 0
    assert capsys.readouterr().out == (output / "report.md").read_text()


@pytest.mark.parametrize("word", ["music", "scores", "notes", "plans", "tokens"])
def test_a_folder_does_not_hide_the_command_of_its_name(word, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(word).mkdir()
    with pytest.raises(SystemExit):
        main(["prepare", word, "--help"])
    assert f"usage: partita prepare {word} " in capsys.readouterr().out


def test_generate_computes_on_one_thread_unless_asked(pipeline_folder, tmp_path, monkeypatch):
    before, seen, decode = torch.get_num_threads(), [], MusicGenerator.decode
    monkeypatch.setattr(
        MusicGenerator,
        "decode",
        lambda *a, **k: seen.append(torch.get_num_threads()) or decode(*a, **k),
    )
    argv = ["generate", "calm", "--duration", "0.1", "--pipeline", str(pipeline_folder)]
    argv += ["--quiet", "--output", str(tmp_path / "song.wav")]
    assert main(argv) == 0
    assert main([*argv, "--threads", "3"]) == 0
    assert seen == [1, 3]
    assert torch.get_num_threads() == before
    assert main([*argv, "--threads", "0"]) == 2


@pytest.mark.parametrize("importing", [True, False])
def test_ctrl_c_while_pytorch_is_imported_ends_the_process(importing, monkeypatch, capsys):
    """An exception raised there reaches C++, which aborts."""
    ends: list[int] = []
    spec = SimpleNamespace(_initializing=importing)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(__spec__=spec))
    monkeypatch.setattr(cli.os, "_exit", ends.append)
    with pytest.raises(KeyboardInterrupt):  # which _exit would not come to
        cli.interrupt()
    assert ends == [130] * importing
    assert ("partita: stopped" in capsys.readouterr().err) is importing
