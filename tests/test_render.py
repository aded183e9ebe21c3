"""A job in one process: what comes out, that it is always the same, and that nothing stops it."""

import fcntl
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from small_jobs import contents, make_rows
from tiny_pipeline import tiny_pipeline
from torch import Tensor

from codec.process_settings import cpu_threads
from pipelines import Pipeline
from pipelines.inference.token_file import load_tokens
from pipelines.rendering.engine import ChangedItemsError, RenderOptions, render
from pipelines.rendering.item import RenderItem
from pipelines.rendering.job import read_status
from pipelines.rendering.manifest import read_manifest
from pipelines.rendering.origin import describe_origin, hash_pipeline
from pipelines.rendering.render_queue import RenderedFiles, RenderFailure, RenderQueue
from pipelines.rendering.renderer import TEXT_LENGTH, Renderer
from pipelines.rendering.rows import Defaults, hash_file, read_request
from pipelines.rendering.tags import read_provenance


def read_items(pipeline: Pipeline, *rows: dict[str, Any]) -> list[RenderItem]:
    return read_request(rows, pipeline, Defaults()).items


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
    summary = render(pipeline, rows, folder, Defaults(duration_s=0.6))
    assert (summary.done, summary.failed, summary.exit_code) == (3, [], 0)
    assert summary.audio_s == pytest.approx(1.8)
    return folder


def test_the_manifest_says_what_the_files_hold(rendered: Path, pipeline: Pipeline):
    entries = read_manifest(rendered)
    assert list(entries) == ["a", "b", "c"]
    files = {name for entry in entries.values() for name in (entry.audio, entry.tokens)}
    others = {"manifest.jsonl", "job.json", ".render.lock"}
    assert {path.name for path in rendered.iterdir()} == files | others
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
        provenance = read_provenance(rendered / entry.audio)
        assert provenance is not None
        for name in ("prompt", "negative_prompt", "seed", "decoder_seed", "settings", "pipeline"):
            assert getattr(provenance, name) == getattr(entry, name)
    assert entries["b"].loudness_lufs == pytest.approx(-20, abs=0.05) or entries["b"].notes
    assert (entries["a"].seed, entries["a"].decoder_seed) == (3, 3)


def test_tokens_are_those_of_a_call_and_decode_to_the_same_audio(rendered, pipeline):
    tokens = load_tokens(rendered / "a.safetensors")
    song = pipeline("a slow waltz", 0.5, 3)
    assert torch.equal(tokens.codes, song.codes[0])
    samples, _ = soundfile.read(rendered / "a.wav", dtype="float32")
    assert torch.allclose(torch.from_numpy(samples.T), song.audio[0], atol=2**-23)


def test_items_are_rendered_again_from_their_tokens(rendered, pipeline, tmp_path):
    render(pipeline, [{"id": "a", "codes": str(rendered / "a.safetensors")}], tmp_path)
    again = load_tokens(tmp_path / "a.safetensors")
    assert torch.equal(again.codes, load_tokens(rendered / "a.safetensors").codes)
    assert largest_difference(tmp_path / "a.wav", rendered / "a.wav") == 0


def largest_difference(one: Path, other: Path) -> float:
    return abs(soundfile.read(one)[0] - soundfile.read(other)[0]).max()


OLDER_PROCESSOR = {  # what PyTorch, oneDNN and MKL compute on one without AVX
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
}
TOLERANCE = 5e-3


@pytest.mark.slow
def test_another_processor_gives_the_same_sound_to_a_tolerance(rendered, pipeline_folder, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"id": "a", "codes": str(rendered / "a.safetensors")}))
    command = [sys.executable, "-m", "pipelines", "render", str(rows), "--quiet"]
    command += ["--output", str(tmp_path / "out"), "--pipeline", str(pipeline_folder)]
    subprocess.run(
        command, cwd=Path(__file__).parents[1], env=os.environ | OLDER_PROCESSOR, check=True
    )
    assert largest_difference(tmp_path / "out" / "a.wav", rendered / "a.wav") <= TOLERANCE


def test_equal_pipelines_have_equal_hashes(pipeline: Pipeline, pipeline_folder: Path):
    assert hash_pipeline(Pipeline.from_pretrained(pipeline_folder)) == hash_pipeline(pipeline)
    other = tiny_pipeline()
    assert other.decoder is not None
    with torch.no_grad():
        next(other.decoder.parameters()).view(-1)[0] += 1e-3
    assert hash_pipeline(other) != hash_pipeline(pipeline)
    other = tiny_pipeline()
    other.register_to_config(fine_temperature=0.5)
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
    render(pipeline, rows[:1], tmp_path / "alone")
    alone = contents(tmp_path / "alone")
    assert alone == {name: expected[name] for name in alone}
    assert len(alone) == 3


def test_an_item_does_not_depend_on_the_number_of_threads(pipeline: Pipeline, tmp_path: Path):
    """File for file: every task computes on one thread, however many are at work."""
    rows = make_rows(9, seed=2)
    for threads in (1, 3):
        with cpu_threads(threads):
            render(pipeline, rows, tmp_path / str(threads), options=RenderOptions(batch_size=2))
            assert torch.get_num_threads() == threads
    assert contents(tmp_path / "3") == contents(tmp_path / "1")


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
    assert len(error.value.changes) == 2
    assert contents(tmp_path) == before
    with pytest.raises(ChangedItemsError, match="item 0: pipeline was"):
        render(tiny_pipeline(seed=1), rows, tmp_path)
    summary = render(pipeline, changed, tmp_path, options=RenderOptions(force=True))
    assert (summary.done, summary.skipped) == (2, 1)
    render(pipeline, changed, tmp_path / "fresh")
    assert contents(tmp_path / "fresh") == contents(tmp_path)


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
    (tmp_path / ".01234567.partial.item 2.wav").write_bytes(b"half")
    summary = render(pipeline, rows, tmp_path)
    assert (summary.skipped, summary.done) == (2, 1)
    assert contents(tmp_path) == expected
    assert not list(tmp_path.glob(".*.partial.*"))
    lines = path.read_bytes().split(b"\n")
    for damaged, message in (
        (lines[0] + b"\n" + whole, "line 2: the id 'item 0' occurs twice"),
        (b"{}\n" + whole, "line 1 is not an entry"),
        (b"\xff\n" + whole, "line 1 is not JSON"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            render(pipeline, rows, tmp_path)


def test_folders_of_others_are_refused(pipeline: Pipeline, tmp_path: Path):
    (tmp_path / "item 0.safetensors").write_bytes(b"mine")
    with pytest.raises(ValueError, match="exists and is no render's"):
        render(pipeline, make_rows(1), tmp_path)
    with (tmp_path / ".render.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another run is rendering into"):
            render(pipeline, make_rows(1), tmp_path)


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


def test_a_bad_item_is_tried_twice_recorded_and_does_not_stop_the_others(fragile, tmp_path):
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


def test_tokens_are_read_with_the_rows(rendered: Path, pipeline: Pipeline, tmp_path: Path):
    path = tmp_path / "a.safetensors"
    path.write_bytes((rendered / "a.safetensors").read_bytes())
    items = read_items(pipeline, {"id": "a", "codes": str(path)})
    path.unlink()
    task = RenderQueue(items, pipeline.num_frames, 1).next_task()
    assert task is not None
    result = Renderer(pipeline, describe_origin(pipeline)).perform(task)
    assert isinstance(result, RenderedFiles)


def test_a_batch_that_fails_is_tried_item_by_item(pipeline: Pipeline):
    items = read_items(pipeline, {"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"})
    queue = RenderQueue(items, pipeline.num_frames, 4)
    task = queue.next_task()
    assert task is not None
    assert queue.report(task, RenderFailure("no memory")) == []
    first, second = queue.next_task(), queue.next_task()
    assert first == replace(task, items=(items[0],), frames=task.frames[:1], attempt=2)
    assert second is not None
    assert second.items == (items[1],)
    assert queue.next_task() is None
    (given_up,) = queue.report(first, RenderFailure("again"))
    assert (given_up.item, given_up.attempts) == (items[0], 2)


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
        with torch.inference_mode(), cpu_threads(1):
            text = pipeline.conditioner.encode([texts[row] for row in rows]).padded(TEXT_LENGTH)
            state = prior.init_state(text, 48)
            hidden = [prior.prefill(codes[rows][..., :0], state)]
            hidden += [prior.decode_one_frame(codes[rows][..., t], state) for t in range(40)]
            return prior.first_head(torch.stack(hidden, dim=1))

    expected = logits([0, 1, 2, 3, 0, 1])
    for rows in ([1, 0, 3, 2, 1, 0], [2, 2, 2, 2, 2, 2], [3, 0, 0, 0, 0, 0]):
        assert torch.equal(logits(rows), expected[rows])
