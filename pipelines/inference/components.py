"""The components of a pipeline: which there are, whether they fit, whether a folder holds them."""

import math
from pathlib import Path
from typing import Any

from codec.component import HUB_OPTIONS, fits
from codec.whole_file import read_json_object
from decoder.diffusion_decoder import DiffusionDecoder
from decoder.painting import check_conditions
from decoder.sampler import check_scheduler
from pipelines.data.codecs import hash_codec, hash_module, refuse_other_codec
from prior.model import Prior
from prior.planner import check_planner

REQUIRED = ("tokenizer", "text_encoder", "codec", "prior")
OPTIONAL = ("decoder", "scheduler", "planner")
DEFAULTS: dict[str, Any] = {
    "guidance": float,
    "temperature": float,
    "top_k": int | None,
    "max_duration_s": float,
    "fine_temperature": float | None,
}
"""The stored defaults of a call and their types."""


def check_fit(
    codec: Any,
    prior: Prior,
    decoder: DiffusionDecoder | None,
    scheduler: Any,
    planner: Prior | None = None,
) -> None:
    """Raise unless the parts were made for one another."""
    if planner is not None:
        check_planner(planner)
        if not prior.config.reads_plan:
            raise ValueError("a planner needs a prior with reads_plan=true")
    if prior.config.num_codebooks > codec.num_codebooks:
        raise ValueError(
            f"the prior writes {prior.config.num_codebooks} codebooks, "
            f"the codec has {codec.num_codebooks}"
        )
    if prior.config.codebook_size != codec.codebook_size:
        raise ValueError(
            f"codebook_size differs: prior {prior.config.codebook_size}, "
            f"codec {codec.codebook_size}"
        )
    rates = prior.config.frame_rate, codec.frame_rate
    if codec.frame_rate is None:
        raise ValueError(f"a pipeline needs a codec of sound, got {type(codec).__name__} of notes")
    if rates[0] is None or not math.isclose(*rates, rel_tol=1e-6):
        raise ValueError(f"frame_rate differs: prior {rates[0]}, codec {rates[1]}")
    for name, part in (("prior", prior), ("decoder", decoder)):
        if part is not None and (found := part.config.get("_codec_hash")):
            refuse_other_codec(found, codec, f"the {name}")
    if decoder is None:
        return
    check_conditions(codec, decoder)
    if scheduler is None:
        raise ValueError("a DiffusionDecoder needs a scheduler, got None")
    check_scheduler(scheduler)


def renew_origins(pipeline: Any) -> None:
    """Let parts that know the codec and text encoder they were made for know them as they are now.

    Parts that belong together are then saved as such in half precision too, which rounds weights.
    """
    owners: dict[str, tuple[tuple[str, str], Any, Any]] = {
        "_codec_hash": (("prior", "decoder"), hash_codec, pipeline.codec),
        "_text_encoder_hash": (("prior", "planner"), hash_module, pipeline.text_encoder),
    }
    for name, (parts, hash_of, owner) in owners.items():
        known = [part for part in (getattr(pipeline, part) for part in parts) if part is not None]
        known = [part for part in known if part.config.get(name)]
        if known:
            renewed = hash_of(owner)  # once: it takes a while
            for part in known:
                part.register_to_config(**{name: renewed})


def check_options(given: dict[str, Any]) -> None:
    """Raise ValueError for an option of diffusers' ``from_pretrained`` that is not honored here."""
    for name in given:
        if name not in ("torch_dtype", "variant", *REQUIRED, *OPTIONAL, *DEFAULTS):
            raise ValueError(
                f"from_pretrained takes no {name}: choose from torch_dtype, variant, "
                f"{', '.join((*HUB_OPTIONS, *REQUIRED, *OPTIONAL, *DEFAULTS))}"
            )


def read_index(folder: Path, given: Any = ()) -> dict[str, Any]:
    """Read and check ``model_index.json``; ``given`` components are not loaded from the folder.

    Raises:
        FileNotFoundError: the file or the folder of a component is missing.
        ValueError: a key is unknown, a required component is null, or a value has the wrong type.
    """
    path = folder / "model_index.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: {folder} is not a saved pipeline")
    index = read_json_object(path)
    known = (*REQUIRED, *OPTIONAL, *DEFAULTS)
    for name, value in index.items():
        if name not in known and name[:1] != "_":  # diffusers' own begin with "_"
            raise ValueError(f"{path}: unknown key {name!r}; a pipeline knows {', '.join(known)}")
        if name in DEFAULTS and not fits(value, DEFAULTS[name]):
            wanted = getattr(DEFAULTS[name], "__name__", DEFAULTS[name])
            raise ValueError(f"{path}: {name} must be {wanted}, got {value!r}")
    for name in (*REQUIRED, *OPTIONAL):
        if name in given:
            continue
        entry = index.get(name) or [None, None]
        if entry == [None, None] and name in REQUIRED:
            raise ValueError(f"{path}: the component {name!r} is null")
        if entry == [None, None]:
            continue
        if not isinstance(entry, list) or [type(item) for item in entry] != [str, str]:
            raise ValueError(f"{path}: {name} must be [library, class], got {entry!r}")
        if not (folder / name).is_dir():
            raise FileNotFoundError(f"{folder / name} does not exist, but {path} names it")
    return index
