"""The command line, in process, on a tiny pipeline; and what it says to mistakes."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from tiny_pipeline import save_tiny_pipeline, tiny_codec

from codec.audio_file import read_audio
from pipelines import Pipeline
from pipelines.cli import COMMANDS, TRAINERS, main
from pipelines.preloading import let_threads_sleep, preloading_environment
from pipelines.token_file import check_tokens, describe_codes, load_tokens, save_tokens

REPOSITORY = Path(__file__).parents[1]
RATE = 44_100


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """1.3 s of stereo noise as WAV, of a length that no frame divides."""
    path = tmp_path / "in.wav"
    samples = 0.1 * np.random.default_rng(0).standard_normal((57_331, 2))
    soundfile.write(path, samples, RATE, subtype="PCM_24")
    return path


@pytest.fixture
def song(tmp_path: Path, pipeline_folder: Path) -> Path:
    """A generated song.wav with song.safetensors beside it."""
    path = tmp_path / "song.wav"
    generate = ["generate", "a slow piano", "--duration", "1.27", "--seed", "3", "--quiet"]
    files = ["--output", str(path), "--tokens", str(path.with_suffix(".safetensors"))]
    assert main([*generate, *files, "--pipeline", str(pipeline_folder)]) == 0
    return path


def mistake(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Run a command line that must fail as every mistake does, and return its one line."""
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("loaded ")]
    assert len(lines) == 1, captured.err
    assert "error: " in lines[0]
    assert captured.out == ""
    return lines[0]


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
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_:
        main([*name.split(), "--help"])
    assert exit_.value.code == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize("group", ["prepare", "evaluate", "train"])
def test_a_group_lists_its_commands(group: str, capsys: pytest.CaptureFixture[str]):
    assert main([group, "--help"]) == 0
    listed = capsys.readouterr().out
    for name in (*COMMANDS, *TRAINERS):
        assert (f"  {name} " in listed) == name.startswith(group + " ")


# -- generate, encode, decode, reconstruct --------------------------------------------------


def test_generate_writes_the_pipelines_own_audio(song: Path, pipeline_folder: Path):
    audio = Pipeline.from_pretrained(pipeline_folder)("a slow piano", 1.27, 3).audio[0]
    clip = read_audio(song)
    assert clip.sample_rate == RATE
    assert clip.audio.shape == audio.shape == (2, round(1.27 * RATE))
    gain = min(1.0, (1 - 2**-23) / float(audio.abs().max()))
    torch.testing.assert_close(clip.audio, audio * gain, atol=2**-22, rtol=0)


def test_generate_reports(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pipeline_folder: Path
):
    output = tmp_path / "a.flac"
    options = ["--duration", "0.5", "--seed", "7", "--output", str(output), "--steps", "1"]
    sampling = ["--guidance", "1", "--temperature", "0.5", "--negative-prompt", "drums"]
    code = main(["generate", "a", *options, *sampling, "--pipeline", str(pipeline_folder)])
    out = capsys.readouterr().out
    assert code == 0
    assert f"{output}: 0.50 s, seed 7" in out
    assert "times as fast as it plays" in out


def test_decode_of_a_songs_tokens_is_the_song_bit_for_bit(song: Path, pipeline_folder: Path):
    again = song.with_name("again.wav")
    tokens = song.with_suffix(".safetensors")
    arguments = [str(tokens), "--output", str(again), "--pipeline", str(pipeline_folder)]
    assert main(["decode", *arguments, "--quiet"]) == 0
    assert again.read_bytes() == song.read_bytes()
    main(["decode", *arguments, "--quiet", "--preview"])
    assert again.read_bytes() != song.read_bytes()


def test_encode_then_decode(sound: Path, pipeline_folder: Path):
    tokens, output = sound.with_suffix(".safetensors"), sound.with_name("out.wav")
    options = ["--pipeline", str(pipeline_folder), "--quiet"]
    assert main(["encode", str(sound), "--output", str(tokens), *options]) == 0
    saved = load_tokens(tokens)
    pipeline = Pipeline.from_pretrained(pipeline_folder)
    assert torch.equal(saved.codes, pipeline.encode(read_audio(sound).audio[None])[0])
    assert main(["decode", str(tokens), "--output", str(output), "--steps", "1", *options]) == 0
    assert soundfile.info(output).frames == 57_331


def test_encode_resamples_and_says_so(
    tmp_path: Path, pipeline_folder: Path, capsys: pytest.CaptureFixture[str]
):
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


def test_reconstruct(sound: Path, pipeline_folder: Path, capsys: pytest.CaptureFixture[str]):
    folder = sound.parent / "new" / "folder"
    options = ["--output-dir", str(folder), "--pipeline", str(pipeline_folder), "--quiet"]
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


def test_prepare_of_a_folder_alone_is_prepare_audio(
    sound: Path, capsys: pytest.CaptureFixture[str]
):
    output = sound.parent / "dataset"
    arguments = [str(sound.parent), "--output", str(output), "--min-track", "1", "--clip", "1"]
    assert main(["prepare", *arguments, "--quiet"]) == 0
    capsys.readouterr()
    assert main(["prepare", "report", str(output)]) == 0
    assert capsys.readouterr().out == (output / "report.md").read_text()


# -- mistakes -------------------------------------------------------------------------------


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
        (["a", "--volume", "11"], "unrecognized arguments: --volume 11"),
        (["a", "--output", "song.mid"], "must end in one of .wav, .flac, .ogg, .opus"),
        (["a", "--output", "missing/song.wav"], "missing does not exist"),
        (["a", "--tokens", "song.pt"], "must end in one of .safetensors"),
    ],
)
def test_generate_refuses(
    options: list[str],
    said: str,
    tmp_path: Path,
    pipeline_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    line = mistake(capsys, "generate", *options, "--quiet", "--pipeline", pipeline_folder)
    assert line.startswith("partita: error: ")
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
def test_damaged_audio_is_refused(
    command: str,
    kind: str,
    said: str,
    tmp_path: Path,
    pipeline_folder: Path,
    capsys: pytest.CaptureFixture[str],
):
    source, output = tmp_path / "in.wav", tmp_path / "out.safetensors"
    damage(kind, source)
    option = "--output" if command == "encode" else "--output-dir"
    line = mistake(capsys, command, source, option, output, "--pipeline", pipeline_folder)
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
def test_decode_refuses(
    content: str,
    said: str,
    tmp_path: Path,
    pipeline_folder: Path,
    capsys: pytest.CaptureFixture[str],
):
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
    line = mistake(capsys, "decode", path, "--output", output, "--pipeline", pipeline_folder)
    assert said in line
    assert not output.exists()


def test_reconstruct_refuses_more_books_than_there_are(
    sound: Path, pipeline_folder: Path, capsys: pytest.CaptureFixture[str]
):
    folder = sound.parent / "out"
    arguments = (sound, "--output-dir", folder, "--pipeline", pipeline_folder, "--books", 5)
    assert "--books must lie in [1, 4], got 5" in mistake(capsys, "reconstruct", *arguments)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("model_index.json", b"{", "is not JSON"),
        ("model_index.json", None, "is not a saved pipeline"),
        ("prior/config.json", b'{"depth": 3}', "unknown key 'depth'"),
        ("prior/config.json", b'"num_heads": 3', "num_heads must divide width"),
        ("prior/diffusion_pytorch_model.safetensors", b"\x80\x04K", "not a whole safetensors"),
        ("codec/diffusion_pytorch_model.safetensors", None, "does not exist"),
        ("text_encoder/model.safetensors", b"torn", "safetensors"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "info"])
def test_damaged_pipelines_are_refused(
    command: str,
    file: str,
    content: bytes | None,
    said: str,
    tmp_path: Path,
    pipeline_folder: Path,
    capsys: pytest.CaptureFixture[str],
):
    folder, output = tmp_path / "pipeline", tmp_path / "song.wav"
    shutil.copytree(pipeline_folder, folder)
    if content is None:
        (folder / file).unlink()
    elif content.startswith(b'"num_heads"'):
        whole = (folder / file).read_bytes()
        (folder / file).write_bytes(whole.replace(b'"num_heads": 2', content))
    else:
        (folder / file).write_bytes(content)
    if command == "generate":
        line = mistake(capsys, "generate", "a", "--pipeline", folder, "--output", output)
    else:
        line = mistake(capsys, "info", folder)
    assert said in line
    assert not output.exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["compose"], "no command 'compose': choose from generate, render, notes, encode"),
        (["train", "vocoder"], "choose from train codec, train prior, train decoder"),
        (["prepare", "muisc"], "no command 'prepare muisc'"),
        (["prepare", "report", "nowhere"], "nowhere is no prepared dataset"),
        (["decode"], "required: input, --output"),
        (["generate", "a", "--pipeline", "./nowhere"], "./nowhere is not a folder"),
        (["train", "codec", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["info", "--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_other_mistakes(
    argv: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.chdir(tmp_path)
    assert said in mistake(capsys, *argv)


def test_a_dataset_without_a_usable_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "readme.wav").write_text("not audio")
    output = tmp_path / "dataset"
    mistake(capsys, "prepare", tmp_path / "music", "--output", output, "--quiet")
    assert not (output / "dataset.json").exists()


def test_a_full_disk_leaves_nothing(
    song: Path,
    pipeline_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    before = {path: path.read_bytes() for path in song.parent.iterdir()}
    monkeypatch.setattr(Path, "write_bytes", full)
    tokens = song.with_suffix(".safetensors")
    shared = ("--pipeline", pipeline_folder, "--quiet")
    assert "No space" in mistake(capsys, "encode", song, "--output", tokens, *shared)
    assert "No space" in mistake(capsys, "decode", tokens, "--output", song, *shared)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in song.parent.iterdir()} == before


def test_ctrl_c_is_one_line_and_no_file(
    tmp_path: Path,
    pipeline_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "decode", interrupted)
    output = tmp_path / "song.wav"
    arguments = ["--output", str(output), "--pipeline", str(pipeline_folder), "--quiet"]
    assert main(["generate", "a", "--duration", "1", *arguments]) == 130
    assert capsys.readouterr().err == "partita: stopped\n"
    assert not output.exists()


def test_another_saved_pipeline_refuses_the_tokens(song: Path, tmp_path: Path):
    other = Pipeline.from_pretrained(save_tiny_pipeline(tmp_path / "other", seed=1))
    with pytest.raises(ValueError, match=r"song.* holds the tokens of another codec"):
        check_tokens(load_tokens(song.with_suffix(".safetensors")), other.codec, "song")


# -- preloading ------------------------------------------------------------------------------


def test_preloading_happens_once_and_only_where_the_library_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"lib{name}.so.4")
    environment = preloading_environment({"HOME": "/root"})
    assert environment == {"HOME": "/root", "LD_PRELOAD": "libtcmalloc_minimal.so.4"}
    assert preloading_environment(environment) is None
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    assert preloading_environment({}) is None


def test_threads_sleep_unless_the_user_has_decided():
    unset: dict[str, str] = {}
    let_threads_sleep(unset)
    assert unset == {"OMP_WAIT_POLICY": "passive"}
    decided = {"OMP_WAIT_POLICY": "active"}
    let_threads_sleep(decided)
    assert decided == {"OMP_WAIT_POLICY": "active"}


def test_garbage_is_looked_for_rarely_and_not_at_the_exit():
    """In a process of its own, which the collector's settings are."""
    lines = (
        "import atexit, gc",
        "from pipelines.preloading import collect_rarely",
        "atexit.register(lambda: print(gc.isenabled(), gc.get_freeze_count() > 1000))",
        "usual = gc.get_threshold()[0]",
        "collect_rarely()",
        "print(gc.get_threshold()[0] > 10 * usual)",
    )
    command = [sys.executable, "-c", "; ".join(lines)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "True", "True"]


def test_one_thread_writes_unless_told(
    pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = torch.get_num_threads(), []
    monkeypatch.setattr(
        Pipeline, "write_frames", lambda *_: seen.append(torch.get_num_threads()) or iter(())
    )
    monkeypatch.setattr(Pipeline, "_collect", lambda _, frames, *rest: torch.zeros(1, 2, 3).long())
    argv = ["generate", "calm", "--duration", "0.1", "--pipeline", str(pipeline_folder)]
    argv += ["--quiet", "--output", str(tmp_path / "song.wav")]
    assert main(argv) == 0
    assert main([*argv, "--threads", "3"]) == 0
    assert seen == [1, 3]
    assert torch.get_num_threads() == before
    assert main([*argv, "--threads", "0"]) == 2
