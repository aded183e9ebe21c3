"""The plan: arithmetic of the estimate, what does not fit, and a plan beside a real run."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import Pipeline
from pipelines.rendering import calibration, plan
from pipelines.rendering.agenda import Task, make_batches
from pipelines.rendering.calibration import Calibration, Line, PriorCost, piece_key, prior_key
from pipelines.rendering.engine import RenderOptions, render
from pipelines.rendering.making import Maker
from pipelines.rendering.origin import describe_origin
from pipelines.rendering.plan import Actual, DoesNotFitError, Plan, plan_job
from pipelines.rendering.rows import Defaults, read_request

PLAN = Plan(1000, 10_000.0, 4000.0, 2 * 10**9, 8 * 10**9, 10**9, 5 * 10**9, 16, 0, 1, "cpu")
ROWS = [
    {"id": "a", "prompt": "calm", "duration_s": 1},
    {"id": "b", "prompt": "loud", "duration_s": 2, "format": "flac"},
    {"id": "c", "prompt": "calm", "duration_s": 1.5, "guidance": 1},
]


@pytest.fixture(scope="module")
def pipeline(pipeline_folder) -> Pipeline:
    pipeline = Pipeline.from_pretrained(pipeline_folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_a_line_goes_through_its_points_and_not_below_zero():
    line = Line(((2.0, 5.0), (4.0, 9.0)))
    assert [line.at(x) for x in (0.0, 2.0, 3.0, 10.0, -9.0)] == [1.0, 5.0, 7.0, 21.0, 0.0]
    assert Line(((2.0, 5.0),)).at(100.0) == 5.0


@settings(deadline=None)
@given(frames=st.integers(1, 300), reach=st.integers(1, 300), slope=st.floats(0, 1))
def test_a_batch_costs_the_sum_of_its_frames(frames, reach, slope):
    cost = PriorCost(Line(((0.0, 2.0), (1.0, 2.0 + slope))), reach, 3.0, 0, Line(((0, 0), (1, 1))))
    item = read_item("x", "y")
    task = Task((item, item), 2, (frames, 1))
    expected = sum(2.0 + slope * min(index + 0.5, reach) for index in range(frames))
    assert cost.seconds(task) == pytest.approx(expected + 3.0 * 2, rel=1e-6)


def read_item(prompt: str, negative: str | None):
    """An item with these prompts; nothing else of it is looked at."""
    from pipelines.rendering.item import RenderItem, Settings

    made = Settings(1.0, 3.0, 1.0, 8, None, 2, False, "wav", None)
    return RenderItem("a", prompt, negative, 1, 1, made)


pieces_s = st.lists(st.floats(0.1, 10), min_size=1, max_size=4).map(tuple)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 10), pieces_s), min_size=1, max_size=5), st.integers(1, 4))
def test_shared_out_work_ends_when_it_can(work, lanes):
    """No lane is idle while there is something to do: Graham's bounds (1969)."""
    total = sum(seconds + sum(pieces) for seconds, pieces in work)
    longest = max(seconds + max(pieces) for seconds, pieces in work)
    ends = plan.share_out(work, lanes)
    assert max(total / lanes, longest) - 1e-9 <= ends
    assert ends <= total / lanes + (1 - 1 / lanes) * longest + 1e-9


def test_pieces_wait_for_their_tokens_and_go_before_the_next_batch():
    work = [(4.0, (1.0, 1.0)), (2.0, (3.0,))]
    assert plan.share_out(work, 1) == 11
    assert plan.share_out(work, 2) == 6  # 4 + 1 + 1 beside 2 + 3
    assert plan.share_out([(0.0, (5.0,)), *work], 2) == 10  # 5 + 2 + 3 beside 4 + 1 + 1
    assert plan.share_out([], 2) == 0


def test_costs_are_measured_for_every_kind_of_work(pipeline, tmp_path):
    items = read_request(ROWS, pipeline, Defaults()).items
    batches = make_batches(items, pipeline.num_frames, 2)
    pieces = [(item, pipeline.num_frames(item.settings.duration_s)) for item in items]
    maker = Maker(pipeline, describe_origin(pipeline))
    costs = Calibration(maker, tmp_path).measure(batches, pieces)
    assert costs.prior.keys() == {(2, True), (2, False)}
    assert costs.pieces.keys() == {(2, False, "wav"), (2, False, "flac")}
    for task in batches:
        assert 0 < costs.prior[prior_key(task)].seconds(task) < 60
    for item, frames in pieces:
        cost = costs.pieces[piece_key(item)]
        assert 0 < cost.seconds.at(frames) < 60
        samples = frames / pipeline.codec.frame_rate * pipeline.codec.sample_rate
        if item.settings.format == "wav":
            assert cost.file_bytes.at(frames) == pytest.approx(6 * samples, rel=0.05)
    assert list(tmp_path.iterdir()) == []


def test_the_state_of_the_prior_is_counted_to_the_byte(pipeline, tmp_path):
    measured = Calibration(Maker(pipeline, describe_origin(pipeline)), tmp_path)
    config, item = pipeline.prior.config, read_item("x", None)
    one, reach = measured.state_of_one_row(item, 1)
    many, far = measured.state_of_one_row(item, 400)
    assert many - one == 399 * 4 * 2 * config.width * config.num_layers  # float32 keys and values
    assert (reach, far) == (1, 400)


def test_long_items_are_estimated_from_shorter_ones(pipeline, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(calibration, "LONGEST_PIECE_S", 1.0)
    monkeypatch.setattr(calibration, "MAX_POSITIONS", 200)
    measured = Calibration(Maker(pipeline, describe_origin(pipeline)), tmp_path)
    original = measured.make
    monkeypatch.setattr(measured, "make", lambda i, n: made.append(n) or original(i, n))
    items = read_request([ROWS[0] | {"duration_s": 20}], pipeline, Defaults()).items
    batches = make_batches(items, pipeline.num_frames, 1)
    costs = measured.measure(batches, [(items[0], 500)])
    assert made == [12, 12, 25]
    sizes = costs.pieces[piece_key(items[0])].file_bytes
    assert sizes.at(500) == pytest.approx(20 * 44100 * 6, rel=0.05)


def test_a_plan_stands_beside_the_run(pipeline, tmp_path):
    out = tmp_path / "new" / "renders"
    options = RenderOptions(batch_size=2)
    items = read_request(ROWS, pipeline, Defaults()).items
    planned = plan_job(pipeline, describe_origin(pipeline), items, out, options.batch_size)
    assert not out.exists()
    planned.check()
    assert (planned.items, planned.audio_s) == (3, 4.5)
    plan.write_plan(out, planned)
    assert plan.read_plan(out) == planned
    done = render(pipeline, ROWS, out, None, options)
    actual = plan.measure_run(out, done)
    assert actual.memory > 0
    assert actual.disk == pytest.approx(planned.disk, rel=0.2)
    lines = plan.compare(planned, actual)
    assert lines[0].split() == ["planned", "real"]
    assert lines[1].split() == ["items", "3", "3"]
    left = [*ROWS, {"id": "d", "prompt": "new"}]
    left = plan.items_left(read_request(left, pipeline, Defaults()).items, out)
    assert [item.id for item in left] == ["d"]


def test_tokens_are_planned_without_the_prior(pipeline, tmp_path):
    render(pipeline, ROWS[:1], tmp_path, None, RenderOptions())
    rows = [{"id": "again", "codes": str(tmp_path / "a.safetensors")}]
    items = read_request(rows, pipeline, Defaults()).items
    planned = plan_job(pipeline, describe_origin(pipeline), items, tmp_path, 4)
    assert planned.seconds > 0
    assert planned.items == 1


def test_nothing_left_is_a_plan_too(pipeline, tmp_path):
    planned = plan_job(pipeline, describe_origin(pipeline), [], tmp_path, 4)
    assert (planned.items, planned.seconds, planned.disk) == (0, 0, 0)
    assert plan.describe_plan(planned)[1].endswith("0.0 times as fast as it plays")


def test_threads_are_as_before(pipeline, tmp_path):
    before = torch.get_num_threads()
    items = read_request(ROWS[:1], pipeline, Defaults()).items
    plan_job(pipeline, describe_origin(pipeline), items, tmp_path, 1, workers=2)
    assert torch.get_num_threads() == before


def test_what_cannot_fit_is_refused():
    PLAN.check()
    with pytest.raises(DoesNotFitError, match=r"needs 2\.0 GB of memory, 1\.0 GB are available"):
        dataclasses.replace(PLAN, available_memory=10**9).check()
    with pytest.raises(DoesNotFitError, match=r"the files need 1\.0 GB, the disk has 5 MB"):
        dataclasses.replace(PLAN, free_disk=5 * 10**6).check()


def test_a_plan_is_said_in_words():
    assert plan.describe_plan(PLAN) == [
        "1000 items, 2.8 hours of audio",
        "about 1:06:40 on one process (cpu, batches of 16): 2.5 times as fast as it plays",
        "about 2.0 GB of memory at the peak, of 8.0 GB",
        "about 1.0 GB of files, 5.0 GB free",
    ]
    lines = plan.compare(PLAN, Actual(999, 9990.0, 3700.0, 10**9, 990 * 10**6))
    assert [line.split()[-2:] for line in lines[2:]] == [
        ["1:06:40", "1:01:40"],
        ["2.5", "2.7"],
        ["1.0", "GB"],
        ["990", "MB"],
    ]


def test_a_container_s_limit_counts(tmp_path):
    assert plan.cgroup_room(tmp_path) == 1 << 62
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert plan.cgroup_room(tmp_path) == 1 << 62
    (tmp_path / "memory.max").write_text("1000\n")
    assert plan.cgroup_room(tmp_path) == 500


@pytest.mark.parametrize("content", ["{", "[]", '{"items": 1}'])
def test_a_damaged_plan_is_named(tmp_path, content):
    assert plan.read_plan(tmp_path) is None
    (tmp_path / plan.NAME).write_text(content)
    with pytest.raises(ValueError, match=r"plan\.json is damaged"):
        plan.read_plan(tmp_path)


def test_sizes_read_well():
    assert [plan.size(n) for n in (0, 999, 1000, 2_500_000, 7e9, 1e13)] == [
        *("0 bytes", "999 bytes", "1 kB", "2 MB", "7.0 GB", "10000.0 GB"),
    ]
    assert plan.rate(1.0, 0.0) == "-"
    assert not math.isnan(PLAN.seconds)
