"""LSTM against Transformer: ``python pipelines/compare.py --config configs/compare.yaml``.

One command trains every arm at equal parameter count and equal data, measures it, and writes the
document with its tables, plots and readings. It goes on where an earlier run stopped. Started a
second time beside itself it takes other arms, a core each; ``accelerate launch`` (or torchrun)
shares every arm's batches among processes instead.
"""

import os
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.training.preloading import let_threads_sleep, preload_allocator

if TYPE_CHECKING:
    from pipelines.comparison.arm import Arm
    from pipelines.comparison.row import Row
    from pipelines.comparison.settings import Settings
    from pipelines.comparison.study import Study

PROGRAM = "compare.py"


def compare(settings: "Settings", quick: bool = False, plan: bool = False) -> Path | None:
    """Train what is not trained, measure what is not measured, and write the document.

    Args:
        settings: of the study.
        quick: on made-up data, in minutes (see ``comparison.quick``).
        plan: only print how many minutes the arms will take.

    Returns:
        The document's path on the main process, None on the others, for a plan, and where another
        run of the same study writes the document.
    """
    from pipelines.comparison.machine import RunClock
    from pipelines.comparison.plan import rows_of_arms
    from pipelines.comparison.quick import quick_settings
    from pipelines.comparison.study import Study

    since = time.time()
    state = start_processes(settings)
    with state.main_process_first():
        if quick:
            settings = quick_settings(settings)
        clock = RunClock(Path(settings.output_dir))

        def say(text: str) -> None:
            state.print(text)
            if state.is_main_process and not plan:
                clock.note()

        study = Study(settings, say)
        arms = rows_of_arms(study)
    if plan:
        if state.is_main_process:
            print_plan(study)
        return None
    every = [arm for of_row in arms.values() for arm in of_row]
    study.train_free(every)
    rows = measure(study, every, since) if state.is_main_process else None
    path = write(study, rows, quick, clock.note()) if rows is not None else None
    state.wait_for_everyone()
    return path


def start_processes(settings: "Settings"):
    """accelerate's state, begun as the trainers begin it."""
    from accelerate import PartialState

    from pipelines.training.loop import TrainingConfig, start_accelerator

    start_accelerator(
        TrainingConfig(
            output_dir=settings.output_dir,
            mixed_precision=settings.optimization.mixed_precision,
        )
    )
    return PartialState()


def print_plan(study: "Study") -> None:
    """Minutes per arm, from timed updates."""
    from pipelines.comparison.plan import plan

    table, total = plan(study)
    print(table.markdown())
    print(f"{total:.0f} minutes of training are left, measuring not included")


def measure(study: "Study", arms: list["Arm"], since: float) -> "list[Row] | None":
    """Measure what no other run of this study measures; the first to finish waits for the others.

    Args:
        study: what it is about.
        arms: all that are needed.
        since: when this run began (seconds of the epoch).

    Returns:
        All rows, or None where another run waits for them.
    """
    from filelock import FileLock, Timeout

    from pipelines.comparison.settings import TIMED

    settled = sorted(study.settings.rows, key=lambda name: name in TIMED)
    for name in settled:
        if name not in TIMED:
            with suppress(Timeout):
                measured(study, name, since, wait=False)
    try:
        with FileLock(study.folder / "measuring.lock").acquire(blocking=False):
            for arm in arms:
                study.train(arm)  # waits where another run trains it
            rows = {name: measured(study, name, since) for name in settled}
    except Timeout:
        study.say("another run of this study measures what is left; this one has no more to do")
        return None
    return [rows[name] for name in study.settings.rows]


def measured(study: "Study", name: str, since: float, wait: bool = True) -> "Row":
    """A row as it was kept, or measured now.

    Args:
        study: what it is about.
        name: of the row.
        since: a row in which something is missing is measured anew if it is older than this run.
        wait: for another run that is measuring it.

    Raises:
        Timeout: another run is measuring it, and this one should not wait.
    """
    from filelock import FileLock

    from pipelines.comparison.row import load_row, save_row

    kept = study.folder / "rows" / f"{name}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(kept.with_suffix(".lock")).acquire(blocking=wait):
        row = load_row(kept, study.key(name))
        if row is None or (row.missing and kept.stat().st_mtime < since):
            study.say(f"measuring: {name}")
            row = import_module(f"pipelines.comparison.{name}").measure(study)
            save_row(row, kept, study.key(name))
    return row


def write(study: "Study", rows: "list[Row]", quick: bool, minutes: float) -> Path:
    """Write the document."""
    from pipelines.comparison.document import write_document
    from pipelines.comparison.machine import describe_machine

    command = f"python pipelines/compare.py --config configs/compare.yaml{' --quick' * quick}"
    path = write_document(study.settings, rows, command, describe_machine(), minutes)
    study.say(f"{path}")
    return path


def main(argv: list[str] | None = None) -> int:
    """Read the settings, then compare; a user's mistake is one line and exit code 2."""
    import jsonargparse

    from codec.process_settings import kept_process_settings
    from pipelines.comparison.arm import StoppedError
    from pipelines.comparison.settings import Settings
    from pipelines.errors import MissingPackageError

    parser = jsonargparse.ArgumentParser(
        prog=PROGRAM, description=__doc__.splitlines()[0], exit_on_error=False
    )
    parser.add_argument("--config", action="config", help="YAML file; later options override it")
    parser.add_class_arguments(Settings, "study")
    parser.add_argument("--quick", action="store_true", help="tiny, on made-up data, in minutes")
    parser.add_argument("--plan", action="store_true", help="print minutes per arm, train nothing")
    try:
        values = parser.parse_args(argv)
        # the name changed in jsonargparse 4.49
        instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
        with kept_process_settings():
            compare(instantiate(values).study, values.quick, values.plan)
    except StoppedError as stopped:
        print(f"{PROGRAM}: {stopped}; the same command goes on", file=sys.stderr)
        return 130
    except (ValueError, OSError, MissingPackageError, jsonargparse.ArgumentError) as error:
        print(f"{PROGRAM}: error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    let_threads_sleep(os.environ)
    if "WORLD_SIZE" not in os.environ:  # a launcher's processes must not start themselves again
        preload_allocator()
    sys.exit(main())
