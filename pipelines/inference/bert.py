"""BERT (Devlin et al. 2018): tokenizer and encoder, whose transformers modules import slowly."""

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from codec.component import Config, WithoutStorage, load_weights
from codec.whole_file import read_json_object
from pipelines.data.caption_length import read_tokenizer

CONFIG_KEYS = (
    *("add_cross_attention", "attention_probs_dropout_prob", "bos_token_id", "classifier_dropout"),
    *("eos_token_id", "hidden_act", "hidden_dropout_prob"),
    *("hidden_size", "initializer_range", "intermediate_size", "is_decoder", "layer_norm_eps"),
    *("max_position_embeddings", "model_type", "num_attention_heads", "num_hidden_layers"),
    *("pad_token_id", "tie_word_embeddings", "type_vocab_size", "use_cache", "vocab_size"),
)
"""Keys of transformers' ``config.json`` that tell of the model."""
FORMER_KEYS = ("position_embedding_type", "gradient_checkpointing")
PLAIN = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
"""Values with which a config describes this encoder."""
SAVED_CLASSES = ("BertTokenizer", "TokenizersBackend")
"""Tokenizers of transformers that do what their ``tokenizer.json`` says."""


class KeptEmbedding(nn.Embedding):
    """A table of any precision whose rows are given as float32."""

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight).float()


def as_float32(module: nn.Module, tensors: dict[str, Tensor], *_: Any) -> None:
    """Make a ``state_dict`` float32."""
    tensors.update({name: tensor.float() for name, tensor in tensors.items()})


class BertStates(NamedTuple):
    """Name the output as transformers does: (B, L, D)."""

    last_hidden_state: Tensor


class BertModel(nn.Module):
    """An encoder with names, tensors and states of transformers' ``BertModel``, without its pooler.

    It is built from transformers' ``config.json``. It computes as float32 whatever its tables are
    kept in, and its ``state_dict`` is float32 too.

    Raises:
        ValueError: the config describes another model.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        missing = [key for key in CONFIG_KEYS if key not in config]
        other = [key for key, value in PLAIN.items() if config.get(key, value) != value]
        if missing or other:
            raise ValueError(f"not a plain BERT encoder: {(missing + other)[0]}")
        self.config = Config(config)
        self.register_state_dict_post_hook(as_float32)
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        positions, types = config["max_position_embeddings"], config["type_vocab_size"]
        self.embeddings: Any = nn.Module()
        self.embeddings.word_embeddings = KeptEmbedding(config["vocab_size"], width)
        self.embeddings.position_embeddings = KeptEmbedding(positions, width)
        self.embeddings.token_type_embeddings = KeptEmbedding(types, width)
        self.embeddings.LayerNorm = nn.LayerNorm(width, eps)
        self.encoder: Any = nn.Module()
        self.encoder.layer = nn.ModuleList(
            BertLayer(width, config["num_attention_heads"], config["intermediate_size"], eps)
            for _ in range(config["num_hidden_layers"])
        )

    @classmethod
    def from_pretrained(cls, folder: Path) -> "BertModel":
        """Load what transformers saved, and keep tables in half precision that were.

        Raises:
            ValueError: the config describes another model.
            RuntimeError: the tensors are not those of the model.
        """
        with WithoutStorage():
            model = cls(read_json_object(folder / "config.json"))
        load_weights(model, folder / "model.safetensors")
        for module in (model.encoder, model.embeddings.LayerNorm):  # once, not in every call
            module.float()
        return model.eval().requires_grad_(False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> BertStates:
        """(B, L) token ids and mask -> (B, L, D)."""
        tables = self.embeddings
        types = torch.zeros_like(input_ids)
        x = tables.word_embeddings(input_ids) + tables.token_type_embeddings(types)
        x = x + tables.position_embeddings(torch.arange(x.shape[1], device=x.device))
        x = tables.LayerNorm(x)  # (B, L, D)
        mask = None if attention_mask.all() else attention_mask.bool()[:, None, None]
        for layer in self.encoder.layer:
            x = layer(x, mask)
        return BertStates(x)


class BertLayer(nn.Module):
    """Self-attention and a feed-forward layer, each normalized after it was added."""

    def __init__(self, width: int, num_heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        names = ("query", "key", "value")
        self.attention: Any = nn.ModuleDict(
            {
                "self": nn.ModuleDict({name: nn.Linear(width, width) for name in names}),
                "output": add_and_normalize(width, width, eps),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, hidden)})
        self.output: Any = add_and_normalize(hidden, width, eps)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, L, D) and the mask (B, 1, 1, L) of keys that are seen -> (B, L, D)."""
        B, L, D = x.shape
        query, key, value = (
            linear(x).view(B, L, self.num_heads, -1).transpose(1, 2)
            for linear in self.attention["self"].values()
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed = mixed.transpose(1, 2).reshape(B, L, D)
        output = self.attention["output"]
        x = output["LayerNorm"](output["dense"](mixed) + x)
        hidden = F.gelu(self.intermediate["dense"](x))
        return self.output["LayerNorm"](self.output["dense"](hidden) + x)


def add_and_normalize(width: int, out_width: int, eps: float) -> nn.ModuleDict:
    """Make the layers that end a branch."""
    layers = {"dense": nn.Linear(width, out_width), "LayerNorm": nn.LayerNorm(out_width, eps)}
    return nn.ModuleDict(layers)


class WordPieceTokenizer:
    """A tokenizer saved in a folder, to be called as those of transformers are.

    Raises:
        ValueError: a file is damaged, or of a tokenizer of another kind.
    """

    def __init__(self, folder: Path) -> None:
        config = read_json_object(folder / "tokenizer_config.json")
        self.saved_class: str = config.get("tokenizer_class", "")
        self.tokenizer = read_tokenizer(folder / "tokenizer.json")
        self.padding = self.tokenizer.token_to_id(str(config.get("pad_token")))
        if self.saved_class not in SAVED_CLASSES or self.padding is None:
            raise ValueError(f"{folder} holds a tokenizer of another kind, {self.saved_class}")

    def __call__(
        self, texts: str | list[str], padding: bool = False, return_tensors: str | None = None
    ) -> dict[str, Any]:
        """Encode a text to a list of ids, or texts to (B, L) tensors of ids and of their mask."""
        if isinstance(texts, str):
            return {"input_ids": self.tokenizer.encode(texts).ids}
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        longest = max(map(len, rows))
        ids = [row + [self.padding] * (longest - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}

    def get_vocab(self) -> dict[str, int]:
        """Every token and its id."""
        return self.tokenizer.get_vocab()


def load_text_parts(folder: Path, variant: str | None = None) -> tuple[Any, nn.Module]:
    """Load tokenizer and text encoder; transformers loads, or refuses, what is no plain BERT.

    So it does with a ``variant`` of the weights.

    Raises:
        FileNotFoundError: the folder lacks one of them.
        ValueError: a file is damaged, or the weights do not fit the encoder's config.
    """
    with suppress(OSError, ValueError, RuntimeError, SafetensorError):
        if variant is None:
            encoder = BertModel.from_pretrained(folder / "text_encoder")
            return WordPieceTokenizer(folder / "tokenizer"), encoder
    from pipelines.inference.text import load_text_encoder

    return load_text_encoder(folder, variant)
