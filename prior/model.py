"""The prior: text and the frames so far to the next frame of codes."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from codec.component import Component, register_to_config
from prior.attention import KeyValueCache, Place, Text, rotation_table
from prior.condition import Condition
from prior.depth import DepthHead
from prior.frame_condition import FrameCondition, PlanReader, TextSummary
from prior.lstm import LSTMBackbone, PlainLSTMBackbone
from prior.normalization import RMSNorm
from prior.state import LayerState, PriorState
from prior.transformer import TransformerBackbone

BACKBONES: dict[str, type[TransformerBackbone] | type[LSTMBackbone]] = {
    "transformer": TransformerBackbone,
    "lstm": LSTMBackbone,
    "lstm-plain": PlainLSTMBackbone,
}
DEFAULT_FRAME_RATE = 25.0


class PriorOutput(NamedTuple):
    """Hold what ``Prior.forward`` predicts."""

    # (B, T, V + 1): codebook 0 of every frame; index V is the end of the piece
    first_logits: Tensor
    depth_logits: Tensor  # (B, K - 1, N, V): codebooks 1 to K - 1 of the chosen frames


class Prior(Component):
    """An autoregressive model of codec frames under text, over one of two backbones.

    At frame t the backbone reads the sum of the K codebook embeddings of frame t - 1 (a learned
    start at t = 0) and gives one hidden state; codebook 0 is predicted straight from it, the later
    ones by a small Transformer over the codebooks of that frame (Moshi, arXiv 2410.00037; CSM).
    Text, embeddings, heads and depth are the same for both backbones, so that comparing two priors
    compares the backbones.

    The defaults are the tiny size: 11.0M parameters with the Transformer, 10.1M with the LSTM.

    Args:
        backbone: "transformer", "lstm" (which attends to all its earlier outputs) or "lstm-plain"
            (which does not).
        num_codebooks: K, the codebooks it predicts.
        codebook_size: V.
        width: D, of the backbone.
        num_layers: of the backbone.
        num_heads: of every attention in the backbone.
        text_width: Dt, of the text encoder's token states (MiniLM: 384).
        depth_width: of the depth head.
        depth_layers: of the depth head.
        depth_heads: of every attention in the depth head.
        sliding_window: how many frames self-attention sees, itself included; None for all.
        frame_rate: frames per second (Hz), for those who count in seconds; None for frames that
            are notes. Training replaces the default by the tokens' own.
        reads_plan: whether it reads beat, key, chords and players frame by frame
            (``plan.plan_features``).
        reads_form: whether it reads sections, melody and the distance to the end too
            (``form.form_features``).
        fills: whether it is trained, and may be asked, to write frames before known ones.

    Raises:
        ValueError: a value that does not fit, named with its rule.
    """

    delay = 0  # columns by which the last codebook of a frame is drawn later than the first
    former_keys = ("fine_temperature",)  # which the pipeline reads (see Pipeline)
    added_keys = {"reads_form": False, "fills": False}  # noqa: RUF012  (Component's)
    _no_split_modules = ["TransformerBlock", "LSTMBlock", "DepthHead"]  # noqa: RUF012  (diffusers')

    @register_to_config
    def __init__(
        self,
        backbone: Literal["transformer", "lstm", "lstm-plain"] = "transformer",
        num_codebooks: int = 2,
        codebook_size: int = 1024,
        width: int = 320,
        num_layers: int = 5,
        num_heads: int = 5,
        text_width: int = 384,
        depth_width: int = 192,
        depth_layers: int = 2,
        depth_heads: int = 3,
        sliding_window: int | None = None,
        frame_rate: float | None = DEFAULT_FRAME_RATE,
        reads_plan: bool = False,
        reads_form: bool = False,
        fills: bool = False,
    ) -> None:
        super().__init__()
        check_config(dict(self.config))
        self.num_codebooks = num_codebooks
        self.codebook_size = codebook_size
        self.embedding = nn.Embedding(num_codebooks * codebook_size, width)
        self.start = nn.Parameter(torch.empty(width))
        self.null_text = nn.Parameter(torch.empty(text_width))
        self.text_norm = RMSNorm(text_width)
        self.text_summary = TextSummary(text_width, width)
        self.plan_reader = PlanReader(width, reads_form) if reads_plan else None
        self.future_mark = nn.Parameter(torch.zeros(width)) if fills else None
        self.network: TransformerBackbone | LSTMBackbone = BACKBONES[backbone](
            width, num_layers, num_heads, text_width, sliding_window
        )
        self.first_head = nn.Linear(width, codebook_size + 1, bias=False)
        self.depth = (
            DepthHead(width, depth_width, depth_layers, depth_heads, num_codebooks, codebook_size)
            if num_codebooks > 1
            else None
        )
        self.book_offsets: Tensor
        self.register_buffer(
            "book_offsets", torch.arange(num_codebooks) * codebook_size, persistent=False
        )
        initialize(self, num_layers)

    def forward(
        self,
        codes: Tensor,
        condition: Condition,
        depth_frames: Tensor | None = None,
        future: Tensor | None = None,
    ) -> PriorOutput:
        """Predict every frame from the frames before it, the text and the plan.

        Args:
            codes: (B, K, T) int64 in [0, V).
            condition: of B rows.
            depth_frames: (B, N) int64, frames whose later codebooks are predicted; None for all.
            future: (B, K, F) int64, the frames after the last, which all frames then follow from
                too; of a prior with ``fills``.

        Returns:
            ``PriorOutput``, N = T when ``depth_frames`` is None.
        """
        frames = self._embed(codes)[:, :-1]  # (B, T - 1, D)
        x = torch.cat((self._starts(codes), frames), dim=1)  # (B, T, D)
        text, frame_condition = self.read_condition(condition)
        x = x + frame_condition.frames(0, x.shape[1])
        positions = None
        if future is not None:
            ahead, positions = self._read_future(future, x.shape[1], frame_condition)
            x = torch.cat((ahead, x), dim=1)  # (B, F + T, D)
            positions = torch.cat((positions, torch.arange(codes.shape[-1], device=x.device)))
        hidden = self.network(x, text, positions=positions)[:, -codes.shape[-1] :]
        return PriorOutput(
            self.first_head(hidden), self._predict_depth(hidden, codes, depth_frames)
        )

    def _predict_depth(self, hidden: Tensor, codes: Tensor, depth_frames: Tensor | None) -> Tensor:
        B, K, _ = codes.shape
        codes = codes.transpose(1, 2)  # (B, T, K)
        if depth_frames is not None:
            rows = torch.arange(B, device=codes.device)[:, None]
            hidden, codes = hidden[rows, depth_frames], codes[rows, depth_frames]
        N = codes.shape[1]
        if self.depth is None:
            return hidden.new_zeros(B, 0, N, self.codebook_size)
        logits = self.depth(hidden.flatten(0, 1), codes.flatten(0, 1))  # (B * N, K - 1, V)
        return logits.view(B, N, K - 1, self.codebook_size).transpose(1, 2)

    def init_state(self, condition: Condition, max_frames: int, num_future: int = 0) -> PriorState:
        """Make an empty state for ``prefill``.

        Args:
            condition: of B rows; its plan begins with the prompt's frames.
            max_frames: frames that will be read and generated, the prompt included.
            num_future: known frames after the last, which stay in sight whatever the window.
        """
        capacity = min(self.network.window or max_frames, max_frames)
        if num_future:
            capacity = max_frames + num_future
        num_positions = max_frames + num_future + 1
        table = rotation_table(num_positions, self.network.head_width, condition.text_mask.device)
        text, frame_condition = self.read_condition(condition)
        return PriorState(
            text=text,
            frame_condition=frame_condition,
            rotation=table,
            layers=[LayerState(KeyValueCache(capacity)) for _ in range(self.network.num_states)],
            max_frames=max_frames,
            num_future=num_future,
        )

    def follow(self, state: PriorState, condition: Condition) -> None:
        """Give a state in use another condition; the history that it holds stays."""
        fresh = self.init_state(condition, state.max_frames, state.num_future)
        state.text, state.frame_condition = fresh.text, fresh.frame_condition
        for block, layer in zip(self.network.blocks, state.layers, strict=False):
            layer.text = block.text_attention.read(state.text).contiguous()  # type: ignore[operator,union-attr]

    def prefill(self, codes: Tensor, state: PriorState, future: Tensor | None = None) -> Tensor:
        """Read the start and a prompt, and fill ``state``; always the first call with a state.

        Args:
            codes: (B, K, P) int64 in [0, V); P may be 0.
            state: from ``init_state``.
            future: (B, K, F) int64, frames ``max_frames`` and later, which are known.

        Returns:
            (B, D), the hidden state from which ``sample_frame`` draws frame P.

        Raises:
            ValueError: the state has been used, or is too short for the prompt and one frame.
        """
        P = codes.shape[-1]
        if state.position != 0:
            raise ValueError(f"prefill needs a fresh state, got one at frame {state.position}")
        _check_room(P, state)
        x = torch.cat((self._starts(codes), self._embed(codes)), dim=1)  # (B, P + 1, D)
        x, positions = x + state.frame_condition.frames(0, P + 1), None
        if future is not None:
            assert future.shape[-1] == state.num_future
            ahead, positions = self._read_future(future, state.max_frames, state.frame_condition)
            x = torch.cat((ahead, x), dim=1)
            positions = torch.cat((positions, torch.arange(P + 1, device=x.device)))
        hidden = self.network(x, state.text, state, positions)
        state.position = P + 1
        return hidden[:, -1]

    def decode_one_frame(self, codes: Tensor, state: PriorState) -> Tensor:
        """Read one frame and advance ``state``.

        Args:
            codes: (B, K) int64 in [0, V), the frame before the one to write.
            state: filled by ``prefill``; changed in place.

        Returns:
            (B, D), the hidden state from which ``sample_frame`` draws the next frame.

        Raises:
            ValueError: the state is full.
        """
        return self.step(codes, *self.advance(state), state)

    def advance(self, state: PriorState) -> tuple[Tensor, Place]:
        """Move ``state`` on by a frame.

        Returns:
            What is added to that frame, (B, D), and its place, for :meth:`step`.

        Raises:
            ValueError: the state is full.
        """
        _check_room(state.position, state)
        added, place = state.frame_condition.frame(state.position), state.place()
        state.position += 1
        return added, place

    def step(self, codes: Tensor, added: Tensor, place: Place, state: PriorState) -> Tensor:
        """Map (B, K) codes and what ``advance`` gave -> (B, D), ``state`` changed in place."""
        x = self.embedding(codes + self.book_offsets).sum(dim=1) + added
        return self.network.step(x, place, state)

    def sample_frame(self, hidden: Tensor, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Write one frame, codebook by codebook.

        Args:
            hidden: (B, D) from ``prefill`` or ``decode_one_frame``.
            choose: ``(logits, codebook) -> (B,)`` int64 codes in [0, V); logits are (B, V + 1) for
                codebook 0, whose last column is the end of the piece, and (B, V) for the others.

        Returns:
            (B, K) int64.
        """
        codes = [choose(self.first_head(hidden), 0)]
        if self.depth is not None:
            codes = self.depth.sample(hidden, codes[0], choose)
        return torch.stack(codes, dim=1)

    def _read_future(
        self, future: Tensor, first: int, frame_condition: FrameCondition
    ) -> tuple[Tensor, Tensor]:
        """Read (B, K, F) known frames from ``first`` on -> (B, F, D) and their (F,) positions.

        A frame stands at the position at which it would be read if all before it were written.
        """
        assert self.future_mark is not None
        stop = first + future.shape[-1]
        x = self._embed(future) + self.future_mark + frame_condition.frames(first, stop)
        return x, torch.arange(first + 1, stop + 1, device=future.device)

    def _starts(self, codes: Tensor) -> Tensor:
        return self.start.expand(codes.shape[0], 1, -1)

    def _embed(self, codes: Tensor) -> Tensor:
        """Embed (B, K, T) codes -> (B, T, D)."""
        return self.embedding(codes + self.book_offsets[:, None]).sum(dim=1)

    def read_condition(self, condition: Condition) -> tuple[Text, FrameCondition]:
        """Derive what cross-attention reads and what is added to every frame.

        The null token comes before the text, seen only by rows whose text is empty.
        """
        states, mask = condition.text_states, condition.text_mask
        null = self.null_text.expand(states.shape[0], 1, -1)
        states = torch.cat((null, states.to(null.dtype)), dim=1)  # (B, L + 1, Dt)
        mask = torch.cat((~mask.any(dim=1, keepdim=True), mask), dim=1)
        states = self.text_norm(states)
        summary = self.text_summary(states, mask)
        added = FrameCondition(summary, condition.plan, self.plan_reader)
        return Text(states, mask[:, None, None]), added


def check_config(config: dict[str, int | float | str | None]) -> None:
    """Raise a ``ValueError`` that names the field, the rule and the value."""
    if config["backbone"] not in BACKBONES:
        raise ValueError(f"backbone must be one of {[*BACKBONES]}, got {config['backbone']!r}")
    for name, value in config.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
            raise ValueError(f"{name} must be positive, got {value}")
    for width, heads in (("width", "num_heads"), ("depth_width", "depth_heads")):
        if config[width] % config[heads]:  # type: ignore[operator]
            raise ValueError(
                f"{heads} must divide {width}, got {width}={config[width]} "
                f"and {heads}={config[heads]}"
            )
    if config["reads_form"] and not config["reads_plan"]:
        raise ValueError("reads_form needs reads_plan, got reads_form=True and reads_plan=False")
    if config["fills"] and config["backbone"] == "lstm-plain":
        raise ValueError("fills needs a backbone with attention, got backbone='lstm-plain'")
    if config["width"] // config["num_heads"] % 2:  # type: ignore[operator]
        raise ValueError(
            "width / num_heads must be even (rotary positions turn pairs), "
            f"got width={config['width']} and num_heads={config['num_heads']}"
        )


STARTS_AT_ZERO = (
    *("text_summary.project.weight", "plan_reader.project.weight"),
    *("plan_reader.form_project.weight", "future_mark"),
)


def initialize(prior: Prior, num_layers: int) -> None:
    """Draw normal weights of deviation .02, smaller where they are added to the residual (GPT-2).

    The frames' vectors are larger and the text's summary starts at zero: at equal sizes the
    summary drowns the frames for the first thousand steps (docs/experiments.md); so does the
    plan. An LSTM keeps
    PyTorch's weights, with forget gates that start open (Jozefowicz et al. 2015).
    """
    for name, parameter in prior.named_parameters():
        if ".lstm." in name:
            if "bias_ih" in name:
                with torch.no_grad():
                    parameter.chunk(4)[1].fill_(1.0)
        elif name in ("start", "embedding.weight"):
            nn.init.normal_(parameter, std=0.5)
        elif name in STARTS_AT_ZERO:
            nn.init.zeros_(parameter)
        elif name.endswith(("out.weight", "down.weight")):
            nn.init.normal_(parameter, std=0.02 / math.sqrt(3 * num_layers))
        elif not name.endswith("norm.weight"):
            nn.init.normal_(parameter, std=0.02)


def _check_room(position: int, state: PriorState) -> None:
    if position >= state.max_frames:
        raise ValueError(f"the state holds {state.max_frames} frames, frame {position} is too many")
