"""Everything that jsonargparse lets a trainer's command line say: honored, or refused by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cli import main
from pipelines.training.configuration import ConfigParser, parse, read_yaml
from pipelines.training.training_config import TrainingConfig

BASE = "training: {output_dir: base, steps: 5}\ndata: {tokens: [a], share: 0.5}\n"


@dataclass
class Sizes:
    """Stands for a model."""

    width: int = 8
    books: int | None = 4


@dataclass
class Inputs:
    """Stands for data."""

    tokens: list[str]
    share: float = 1.0


PARTS: dict[str, Any] = {"model": Sizes, "data": Inputs, "training": TrainingConfig}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hold some YAML, and be where the command is given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "seven.yaml").write_text("training: {steps: 7}\n")
    (tmp_path / "width.yaml").write_text("width: 16\n")
    return tmp_path


def given(*argv: str) -> Any:
    """Parse ``argv``."""
    return parse(ConfigParser("train", PARTS), list(argv))


HONORED: dict[str, tuple[list[str], Callable[[Any], bool]]] = {
    "option": (["--training.steps", "6"], lambda got: got.training.steps == 6),
    "option=": (["--training.steps=6"], lambda got: got.training.steps == 6),
    "the last of two": (["--model.width=1", "--model.width=2"], lambda got: got.model.width == 2),
    "second file": (["--config", "seven.yaml"], lambda got: got.training.steps == 7),
    "YAML in place of a file": (
        ["--config", "training: {steps: 6}"],
        lambda got: got.training.steps == 6,
    ),
    "JSON": (["--config", '{"training": {"steps": 6}}'], lambda got: got.training.steps == 6),
    "a section's file": (["--model", "width.yaml"], lambda got: got.model.width == 16),
    "a section as JSON": (["--model", '{"width": 9}'], lambda got: got.model.width == 9),
    "append": (["--data.tokens+", "b"], lambda got: got.data.tokens == ["a", "b"]),
    "append=": (["--data.tokens+=b"], lambda got: got.data.tokens == ["a", "b"]),
    "append several": (["--data.tokens+", "[b, c]"], lambda got: len(got.data.tokens) == 3),
    "null where it may be": (["--model.books", "null"], lambda got: got.model.books is None),
    "resume": (["--resume"], lambda got: got.resume is True),
}
IN_FILES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "dotted key": ("training.steps: 6", lambda got: got.training.steps == 6),
    "append": ("data: {tokens+: [b]}", lambda got: got.data.tokens == ["a", "b"]),
    "a section's file": ("model: width.yaml", lambda got: got.model.width == 16),
    "another file": ("config: seven.yaml", lambda got: got.training.steps == 7),
    "resume": ("resume: true", lambda got: got.resume is True),
    "byte order mark": ("\ufefftraining: {steps: 6}", lambda got: got.training.steps == 6),
    "anchor": (
        "training: {steps: &n 6, batch_size: *n}",
        lambda got: got.training.steps == got.training.batch_size == 6,
    ),
    "merge": ("training: {<<: {steps: 6}}", lambda got: got.training.steps == 6),
}


@pytest.mark.parametrize("name", HONORED)
def test_what_a_command_line_may_say(name: str) -> None:
    argv, holds = HONORED[name]
    got = given("--config", "base.yaml", *argv)
    assert holds(got)
    assert got.data.share == 0.5  # all else is as it was
    assert got.training.output_dir == "base"


@pytest.mark.parametrize("name", IN_FILES)
def test_what_a_file_may_say(name: str, folder: Path) -> None:
    text, holds = IN_FILES[name]
    (folder / "more.yaml").write_text(text)
    assert holds(given("--config", "base.yaml", "--config", "more.yaml"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--training.steps", "6", "--config", "seven.yaml"], "--training.steps must come after"),
        (["--data.tokens+=b", "--config=seven.yaml"], r"--data.tokens\+ must come after --config"),
        (["--model", "width.yaml", "--config", "seven.yaml"], "--model must come after --config"),
        (["--training.step", "6"], "unrecognized arguments: --training.step"),  # no abbreviations
        (["--res"], "unrecognized arguments: --res"),
        (["--conf", "seven.yaml"], "unrecognized arguments: --conf"),
        (["--training.output-dir", "x"], "unrecognized arguments: --training.output-dir"),
        (["--training.steps+", "6"], r"unrecognized arguments: --training.steps\+"),
        (["--model.help"], "unrecognized arguments: --model.help"),
        (["--model.class_path", "x.Y"], "unrecognized arguments: --model.class_path"),
        (["--no_resume"], "unrecognized arguments: --no_resume"),
        (["--resume=false"], "argument --resume"),
        (["--version"], "unrecognized arguments: --version"),
        (["--print_completion", "bash"], "unrecognized arguments: --print_completion"),
        (["--print_shtab", "bash"], "--print_shtab is no longer supported"),
        (["--print_config=rare"], 'Invalid option "rare" for --print_config'),
        (["--data.tokens", "b"], 'data.tokens": Expected a .*list'),
        (["--training.steps", "6.5"], 'training.steps": Expected a .*int'),
        (["--training.steps", "null"], "training.steps"),
        (["@seven.yaml"], "unrecognized arguments: @seven.yaml"),
        (["--config", "."], "Path is not a file"),
        (["--config", "none.yaml"], "none.yaml"),
        (["--model", "none.yaml"], "none.yaml"),
        (["--config"], "argument --config: expected one argument"),
    ],
)
def test_what_a_command_line_may_not_say(argv: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}".replace('": E', '":\\s+E')):
        given("--config", "base.yaml", *argv)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {steps: 6}\ntraining: {seed: 1}", "more.yaml line 2: training stands there"),
        ("training:\n  steps: 6\n  steps: 7", "more.yaml line 3: steps stands there twice"),
        ("training: {learning_rate: null}", "training.learning_rate must not be null"),
        ("model: {width: null}", "model.width must not be null"),
        ("resume: 'no'", "resume must be true or false, got 'no'"),
        ("resume: 1", "resume must be true or false, got 1"),
        ("model: {class_path: x.Y}", "class_path"),
        ("training: {steps: true}", "more.yaml: .*training.steps"),
        ("training: {steps: '${STEPS}'}", "more.yaml: .*training.steps"),
        ("seed: 3", "'seed'"),
        ("training: {sead: 3}", "sead"),
        ("print_config: true", "'print_config'"),
        ("- a", "more.yaml"),
        ("", "more.yaml"),
        ("training: {steps: 6}\n---\ntraining: {seed: 1}", "more.yaml"),
        ("training: !!python/name:os.system", "more.yaml"),
    ],
)
def test_what_a_file_may_not_say(text: str, message: str, folder: Path) -> None:
    (folder / "more.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        given("--config", "base.yaml", "--config", "more.yaml")


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    """Return what ``--print_config`` prints, read again."""
    with pytest.raises(SystemExit) as end:
        given(*argv)
    assert end.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("flag", ["", "=skip_null", "=skip_default"])
@pytest.mark.parametrize("first", [True, False])
def test_the_settings_are_printed_as_they_will_be(flag, first, capsys, folder):
    print_it, rest = f"--print_config{flag}", ["--config", "base.yaml", "--training.steps", "6"]
    got = printed(capsys, *([print_it, *rest] if first else [*rest, print_it]))
    assert got["training"]["steps"] == 6
    assert ("seed" in got["training"]) == (flag != "=skip_default")
    assert ("start_from" in got["training"]) == (not flag)
    (folder / "again.yaml").write_text(yaml.safe_dump(got))
    assert given("--config", "again.yaml").training == given(*rest).training


@pytest.mark.parametrize("switched_on", [True, False])
def test_variables_of_the_environment_count_where_jsonargparse_is_told_so(switched_on, monkeypatch):
    if switched_on:
        monkeypatch.setenv("JSONARGPARSE_DEFAULT_ENV", "true")
    monkeypatch.setenv("TRAIN_TRAINING__SEED", "3")
    monkeypatch.setenv("TRAIN_TRAINING__STEPS", "9")
    got = given("--config", "base.yaml").training
    assert got.seed == (3 if switched_on else 0)
    assert got.steps == 5  # the file comes later


def test_no_file_is_read_that_was_not_named() -> None:
    assert ConfigParser("train", PARTS).default_config_files in (None, [])


@pytest.mark.parametrize("trainer", ["codec", "prior", "decoder"])
def test_every_field_is_explained(trainer: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", trainer, "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0
    for option in ("--config", "--resume", "--print_config", "--model.width", "--training.seed"):
        assert option in said


def test_the_comparison_has_no_resume(capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.comparison.run_comparison import main as compare_main

    with pytest.raises(SystemExit) as end:
        compare_main(["--config", "base.yaml", "--resume"])
    assert end.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml")))
def test_no_key_of_ours_stands_twice(path: Path) -> None:
    read_yaml(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", float("inf")),
        ("weight_decay", float("nan")),
        ("weight_decay", -0.1),
        ("max_grad_norm", 0.0),
        ("max_grad_norm", -1.0),
        ("seed", -1),
        ("seed", 2**63),
        ("output_dir", ""),
        ("output_dir", "~/runs"),
    ],
)
def test_settings_that_would_train_nothing_or_elsewhere(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        TrainingConfig(**{"output_dir": "x", field: value})
