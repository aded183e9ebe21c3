"""The ``partita`` command: a table of commands, each a module that is imported when it is called.

A command's module has ``add_arguments(parser)`` and ``run(args) -> int`` and imports nothing heavy
until ``run``; a trainer, which reads YAML too, is handed the rest of the command line as it is.
"""

import argparse
import os
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from pipelines.errors import MissingPackageError

COMMANDS = {
    "generate": ("pipelines.commands.generate", "music from a prompt"),
    "render": ("pipelines.commands.render", "many prompts to files, resumable, on any machines"),
    "notes": ("pipelines.data.notes.write_notes", "notes from a prompt: MIDI, and its sound"),
    "encode": ("pipelines.commands.encode", "an audio file to tokens"),
    "decode": ("pipelines.commands.decode", "tokens to an audio file"),
    "reconstruct": ("pipelines.commands.reconstruct", "an audio file to tokens and back, measured"),
    "prepare audio": (
        "pipelines.data.recordings.recordings",
        "audio in a folder, archive or list to a dataset",
    ),
    "prepare music": (
        "pipelines.data.recordings.music",
        "the music of Debian packages to a dataset",
    ),
    "prepare scores": ("pipelines.data.scores.prepare_scores", "music composed and rendered here"),
    "prepare notes": ("pipelines.data.notes.prepare_notes", "the notes of scores or of MIDI files"),
    "prepare plans": (
        "pipelines.data.scores.prepare_plans",
        "plans of composed pieces, for a planner",
    ),
    "prepare tokens": (
        "pipelines.data.prepare_tokens",
        "the tokens of a dataset, for prior and decoder",
    ),
    "prepare report": ("pipelines.commands.report", "what a dataset holds and what was left out"),
    "assemble": ("pipelines.commands.assemble", "trained parts to a pipeline"),
    "evaluate codec": ("pipelines.evaluation.codec_report", "a codec against classical codecs"),
    "evaluate decoder": ("pipelines.evaluation.decoder_report", "a decoder against its codec"),
    "evaluate prior": (
        "pipelines.evaluation.prior_report",
        "held-out bits, what text is worth",
    ),
    "evaluate pipeline": (
        "pipelines.evaluation.pipeline_report",
        "is what prompts ask for heard?",
    ),
    "evaluate fit-detectors": (
        "pipelines.evaluation.fit_detectors",
        "what hears it, from rendered scores",
    ),
    "bench": ("pipelines.commands.bench", "speed and memory on this machine"),
    "bench render": ("pipelines.commands.bench_render", "of rendering, by batch and processes"),
    "bench stream": (
        "pipelines.commands.bench_stream",
        "how soon and how steadily a stream sounds",
    ),
    "info": ("pipelines.commands.info", "what a saved pipeline holds, or what a config costs"),
}
TRAINERS = {
    "train codec": ("pipelines.train_codec", "audio to tokens and back"),
    "train prior": ("pipelines.train_prior", "a prompt to tokens"),
    "train decoder": ("pipelines.train_decoder", "tokens to a fine spectrogram"),
}
GROUPS = ("prepare", "evaluate", "train")


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose complaint is one line, as every other error of the command."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def main(argv: list[str] | None = None) -> int:
    """Run a command line; a user's mistake is one line on standard error and exit code 2.

    Args:
        argv: without the program's name; None takes the process's own.

    Returns:
        The exit code: 0, 2 after a mistake, 130 after Ctrl-C.
    """
    if argv is None:
        from pipelines.training.preloading import (
            collect_rarely,
            let_threads_sleep,
            preload_allocator,
        )

        argv = sys.argv[1:]
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
            return dispatch(argv)
        except (ValueError, OSError, MissingPackageError) as error:
            print("partita: error: " + " ".join(str(error).split()), file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("partita: stopped", file=sys.stderr)
            return 130


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
    if argv[0] == "prepare" and Path(argv[1]).exists():
        argv = ["prepare", "audio", *argv[1:]]  # a folder alone is a folder of audio
    words = 2 if argv[0] in GROUPS or " ".join(argv[:2]) in COMMANDS else 1
    name, rest = " ".join(argv[:words]), argv[words:]
    if name in TRAINERS:
        return import_module(TRAINERS[name][0]).main(rest)
    if name not in COMMANDS:
        known = [word for word in (*COMMANDS, *TRAINERS) if word.split()[0] == argv[0]]
        choices = known or [*COMMANDS, *TRAINERS]
        raise ValueError(f"no command {name!r}: choose from {', '.join(choices)}")
    module = import_module(COMMANDS[name][0])
    parser = Parser(prog=f"partita {name}", description=COMMANDS[name][1])
    module.add_arguments(parser)
    args = parser.parse_args(rest)
    if getattr(args, "quiet", False):
        warnings.simplefilter("ignore")
    return module.run(args)


def overview(group: str = "") -> str:
    """The list of commands, or of those of a group."""
    names = {
        name: text
        for name, (_, text) in (COMMANDS | TRAINERS).items()
        if not group or name.split()[0] == group
    }
    lines = [f"  {name:17} {text}" for name, text in names.items()]
    usage = f"usage: partita {group or 'COMMAND'} ...\n\nText to music, and the training of it.\n"
    return f"{usage}\n" + "\n".join(lines) + "\n\nEvery command explains itself with --help.\n"


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as one line on standard error."""
    print("partita: note: " + " ".join(str(message).split()), file=sys.stderr)
