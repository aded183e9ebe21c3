"""Put trained parts and a frozen text encoder together as one saved pipeline."""

import argparse
from pathlib import Path
from typing import Any

from pipelines.inference.text import PRETRAINED


def assemble(
    output: str | Path,
    codec: str | Path,
    prior: str | Path,
    decoder: str | Path | None = None,
    planner: str | Path | None = None,
    text_encoder: str | Path = PRETRAINED,
    half_precision: bool = False,
    **defaults: Any,
) -> Path:
    """Load the parts, check that they fit, and save them as a pipeline.

    Args:
        output: folder to write; it appears when it is whole and replaces an older one.
        codec: folder of a trained codec, ``MODULE:CLASS:FOLDER`` for a class of yours.
        prior: folder of a trained prior.
        decoder: folder of a trained decoder; None leaves the codec's own decode.
        planner: folder of a trained planner, for a prior that reads plans.
        text_encoder: folder of a saved pipeline that lends its tokenizer and text encoder.
        half_precision: store float16; it is loaded as float32.
        defaults: guidance, temperature, top_k and fine_temperature of ``Pipeline``, to be stored.

    Returns:
        ``output``.

    Raises:
        ValueError: parts that were not made for one another.
        FileNotFoundError: a folder that holds no such part.
    """
    import torch

    from codec.whole_file import new_folder
    from decoder.diffusion_decoder import DiffusionDecoder
    from decoder.sampler import euler_scheduler
    from pipelines.data.codecs import hash_module, load_codec
    from pipelines.inference.text import load_text_encoder
    from pipelines.pipeline import Pipeline
    from prior.model import Prior

    tokenizer, encoder = load_text_encoder(text_encoder)
    pipeline = Pipeline(
        tokenizer,
        encoder,
        load_codec(codec),
        Prior.from_pretrained(prior),
        DiffusionDecoder.from_pretrained(decoder) if decoder else None,
        euler_scheduler() if decoder else None,
        Prior.from_pretrained(planner) if planner else None,
        **defaults,
    )
    for name in ("prior", "planner"):
        found = (pipeline.components[name] or pipeline.prior).config.get("_text_encoder_hash")
        if found and found != hash_module(encoder):
            raise ValueError(
                f"the {name} was trained with another text encoder than {text_encoder}"
            )
    if half_precision:
        pipeline.to(dtype=torch.float16)
    with new_folder(Path(output)) as partial:
        pipeline.save_pretrained(partial)
    return Path(output)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of ``partita assemble``."""
    parser.add_argument(
        "--codec", required=True, help="folder of a trained codec (MODULE:CLASS:FOLDER: of yours)"
    )
    parser.add_argument("--prior", required=True, help="folder of a trained prior")
    parser.add_argument("--decoder", help="folder of a trained decoder (default: none)")
    parser.add_argument("--planner", help="folder of a trained planner (default: none)")
    parser.add_argument(
        "--text-encoder",
        default=str(PRETRAINED),
        help="saved pipeline that lends its text encoder (default: the one that ships)",
    )
    parser.add_argument("--output", required=True, help="folder of the pipeline")
    parser.add_argument(
        "--half", dest="half_precision", action="store_true", help="store float16: half the size"
    )
    parser.add_argument("--guidance", type=float, default=3.0, help="default to store")
    parser.add_argument("--temperature", type=float, default=1.0, help="default to store")
    parser.add_argument("--top-k", type=int, default=250, help="default to store")
    parser.add_argument(
        "--fine-temperature", type=float, help="of the third and later codebooks, to store (1)"
    )


def run(args: argparse.Namespace) -> int:
    """Run ``partita assemble``."""
    print(f"{assemble(**vars(args))}: written")
    return 0
