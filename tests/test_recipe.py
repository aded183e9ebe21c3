"""The recipes: their commands parse; a run resumes, records and stops."""

import argparse
import json
from pathlib import Path

import pytest

from pipelines.cli import COMMANDS, TRAINERS, find_module
from pipelines.commands.recipe import RecipeStep, read_recipe, read_record, run_recipe
from pipelines.commands.recipe import main as recipe
from pipelines.training.configuration import ConfigParser, parse
from pipelines.training.training_config import TrainingConfig

TRAINER_MODULES = {name: find_module(name) for name in TRAINERS}  # accelerate sets filters
RECIPES = Path(__file__).parents[1] / "configs" / "recipes"


def steps_of(name: str, folder: Path = Path("runs/x")) -> list[RecipeStep]:
    return read_recipe(RECIPES / f"{name}.yaml", folder, hours=60, seed=0, workers=2)


@pytest.mark.parametrize("stage", steps_of("tiny") + steps_of("demo"), ids=lambda s: s.name)
def test_every_command_exists_and_takes_these_options(stage):
    name = " ".join(stage.command[:2])
    if name in TRAINERS:
        parser = ConfigParser(name, TRAINER_MODULES[name].PARTS)
        settings = parse(parser, stage.command[2:])
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
    music = steps_of("tiny", tmp_path)[0]
    broken = RecipeStep(music.name, ["no-such-command"], music.result)
    assert run_recipe([broken], tmp_path / "record.json", seed=0) == 2


def test_a_failing_stage_ends_it(tmp_path, capfd):
    stages = [RecipeStep("broken", ["no-such-command"]), RecipeStep("later", ["--help"])]
    assert run_recipe(stages, tmp_path / "record.json", seed=0) == 2
    assert "step 'broken' ended with code 2" in capfd.readouterr().err
    assert "later" not in read_record(tmp_path / "record.json", 0)["seconds"]


def test_another_seed_is_refused(tmp_path, capsys):
    run_recipe([RecipeStep("one", ["--help"])], tmp_path / "record.json", seed=3)
    with pytest.raises(SystemExit, match="2"):
        recipe(["--folder", str(tmp_path), "--seed", "4"])
    assert "is of seed 3, got seed=4" in capsys.readouterr().err


def test_print_shows_commands_for_a_shell(capsys):
    assert recipe([str(RECIPES / "tiny.yaml"), "--print", "--folder", "there"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(steps_of("tiny"))
    assert all(line.startswith("partita ") for line in lines)
    assert '\'["there/music", "there/scores"]\'' in lines[3]
