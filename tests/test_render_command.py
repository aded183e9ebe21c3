"""``partita render`` as it is typed: what it prints, where, and its exit codes."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.rendering.manifest import read_manifest
from pipelines.rendering.render_queue import RenderedFiles, RenderTask
from pipelines.rendering.renderer import Renderer

ROWS = [
    {"id": "a", "prompt": "calm", "duration_s": 0.3},
    {"id": "b", "prompt": "loud", "duration_s": 0.2, "format": "flac"},
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", *ROWS)


def write_rows(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def command(tmp_path: Path, pipeline_folder: Path) -> list[str]:
    return ["render", "--output", str(tmp_path / "out"), "--pipeline", str(pipeline_folder)]


def test_files_are_counted_and_a_second_run_finds_them(rows, command, tmp_path, capsys):
    assert main([*command, str(rows)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{tmp_path / 'out'}: 2 of 2 items rendered\n0:00 of audio in ")
    assert "loaded" in printed.err
    assert main([*command, str(rows), "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'out'}: 0 of 2 items rendered, 2 already there\n"
    assert printed.err == ""


def test_every_fault_is_reported_and_nothing_is_rendered(command, tmp_path, capsys):
    bad = write_rows(tmp_path / "bad.jsonl", {"id": "x", "steps": 99}, *ROWS, ROWS[0])
    assert main([*command, str(bad), "--quiet"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"partita: error: {bad}: 3 faults",
        "  line 1 (x): steps must lie in [1, 16], got 99",
        "  line 1 (x): prompt is missing",
        "  line 4 (a): the id 'a' is already that of line 2",
    ]
    assert not (tmp_path / "out").exists()
    assert main([*command, str(bad), "--quiet", "--skip-bad"]) == 0
    assert "rows left out: 3" in capsys.readouterr().out
    assert list(read_manifest(tmp_path / "out")) == ["a", "b"]


def test_the_command_line_fills_in_what_rows_leave_out(rows, command, tmp_path):
    given = ["--guidance", "1.5", "--steps", "1", "--format", "ogg", "--num-variations", "2"]
    given += ["--negative-prompt", "drums", "--temperature", "0.5", "--loudness", "-30"]
    assert main([*command, str(rows), "--quiet", *given]) == 0
    entries = read_manifest(tmp_path / "out")
    assert list(entries) == ["a-0", "a-1", "b-0", "b-1"]
    assert [entry.audio[4:] for entry in entries.values()] == ["ogg", "ogg", "flac", "flac"]
    for entry in entries.values():
        wanted = {"guidance": 1.5, "temperature": 0.5, "num_inference_steps": 1}
        assert wanted.items() <= entry.settings.items()
        assert (entry.negative_prompt, entry.settings["loudness_lufs"]) == ("drums", -30)


def test_a_changed_setting_needs_force(rows, command, capsys):
    assert main([*command, str(rows), "--quiet"]) == 0
    capsys.readouterr()
    assert main([*command, str(rows), "--quiet", "--guidance", "2"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "holds 2 items of other settings (--force makes them anew):" in lines[0]
    assert lines[1:] == [f"  {id}: guidance was 3.0, is now 2.0" for id in "ab"]
    assert main([*command, str(rows), "--quiet", "--guidance", "2", "--force"]) == 0


def test_rows_come_from_standard_input_and_events_go_to_programs(
    command, tmp_path, capsys, monkeypatch
):
    text = "id,prompt,duration_s\na,calm,0.2\nb,loud,0.1\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    log = tmp_path / "log"
    assert main([*command, "-", "--progress", "json", "--log-file", str(log)]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["start", "item", "item", "summary"]
    assert {event["id"] for event in events[1:3]} == {"a", "b"}
    assert (events[2]["done"], events[2]["total"], events[2]["left_s"]) == (2, 2, 0)
    assert events[3]["audio_s"] == pytest.approx(0.3)
    logged = [line.split()[1] for line in log.read_text().splitlines()]
    assert logged == ["start", "item", "item", "summary"]


def test_an_item_that_fails_twice_is_exit_code_1(rows, command, tmp_path, capsys, monkeypatch):
    decode = Renderer.decode

    def fail(self: Renderer, task: RenderTask) -> RenderedFiles:
        if task.items[0].id == "b":
            raise RuntimeError("no sound")
        return decode(self, task)

    monkeypatch.setattr(Renderer, "decode", fail)
    assert main([*command, str(rows), "--quiet"]) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "failed: 1 (the same command tries them again)",
        "  b: RuntimeError: no sound",
    ]
    assert read_manifest(tmp_path / "out")["b"].attempts == 2
    out = str(tmp_path / "out")
    assert main(["render", "--status", out]) == 1
    assert capsys.readouterr().out.startswith("finished: 1 of 2 items done, 1 failed, ")
    monkeypatch.undo()
    assert main([*command, str(rows), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["render", "--status", out, "--progress", "json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["state"], status["done"], status["failed"]) == ("finished", 2, 0)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "name the rows and --output, or --status alone"),
        (["none.jsonl"], "none.jsonl does not exist"),
        (["rows.jsonl", "--batch-size", "0"], "batch_size must lie in [1, 1024], got 0"),
        (["rows.jsonl", "--threads", "0"], "threads must be at least 1, got 0"),
        (["rows.jsonl", "--format", "mp3"], "format must be one of wav, flac, ogg, opus"),
        (["rows.jsonl", "--loudness", "3"], "loudness_lufs must lie in [-60, 0], got 3.0"),
        (["rows.jsonl", "--workers", "2", "--scheduler", "tcp://x:1"], "choose either"),
        (["--status", "nowhere"], "nothing was rendered into nowhere"),
    ],
)
def test_mistakes_are_one_line(more, said, rows, command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--quiet", *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.slow
def test_the_benchmark_measures_every_line(pipeline_folder, capsys):
    sizes = ["--items", "3", "--duration", "0.2", "--batch-sizes", "1", "2", "--json"]
    assert main(["bench", "render", *sizes, "--pipeline", str(pipeline_folder)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(row["batch_size"], row["workers"]) for row in report["rows"]] == [(1, 0), (2, 0)]
    for row in report["rows"]:
        assert row["audio_s_per_s"] == pytest.approx(0.6 / row["seconds"], rel=0.01)
        assert row["peak_memory"] > 10**7
