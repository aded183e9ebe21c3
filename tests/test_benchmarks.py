"""Our models beside their peers: the arithmetic, and (slowly) that every peer runs."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from pipelines.benchmarks.peers import PeerSpeed, PeerTask, TimedModel, compare
from pipelines.benchmarks.turns import Spread, ratio
from pipelines.cli import main

SECONDS = Spread(0.002, 0.001, 0.003)


def test_ratios_are_taken_round_by_round():
    assert ratio([4.0, 8.0, 30.0], [2.0, 2.0, 3.0]) == Spread(4.0, 2.0, 10.0)


def test_models_take_turns_after_a_round_that_does_not_count(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("time.process_time", lambda: 2 * clock[0])
    order = []

    def model(name: str, seconds: float) -> TimedModel:
        def work() -> None:
            order.append(name)
            clock[0] += seconds

        return TimedModel(name, work, nn.Linear(2, 3))

    task = PeerTask("task", "frame", 4, model("a", 1.0), [model("b", 3.0), model("c", 0.5)])
    slow, fast = compare(task, repeats=2)
    assert order == ["a", "b", "c"] * 3
    assert (slow.peer, fast.peer) == ("b", "c")
    assert slow.wall_ratio.median == slow.cpu_ratio.median == 3.0
    assert fast.wall_ratio == Spread(0.5, 0.5, 0.5)
    assert slow.our_seconds.median == 0.25
    assert slow.our_cpu_seconds.median == 0.5
    assert slow.our_parameters == 9
    assert slow.threads == torch.get_num_threads()


def test_a_result_as_text():
    result = PeerSpeed(
        *("prior", "frame", 1, "partita", "MusicGen", 10_800_000, 9_500_000),
        *(SECONDS, Spread(0.008, 0.008, 0.008), SECONDS, SECONDS),
        *(Spread(4.0, 3.5, 4.25), Spread(2.0, 1.0, 3.0)),
    )
    assert str(result).split() == [
        *("prior", "MusicGen", "1", "2.0", "ms/frame", "8.0"),
        *("4.00x", "(3.50-4.25)", "2.00x", "(1.00-3.00)", "10.8M/9.5M"),
    ]


@pytest.mark.slow
def test_every_peer_runs(pipeline_folder: Path, capsys: pytest.CaptureFixture[str]):
    options = ["--peers", "--threads", "1", "--duration", "0.2", "--repeats", "1", "--json"]
    assert main(["bench", "--pipeline", str(pipeline_folder), *options]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    tasks = [row["task"] for row in rows]
    assert tasks.count("codec, encode") == tasks.count("codec, decode") == 4
    assert {"prior", "prior, guidance 3"} <= set(tasks)
    assert all(row["cpu_ratio"]["median"] > 0 for row in rows)
