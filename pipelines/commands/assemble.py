"""Put trained parts and a frozen text encoder together as one saved pipeline."""

import argparse
from pathlib import Path
from typing import Any

from pipelines.inference.text import PRETRAINED


def assemble(
    output: str | Path,
    codec: str | Path | None = None,
    prior: str | Path | None = None,
    decoder: str | Path | None = None,
    planner: str | Path | None = None,
    text_encoder: str | Path = PRETRAINED,
    half_precision: bool = False,
    musicgen: str | None = None,
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
        musicgen: folder or hub id of a MusicGen of transformers, in the place of codec, prior and
            text encoder.
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

    if musicgen is not None:
        from pipelines.inference.musicgen_parts import take_musicgen

        parts = take_musicgen(musicgen)
    elif codec is None or prior is None:
        raise ValueError("assemble needs --codec and --prior, or --musicgen")
    else:
        names = ("tokenizer", "text_encoder", "codec", "prior")
        found = (*load_text_encoder(text_encoder), load_codec(codec), Prior.from_pretrained(prior))
        parts = dict(zip(names, found, strict=True))
    pipeline = Pipeline(
        **parts,
        decoder=DiffusionDecoder.from_pretrained(decoder) if decoder else None,
        scheduler=euler_scheduler() if decoder else None,
        planner=Prior.from_pretrained(planner) if planner else None,
        **defaults,
    )
    for name in ("prior", "planner"):
        made_for = (pipeline.components[name] or pipeline.prior).config.get("_text_encoder_hash")
        if made_for and made_for != hash_module(pipeline.text_encoder):
            raise ValueError(
                f"the {name} was trained with another text encoder than {text_encoder}"
            )
    if half_precision:
        pipeline.to(dtype=torch.float16)
    with new_folder(Path(output)) as partial:
        pipeline.save_pretrained(partial)
    return Path(output)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--codec", help="folder of a trained codec (MODULE:CLASS:FOLDER: of yours)")
    parser.add_argument("--prior", help="folder of a trained prior")
    parser.add_argument(
        "--musicgen",
        metavar="DIR_OR_ID",
        help="a MusicGen of transformers, in the place of codec, prior and text encoder",
    )
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
