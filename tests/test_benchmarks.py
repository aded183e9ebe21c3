"""Ours beside its peers: the arithmetic, and (slowly) that every peer can be built and run."""

import json
from pathlib import Path

import pytest
import torch
from tiny_prior import tiny_prior

from pipelines.benchmarks.bandwidth import bytes_per_frame, copy_bandwidth
from pipelines.benchmarks.bench import render_result
from pipelines.benchmarks.contest import Contest, Result, Runner, Spread, hold, ratio
from pipelines.cli import main
from pipelines.inference.quantization import quantize_linear

SECONDS = Spread(0.002, 0.001, 0.003)


def test_ratios_are_taken_round_by_round():
    assert ratio([4.0, 8.0, 30.0], [2.0, 2.0, 3.0]) == Spread(4.0, 2.0, 10.0)


def test_runners_take_turns_after_a_round_that_does_not_count(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("time.process_time", lambda: 2 * clock[0])
    order = []

    def runner(name: str, seconds: float) -> Runner:
        def work() -> None:
            order.append(name)
            clock[0] += seconds

        return Runner(name, work, 7)

    contest = Contest("task", "frame", 4, runner("a", 1.0), [runner("b", 3.0), runner("c", 0.5)])
    fast, slow = hold(contest, repeats=2)[::-1]
    assert order == ["a", "b", "c"] * 3
    assert (slow.peer, fast.peer) == ("b", "c")
    assert slow.wall_ratio.median == slow.cpu_ratio.median == 3.0
    assert fast.wall_ratio == Spread(0.5, 0.5, 0.5)
    assert slow.our_seconds.median == 0.25
    assert slow.our_cpu_seconds.median == 0.5
    assert slow.threads == torch.get_num_threads()


def test_a_result_as_text():
    result = Result(
        *("prior", "frame", 1, "partita", "MusicGen", 10_800_000, 9_500_000),
        *(SECONDS, Spread(0.008, 0.008, 0.008), SECONDS, SECONDS),
        *(Spread(4.0, 3.5, 4.25), Spread(2.0, 1.0, 3.0)),
    )
    assert render_result(result).split() == [
        *("prior", "MusicGen", "1", "2.0", "ms/frame", "8.0"),
        *("4.00x", "(3.50-4.25)", "2.00x", "(1.00-3.00)", "10.8M/9.5M"),
    ]


@pytest.mark.parametrize("backbone", ["transformer", "lstm"])
def test_a_frame_reads_every_weight_but_the_tables_and_the_texts(backbone: str):
    prior = tiny_prior(backbone, num_codebooks=2)
    unread = [prior.embedding.weight, prior.start, prior.null_text, prior.text_norm.weight]
    assert prior.depth is not None
    unread += [prior.depth.embeddings[0].weight]
    unread += [block.text_attention.key_value.weight for block in prior.network.blocks]
    everything = sum(tensor.nbytes for tensor in prior.parameters())
    weights = everything - sum(tensor.nbytes for tensor in unread)
    one = bytes_per_frame(prior, num_rows=1, num_frames=10, num_tokens=0)
    layers = 2 if backbone == "transformer" else 1
    assert one == weights + layers * 5 * 2 * 32 * 4  # five earlier frames on average
    two = bytes_per_frame(prior, num_rows=2, num_frames=10, num_tokens=3)
    assert two == weights + 2 * (layers * 5 + 2 * 3) * 2 * 32 * 4


def test_a_window_bounds_what_a_frame_reads_and_int8_quarters_the_weights():
    near, far = tiny_prior("transformer", sliding_window=4), tiny_prior("transformer")
    assert bytes_per_frame(near, 1, 1000, 0) < bytes_per_frame(far, 1, 1000, 0)
    before = bytes_per_frame(near, 1, 1, 0)
    quantize_linear(near, "int8")
    assert bytes_per_frame(near, 1, 1, 0) < 0.4 * before


def test_a_copy_takes_time():
    assert 0 < copy_bandwidth(1_000_000, repeats=3) < 1e13


@pytest.mark.slow
def test_every_peer_runs(pipeline_folder: Path, capsys: pytest.CaptureFixture[str]):
    options = ["--peers", "--threads", "1", "--duration", "0.2", "--repeats", "1", "--json"]
    assert main(["bench", "--pipeline", str(pipeline_folder), *options]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    tasks = [row["task"] for row in rows]
    assert tasks.count("codec, encode") == tasks.count("codec, decode") == 4
    assert {"prior", "prior, guidance 3"} <= set(tasks)
    assert all(row["cpu_ratio"]["median"] > 0 for row in rows)
