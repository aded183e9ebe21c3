"""A whole pipeline of random weights, small enough to be built and run in every test."""

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from codec import SpectralCodec  # before transformers: guards torchaudio
from decoder import DiffusionDecoder
from pipelines import Pipeline
from prior import Prior, plan_codes

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
TEXT_WIDTH = 16
CODEBOOK_SIZE = 16
NUM_BOOKS = 4


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece over single letters: knows every word of a-z, a token per letter."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=512
    )


def tiny_text_encoder() -> BertModel:
    """One layer, 16 wide."""
    config = BertConfig(
        vocab_size=len(SPECIAL) + 52,
        hidden_size=TEXT_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=512,
    )
    return BertModel(config, add_pooling_layer=False).eval()


def tiny_codec(**changes: Any) -> SpectralCodec:
    """44.1 kHz stereo, four books of sixteen entries, set by k-means over noise."""
    sizes: dict[str, Any] = {
        "width": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "latent_dim": 8,
        "num_codebooks": NUM_BOOKS,
        "codebook_size": CODEBOOK_SIZE,
        "vocoder_iterations": 2,
    }
    codec = SpectralCodec(**(sizes | changes))
    codec.quantizer.initialize(torch.randn(256, codec.config.latent_dim))
    return codec.eval()


def tiny_pipeline(seed: int = 0, with_decoder: bool = True) -> Pipeline:
    """Text encoder, codec, planner, prior of two books and decoder; equal seeds, equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = tiny_prior(2, CODEBOOK_SIZE, reads_plan=True)
        planner = tiny_prior(plan_codes.NUM_BOOKS, plan_codes.CODEBOOK_SIZE)
        decoder = DiffusionDecoder(
            latent_dim=8,
            num_codebooks=NUM_BOOKS,
            width=16,
            num_layers=1,
            num_heads=2,
            default_steps=2,
            detail_std=0.05,  # its untrained noise stays below full scale
        )
        summaries = (prior.text_summary.project, planner.text_summary.project)
        assert prior.plan_reader is not None
        torch.nn.init.normal_(prior.plan_reader.project.weight, std=2.0)  # to be heard
        for starts_at_zero in (decoder.patch_out, *summaries):
            torch.nn.init.normal_(starts_at_zero.weight, std=0.02)
        return Pipeline(
            tiny_tokenizer(),
            tiny_text_encoder(),
            tiny_codec(),
            prior,
            decoder if with_decoder else None,
            FlowMatchEulerDiscreteScheduler() if with_decoder else None,
            planner,
            top_k=8,
            max_duration_s=20.0,
        )


def tiny_prior(num_codebooks: int, codebook_size: int, **changes: Any) -> Prior:
    """One layer, sixteen wide."""
    return Prior(
        num_codebooks=num_codebooks,
        codebook_size=codebook_size,
        width=16,
        num_layers=1,
        num_heads=2,
        text_width=TEXT_WIDTH,
        depth_width=16,
        depth_layers=1,
        depth_heads=2,
        **changes,
    )


def save_tiny_pipeline(folder: Path, **changes: Any) -> Path:
    """Save :func:`tiny_pipeline` and return the folder."""
    pipeline = tiny_pipeline(**changes)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return folder
