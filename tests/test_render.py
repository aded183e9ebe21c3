"""A job in one process: what comes out, that it is always the same, and that nothing stops it."""

import fcntl
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from tiny_pipeline import tiny_pipeline
from torch import Tensor

from pipelines import Pipeline
from pipelines.rendering.agenda import (
    Agenda,
    Failed,
    Finished,
    Task,
    Written,
    make_batches,
    rows_for,
)
from pipelines.rendering.crew import Solo, start_solo
from pipelines.rendering.engine import (
    ChangedItemsError,
    RenderOptions,
    read_good_rows,
    render,
    render_items,
)
from pipelines.rendering.job import read_status
from pipelines.rendering.making import Maker, encode_texts, one_thread
from pipelines.rendering.manifest import ManifestEntry, read_manifest
from pipelines.rendering.origin import describe_origin, hash_pipeline
from pipelines.rendering.progress import Progress
from pipelines.rendering.rows import Defaults, hash_file
from pipelines.rendering.tags import read_provenance
from pipelines.token_file import load_tokens

Row = dict[str, Any]
CHANGING = ("timings", "attempts")


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    pipeline = tiny_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_rows(count: int, seed: int = 0) -> list[Row]:
    """Short items of several lengths, settings and formats."""
    draw = random.Random(seed)
    return [
        {
            "id": f"item {index}",
            "prompt": draw.choice(["a slow waltz", "fast", "calm piano at night"]),
            "duration_s": draw.choice([0.11, 0.2, 0.3]),
            "format": draw.choice(["wav", "flac"]),
            "guidance": draw.choice([1.0, 3.0]),
            "steps": 1,
        }
        for index in range(count)
    ]


def contents(folder: Path) -> dict[str, Any]:
    """Every file a user sees, byte for byte, and the manifest but for clocks and attempts."""
    files: dict[str, Any] = {
        path.name: hash_file(path)
        for path in folder.iterdir()
        if path.is_file()
        and not path.name.startswith(".")
        and path.suffix not in (".json", ".jsonl")
    }
    for entry in read_manifest(folder).values():
        assert files[entry.audio] == entry.audio_sha256
        values = {name: value for name, value in entry.__dict__.items() if name not in CHANGING}
        values["machine"] = values["machine"]["device"]  # and not the size of batches
        files[f"entry of {entry.id}"] = values
    return files


# -- what comes out -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rendered(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three items in three formats."""
    folder = tmp_path_factory.mktemp("render") / "out"
    rows = [
        {"id": "a", "prompt": "a slow waltz", "duration_s": 0.5, "seed": 3},
        {"id": "b", "prompt": "fast", "duration_s": 0.7, "format": "flac", "loudness_lufs": -20},
        {"id": "c", "prompt": "calm", "negative_prompt": "fast", "format": "opus", "steps": 1},
    ]
    summary = pipeline.render(rows, folder, Defaults(duration_s=0.6))
    assert (summary.done, summary.failed, summary.exit_code) == (3, [], 0)
    assert summary.audio_s == pytest.approx(1.8)
    return folder


def test_the_folder_holds_audio_tokens_and_manifest_and_nothing_half_written(rendered: Path):
    names = {path.name for path in rendered.iterdir()}
    tokens = {"a.safetensors", "b.safetensors", "c.safetensors"}
    others = {"manifest.jsonl", "job.json", ".render.lock"}
    assert names == {"a.wav", "b.flac", "c.opus"} | tokens | others


def test_the_manifest_says_what_the_files_hold(rendered: Path, pipeline: Pipeline):
    entries = read_manifest(rendered)
    assert list(entries) == ["a", "b", "c"]
    for entry in entries.values():
        info = soundfile.info(rendered / entry.audio)
        assert (info.samplerate, info.channels) == (entry.sample_rate, entry.channels)
        assert info.duration == pytest.approx(entry.duration_s, abs=1e-3)
        assert entry.duration_s == pytest.approx(entry.settings["duration_s"], abs=1e-4)
        assert entry.tokens_sha256 == hash_file(rendered / entry.tokens)
        assert entry.pipeline_hash == hash_pipeline(pipeline)
        assert entry.versions["torch"] == torch.__version__
        assert entry.timings.keys() == {"prior_s", "decoder_s", "write_s", "finished"}
        assert entry.true_peak_db is None or entry.true_peak_db <= -1
    assert entries["b"].loudness_lufs == pytest.approx(-20, abs=0.05) or entries["b"].notes
    assert (entries["a"].seed, entries["a"].decoder_seed) == (3, 3)


def test_files_carry_their_provenance(rendered: Path):
    for entry in read_manifest(rendered).values():
        provenance = read_provenance(rendered / entry.audio)
        assert provenance is not None
        for name in ("prompt", "negative_prompt", "seed", "decoder_seed", "settings", "pipeline"):
            assert getattr(provenance, name) == getattr(entry, name)


def test_tokens_are_those_of_a_call_and_decode_to_the_same_audio(
    rendered: Path, pipeline: Pipeline
):
    tokens = load_tokens(rendered / "a.safetensors")
    song = pipeline("a slow waltz", 0.5, 3)
    assert torch.equal(tokens.codes, song.codes[0])
    samples, _ = soundfile.read(rendered / "a.wav", dtype="float32")
    assert torch.allclose(torch.from_numpy(samples.T), song.audio[0], atol=2**-23)


def test_items_are_rendered_again_from_their_tokens(
    rendered: Path, pipeline: Pipeline, tmp_path: Path
):
    row = {"id": "a", "codes": str(rendered / "a.safetensors")}
    render(pipeline, [row], tmp_path / "again")
    for format in ("wav", "safetensors"):
        if format == "safetensors":
            again = load_tokens(tmp_path / "again" / "a.safetensors")
            assert torch.equal(again.codes, load_tokens(rendered / "a.safetensors").codes)
    new, _ = soundfile.read(tmp_path / "again" / "a.wav")
    old, _ = soundfile.read(rendered / "a.wav")
    assert (new == old).all()


OLDER_PROCESSOR = {  # what PyTorch, oneDNN and MKL compute on one without AVX
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
}
TOLERANCE = 5e-3


@pytest.mark.slow
def test_another_processor_gives_the_same_sound_to_a_tolerance(
    rendered: Path, pipeline_folder: Path, tmp_path: Path
):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"id": "a", "codes": str(rendered / "a.safetensors")}))
    command = [sys.executable, "-m", "pipelines", "render", str(rows), "--quiet"]
    command += ["--out", str(tmp_path / "out"), "--pipeline", str(pipeline_folder)]
    subprocess.run(
        command, cwd=Path(__file__).parents[1], env=os.environ | OLDER_PROCESSOR, check=True
    )
    new, _ = soundfile.read(tmp_path / "out" / "a.wav")
    old, _ = soundfile.read(rendered / "a.wav")
    assert abs(new - old).max() <= TOLERANCE


def test_equal_pipelines_have_equal_hashes(pipeline: Pipeline, pipeline_folder: Path):
    assert hash_pipeline(Pipeline.from_pretrained(pipeline_folder)) == hash_pipeline(pipeline)
    other = tiny_pipeline()
    assert other.decoder is not None
    with torch.no_grad():
        next(other.decoder.parameters()).view(-1)[0] += 1e-3
    assert hash_pipeline(other) != hash_pipeline(pipeline)


# -- always the same ------------------------------------------------------------------------


def test_an_item_does_not_depend_on_batch_order_or_company(pipeline: Pipeline, tmp_path: Path):
    """File for file: alone, shuffled, in other batches."""
    rows = make_rows(9)
    render(pipeline, rows, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    shuffled = random.Random(1).sample(rows, len(rows))
    render(pipeline, shuffled, tmp_path / "shuffled", options=RenderOptions(batch_size=5))
    assert contents(tmp_path / "shuffled") == expected
    for row in rows[:2]:
        render(pipeline, [row], tmp_path / "alone")
    alone = contents(tmp_path / "alone")
    assert alone == {name: expected[name] for name in alone}
    assert len(alone) == 6


def test_an_item_does_not_depend_on_the_number_of_threads(pipeline: Pipeline, tmp_path: Path):
    """File for file: every task computes on one thread, however many are at work."""
    rows = make_rows(9, seed=2)
    for threads in (1, 3):
        with threads_of_torch(threads):
            render(pipeline, rows, tmp_path / str(threads), options=RenderOptions(batch_size=2))
            assert torch.get_num_threads() == threads
    assert contents(tmp_path / "3") == contents(tmp_path / "1")


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Meeting(Maker):
    """The first piece to be finished and the second batch to be written wait for one another."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline, describe_origin(pipeline))
        self.both = threading.Barrier(2, timeout=60)
        self.batches, self.pieces = itertools.count(), itertools.count()

    def write(self, task: Task) -> Written:
        if next(self.batches) == 1:
            self.both.wait()
        return super().write(task)

    def finish(self, task: Task) -> Finished:
        if next(self.pieces) == 0:
            self.both.wait()
        return super().finish(task)


def test_one_batch_is_written_while_another_is_finished(pipeline: Pipeline):
    rows = [{"id": str(index), "prompt": "x", "duration_s": 0.1} for index in range(4)]
    items = read_good_rows(pipeline, rows, Defaults()).items
    maker = Meeting(pipeline)
    with ThreadPoolExecutor(2) as pool:
        agenda = Agenda.of(items, pipeline.num_frames, 2)
        outcomes = list(Solo(maker, pool, lanes=2).work(agenda))
    assert sorted(outcome.item.id for outcome in outcomes) == ["0", "1", "2", "3"]
    assert not maker.both.broken
    assert {outcome.attempts for outcome in outcomes} == {1}


def test_tasks_under_way_end_where_a_job_is_stopped(pipeline: Pipeline):
    rows = [{"id": "a", "prompt": "x", "duration_s": 0.1}]
    item = read_good_rows(pipeline, rows, Defaults()).items[0]
    with start_solo(pipeline, describe_origin(pipeline)) as solo:
        written = solo.maker.perform(Task((item,), 1, (3,)))
        assert isinstance(written, Written)
    for codes in (None, written.codes[0]):
        stopped = solo.maker.perform(Task((item,), 1, (3,), codes))
        assert stopped == Failed("InterruptedError: stopped")


def test_batches_hold_like_items_and_fill_up_by_length(pipeline: Pipeline):
    rows = [*make_rows(40), {"id": "long", "prompt": "x", "duration_s": 19.0}]
    items = read_good_rows(pipeline, rows, Defaults()).items
    batches = make_batches(items, pipeline.num_frames, 8)
    assert sorted(item.id for batch in batches for item in batch.items) == sorted(
        item.id for item in items
    )
    assert batches[0].items[0].id == "long"
    for batch in batches:
        assert len({item.settings.guidance for item in batch.items}) == 1
        assert list(batch.frames) == sorted(batch.frames, reverse=True)
        assert len(batch.items) <= batch.num_rows == rows_for(batch.frames[0], 8)


def test_longer_items_are_written_fewer_at_once():
    assert [rows_for(frames, 16) for frames in (1, 1024, 1025, 2048, 4096, 99_999)] == [
        *(16, 16, 8, 8),
        *(4, 1),
    ]


# -- resume ---------------------------------------------------------------------------------


def test_what_is_there_is_verified_and_skipped(pipeline: Pipeline, tmp_path: Path):
    rows = make_rows(5)
    render(pipeline, rows[:4], tmp_path)
    old = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("item*")}
    (tmp_path / read_manifest(tmp_path)["item 1"].audio).write_bytes(b"damaged")
    (tmp_path / "item 2.safetensors").unlink()
    summary = render(pipeline, rows, tmp_path)
    assert (summary.skipped, summary.done) == (2, 3)
    assert summary.damaged == ["item 1", "item 2"]
    for index in (0, 3):
        name = read_manifest(tmp_path)[f"item {index}"].audio
        assert (tmp_path / name).stat().st_mtime_ns == old[name]
    render(pipeline, rows, tmp_path / "whole")
    assert contents(tmp_path) == contents(tmp_path / "whole")
    assert list(read_manifest(tmp_path)) == [row["id"] for row in rows]


def test_changed_settings_are_refused_unless_forced(pipeline: Pipeline, tmp_path: Path):
    rows = make_rows(3)
    render(pipeline, rows, tmp_path)
    before = contents(tmp_path)
    changed = [rows[0] | {"guidance": 2.0}, rows[1], rows[2] | {"format": "ogg"}]
    with pytest.raises(ChangedItemsError, match=r"item 0: guidance was 3\.0, is now 2\.0") as error:
        render(pipeline, changed, tmp_path)
    assert len(error.value.faults) == 2
    assert contents(tmp_path) == before
    summary = render(pipeline, changed, tmp_path, options=RenderOptions(force=True))
    assert (summary.done, summary.skipped) == (2, 1)
    render(pipeline, changed, tmp_path / "fresh")
    assert contents(tmp_path / "fresh") == contents(tmp_path)


def test_another_pipeline_is_a_changed_setting(pipeline: Pipeline, tmp_path: Path):
    render(pipeline, make_rows(1), tmp_path)
    with pytest.raises(ChangedItemsError, match="item 0: pipeline was"):
        render(tiny_pipeline(seed=1), make_rows(1), tmp_path)


def test_items_of_other_rows_stay(pipeline: Pipeline, tmp_path: Path):
    rows = make_rows(4)
    render(pipeline, rows[:1], tmp_path)
    render(pipeline, rows[1:], tmp_path)
    assert len(read_manifest(tmp_path)) == 4
    status = read_status(tmp_path)
    assert (status.items, status.done) == (3, 3)
    assert status.audio_s == pytest.approx(status.total_audio_s, abs=1e-3)


def test_a_torn_last_line_is_dropped_and_any_other_is_an_error(pipeline: Pipeline, tmp_path: Path):
    rows = make_rows(3)
    render(pipeline, rows, tmp_path)
    expected, path = contents(tmp_path), tmp_path / "manifest.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    (tmp_path / ".item 2.wav.part").write_bytes(b"half")
    summary = render(pipeline, rows, tmp_path)
    assert (summary.skipped, summary.done) == (2, 1)
    assert contents(tmp_path) == expected
    assert not list(tmp_path.glob(".*.part"))
    lines = path.read_bytes().split(b"\n")
    for damaged, message in (
        (lines[0] + b"\n" + whole, "line 2: the id 'item 0' occurs twice"),
        (b"{}\n" + whole, "line 1 is not an entry"),
        (b"\xff\n" + whole, "line 1 is not JSON"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            render(pipeline, rows, tmp_path)


def test_two_runs_at_once_are_refused(pipeline: Pipeline, tmp_path: Path):
    with (tmp_path / ".render.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another run is rendering into"):
            render(pipeline, make_rows(1), tmp_path)


def test_a_strangers_file_is_not_replaced(pipeline: Pipeline, tmp_path: Path):
    (tmp_path / "item 0.safetensors").write_bytes(b"mine")
    with pytest.raises(ValueError, match="exists and is no render's"):
        render(pipeline, make_rows(1), tmp_path)


def in_child(work: Callable[[], object]) -> int:
    """Run in a forked process, on two lanes."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            torch.set_num_threads(2)
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def kill_and_resume(pipeline: Pipeline, rows: list[Row], folder: Path, draw: random.Random) -> int:
    """Kill the run -9 at random moments, ten times unless it ends before, then let it end."""
    for kills in range(10):
        child = in_child(lambda: render(pipeline, rows, folder))
        wanted = len(read_lines(folder)) + draw.randint(0, len(rows) // 3)
        pause_s = draw.random() * 0.05
        while len(read_lines(folder)) < min(wanted, len(rows)):
            if os.waitpid(child, os.WNOHANG) != (0, 0):
                return kills
            time.sleep(0.002)
        time.sleep(pause_s)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return kills
        assert os.WTERMSIG(status) == signal.SIGKILL
    child = in_child(lambda: render(pipeline, rows, folder))
    assert os.waitpid(child, 0)[1] == 0
    return 10


def read_lines(folder: Path) -> dict[str, ManifestEntry]:
    """The manifest while another process writes it: an id never occurs twice."""
    return read_manifest(folder)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))]
)
def test_a_run_killed_at_random_moments_equals_an_undisturbed_one(
    pipeline: Pipeline, tmp_path: Path, seed: int
):
    rows = make_rows(100 if seed else 40, seed)
    child = in_child(lambda: render(pipeline, rows, tmp_path / "undisturbed"))
    assert os.waitpid(child, 0)[1] == 0
    kills = kill_and_resume(pipeline, rows, tmp_path / "killed", random.Random(seed))
    assert kills > 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")
    assert len(read_manifest(tmp_path / "killed")) == len(rows)


def test_a_killed_run_is_told_from_a_running_one(pipeline: Pipeline, tmp_path: Path):
    rows = make_rows(24)
    child = in_child(lambda: render(pipeline, rows, tmp_path))
    while not read_manifest(tmp_path):
        time.sleep(0.002)
    os.kill(child, signal.SIGSTOP)
    status = read_status(tmp_path)
    assert (status.state, status.items) == ("running", 24)
    assert 0 < status.done < 24
    assert status.left_s is not None
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert read_status(tmp_path).state == "killed"
    render(pipeline, rows, tmp_path)
    status = read_status(tmp_path)
    assert (status.state, status.done, status.left_s) == ("finished", 24, None)


def test_ctrl_c_stops_cleanly_and_the_run_goes_on_later(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    rows = make_rows(6)
    with monkeypatch.context() as patch, threads_of_torch(2):
        patch.setattr(Progress, "draw", interrupt)  # after the first item
        with pytest.raises(KeyboardInterrupt):
            render(pipeline, rows, tmp_path)
    status = read_status(tmp_path)
    assert (status.state, status.message, status.done) == ("stopped", "KeyboardInterrupt", 1)
    summary = render(pipeline, rows, tmp_path)
    assert (summary.done, summary.skipped) == (5, 1)


def test_a_full_disk_stops_cleanly_and_the_run_goes_on_later(pipeline: Pipeline, tmp_path: Path):
    """A limit on the size of files stands in for the disk: writing fails in the same way."""
    rows = [row | {"format": "wav", "duration_s": 0.2} for row in make_rows(4)]
    rows[2] |= {"id": "large", "duration_s": 2.0, "guidance": rows[3]["guidance"]}
    report = tmp_path / "report"

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            render(pipeline, rows, tmp_path / "out", options=RenderOptions(batch_size=1))
        except OSError as error:
            report.write_text(str(error))

    os.waitpid(in_child(work), 0)
    assert "make room and run the same command again" in report.read_text()
    assert not list((tmp_path / "out").glob(".*.part"))
    assert not (tmp_path / "out" / "large.wav").exists()
    status = read_status(tmp_path / "out")
    assert status.state == "stopped"
    assert "no room to write" in status.message
    summary = render(pipeline, rows, tmp_path / "out")
    assert (summary.done + summary.skipped, summary.failed) == (4, [])


# -- bad items ------------------------------------------------------------------------------


class Fragile(Pipeline):
    """Fails to decode some seeds a number of times."""

    failures: dict[int, int]

    def decode_stream(
        self, blocks: Iterable[Tensor], seeds: list[int], num_inference_steps: int | None
    ) -> Iterator[Tensor]:
        if self.failures.get(seeds[0], 0) > 0:
            self.failures[seeds[0]] -= 1
            raise RuntimeError(f"no sound\nfor {seeds[0]}")
        return super().decode_stream(blocks, seeds, num_inference_steps)


@pytest.fixture
def fragile() -> Fragile:
    pipeline = tiny_pipeline()
    pipeline.__class__ = Fragile
    assert isinstance(pipeline, Fragile)
    return pipeline


def test_a_bad_item_is_tried_twice_recorded_and_does_not_stop_the_others(
    fragile: Fragile, tmp_path: Path
):
    rows = [
        {"id": str(index), "prompt": "x", "duration_s": 0.1, "seed": index} for index in range(5)
    ]
    fragile.failures = {1: 1, 3: 2}
    log = tmp_path / "log"
    summary = render(fragile, rows, tmp_path / "out", options=RenderOptions(log_file=log))
    assert (summary.done, summary.exit_code) == (4, 1)
    entries = read_manifest(tmp_path / "out")
    assert [entries[id].attempts for id in "01234"] == [1, 2, 1, 2, 1]
    assert (entries["3"].status, entries["3"].error) == ("failed", "RuntimeError: no sound for 3")
    assert not (tmp_path / "out" / "3.wav").exists()
    assert '"RuntimeError: no sound for 3"' in log.read_text()
    assert read_status(tmp_path / "out").failed == 1
    summary = render(fragile, rows, tmp_path / "out")
    assert (summary.done, summary.skipped, summary.exit_code) == (1, 4, 0)
    assert list(read_manifest(tmp_path / "out")) == list("01234")


def test_tokens_that_vanish_are_a_bad_item(rendered: Path, pipeline: Pipeline, tmp_path: Path):
    path = tmp_path / "a.safetensors"
    path.write_bytes((rendered / "a.safetensors").read_bytes())
    rows = [{"id": "a", "codes": str(path)}, {"id": "b", "prompt": "x", "duration_s": 0.1}]
    request = read_good_rows(pipeline, rows, Defaults())
    path.unlink()
    summary = render_items(pipeline, request, tmp_path / "out", RenderOptions())
    assert summary.done == 1
    assert [entry.id for entry in summary.failed] == ["a"]
    assert "does not exist" in summary.failed[0].error


def test_a_batch_that_fails_is_tried_item_by_item(pipeline: Pipeline):
    items = read_good_rows(
        pipeline, [{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"}], Defaults()
    ).items
    agenda = Agenda.of(items, pipeline.num_frames, 4)
    task = agenda.next_task()
    assert task is not None
    assert agenda.report(task, Failed("no memory")) == []
    alone = [agenda.next_task(), agenda.next_task()]
    assert [task and (task.items, task.attempt, task.num_rows) for task in alone] == [
        ((items[0],), 2, 4),
        ((items[1],), 2, 4),
    ]
    assert agenda.next_task() is None
    assert alone[0] is not None
    assert [outcome.item.id for outcome in agenda.report(alone[0], Failed("again"))] == ["a"]


def test_options_are_checked():
    for name, value in (("batch_size", 0), ("workers", -1), ("batch_size", 2000)):
        with pytest.raises(ValueError, match=name):
            RenderOptions(**{name: value})
    with pytest.raises(ValueError, match="choose either"):
        RenderOptions(workers=2, scheduler="tcp://127.0.0.1:1")


def test_logits_do_not_depend_on_the_place_in_the_batch_to_the_last_bit(pipeline: Pipeline):
    """What makes tokens independent: a last bit is enough to draw another one now and then."""
    prior = pipeline.prior
    texts = ["a slow waltz", "fast", "calm piano at night", "x"]
    draws = torch.Generator().manual_seed(0)
    codes = torch.randint(0, prior.codebook_size, (4, prior.num_codebooks, 40), generator=draws)

    def logits(rows: list[int]) -> Tensor:
        with torch.inference_mode(), one_thread():
            text = encode_texts(pipeline, [texts[row] for row in rows])
            state = prior.init_state(text.states, text.mask, 48)
            hidden = [prior.prefill(codes[rows][..., :0], state)]
            hidden += [prior.decode_one_frame(codes[rows][..., t], state) for t in range(40)]
            return prior.first_head(torch.stack(hidden, dim=1))

    expected = logits([0, 1, 2, 3, 0, 1])
    for rows in ([1, 0, 3, 2, 1, 0], [2, 2, 2, 2, 2, 2], [3, 0, 0, 0, 0, 0]):
        assert torch.equal(logits(rows), expected[rows])
