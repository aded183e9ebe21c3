"""Train the arms, measure the rows, write the document."""

import json
from collections.abc import Callable
from pathlib import Path

import jsonargparse
from accelerate import PartialState
from filelock import FileLock, Timeout

from codec.process_settings import kept_process_settings
from codec.whole_file import write_json
from pipelines.comparison import (
    context,
    generation_cost,
    ladder,
    recall,
    reconstruction,
    scaling,
    throughput,
    training_time,
)
from pipelines.comparison.arm import Arm
from pipelines.comparison.comparison_row import ComparisonRow
from pipelines.comparison.comparison_settings import ComparisonSettings
from pipelines.comparison.document import write_document
from pipelines.comparison.spread import statistics
from pipelines.comparison.study import Study
from pipelines.errors import one_line_errors
from pipelines.training.acceleration import start_accelerator
from pipelines.training.training_config import TrainingConfig

PROGRAM = "compare.py"
ARMS: dict[str, Callable[[Study], list[Arm]]] = {
    "recall": recall.arms,
    "ladder": ladder.arms,
    "speed": ladder.arms,
    "scaling": scaling.arms,
    "context": context.arms,
}
"""Rows that train, and what."""
MEASUREMENTS: dict[str, Callable[[Study], ComparisonRow]] = {
    "throughput": throughput.measure,
    "recall": recall.measure,
    "ladder": ladder.measure,
    "speed": training_time.measure,
    "scaling": scaling.measure,
    "context": context.measure,
    "generation": generation_cost.measure,
    "reconstruction": reconstruction.measure,
}


def compare(settings: ComparisonSettings) -> Path | None:
    """Train what is not trained, measure what is not measured, and write the document.

    Returns:
        The document's path on the main process, None on the others and where another run of the
        same study writes the document.

    Raises:
        MissingPackageError: scipy is not installed.
    """
    statistics()  # better missing now than after hours of training
    precision = settings.optimization.mixed_precision
    start_accelerator(TrainingConfig(settings.output_dir, mixed_precision=precision))
    state = PartialState()
    study = Study(settings, state.print)
    with state.main_process_first():
        arms = [arm for row in settings.rows if row in ARMS for arm in ARMS[row](study)]
    study.train_free(arms)
    path = measure_all(study, arms) if state.is_main_process else None
    state.wait_for_everyone()
    return path


def measure_all(study: Study, arms: list[Arm]) -> Path | None:
    """Measure in the first run of the study that has nothing left to train; it waits for the rest.

    Timings are made while no other run works.
    """
    study.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(study.folder / "measuring.lock").acquire(blocking=False):
            for arm in arms:
                study.train(arm)  # waits where another run trains it
            sections = [measure(study, name) for name in study.settings.rows]
            path = write_document(study.settings, sections)
    except Timeout:
        study.say("another run of this study measures what is left; this one has no more to do")
        return None
    study.say(f"{path}")
    return path


def measure(study: Study, name: str) -> str:
    """Give a row's section in Markdown; a whole one is kept until the settings change."""
    kept, key = study.folder / "rows" / f"{name}.json", study.key(name)
    values = json.loads(kept.read_text()) if kept.is_file() else {}
    if values.get("key") != key:
        study.say(f"measuring: {name}")
        row = MEASUREMENTS[name](study)
        values = {"key": key, "section": row.write(Path(study.settings.document).with_suffix(""))}
        if not row.missing:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, values)
    return values["section"]


def main(argv: list[str] | None = None) -> int:
    """Read the settings, then compare; a user's mistake is one line and exit code 2."""
    parser = jsonargparse.ArgumentParser(
        prog=PROGRAM, description="LSTM against Transformer", exit_on_error=False
    )
    parser.add_argument("--config", action="config", help="YAML file; later options override it")
    parser.add_class_arguments(ComparisonSettings, "study")
    with one_line_errors(PROGRAM), kept_process_settings():
        try:
            values = parser.parse_args(argv)
        except jsonargparse.ArgumentError as error:
            raise ValueError(str(error)) from error
        # the name changed in jsonargparse 4.49
        instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
        compare(instantiate(values).study)
    return 0
