"""The components of a pipeline: which there are, whether they fit, whether a folder holds them."""

import json
from pathlib import Path
from typing import Any

from codec.spectral_codec import SpectralCodec
from decoder.diffusion_decoder import DiffusionDecoder
from decoder.sampler import check_conditions, check_scheduler
from prior.model import Prior
from prior.planner import check_planner

REQUIRED = ("tokenizer", "text_encoder", "codec", "prior")
OPTIONAL = ("decoder", "scheduler", "planner")


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
    if decoder is None:
        return
    if not isinstance(codec, SpectralCodec):
        raise ValueError(f"a DiffusionDecoder needs a SpectralCodec, got {type(codec).__name__}")
    if scheduler is None:
        raise ValueError("a DiffusionDecoder needs a scheduler, got None")
    check_scheduler(scheduler)
    check_conditions(codec, decoder)


def check_saved(folder: Path, given: Any = ()) -> None:
    """Raise unless ``model_index.json`` names every required component and its folder exists."""
    path = folder / "model_index.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: {folder} is not a saved pipeline")
    try:
        index = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    for name in (*REQUIRED, *OPTIONAL):
        if name in given:
            continue
        library = (index.get(name) or [None])[0]
        if library is None and name in REQUIRED:
            raise ValueError(f"{path}: the component {name!r} is null")
        if library is not None and not (folder / name).is_dir():
            raise FileNotFoundError(f"{folder / name} does not exist, but {path} names it")
