"""The recipe of the model that ships: its commands parse; it resumes, records and stops."""

import argparse
import json
from pathlib import Path

import pytest

from pipelines.cli import COMMANDS, TRAINERS, find_module
from pipelines.commands.recipe import RecipeStep, read_record, run_recipe, tiny_recipe
from pipelines.commands.recipe import main as recipe
from pipelines.training.configuration import build_parser
from pipelines.training.training_config import TrainingConfig


@pytest.mark.parametrize("stage", tiny_recipe(Path("runs/x"), 60, 0, 2), ids=lambda s: s.name)
def test_every_command_exists_and_takes_these_options(stage):
    name = " ".join(stage.command[:2])
    if name in TRAINERS:
        module = find_module(name)
        settings = build_parser(name, module.PARTS).parse_args(stage.command[2:])
        assert settings.resume
        TrainingConfig(**settings.training.as_dict())
        return
    words = 2 if name in COMMANDS else 1
    parser = argparse.ArgumentParser(exit_on_error=False)
    find_module(" ".join(stage.command[:words])).add_arguments(parser)
    parser.parse_args(stage.command[words:])


def test_stages_run_in_order_and_are_recorded(tmp_path, capfd):
    stages = [RecipeStep("one", ["--help"]), RecipeStep("two", ["info", "--help"])]
    assert run_recipe(stages, tmp_path / "run" / "record.json", seed=3) == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["seed"] == 3
    assert list(record["seconds"]) == ["one", "two"]
    assert {"torch", "diffusers"} <= record["versions"].keys()
    first = record["seconds"]["one"]
    assert run_recipe(stages, tmp_path / "run" / "record.json", seed=3) == 0
    assert read_record(tmp_path / "run" / "record.json", 3)["seconds"]["one"] > first
    assert "[2 of 2] partita info --help" in capfd.readouterr().out


def test_a_finished_stage_is_passed_over(tmp_path):
    (tmp_path / "done").touch()
    stages = [RecipeStep("broken", ["no-such-command"], result=tmp_path / "done")]
    assert run_recipe(stages, tmp_path / "record.json", seed=0) == 0


def test_music_that_could_not_be_prepared_is_not_taken_for_done(tmp_path, capfd):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "report.md").write_text("nothing usable")
    music = tiny_recipe(tmp_path, 60, 0, 2)[0]
    broken = RecipeStep(music.name, ["no-such-command"], music.result)
    assert run_recipe([broken], tmp_path / "record.json", seed=0) == 2


def test_a_failing_stage_ends_it(tmp_path, capfd):
    stages = [RecipeStep("broken", ["no-such-command"]), RecipeStep("later", ["--help"])]
    assert run_recipe(stages, tmp_path / "record.json", seed=0) == 2
    assert "stage 'broken' ended with code 2" in capfd.readouterr().err
    assert "later" not in read_record(tmp_path / "record.json", 0)["seconds"]


def test_another_seed_is_refused(tmp_path, capsys):
    run_recipe([RecipeStep("one", ["--help"])], tmp_path / "record.json", seed=3)
    with pytest.raises(SystemExit, match="2"):
        recipe(["--folder", str(tmp_path), "--seed", "4"])
    assert "is of seed 3, got seed=4" in capsys.readouterr().err


def test_print_shows_commands_for_a_shell(capsys):
    assert recipe(["--print", "--folder", "there"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(tiny_recipe(Path("there"), 60, 0, 2))
    assert all(line.startswith("partita ") for line in lines)
    assert '\'["there/music", "there/scores"]\'' in lines[2]
