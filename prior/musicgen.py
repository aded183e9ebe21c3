"""MusicgenPrior: the language model of MusicGen (Copet et al. 2023, transformers) as a prior."""

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.component import Component, register_to_config
from codec.torchaudio_guard import guard_torchaudio
from prior.condition import Condition


@dataclass
class MusicgenState:
    """Hold what has been read; ``FrameGenerator`` owns it."""

    text: Tensor  # (B, L, D) projected token states, zeros where they do not count
    mask: Tensor  # (B, L) bool, which count
    max_frames: int  # frames of the piece, the prompt included
    cache: Any  # of transformers, keys and values of all layers
    prompt: Tensor  # (B, K, P) frames that are known
    position: int = 0  # columns read, besides the first of padding

    def tensors(self) -> dict[str, Tensor]:
        """Name position, prompt and keys and values, to be saved."""
        found = {"position": torch.tensor(self.position), "prompt": self.prompt}
        for index, layer in enumerate(self.cache.self_attention_cache.layers):
            if getattr(layer, "keys", None) is not None:
                found |= {f"{index}.keys": layer.keys, f"{index}.values": layer.values}
        return found

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Fill a fresh state from what :meth:`tensors` returned."""
        self.position, self.prompt = int(tensors["position"]), tensors["prompt"]
        index = 0
        while f"{index}.keys" in tensors:
            read = tensors[f"{index}.keys"], tensors[f"{index}.values"]
            self.cache.self_attention_cache.update(*read, index)
            index += 1


class MusicgenPrior(Component):
    """Writes columns of MusicGen's delay pattern: codebook k of frame f stands in column f + k.

    ``FrameGenerator`` puts frames together again, so that the first comes after K columns. What it
    asks of a prior is here, computed by transformers' model: no training, no plan, no end of its
    own. Mono models only.

    Args:
        settings: of the model's config as transformers writes it, besides the next two.
        num_codebooks: K.
        codebook_size: V.
        text_width: of the text encoder's token states.
        frame_rate: of the codec (Hz).
        reads_plan: False, as for any prior without one.
        fills: False.

    Raises:
        ValueError: a stereo model, or a plan or filling is asked for.
    """

    plan_reader = None

    @register_to_config
    def __init__(
        self,
        settings: dict[str, Any],
        num_codebooks: int = 4,
        codebook_size: int = 2048,
        text_width: int = 768,
        frame_rate: float = 50.0,
        reads_plan: bool = False,
        fills: bool = False,
    ) -> None:
        super().__init__()
        guard_torchaudio()
        with warnings.catch_warnings():  # importing a model adds filters
            from transformers import MusicgenForCausalLM
            from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

            sizes = {"num_codebooks": num_codebooks, "vocab_size": codebook_size}
            config = MusicgenDecoderConfig(**settings, **sizes)
            if config.audio_channels != 1:
                raise ValueError("a stereo MusicGen (audio_channels=2) cannot be a prior")
            if reads_plan or fills:
                raise ValueError("a MusicgenPrior reads no plan and fills nothing")
            self.language_model = MusicgenForCausalLM(config)
        width = config.hidden_size
        self.project = None if text_width == width else nn.Linear(text_width, width)
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        self.delay = num_codebooks - 1
        self.padding = codebook_size
        given = signature(MusicgenForCausalLM.forward).parameters
        self.cache_name = "cache" if "cache" in given else "past_key_values"
        self.eval()

    @classmethod
    def from_transformers(cls, model: Any) -> "MusicgenPrior":
        """Take over the language model of a ``MusicgenForConditionalGeneration``.

        A ``MusicgenForCausalLM`` alone reads token states of its own width.
        """
        decoder = getattr(model, "decoder", model)
        project = getattr(model, "enc_to_dec_proj", None)
        settings = decoder.config.to_diff_dict()
        own = "num_codebooks", "vocab_size", "model_type", "transformers_version", "architectures"
        for name in (*own, "dtype", "_attn_implementation_autoset"):
            settings.pop(name, None)
        found = decoder.config
        sizes = found.num_codebooks, found.vocab_size
        text_width = found.hidden_size if project is None else project.in_features
        rate = 50.0
        if hasattr(model, "audio_encoder"):
            rate = float(model.config.audio_encoder.frame_rate)
        prior = cls(settings, *sizes, text_width, rate)
        prior.language_model.load_state_dict(decoder.state_dict())
        if project is not None and prior.project is not None:
            prior.project.load_state_dict(project.state_dict())
        return prior

    def init_state(
        self, condition: Condition, max_frames: int, num_future: int = 0
    ) -> MusicgenState:
        """Make an empty state for :meth:`prefill`."""
        from transformers import DynamicCache, EncoderDecoderCache

        assert num_future == 0
        missing = max(0, 1 - condition.text_mask.shape[1])  # a text has a token at least
        text = F.pad(condition.text_states, (0, 0, 0, missing)).to(self.dtype)
        mask = F.pad(condition.text_mask, (0, missing), value=False)
        if self.project is not None:
            text = self.project(text)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        prompt = torch.zeros(len(mask), self.num_codebooks, 0, dtype=torch.long, device=mask.device)
        return MusicgenState(text * mask[..., None], mask, max_frames, cache, prompt)

    def follow(self, state: MusicgenState, condition: Condition) -> None:
        """Give a state in use another condition; the history that it holds stays."""
        from transformers import DynamicCache, EncoderDecoderCache

        fresh = self.init_state(condition, state.max_frames)
        state.text, state.mask = fresh.text, fresh.mask
        state.cache = EncoderDecoderCache(state.cache.self_attention_cache, DynamicCache())

    def prefill(self, codes: Tensor, state: MusicgenState, future: Tensor | None = None) -> Tensor:
        """Read the column of padding and those of a (B, K, P) prompt; there is no ``future``.

        Returns:
            (B, K, V) logits of column P.
        """
        assert future is None
        B, K, P = codes.shape
        state.prompt, state.position = codes, P
        columns = [codes.new_full((B, K), self.padding)]
        columns += [self._column(codes[..., at], at, state) for at in range(P)]
        return self._read(torch.stack(columns, dim=-1), state)

    def advance(self, state: MusicgenState) -> tuple[Tensor, None]:
        """Move on by a column: rows of nothing to be added, and no place."""
        state.position += 1
        return state.text.new_zeros(len(state.text), 0), None

    def step(self, codes: Tensor, added: Tensor, place: None, state: MusicgenState) -> Tensor:
        """Map (B, K) codes of the column before -> (B, K, V) logits of the next."""
        return self._read(self._column(codes, state.position - 1, state)[..., None], state)

    def sample_frame(self, hidden: Tensor, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Draw a column, (B, K) int64, from (B, K, V) logits; a piece never ends by itself."""
        first = F.pad(hidden[:, 0], (0, 1), value=-torch.inf)
        later = [choose(hidden[:, book], book) for book in range(1, self.num_codebooks)]
        return torch.stack([choose(first, 0), *later], dim=1)

    def _column(self, codes: Tensor, at: int, state: MusicgenState) -> Tensor:
        """Make of (B, K) drawn codes what column ``at`` holds: known codes, and padding."""
        books = []
        for book in range(self.num_codebooks):
            frame = at - book
            if not 0 <= frame < state.max_frames:
                books.append(torch.full_like(codes[:, book], self.padding))
            elif frame < state.prompt.shape[-1]:
                books.append(state.prompt[:, book, frame])
            else:
                books.append(codes[:, book])
        return torch.stack(books, dim=1)

    def _read(self, columns: Tensor, state: MusicgenState) -> Tensor:
        """Read (B, K, T) columns: (B, K, V) logits after the last."""
        drawn = random.getstate()  # the model draws from it though it drops no layer
        logits = self.language_model(
            input_ids=columns.flatten(0, 1),
            encoder_hidden_states=state.text,
            encoder_attention_mask=state.mask.long(),
            use_cache=True,
            **{self.cache_name: state.cache},
        ).logits
        random.setstate(drawn)
        return logits[:, -1].view(len(columns), self.num_codebooks, self.codebook_size)
