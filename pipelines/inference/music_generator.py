"""Generate, stream and edit music with a saved pipeline, without diffusers and transformers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, Unpack

from torch import nn

from pipelines.inference.bert import load_text_parts
from pipelines.inference.call_arguments import check_prompt, spread_seeds
from pipelines.inference.edit_source import SourceToEdit, open_to_edit
from pipelines.inference.editing import EditOptions, Editor, SoundOptions
from pipelines.inference.looping import make_loop
from pipelines.inference.lora import LoraLoading
from pipelines.inference.piece_generator import PieceGenerator
from pipelines.inference.plan_schema import PlanFields, PlanSource, draft_plan
from pipelines.inference.saved_pipeline import load_saved, read_scheduler
from pipelines.inference.stream_state import Piece, StreamState
from pipelines.inference.streaming import Stream, StreamParts, fingerprint, prior_input
from pipelines.music_output import MusicOutput
from prior.frame_generator import FrameGenerator
from prior.plan import Plan
from prior.plan_draft import PlanDraft


class MusicGenerator(LoraLoading, PieceGenerator):
    """All that a ``Pipeline`` does with music, loaded in a third of the time.

    ``Pipeline`` is this and a ``DiffusionPipeline``: it can be saved too.
    """

    @classmethod
    def from_pretrained(cls, path: str | Path, **kwargs: Any) -> Self:
        """Load what ``Pipeline.from_pretrained`` loads, with the same arguments and errors."""
        return load_saved(cls, path, kwargs, load_text_parts, read_scheduler)

    def extend(
        self, source: SourceToEdit, add_s: float = 10.0, **options: Unpack[EditOptions]
    ) -> MusicOutput:
        """Continue a piece by ``add_s`` seconds.

        Args:
            source: what a call returned, a token file, its name, or an ``EditSource``, which
                ``open_audio_to_edit`` makes of other audio and its plan.
            add_s: length of what is new (s).
            **options: prompt, seed, sampling and plan fields as of a call (``EditOptions``).

        Raises:
            ValueError: an argument is out of its range, or the source does not fit.
        """
        return Editor(self, open_to_edit(self, source), options).extend(add_s)

    def inpaint(
        self,
        source: SourceToEdit,
        spans_s: Sequence[tuple[float, float]],
        **options: Unpack[EditOptions],
    ) -> MusicOutput:
        """Replace stretches of a piece, each given by the seconds from and to which it goes.

        Other arguments and errors are those of ``extend``.
        """
        return Editor(self, open_to_edit(self, source), options).inpaint(spans_s)

    def vary(
        self, source: SourceToEdit, strength: float = 0.4, **options: Unpack[EditOptions]
    ) -> MusicOutput:
        """Write other notes in a share ``strength`` of a piece's bars, under the same plan.

        Other arguments and errors are those of ``extend``.
        """
        return Editor(self, open_to_edit(self, source), options).vary(strength)

    def loop(self, prompt: str, bars: int = 8, **options: Unpack[SoundOptions]) -> MusicOutput:
        """Generate a loop: as long as its bars to the sample, and its end runs into its beginning.

        Its codes begin a bar before it; ``settings["edit"]["first_sample"]`` says where it begins.
        """
        return make_loop(self, prompt, bars, options)

    def stream(
        self,
        prompt: str | None = None,
        duration_s: float | None = None,
        seed: int | None = None,
        *,
        negative_prompt: str | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        num_inference_steps: int | None = None,
        decoder_seed: int | None = None,
        preview: bool = False,
        plan: PlanSource = None,
        chunk_s: float | None = None,
        state: StreamState | None = None,
        **plan_fields: Unpack[PlanFields],
    ) -> Stream:
        """Render one item while it is listened to: iterate over the (C, s) pieces of its audio.

        The pieces joined equal ``self(prompt, ...).audio[0]`` bit for bit.

        Args:
            prompt: one text of at most 64 tokens.
            duration_s: length (s); 10 if None.
            chunk_s: length of every piece but the last (s); None yields them as they come.
            state: continues a stream where ``state()`` found it; only ``chunk_s`` goes with it.

        The other arguments are those of ``__call__``.

        Raises:
            ValueError: an argument is out of its range, named with its rule.
        """
        choices = {
            "prompt": prompt,
            "duration_s": duration_s,
            "seed": seed,
            "negative_prompt": negative_prompt,
            "guidance": guidance,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "num_inference_steps": num_inference_steps,
            "decoder_seed": decoder_seed,
            "preview": preview or None,
            "plan": plan,
            **plan_fields,
        }
        given = [name for name, value in choices.items() if value is not None]
        if state is not None:
            if given:
                raise ValueError(f"{given[0]} cannot be changed when a state is continued")
            if state.fingerprint != fingerprint(self._modules()):
                raise ValueError("the state was saved by another pipeline: it alone can go on")
            stream = self._open_stream(state.piece, state.plan, chunk_s)
            stream.load_state(state)
            return stream
        self.check_dtype()
        (seed,) = spread_seeds(seed, 1, "seed")
        draft = draft_plan(plan, plan_fields)
        piece = Piece(
            prompt=check_prompt(prompt),
            duration_s=10.0 if duration_s is None else duration_s,
            seed=seed,
            decoder_seed=seed
            if decoder_seed is None
            else spread_seeds(decoder_seed, 1, "decoder_seed")[0],
            negative_prompt=negative_prompt,
            sampling=self.sampling(temperature, top_k, top_p, guidance),
            plan=draft or None,
            num_inference_steps=self.check_steps(num_inference_steps, preview),
        )
        return self._open_stream(piece, draft, chunk_s)

    def _open_stream(
        self, piece: Piece, plan: Plan | PlanDraft | None, chunk_s: float | None
    ) -> Stream:
        num_frames = self.num_frames(piece.duration_s)
        followed = replace(piece, plan=PlanDraft.of(plan) or None)
        given = prior_input(self.conditioner, followed, num_frames)
        texts = given.condition, given.negative
        frames = FrameGenerator(self.prior, *texts, num_frames, piece.sampling, [piece.seed])
        stages = self.decode_stages([piece.decoder_seed], piece.num_inference_steps)
        device, modules = self.codec.device, self._modules()
        parts = StreamParts(self.conditioner, frames, stages, device, modules)
        return Stream(piece, given.plans[0], parts, self.sample_rate, chunk_s)

    def _modules(self) -> dict[str, nn.Module | None]:
        names = ("text_encoder", "codec", "prior", "decoder", "planner")
        return {name: getattr(self, name) for name in names}
