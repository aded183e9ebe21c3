"""Train the arms, measure the rows, write the document."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from string import Template
from typing import Any

import torch
from accelerate import PartialState
from filelock import FileLock, Timeout

from codec.process_settings import kept_process_settings
from codec.whole_file import write_json, write_whole
from pipelines.benchmarks.machine import processor_name
from pipelines.comparison import (
    context,
    generation_cost,
    ladder,
    recall,
    reconstruction,
    scaling,
    throughput,
)
from pipelines.comparison.arm import Arm
from pipelines.comparison.comparison_row import ComparisonRow
from pipelines.comparison.comparison_settings import ComparisonSettings
from pipelines.comparison.study import Study
from pipelines.data.markdown import bullets
from pipelines.errors import one_line_errors
from pipelines.training.acceleration import start_accelerator
from pipelines.training.configuration import ConfigParser, parse
from pipelines.training.training_config import TrainingConfig

PROGRAM = "compare.py"
TEMPLATE = Path(__file__).with_name("document.md")
READING = "reading.md"
"""File beside the plots with what a person reads out of the figures; it goes to the top."""
ARMS: dict[str, Callable[[Study], Mapping[Any, list[Arm]]]] = {
    "recall": recall.arms,
    "ladder": ladder.arms,
    "speed": ladder.arms,
    "scaling": scaling.arms,
    "context": context.arms,
}
"""Rows that train, and what, by backbone or the like."""
MEASUREMENTS: dict[str, Callable[[Study], ComparisonRow]] = {
    "throughput": throughput.measure,
    "recall": recall.measure,
    "ladder": ladder.measure,
    "speed": ladder.measure_time,
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
    """
    precision = settings.optimization.mixed_precision
    start_accelerator(TrainingConfig(settings.output_dir, mixed_precision=precision))
    state = PartialState()
    study = Study(settings, state.print)
    with state.main_process_first():
        groups = [ARMS[row](study).values() for row in settings.rows if row in ARMS]
    arms = [arm for of_row in groups for group in of_row for arm in group]
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


def write_document(settings: ComparisonSettings, sections: Sequence[str]) -> Path:
    """Write the document from the rows' sections and what a person wrote about them."""
    path = Path(settings.document)
    path.parent.mkdir(parents=True, exist_ok=True)
    reading = path.with_suffix("") / READING
    in_short = f"## In short\n\n{reading.read_text().strip()}\n\n" if reading.is_file() else ""
    content = Template(TEMPLATE.read_text()).substitute(
        in_short=in_short, facts=bullets(facts(settings)), sections="\n\n".join(sections)
    )
    write_whole(path, content)
    return path


def facts(settings: ComparisonSettings) -> list[str]:
    """List seeds, rules, machine and date."""
    state = PartialState()
    device = str(state.device)
    if state.device.type == "cuda":
        device = torch.cuda.get_device_name(state.device)
    return [
        f"Seeds: {', '.join(map(str, settings.seeds))}. ± is one standard deviation over seeds.",
        'A difference is claimed ("is ahead") only where the 95 % interval of the differences, '
        "paired by seed (Student's t), leaves out zero.",
        f"Equal size: each width is the one whose parameter count is nearest to the target, within "
        f"{settings.tolerance:.0%}.",
        f"Machine: {processor_name()}, {torch.get_num_threads()} threads, "
        f"{state.num_processes} process(es), {device}; torch {torch.__version__}. "
        f"Written on {date.today()}.",
    ]


def main(argv: list[str] | None = None) -> int:
    """Read the settings, then compare; a user's mistake is one line and exit code 2."""
    parser = ConfigParser(PROGRAM, {"study": ComparisonSettings}, resumable=False)
    with one_line_errors(PROGRAM), kept_process_settings():
        values = parse(parser, argv)
        # the name changed in jsonargparse 4.49
        instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
        compare(instantiate(values).study)
    return 0
