"""The base of every trainable part: saved and loaded in the files of diffusers' models."""

import functools
import inspect
import itertools
import json
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypeVar, get_args, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from codec.whole_file import read_json_object

HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only", "force_download")
"""Options of ``from_pretrained`` that go to huggingface_hub."""
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "README.md"]
INTERNAL_OPTIONS = ("low_cpu_mem_usage", "use_safetensors")
"""Options of diffusers' ``from_pretrained`` that change nothing here."""
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
FILE_KEYS = ("_class_name", "_diffusers_version", "_name_or_path")
"""Keys of ``config.json`` that tell of the file."""
RANDOM = ("normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_")
"""Functions that draw initial weights."""
Init = TypeVar("Init", bound=Callable[..., None])


class Config(dict[str, Any]):
    """Hold arguments by key and by attribute; ``register_to_config`` changes them."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the config has no {name!r}") from None


def register_to_config(init: Init) -> Init:
    """Decorate ``__init__`` of a component: its arguments become ``config`` before it runs."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def registering_init(self: "Component", *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        _, *values = bound.arguments.items()
        self.register_to_config(**dict(values))
        init(self, *args, **kwargs)

    return registering_init  # type: ignore[return-value]


class Component(nn.Module):
    """A module with a config, which diffusers saves and loads as it does its own models.

    An unknown or missing config key, a missing, extra or misshapen tensor, a truncated file and a
    pickle in place of safetensors are all errors that name the culprit. Weights saved in half
    precision load as float32 unless ``torch_dtype`` says otherwise.
    """

    config: Any
    """The arguments of ``__init__``, by attribute or by key (``Config``)."""
    former_keys: ClassVar[tuple[str, ...]] = ()
    """Keys of ``config.json`` that earlier versions wrote; kept in ``config`` behind a "_"."""
    added_keys: ClassVar[dict[str, Any]] = {}
    """Keys that earlier versions did not write, with the values that these versions stand for."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # diffusers finds out how to load a class by the bases that its module names
        vars(sys.modules[cls.__module__]).setdefault("Component", Component)

    def register_to_config(self, **values: Any) -> None:
        """Add values to ``config``, or replace them."""
        self.__dict__["config"] = Config(self.__dict__.get("config", {}) | values)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        tensors = itertools.chain(self.parameters(), self.buffers())
        return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)

    @classmethod
    def from_pretrained(cls, path: str | Path, **kwargs: Any) -> Self:
        """Load from a local folder or from a hub id; both are checked.

        Args:
            path: of the folder, or a hub id (user/name).
            **kwargs: ``subfolder``, ``torch_dtype``, ``variant`` of the weights' file and those of
                ``HUB_OPTIONS``.

        Raises:
            ValueError: the folder's config or weights do not fit this class, or an unknown option.
            FileNotFoundError: a local folder lacks ``config.json`` or its weights, or there is
                neither such a folder nor such a hub id.
        """
        folder = find_folder(path, kwargs) / (kwargs.pop("subfolder", None) or "")
        dtype = kwargs.pop("torch_dtype", None) or torch.float32
        weights = folder / weights_name(kwargs.pop("variant", None))
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"torch_dtype must be a torch.dtype, got {dtype!r}")
        for name in INTERNAL_OPTIONS:
            kwargs.pop(name, None)
        if kwargs:
            raise ValueError(f"from_pretrained of {cls.__name__} takes no {next(iter(kwargs))}")
        values = read_config(cls, folder / "config.json")
        with WithoutStorage():
            model = cls(**values)
        check_tensors(model, weights)
        load_weights(model, weights, dtype)
        model.register_to_config(**read_hidden_keys(cls, folder / "config.json"))
        return model.eval()

    def save_pretrained(self, path: str | Path, variant: str | None = None) -> None:
        """Write ``config.json`` and the weights, as diffusers does for its own models.

        ``variant`` becomes a part of the name of the weights' file.
        """
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        named = {"_class_name": type(self).__name__, "_diffusers_version": version("diffusers")}
        content = json.dumps(self.config | named, indent=2, sort_keys=True)
        (folder / "config.json").write_text(content + "\n", encoding="utf-8")
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, folder / weights_name(variant), metadata={"format": "pt"})


def weights_name(variant: str | None = None) -> str:
    """Name the file of a variant's weights, as diffusers does."""
    return WEIGHTS_NAME if variant is None else WEIGHTS_NAME.replace(".", f".{variant}.")


class WithoutStorage(TorchFunctionMode):
    """Let ``torch.empty``, of which modules make their weights, take no memory and no time.

    Buffers that are computed, not loaded, are real tensors.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            kwargs = kwargs | {"device": "meta"}
        drawn = args[0] if args else kwargs.get("tensor")
        if getattr(func, "__name__", "") in RANDOM and isinstance(drawn, Tensor) and drawn.is_meta:
            return drawn  # PyTorch would import its compiler to draw nothing
        return func(*args, **kwargs)


def load_weights(module: nn.Module, path: Path, dtype: torch.dtype | None = None) -> None:
    """Give a module the tensors of a file, converted one after the other; None keeps their types.

    The file may be replaced afterwards: nothing stays mapped to memory.
    """

    def converted(tensor: Tensor) -> Tensor:
        return tensor.to(dtype if tensor.is_floating_point() else None, copy=True)

    with safe_open(path, framework="pt") as file:
        tensors = {name: converted(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    module.load_state_dict(tensors, assign=True)
    assert not any(t.is_meta for t in itertools.chain(module.parameters(), module.buffers()))
    module.to(dtype=dtype)  # what is computed, not loaded


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
    values = read_config(cls, folder / "config.json")
    with WithoutStorage():
        check_tensors(cls(**values), folder / WEIGHTS_NAME)


def check_tensors(model: Component, path: Path) -> None:
    """Raise unless a file holds exactly the tensors that a model of its config has."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = read_shapes(path)
    numbers = {name: tensor.is_floating_point() for name, tensor in model.state_dict().items()}
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    if missing:
        raise ValueError(f"{path} lacks the tensor {missing[0]!r}{_more(missing)}")
    if extra:
        raise ValueError(f"{path} holds an unknown tensor {extra[0]!r}{_more(extra)}")
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise ValueError(f"{path}: tensor {name!r} must be {shape}, got {found[name].shape}")
        if found[name].dtype.startswith(("F", "BF")) != numbers[name]:
            kind = "floating point" if numbers[name] else "integers"
            raise ValueError(f"{path}: tensor {name!r} must be {kind}, got {found[name].dtype}")


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


def read_hidden_keys(cls: type[Component], path: Path) -> dict[str, Any]:
    """Read what a component's ``config.json`` says besides its arguments; names begin with "_"."""
    content = read_json_object(path)
    former = {f"_{name}": content[name] for name in cls.former_keys if name in content}
    return {k: v for k, v in content.items() if k[:1] == "_" and k not in FILE_KEYS} | former


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


def read_shapes(path: Path) -> dict[str, TensorHeader]:
    """Names, shapes and types of the tensors in a safetensors file (header only)."""
    if not path.is_file():
        pickles = sorted(file.name for file in path.parent.glob("*.bin"))
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
