"""Load a saved pipeline: the parts that its folder names, each by the loader of its kind."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import torch

from codec.component import find_folder
from codec.whole_file import read_json_object
from decoder.sampler import EULER, SavedScheduler
from pipelines.data.codecs import import_user_module
from pipelines.inference.components import DEFAULTS, check_options, read_index
from pipelines.inference.pipeline_parts import PipelineParts
from pipelines.inference.shipped import find_shipped

OWN_MODULES = ("codec", "prior", "decoder")
Made = TypeVar("Made", bound=PipelineParts)


def load_saved(
    cls: type[Made],
    path: str | Path,
    options: dict[str, Any],
    load_text: Callable[[Path, str | None], tuple[Any, Any]],
    load_scheduler: Callable[[Path], Any],
) -> Made:
    """Load a pipeline from a folder, a hub id, or by the name of the pipeline that ships.

    ``load_text`` turns the pipeline's folder and a variant of weights into tokenizer and text
    encoder, ``load_scheduler`` the scheduler's folder into the scheduler.
    """
    given = dict(options)
    folder = find_folder(find_shipped(path), given)
    check_options(given)
    dtypes, variant = given.pop("torch_dtype", None), given.pop("variant", None)
    index = read_index(folder, given=given.keys())
    parts = {name: index[name] for name in DEFAULTS if name in index}
    if not {"tokenizer", "text_encoder"} <= given.keys():
        parts["tokenizer"], parts["text_encoder"] = load_text(folder, variant)
    for name in ("codec", "prior", "decoder", "planner"):
        library, class_name = index.get(name) or (None, "")
        if name not in given and library is not None:
            kind = find_class(name, library, class_name)
            options = {"torch_dtype": choose(dtypes, name)}
            options |= {} if variant is None else {"variant": variant}
            parts[name] = kind.from_pretrained(folder / name, **options)
    library, class_name = index.get("scheduler") or (None, None)
    if "scheduler" not in given and library is not None:
        if class_name != EULER:
            raise ValueError(f"the scheduler must be a {EULER}, got {class_name}")
        parts["scheduler"] = load_scheduler(folder / "scheduler")
    made = cls(**parts | given)
    # a hub id, not its cache
    is_hub = not Path(path).is_dir() and find_shipped(path) == str(path)
    made.register_to_config(_name_or_path=str(path) if is_hub else str(folder))
    return made


def choose(dtypes: Any, name: str) -> torch.dtype | None:
    """Return the type of one component; ``dtypes`` are one for all, or by component."""
    return dtypes.get(name, dtypes.get("default")) if isinstance(dtypes, Mapping) else dtypes


def find_class(name: str, library: str, class_name: str) -> Any:
    """Find the class of a component.

    Only our modules are imported because a folder names them, and that of a codec of the user's.

    Raises:
        ValueError: it cannot be imported, or was not.
    """
    try:
        if library.split(".")[0] in OWN_MODULES:
            module = import_module(library)
        elif name == "codec":
            module = import_user_module(library)
        else:
            module = sys.modules[library]
        return getattr(module, class_name)
    except (ImportError, KeyError, AttributeError) as error:
        raise ValueError(
            f"the {name}'s class {library}:{class_name} cannot be imported ({error}): start in the "
            "folder of its module, or name that in PYTHONPATH"
        ) from error


def read_scheduler(folder: Path) -> SavedScheduler:
    """Read the config of a saved scheduler."""
    path = folder / "scheduler_config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: not a saved scheduler")
    return SavedScheduler(read_json_object(path))


def load_scheduler(folder: Path) -> Any:
    """Load diffusers' scheduler."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler.from_config(dict(read_scheduler(folder).config))
