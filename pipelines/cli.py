"""The ``partita`` command: finds the module of a command by its name and runs it.

``partita prepare audio`` is ``pipelines/commands/prepare_audio.py``. A command's module has
``add_arguments(parser)`` and ``run(args) -> int`` and imports nothing heavy until ``run``. A
trainer, which reads YAML too, has ``main(argv)`` and is handed the rest of the command line.
"""

import argparse
import os
import signal
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from pipelines.errors import USER_ERRORS, print_error

COMMANDS = {
    "generate": "music from a prompt",
    "plan": "tempo, key, chords and players from a prompt, to edit",
    "vocabulary": "the instruments, styles, moods and keys that prompts may name",
    "score": "the plan of a piece as MIDI or MusicXML",
    "continue": "a piece goes on",
    "inpaint": "stretches of a piece anew",
    "vary": "other notes under the same plan",
    "loop": "bars that repeat without a seam",
    "render": "many prompts to files, resumable, on any machines",
    "serve": "a page in the browser, and music over HTTP",
    "notes": "notes from a prompt: MIDI, and its sound",
    "encode": "an audio file to tokens",
    "decode": "tokens to an audio file",
    "reconstruct": "an audio file to tokens and back, measured",
    "prepare audio": "audio in a folder, archive or list to a dataset",
    "prepare music": "the music of Debian packages to a dataset",
    "prepare scores": "music composed and rendered here",
    "prepare notes": "the notes of scores or of MIDI files",
    "prepare plans": "plans of composed pieces, for a planner",
    "prepare tokens": "the tokens of a dataset, for prior and decoder",
    "prepare report": "what a dataset holds and what was left out",
    "train recognizer": "what losses of codec and decoder hear with",
    "assemble": "trained parts to a pipeline",
    "finetune": "your own music to a LoRA adapter",
    "merge": "adapters and their pipeline to a pipeline",
    "evaluate codec": "a codec against classical codecs",
    "evaluate decoder": "a decoder against its codec",
    "evaluate prior": "held-out bits, what text is worth",
    "evaluate pipeline": "how much of what prompts ask for is in the music",
    "evaluate plans": "chords, loops and edits: what is heard of them",
    "evaluate fit-detectors": "detectors of what prompts ask for, from rendered scores",
    "bench": "speed and memory on this machine",
    "bench render": "speed and memory of rendering, by batch and processes",
    "bench stream": "how soon and how steadily a stream sounds",
    "info": "what a saved pipeline holds, or what a config costs",
}
"""Every command is the module of ``pipelines/commands/`` that is called like it."""

TRAINERS = {
    "train codec": "audio to tokens and back",
    "train prior": "a prompt to tokens",
    "train decoder": "tokens to a fine spectrogram",
}
"""Every trainer is a module of ``pipelines/`` that is called like it."""

RENAMED = {name: f"{name}_command" for name in ("plan", "score", "loop")}
"""Modules of commands whose own name another module has."""

FORMER_OPTIONS = ("--out", "--output-dir")
RESUMABLE = ("render", "prepare")
"""Commands that go on where they were stopped, when they are given again."""
GROUPS = ("prepare", "evaluate", "train")


class OneLineParser(argparse.ArgumentParser):
    """Raises a mistake as ValueError, so that it is shown as every other error is."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


class ShowDefaults(argparse.HelpFormatter):
    """Names the default of every option that has one, unless its help does."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        value, text = action.default, action.help
        if not text or not action.option_strings or "default" in text:
            return text
        if value in (None, False, "", argparse.SUPPRESS) or value == []:
            return text
        shown = " ".join(map(str, value)) if isinstance(value, list) else value
        return (
            f"{text} (default: {shown:g})" if type(value) is float else f"{text} (default: {shown})"
        )


def main(argv: list[str] | None = None) -> int:
    """Run a command line; a user's mistake is one line on standard error and exit code 2.

    Args:
        argv: without the program's name; None takes the process's own.

    Returns:
        The exit code: 0, 2 after a mistake, 130 after Ctrl-C.
    """
    is_own_process = argv is None
    if argv is None:
        from pipelines.training.preloading import (
            collect_rarely,
            let_threads_sleep,
            preload_allocator,
        )

        argv = sys.argv[1:]
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored
            signal.signal(signal.SIGINT, interrupt)
        let_threads_sleep(os.environ)
        if argv[:1] == ["train"]:  # only a process of its own may start itself again
            preload_allocator()
        else:
            collect_rarely()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.showwarning = show_warning
        try:
            code = dispatch(argv)
            if is_own_process:  # the work is done: Ctrl-C while Python ends would look like a crash
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            return code
        except USER_ERRORS as error:
            print_error("partita", error)
            return 2
        except KeyboardInterrupt:
            print(stopped_line(argv), file=sys.stderr)
            if is_own_process:  # threads of PyTorch may still compute: their end would abort
                sys.stdout.flush()
                os._exit(130)
            return 130


def interrupt(*_: object) -> None:
    """Raise KeyboardInterrupt, or end the process where PyTorch is just being imported.

    C++ code that an exception of Python reaches there aborts. Nothing has been written by then.
    """
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    if getattr(spec, "_initializing", False):
        print(stopped_line(sys.argv[1:]), file=sys.stderr, flush=True)
        os._exit(130)
    raise KeyboardInterrupt


def stopped_line(argv: list[str]) -> str:
    """Say after Ctrl-C how the command goes on."""
    if argv[:1] and argv[0] in RESUMABLE:
        return "partita: stopped; the same command goes on"
    return "partita: stopped" + ("; --resume goes on" if argv[:1] == ["train"] else "")


def dispatch(argv: list[str]) -> int:
    """Find the command in the table and run it.

    Raises:
        ValueError: there is no such command, or its arguments do not fit.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(overview(), end="")
        return 0 if argv else 2
    if argv[0] == "--version":
        from importlib.metadata import version

        print(version("partita"))
        return 0
    if argv[0] in GROUPS and (len(argv) == 1 or argv[1] in ("-h", "--help")):
        print(overview(argv[0]), end="")
        return 0 if len(argv) > 1 else 2
    if argv[0] == "prepare" and " ".join(argv[:2]) not in COMMANDS and Path(argv[1]).exists():
        argv = ["prepare", "audio", *argv[1:]]  # a folder alone is a folder of audio
    words = 2 if argv[0] in GROUPS or " ".join(argv[:2]) in COMMANDS else 1
    name, rest = " ".join(argv[:words]), argv[words:]
    if name in TRAINERS:
        return find_module(name).main(rest)
    if name not in COMMANDS:
        known = [word for word in (*COMMANDS, *TRAINERS) if word.split()[0] == argv[0]]
        choices = known or [*COMMANDS, *TRAINERS]
        raise ValueError(f"no command {name!r}: choose from {', '.join(choices)}")
    module = find_module(name)
    for word in rest:
        if word.split("=")[0] in FORMER_OPTIONS:
            raise ValueError(f"{word.split('=')[0]} is now --output (see partita {name} --help)")
    parser = OneLineParser(
        prog=f"partita {name}", description=COMMANDS[name], formatter_class=ShowDefaults
    )
    module.add_arguments(parser)
    args = parser.parse_args(rest)
    if getattr(args, "quiet", False):
        warnings.simplefilter("ignore")
    return module.run(args)


def find_module(name: str) -> Any:
    """Import the module of a command or a trainer."""
    stem = RENAMED.get(name, name.replace(" ", "_").replace("-", "_"))
    module = f"pipelines.{stem}" if name in TRAINERS else f"pipelines.commands.{stem}"
    return import_module(module)


def overview(group: str = "") -> str:
    """List all commands, or those of a group, with what each is for."""
    names = {
        name: text
        for name, text in (COMMANDS | TRAINERS).items()
        if not group or name.split()[0] == group
    }
    lines = [f"  {name:23} {text}" for name, text in names.items()]
    usage = f"usage: partita {group or 'COMMAND'} ...\n\nText to music, and the training of it.\n"
    return f"{usage}\n" + "\n".join(lines) + "\n\nEvery command explains itself with --help.\n"


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line on standard error."""
    print("partita: note: " + " ".join(str(message).split()), file=sys.stderr)
