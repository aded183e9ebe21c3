"""DAC, Mimi, EnCodec and X-Codec of transformers, random weights and codebooks, small sizes."""

from typing import Any

import torch

from codec.transformers_codec import TransformersCodec

SETTINGS: dict[str, dict[str, Any]] = {
    "dac": {
        "encoder_hidden_size": 4,
        "downsampling_ratios": [4, 8, 10],
        "decoder_hidden_size": 16,
        "upsampling_ratios": [10, 8, 4],
        "n_codebooks": 3,
        "codebook_size": 16,
        "codebook_dim": 4,
        "sampling_rate": 16000,
        "hop_length": 320,
        "hidden_size": 32,
    },
    "mimi": {
        "num_filters": 4,
        "hidden_size": 16,
        "upsampling_ratios": [10, 8, 6],
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 16,
        "codebook_size": 16,
        "codebook_dim": 8,
        "vector_quantization_hidden_dimension": 8,
        "num_quantizers": 3,
        "num_semantic_quantizers": 1,
        "frame_rate": 25.0,
        "sampling_rate": 24000,
        "upsample_groups": 16,
        "audio_channels": 1,
        "sliding_window": 8,
    },
    "encodec": {
        "num_filters": 4,
        "hidden_size": 16,
        "upsampling_ratios": [10, 8, 4],
        "codebook_size": 16,
        "codebook_dim": 16,
        "target_bandwidths": [0.6, 0.9],
        "sampling_rate": 24000,
        "audio_channels": 1,
    },
    "xcodec": {
        "target_bandwidths": [0.25, 0.45, 0.65],
        "codebook_size": 16,
        "codebook_dim": 32,
        "acoustic_model_config": {
            "model_type": "dac",
            "encoder_hidden_size": 2,
            "downsampling_ratios": [8, 5, 4, 2],
            "decoder_hidden_size": 16,
            "upsampling_ratios": [8, 5, 4, 2],
            "hidden_size": 16,
        },
        "semantic_model_config": {
            "model_type": "hubert",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "conv_dim": [8] * 7,
            "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2,
        },
    },
}


def tiny_transformers_codec(kind: str) -> TransformersCodec:
    """Three codebooks of sixteen entries, far apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        codec = TransformersCodec(kind, SETTINGS[kind])  # type: ignore[arg-type]
        scale = 1.0
        if kind == "encodec":  # untrained, its biases drown what it hears
            for name, tensor in codec.state_dict().items():
                if ".bias" in name:
                    tensor.zero_()
            with torch.no_grad():
                scale = float(codec.model.encoder(torch.rand(1, 1, 16_000) - 0.5).std())
        for name, tensor in codec.state_dict().items():
            if name.endswith((".embed", ".embed_sum", ".codebook.weight")):
                tensor.copy_(torch.randn(tensor.shape) * scale)
            elif name.endswith(".cluster_usage"):
                tensor.fill_(1.0)
    return codec.eval()
