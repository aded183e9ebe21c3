"""Rows to items: what is taken, what every bad row says, and that seeds stay."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipeline import tiny_pipeline

from pipelines import Pipeline, render
from pipelines.inference.token_file import describe_codes, save_tokens
from pipelines.rendering.row_limits import RowLimits
from pipelines.rendering.rows import BadRowsError, Defaults, RenderRequest, read_request


def read(pipeline: Pipeline, *rows: Any, **defaults: Any) -> RenderRequest:
    return read_request(list(rows), pipeline, Defaults(**defaults))


def fault(pipeline: Pipeline, row: Any, **defaults: Any) -> str:
    """The one fault of one row."""
    request = read(pipeline, row, **defaults)
    assert request.items == []
    assert [fault.line for fault in request.faults] == [1], request.faults
    return request.faults[0].message


def test_defaults_come_from_the_pipeline_then_the_caller_then_the_row(pipeline: Pipeline):
    rows = [{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "x", "guidance": 1.5, "steps": 1}]
    plain = read(pipeline, *rows).items
    assert [item.settings.guidance for item in plain] == [pipeline.config.guidance, 1.5]
    assert [item.settings.num_inference_steps for item in plain] == [2, 1]
    assert plain[0].settings.top_k == pipeline.config.top_k
    given = read(pipeline, *rows, guidance=2.0, steps=4, negative_prompt="drums").items
    assert [item.settings.guidance for item in given] == [2.0, 1.5]
    assert [item.settings.num_inference_steps for item in given] == [4, 1]
    assert [item.negative_prompt for item in given] == ["drums", "drums"]


def test_a_seed_that_is_not_given_follows_from_the_id_alone(pipeline: Pipeline):
    one = read(pipeline, {"id": "a", "prompt": "x"}).items[0]
    other = read(pipeline, {"id": "b", "prompt": "x"}, {"id": "a", "prompt": "y"}).items
    assert one.seed == other[1].seed == one.decoder_seed
    assert other[0].seed != one.seed
    assert one.seed == 138581583  # a change would render other music from old row files


def test_variations_count_up(pipeline: Pipeline):
    row = {"id": "a", "prompt": "x", "seed": 7, "decoder_seed": 2, "num_variations": 3}
    items = read(pipeline, row).items
    assert [item.id for item in items] == ["a-0", "a-1", "a-2"]
    assert [item.seed for item in items] == [7, 8, 9]
    assert [item.decoder_seed for item in items] == [2, 3, 4]


def test_csv_cells_are_read_as_their_fields_want(pipeline: Pipeline, tmp_path: Path):
    (tmp_path / "rows.csv").write_text("id,prompt,steps,duration_s\n007,x,,1.5\na,x,two,\n")
    request = read_request(tmp_path / "rows.csv", pipeline, Defaults())
    assert request.items == read(pipeline, {"id": "007", "prompt": "x", "duration_s": 1.5}).items
    (fault,) = request.faults
    assert str(fault) == "line 3 (a): steps must be a whole number, got 'two'"


GOOD = {"id": "a", "prompt": "x"}
BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "x"}, "id is missing"),
    ({"id": "a"}, "prompt is missing"),
    ({"id": "a", "prompt": None}, "prompt is missing"),
    ({"id": "a", "prompt": "  "}, "prompt must be a text that is not empty"),
    ({"id": "a", "prompt": 3}, "prompt must be a text that is not empty"),
    ({"id": "a", "prompt": "\ud800"}, "half a surrogate pair"),
    ({"id": "a", "prompt": "x" * 70}, "prompt may have at most 64 tokens, got 72"),
    (GOOD | {"negative_prompt": "x" * 70}, "negative_prompt may have at most"),
    (GOOD | {"tempo": 3}, "there is no field 'tempo'"),
    (GOOD | {"duration_s": 0}, r"duration_s must lie in \(0, 20\], got 0"),
    (GOOD | {"duration_s": 21}, r"duration_s must lie in \(0, 20\]"),
    (GOOD | {"duration_s": "1"}, "duration_s must be a finite number"),
    (GOOD | {"duration_s": -1}, "duration_s must be at least 0"),
    (GOOD | {"duration_s": float("nan")}, "duration_s must be a finite"),
    (GOOD | {"duration_s": float("inf")}, "duration_s must be a finite"),
    (GOOD | {"guidance": 10**400}, "guidance must be a finite number"),
    (GOOD | {"guidance": -1}, "guidance must be at least 0, got -1"),
    (GOOD | {"guidance": True}, "guidance must be a finite number"),
    (GOOD | {"temperature": -0.1}, "temperature must be at least 0"),
    (GOOD | {"steps": 17}, r"steps must lie in \[1, 16\], got 17"),
    (GOOD | {"steps": 1.5}, "steps must be a whole number"),
    (GOOD | {"seed": True}, "seed must be a whole number"),
    (GOOD | {"seed": -1}, "seed must lie in"),
    (GOOD | {"seed": 2**63}, "seed must lie in"),
    (GOOD | {"num_variations": 0}, "num_variations must lie in"),
    (GOOD | {"format": "mp3"}, "format must be one of wav, flac, ogg, opus"),
    (GOOD | {"format": ["wav"]}, "format must be one of"),
    (GOOD | {"loudness_lufs": 3}, r"loudness_lufs must lie in \[-60, 0\]"),
    ({"id": "a", "codes": "none.safetensors"}, "none.safetensors does not exist"),
    ({"id": "", "prompt": "x"}, "id must be a text that is not empty"),
    ({"id": 1.5, "prompt": "x"}, "id must be a text"),
    ({"id": True, "prompt": "x"}, "id must be a text"),
    ({"id": "..", "prompt": "x"}, "may not begin with a dot"),
    ({"id": "../a", "prompt": "x"}, "may not hold '/'"),
    ({"id": "/etc/passwd", "prompt": "x"}, "may not hold '/'"),
    ({"id": "a\\b", "prompt": "x"}, "may not hold"),
    ({"id": "a\nb", "prompt": "x"}, "may not hold"),
    ({"id": "a\0b", "prompt": "x"}, "may not hold"),
    ({"id": "a\u202eb", "prompt": "x"}, "may not hold"),
    ({"id": "-rf", "prompt": "x"}, "may not begin with a dot, a dash"),
    ({"id": "a ", "prompt": "x"}, "or end with a"),
    ({"id": "ä" * 81, "prompt": "x"}, "id may have at most 160 bytes"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_every_bad_row_says_what_is_wrong(pipeline: Pipeline, row: dict[str, Any], message: str):
    assert re.search(message, fault(pipeline, row))


def test_the_folder_of_a_pipeline_knows_as_much_as_the_pipeline(pipeline_folder: Path):
    loaded, limits = Pipeline.from_pretrained(pipeline_folder), RowLimits(pipeline_folder)
    rows = [row for row, _ in BAD_ROWS if "codes" not in row] + [GOOD, GOOD]
    rows.append(GOOD | {"id": "b", "duration_s": loaded.config.max_duration_s * 1.1})
    known = read_request(rows, loaded, Defaults()).faults
    assert len(known) >= len(rows) - 1
    assert read_request(rows, limits, Defaults()).faults == known
    of_tokens = read_request([{"id": "a", "codes": "none"}, {"id": "a"}], limits, Defaults())
    assert [fault.line for fault in of_tokens.faults] == [2]


def test_a_row_names_all_its_faults_and_every_row_is_checked(pipeline: Pipeline):
    rows = [
        {"id": "a", "prompt": "x", "steps": 0, "seed": -1},
        {"id": "b", "prompt": "x"},
        ["c"],
        {"id": "B", "prompt": "x"},
    ]
    request = read(pipeline, *rows)
    assert [fault.line for fault in request.faults] == [1, 1, 3, 4]
    assert str(request.faults[-1]) == "line 4 (B): the id 'B' is already that of line 2"
    assert [item.id for item in request.items] == ["b"]


def test_a_variation_may_not_take_another_items_name(pipeline: Pipeline):
    rows = [{"id": "a", "prompt": "x", "num_variations": 2}, {"id": "a-1", "prompt": "x"}]
    assert "'a-1' is already that of line 1" in read(pipeline, *rows).faults[0].message


def test_bad_defaults_are_refused(pipeline: Pipeline):
    for name, value in (("steps", 0), ("format", "mp3"), ("duration_s", 0), ("guidance", -1)):
        with pytest.raises(ValueError, match=name):
            read(pipeline, {"id": "a", "prompt": "x"}, **{name: value})
    bare = tiny_pipeline(with_decoder=False)
    assert "which this pipeline lacks" in fault(bare, {"id": "a", "prompt": "x", "steps": 2})


def test_tokens_bring_their_own_settings(pipeline: Pipeline, tmp_path: Path):
    codes = torch.randint(0, 16, (2, 10), generator=torch.Generator().manual_seed(0))
    settings = {"num_inference_steps": 3, "guidance": 2.0}
    tokens = describe_codes(
        codes, pipeline.codec, 17000, prompt="x", seed=5, decoder_seed=6, settings=settings
    )
    save_tokens(tmp_path / "a.safetensors", tokens)
    path = str(tmp_path / "a.safetensors")
    item = read(pipeline, {"id": "b", "codes": path}).items[0]
    assert (item.prompt, item.seed, item.decoder_seed) == ("x", 5, 6)
    assert item.settings.num_inference_steps == 3
    assert item.settings.duration_s == 17000 / 44100
    item = read(pipeline, {"id": "b", "codes": path, "decoder_seed": 9, "steps": 1}).items[0]
    assert (item.decoder_seed, item.settings.num_inference_steps) == (9, 1)
    for field, value in (("guidance", 2.0), ("seed", 3), ("duration_s", 1.0)):
        message = fault(pipeline, {"id": "b", "codes": path, field: value})
        assert message == f"{field} has no effect on codes, which are already there"
    assert "the prompt of" in fault(pipeline, {"id": "b", "codes": path, "prompt": "y"})
    other = tiny_pipeline(seed=1)
    assert "tokens of another codec" in fault(other, {"id": "b", "codes": path})


def test_the_report_has_a_line_for_every_fault(pipeline: Pipeline, tmp_path: Path):
    rows = [{"id": "a"}, {"id": "b", "prompt": "x"}, {"id": "c", "prompt": "x", "steps": 99}]
    with pytest.raises(BadRowsError) as error:
        render(pipeline, rows, tmp_path / "out")
    assert str(error.value).splitlines() == [
        "rows: 2 faults",
        "  line 1 (a): prompt is missing",
        "  line 3 (c): steps must lie in [1, 16], got 99",
    ]
    assert not (tmp_path / "out").exists()
