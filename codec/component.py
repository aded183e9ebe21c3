"""The base of every trainable part: diffusers' saving and loading, made strict."""

import inspect
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, get_args, get_type_hints

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from safetensors import SafetensorError, safe_open

from codec.whole_file import read_json_object

HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only", "force_download")
"""Options of ``from_pretrained`` that go to huggingface_hub."""
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "README.md"]
INTERNAL_OPTIONS = (
    *("low_cpu_mem_usage", "use_safetensors", "variant", "proxies", "provider", "sess_options"),
    *("device_map", "max_memory", "offload_folder", "offload_state_dict", "use_flashpack"),
    *("quantization_config", "disable_mmap", "dduf_entries", "parallel_config"),
)
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"


class Component(ModelMixin, ConfigMixin):
    """A ``ModelMixin`` whose ``from_pretrained`` refuses what diffusers would only log.

    An unknown or missing config key, a missing, extra or misshapen tensor, a truncated file and a
    pickle in place of safetensors are all errors that name the culprit. Weights saved in half
    precision load as float32 unless ``torch_dtype`` says otherwise.
    """

    former_keys: ClassVar[tuple[str, ...]] = ()
    """Keys of ``config.json`` that earlier versions wrote; kept in ``config`` behind a "_"."""
    added_keys: ClassVar[dict[str, Any]] = {}
    """Keys that earlier versions did not write, with the values that these versions stand for."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # diffusers finds out how to load a class by the bases that its module names
        vars(sys.modules[cls.__module__])["ModelMixin"] = ModelMixin

    if TYPE_CHECKING:

        @property
        def config(self) -> Any:
            """The registered arguments, by attribute or by key."""

    @classmethod
    def from_pretrained(cls, path: str | Path, **kwargs: Any) -> "Component":
        """Load from a local folder or from a hub id; both are checked.

        Args:
            path: of the folder, or a hub id (user/name).
            **kwargs: ``subfolder``, ``torch_dtype`` and those of ``HUB_OPTIONS``.

        Raises:
            ValueError: the folder's config or weights do not fit this class, or an unknown option.
            FileNotFoundError: a local folder lacks ``config.json`` or its weights, or there is
                neither such a folder nor such a hub id.
        """
        folder = find_folder(path, kwargs) / (kwargs.pop("subfolder", None) or "")
        dtype = kwargs.pop("torch_dtype", None) or torch.float32
        for name in INTERNAL_OPTIONS:  # with which diffusers loads the parts of a pipeline
            kwargs.pop(name, None)
        if kwargs:
            raise ValueError(f"from_pretrained of {cls.__name__} takes no {next(iter(kwargs))}")
        check_folder(cls, folder)
        return super().from_pretrained(
            str(folder), torch_dtype=dtype, use_safetensors=True, low_cpu_mem_usage=False
        )

    @classmethod
    def extract_init_dict(cls, config: dict[str, Any], **kwargs: Any) -> tuple[Any, ...]:
        """Split a config into arguments, others and hidden ones, the former keys among the last."""
        former = {f"_{name}": config[name] for name in cls.former_keys if name in config}
        current = {name: value for name, value in config.items() if name not in cls.former_keys}
        return super().extract_init_dict(current | former, **kwargs)

    def to_json_string(self) -> str:
        """The config as ``config.json`` holds it, without the folder that it was loaded from."""
        config = json.loads(super().to_json_string())
        config.pop("_name_or_path", None)
        return json.dumps(config, indent=2, sort_keys=True) + "\n"


def find_folder(path: str | Path, options: dict[str, Any]) -> Path:
    """Return a folder, or that of a hub id's files: downloaded, or in the hub's cache.

    Args:
        path: of a local folder, or a hub id.
        options: of ``from_pretrained``; those of ``HUB_OPTIONS`` are taken out.

    Raises:
        FileNotFoundError: it is neither; at once where it cannot be a hub id ("user/name").
    """
    hub = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
    if Path(path).is_dir():
        return Path(path)
    message = f"{path} is not a folder, and no hub id (user/name) that could be reached"
    if Path(path).exists() or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(path)):
        raise FileNotFoundError(message)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(path), allow_patterns=HUB_FILES, **hub))
    except Exception as error:  # of several libraries: no network, no such name, no access
        if isinstance(error, OSError) and error.errno is not None:  # such as a full disk
            raise
        raise FileNotFoundError(f"{message} ({type(error).__name__})") from error


def check_folder(cls: type[Component], folder: Path) -> None:
    """Raise unless ``folder`` holds exactly the config and tensors that ``cls`` expects."""
    config = read_config(cls, folder / "config.json")
    with torch.device("meta"):
        model = cls(**config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = read_shapes(folder)
    numbers = {name: tensor.is_floating_point() for name, tensor in model.state_dict().items()}
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    if missing:
        raise ValueError(f"{folder / WEIGHTS_NAME} lacks the tensor {missing[0]!r}{_more(missing)}")
    if extra:
        raise ValueError(
            f"{folder / WEIGHTS_NAME} holds an unknown tensor {extra[0]!r}{_more(extra)}"
        )
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise ValueError(
                f"{folder / WEIGHTS_NAME}: tensor {name!r} must be {shape}, got {found[name].shape}"
            )
        if found[name].dtype.startswith(("F", "BF")) != numbers[name]:
            kind = "floating point" if numbers[name] else "integers"
            raise ValueError(
                f"{folder / WEIGHTS_NAME}: tensor {name!r} must be {kind}, got {found[name].dtype}"
            )


def read_config(cls: type[Component], path: Path) -> dict[str, Any]:
    """Read a component's ``config.json`` and check its keys against ``cls.__init__``."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: not a saved {cls.__name__}")
    config = read_json_object(path)
    former = cls.former_keys
    given = {key: value for key, value in config.items() if key[:1] != "_" and key not in former}
    values = {**cls.added_keys, **given}
    check_config(cls, values, path)
    return values


def check_config(cls: type[Component], values: dict[str, Any], path: Path) -> None:
    """Raise unless ``values`` are exactly the arguments of ``cls.__init__``, of the right types."""
    types = get_type_hints(cls.__init__)
    known = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
    unknown = sorted(values.keys() - set(known))
    if unknown:
        raise ValueError(f"{path}: unknown key {unknown[0]!r}; {cls.__name__} knows {known}")
    missing = [name for name in known if name not in values]
    if missing:
        raise ValueError(f"{path} lacks the key {missing[0]!r}{_more(missing)}")
    for name, value in values.items():
        if not fits(value, types[name]):
            wanted = getattr(types[name], "__name__", types[name])
            raise ValueError(f"{path}: {name} must be {wanted}, got {value!r}")


def fits(value: Any, annotation: Any) -> bool:
    """Tell whether a JSON value is one of the plain types of an annotation; others always fit."""
    options = get_args(annotation) or (annotation,)
    if not all(option in (int, float, str, bool, type(None)) for option in options):
        return True
    if isinstance(value, int) and not isinstance(value, bool):
        return int in options or float in options
    return type(value) in options


class TensorHeader(NamedTuple):
    """Shape and type of a stored tensor, the type as safetensors writes it ("F16", "I64")."""

    shape: tuple[int, ...]
    dtype: str


def read_shapes(folder: Path) -> dict[str, TensorHeader]:
    """Names, shapes and types of the tensors in a folder's safetensors file (header only)."""
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        pickles = sorted(file.name for file in folder.glob("*.bin"))
        hint = f" ({pickles[0]} is a pickle and is never loaded)" if pickles else ""
        raise FileNotFoundError(f"{path} does not exist{hint}")
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: TensorHeader(tuple(part.get_shape()), part.get_dtype())
                for name, part in slices.items()
            }
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
