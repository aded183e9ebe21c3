"""``partita bench``: its rows and its arithmetic, not what it measures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_pipeline import save_tiny_pipeline, tiny_pipeline

from pipelines.benchmarks.baseline import BaselineSpeed
from pipelines.benchmarks.machine import peak_memory, resident_memory
from pipelines.benchmarks.part_speed import PartSpeed, measure, with_backbone
from pipelines.benchmarks.turns import Spread
from pipelines.cli import main

ROWS = [
    "encode",
    "decode, preview",
    "prior, transformer",
    "prior, lstm",
    "decoder, 1 step",
    "decoder, 2 steps",
    "vocoder",
    "prompt to audio",
]


def bench(*options: str) -> int:
    return main(["bench", "--duration", "0.5", "--repeats", "2", *options])


def test_json(pipeline_folder: Path, capsys: pytest.CaptureFixture[str]):
    assert bench("--pipeline", str(pipeline_folder), "--json") == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert captured.err == ""
    assert [row["name"] for row in result["rows"]] == ROWS
    assert result["threads"] == torch.get_num_threads()
    for row in result["rows"]:
        assert row["fastest"] <= row["seconds"] <= row["slowest"]
        assert row["real_time_factor"] == pytest.approx(0.5 / row["seconds"])
    peaks = [row["peak_memory"] for row in result["rows"]]
    assert peaks == sorted(peaks)


def test_table(pipeline_folder: Path, capsys: pytest.CaptureFixture[str]):
    assert bench("--pipeline", str(pipeline_folder), "--quiet") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "threads" in lines[0]
    assert [line[:22].strip() for line in lines[2:]] == ROWS
    assert "frames/s, random weights" in lines[2 + ROWS.index("prior, lstm")]


def test_a_pipeline_without_decoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = save_tiny_pipeline(tmp_path / "tiny", with_decoder=False)
    capsys.readouterr()
    assert bench("--pipeline", str(folder), "--json") == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)["rows"]]
    assert names == [name for name in ROWS if not name.startswith(("decoder", "vocoder"))]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--repeats", "0"], "--repeats must be at least 1, got 0"),
        (["--threads", "0"], "error: threads must be at least 1, got 0"),
        (["--duration", "0"], "--duration must be at least 0.1 s, got 0"),
        (["--duration", "nan"], "--duration must be at least 0.1 s, got nan"),
        (["--baseline", "configs"], "--baseline must be a checkout of Partita, got configs"),
    ],
)
def test_mistakes(options, said, pipeline_folder, capsys):
    assert main(["bench", "--pipeline", str(pipeline_folder), "--quiet", *options]) == 2
    output = capsys.readouterr()
    assert said in output.err
    assert not output.out


def test_the_first_call_does_not_count_and_the_median_does(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 3.0, 10.0, 11.0, 20.0, 22.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    calls: list[int] = []
    row = measure("work", lambda: calls.append(1), repeats=3, duration_s=8.0)
    assert len(calls) == 4
    assert (row.fastest, row.seconds, row.slowest) == (1.0, 2.0, 3.0)
    assert row.real_time_factor == 4.0


def test_a_row_as_text():
    row = PartSpeed("encode", 0.5, 0.4, 0.75, 20.0, "a note", 123_400_000)
    assert str(row).split() == ["encode", "0.500", "(0.400-0.750)", "20.0x", "123", "MB",
                                   "a", "note"]  # fmt: skip


def test_the_other_backbone_differs_in_the_backbone_alone():
    prior = tiny_pipeline().prior
    assert with_backbone(prior, "transformer") is prior
    other = with_backbone(prior, "lstm")
    values = {name: value for name, value in prior.config.items() if not name.startswith("_")}
    changed = {name for name, value in values.items() if other.config[name] != value}
    assert changed == {"backbone"}


def test_memory_counts_what_is_held():
    held = bytearray(100_000_000)
    held[::4096] = b"x" * len(held[::4096])  # touch every page
    with_it = resident_memory()
    assert with_it > len(held)
    del held
    assert resident_memory() < with_it - 90_000_000
    assert peak_memory() > with_it - 10_000_000  # Linux counts pages in batches


def test_the_memory_of_a_process_that_has_ended_is_none():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert resident_memory(ended.pid) == 0


def test_a_baseline_as_text():
    seconds, third = Spread(0.25, 0.2, 0.5), Spread(0.3333, 0.25, 0.5)
    row = BaselineSpeed("piece", seconds, seconds, third, third)
    assert str(row).split() == ["piece", "250", "250", *2 * ["0.33", "(0.25-0.50)"]]


@pytest.mark.slow
def test_this_checkout_as_its_own_baseline(capsys: pytest.CaptureFixture[str]):
    folder = str(Path(__file__).parents[1])
    options = ["--baseline", folder, "--duration", "0.5", "--repeats", "1", "--json"]
    assert main(["bench", *options]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    names = ["decoder and vocoder", "first sound", "piece", "prior, training step"]
    assert [row["task"] for row in rows] == names
    assert all(row["cpu_ratio"]["smallest"] > 0 for row in rows)
