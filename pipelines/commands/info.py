"""``partita info``: what a saved pipeline holds, or what a training config costs."""

import argparse
import math
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.inference.loading import SHIPPED

if TYPE_CHECKING:
    from pipelines.training.cost import Estimate

LONGEST_HOURS = 24 * 30  # hardware on which a training would take longer is not named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", nargs="?", default=str(SHIPPED), help="saved pipeline (default: what ships)"
    )
    parser.add_argument("--config", help="YAML file of a trainer, to estimate what it costs")
    parser.add_argument("--processes", type=int, default=1, help="that train the config together")


def run(args: argparse.Namespace) -> int:
    """Print the description."""
    if args.config is None:
        print("\n".join(describe_pipeline(Path(args.folder))))
        return 0
    if args.processes < 1:
        raise ValueError(f"--processes must be at least 1, got {args.processes}")
    print("\n".join(describe_config(args.config, args.processes)))
    return 0


# -- a config -------------------------------------------------------------------------------


def describe_config(path: str, processes: int = 1) -> list[str]:
    """Say what training with a config takes, in lines; the head of every file in ``configs/``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the config has an unknown key, a wrong type or a value that does not fit.
    """
    from pipelines.training.cost import estimate

    part, settings = read_config(path)
    return render_estimate(estimate(part, settings, processes), settings["training"])


def read_config(path: str) -> tuple[str, dict[str, Any]]:
    """Read the part that a config trains and all its fields, checked as the trainer would.

    Returns:
        "codec", "prior" or "decoder", and the sections as dicts.
    """
    import torch

    from pipelines.training.configuration import ConfigParser, parse

    part = which_part(Path(path))
    parts = trainer_parts(part)
    try:
        settings = parse(ConfigParser(f"train {part}", parts), ["--config", path])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    sections = {name: settings[name].as_dict() for name in parts}
    with torch.device("meta"):  # the constructor checks how the values fit together
        parts["model"](**sections["model"])
    for name in parts.keys() - {"model"}:
        parts[name](**sections[name])
    return part, sections


def which_part(path: Path) -> str:
    """Tell the part from what the data section names: spectrograms, tokens, or (decoder) both."""
    from pipelines.training.configuration import read_yaml

    content = read_yaml(path)
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, dict) or not {"prepared", "tokens"} & data.keys():
        raise ValueError(f"{path} is no trainer's config: it lacks data.prepared and data.tokens")
    if "tokens" not in data:
        return "codec"
    return "decoder" if "prepared" in data else "prior"


def trainer_parts(part: str) -> dict[str, Any]:
    """Return the sections of a trainer's configuration, with the class of each."""
    parts: dict[str, Any] = import_module(f"pipelines.train_{part}").PARTS
    return parts


def render_estimate(cost: "Estimate", training: dict[str, Any]) -> list[str]:
    """Write an estimate in lines."""
    from pipelines.training.cost import HARDWARE

    codebooks = f" and {cost.codebook_numbers:,} in codebooks" if cost.codebook_numbers else ""
    per_step = training["batch_size"] * training["gradient_accumulation_steps"] * cost.processes
    codes = f" of {cost.codes // cost.frames} codes" if cost.part == "prior" else ""
    hours = cost.hours_of_audio
    sound = f" ({duration(hours)} of audio)" if hours is not None else ""
    crowd = f"{cost.processes} times " if cost.processes > 1 else ""
    times = [
        f"{duration(cost.hours(hardware))} on {crowd}{hardware.name}"
        for hardware in HARDWARE
        if cost.fits(hardware) and cost.hours(hardware) < LONGEST_HOURS
    ]
    return [
        f"{cost.part}: {cost.parameters:,} parameters{codebooks}",
        f"training: {training['steps']:,} steps of {per_step} items, "
        f"{large(cost.frames)} token frames{codes}{sound}",
        f"memory: about {size(cost.training_memory)} to train (bf16, each process), "
        f"{size(cost.weight_bytes)} of weights to run (float32), beside PyTorch's own",
        f"cost: {cost.training_flops:.1e} operations, about "
        + (", ".join(times) or "too much for any hardware known here"),
    ]


def large(number: float) -> str:
    """Write 1234567 as "1.23M"."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g}{letter}"
    return f"{number:.0f}"


def size(number: float) -> str:
    """Write bytes in MB or GB of a thousand."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def duration(hours: float) -> str:
    """Write hours in the unit that reads best."""
    if hours < 1 / 60:
        return "seconds"
    if hours < 1:
        return f"{hours * 60:.0f} min"
    if hours < 72:
        return f"{hours:.1f} h"
    return f"{hours / 24:.1f} days" if hours < 24 * 365 else f"{hours / 24 / 365:.1f} years"


# -- a saved pipeline -----------------------------------------------------------------------


def describe_pipeline(folder: Path) -> list[str]:
    """Say what a saved pipeline holds, read from its configs and the heads of its weight files.

    Raises:
        FileNotFoundError: the folder is not a saved pipeline or lacks a file.
        ValueError: a config or the names and shapes of the weights do not fit.
    """
    from codec.component import read_shapes
    from pipelines.inference.components import read_index

    index = read_index(folder)
    names = ("text_encoder", "codec", "planner", "prior", "decoder")
    present = [name for name in names if (index.get(name) or [None])[0] is not None]
    models = {
        name: read_component(folder, name, *index[name])
        for name in present
        if name != "text_encoder"
    }
    heads = read_shapes(folder / "text_encoder" / "model.safetensors").values()
    counts = {"text_encoder": sum(math.prod(head.shape) for head in heads)}
    counts |= {
        name: sum(parameter.numel() for parameter in model.parameters())
        for name, model in models.items()
    }
    counts["total"] = sum(counts.values())
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    lines = [f"{folder}: {size(written)} on disk", "parameters"]
    lines += [f"  {name.replace('_', ' '):14}{count:>15,}" for name, count in counts.items()]
    lines += describe_rates(models["codec"], models["prior"], models.get("decoder"))
    lines += describe_defaults(index, models.get("decoder"))
    return lines + describe_card(folder / "README.md")


def read_component(folder: Path, name: str, library: str, class_name: str) -> Any:
    """Build a part without its weights, which must fit; one of the user's class is loaded whole."""
    from codec.component import Component, WithoutStorage, check_folder
    from codec.component import read_config as read_component_config
    from pipelines.inference.saved_pipeline import find_class

    kind = find_class(name, library, class_name)
    if not issubclass(kind, Component):
        return kind.from_pretrained(folder / name)
    check_folder(kind, folder / name)
    with WithoutStorage():
        return kind(**read_component_config(kind, folder / name / "config.json"))


def describe_rates(codec: Any, prior: Any, decoder: Any) -> list[str]:
    """Write rates, bitrates and the prior's step, in lines."""
    from prior.native.step import describe_step

    bits = codec.frame_rate * math.log2(codec.codebook_size) / 1000
    count, written = codec.num_codebooks, prior.num_codebooks
    rate, channels, more = codec.sample_rate, codec.channels, ""
    if decoder is not None and decoder.vocoder is not None:
        rate, channels = decoder.vocoder.log_mel.sample_rate, decoder.config.channels
        more = f", painted from a codec of {codec.sample_rate} Hz, {codec.channels}"
    return [
        f"audio: {rate} Hz, {channels} channels{more}",
        f"tokens: {codec.frame_rate:g} frames a second, {count} codebooks of {codec.codebook_size}",
        f"bitrate: {bits * count:.2f} kbps with all {count} codebooks, "
        f"{bits * written:.2f} kbps with the {written} that the prior generates",
        f"prior: {prior.config.get('backbone', type(prior).__name__)}",
        f"step of the prior on a CPU: {describe_step(prior)}",
    ]


def describe_defaults(index: dict[str, Any], decoder: Any) -> list[str]:
    """Describe what a call uses by default, in lines."""
    names = ("guidance", "temperature", "top_k", "max_duration_s")
    defaults = [f"{name} {index[name]:g}" for name in names if index.get(name) is not None]
    steps = [f"steps {decoder.config.default_steps}"] if decoder is not None else []
    return ["defaults: " + ", ".join(defaults + steps)]


def describe_card(path: Path) -> list[str]:
    """Write license and training data as the model card tells them, in lines."""
    if not path.is_file():
        return ["license and training data: not stated (no README.md in the folder)"]
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    try:
        card = ModelCard.load(path, ignore_metadata_errors=True)
    except (YAMLError, ValueError) as error:
        raise ValueError(f"{path}: the front matter is not YAML: {error}") from error
    lines = [f"license: {card.data.license or 'not stated'}"]
    named = card.data.datasets or []
    named = [str(name) for name in (named if isinstance(named, list) else [named])]
    lines += [f"data: {', '.join(named)}"] if named else []
    section = re.search(r"^#+ *Training data *\n(.*?)(?=^#|\Z)", card.text, re.I | re.M | re.S)
    if section:
        lines += ["training data", *(f"  {line}" for line in section[1].strip().splitlines())]
    elif not named:
        lines.append("training data: not stated")
    return lines
