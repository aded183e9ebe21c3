"""Errors that a user can meet, and how a command shows them."""

import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

EVALUATE_EXTRA = "pip install partita[evaluate]"


class MissingPackageError(ImportError):
    """An optional package is not installed; the message names it and the command to install it."""


def import_package(module: str, purpose: str, install: str = EVALUATE_EXTRA) -> ModuleType:
    """Import an optional package, or say in one line what needs it and how to install it.

    Raises:
        MissingPackageError: the package is not installed or does not import.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPackageError(f"{purpose} needs {module}: {install} ({error})") from error


def find_package_folder(module: str, purpose: str, install: str = EVALUATE_EXTRA) -> Path:
    """Find the folder of an installed package without importing it.

    Raises:
        MissingPackageError: the package is not installed.
    """
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(f"{purpose} needs {module}: {install}")
    return Path(next(iter(spec.submodule_search_locations)))


USER_ERRORS = (ValueError, OSError, FloatingPointError, MissingPackageError)
"""What a user's mistake, data or machine can cause; anything else is a fault of the program."""


def print_error(program: str, error: BaseException) -> None:
    """Print an error as one line on standard error."""
    print(f"{program}: error: " + " ".join(str(error).split()), file=sys.stderr)


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """End the process with one line on standard error where a user's mistake or Ctrl-C ends it.

    Raises:
        SystemExit: with code 2 after a mistake, 130 after Ctrl-C.
    """
    try:
        yield
    except USER_ERRORS as error:
        print_error(program, error)
        raise SystemExit(2) from error
    except KeyboardInterrupt as stopped:
        print(f"{program}: stopped", file=sys.stderr)
        raise SystemExit(130) from stopped


def check_name(what: str, name: Any, known: Iterable[str]) -> None:
    """Raise ValueError unless a name is one of the known ones."""
    if name not in tuple(known):
        raise ValueError(f"{what} must be one of {', '.join(known)}, got {name!r:.80}")


def check_names(what: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raise ValueError for the first name that is not among the known ones."""
    for name in names:
        if name not in known:
            raise ValueError(f"{what} must be among {', '.join(known)}, got {name!r}")


def check_fields(config: Any, names: str, is_right: Callable[[Any], bool], rule: str) -> None:
    """Raise ValueError for the first of some fields, by names with spaces, that breaks a rule."""
    for name in names.split():
        value = getattr(config, name)
        if not is_right(value):
            raise ValueError(f"{name} must {rule}, got {value!r}")
