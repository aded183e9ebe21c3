"""Generate pieces: prompts to codes to audio, with the parts of a pipeline."""

import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor

from codec.resampling import resample
from codec.spectral_codec import SpectralCodec
from codec.stages import Stage, run
from codec.validation import check_codes
from codec.windows import Windows
from decoder.sampler import FlowSampler
from pipelines.errors import check_name
from pipelines.inference.call_arguments import (
    check_duration,
    check_num_steps,
    check_prompts,
    spread_seeds,
    spread_texts,
)
from pipelines.inference.call_names import OUTPUT_TYPES, choose, draw_seeds, onload
from pipelines.inference.conditioning import Conditioner
from pipelines.inference.endings import FADE_S, Ending, with_ending
from pipelines.inference.pipeline_parts import PipelineParts
from pipelines.inference.plan_schema import PlanFields, PlanSource, draft_plan
from pipelines.music_output import MusicOutput, describe_call
from prior.frame_generator import FrameGenerator
from prior.plan import Plan
from prior.sampling import Sampling


class PieceGenerator(PipelineParts):
    """Generates pieces from prompts, and encodes and decodes audio."""

    output_class: ClassVar[type[MusicOutput]] = MusicOutput
    _callback_tensor_inputs = ["codes"]  # noqa: RUF012  (diffusers' name and type)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        duration_s: float = 10.0,
        seed: int | list[int] | None = None,
        *,
        negative_prompt: str | list[str | None] | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        num_inference_steps: int | None = None,
        decoder_seed: int | list[int] | None = None,
        preview: bool = False,
        plan: PlanSource | list[PlanSource] = None,
        ending: Ending = "ring",
        callback_on_step_end: Callable[[Any, int, float, dict[str, Any]], Any] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("codes",),
        guidance_scale: float | None = None,
        audio_length_in_s: float | None = None,
        num_waveforms_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: Literal["pt", "np", "latent"] = "pt",
        return_dict: bool = True,
        **plan_fields: Unpack[PlanFields],
    ) -> Any:
        """Render one item per prompt.

        Args:
            prompt: one text or several, of at most 64 tokens each.
            duration_s: length of every item (s).
            seed: one per item, or one for the first item, the next items counting up from it;
                None draws one. An item's codes follow from its prompt, seed and settings, whatever
                else is in the batch.
            negative_prompt: what to move away from, for all items or one each.
            guidance: 1 ignores the negative prompt, larger follows the prompt more closely.
            temperature: 0 takes the likeliest code.
            top_k: candidates per code.
            top_p: keep the likeliest candidates that hold this share.
            num_inference_steps: steps of the diffusion decoder, 1 to 16.
            decoder_seed: as ``seed``, for decoder and vocoder; ``seed`` itself if None.
            preview: skip the diffusion decoder.
            plan: a plan, the JSON of one or of a part of one, or the name of its file, for all
                items or one each; the planner writes what it leaves out from prompt and seed.
            ending: "ring" closes the plan with a cadence and lets its last chord fade, "fade" fades
                the last 3 s, "cut" stops where the duration is over, as streams do.
            callback_on_step_end: called as ``(pipeline, frame, time_s, {"codes": (B, K)})`` after
                every frame of the prior; ``pipeline.interrupt()`` in it ends this call. Codes in
                a dict that it returns take the place of those.
            callback_on_step_end_tensor_inputs: which of ``codes`` it gets.
            guidance_scale: diffusers' name of ``guidance``.
            audio_length_in_s: diffusers' name of ``duration_s``.
            num_waveforms_per_prompt: items per prompt, one after the other.
            generator: diffusers' way to ``seed``: the items' seeds are drawn from it, or one from
                each of a list.
            output_type: "pt" or "np" for audio, "latent" for codes that are not decoded.
            return_dict: False returns the tuple ``(audios,)``.
            **plan_fields: bpm, key, meter, chords, instruments, drums and sections, as in a plan's
                JSON, before those of ``plan`` (docs/plans.md).

        Returns:
            A ``MusicOutput``.

        Raises:
            ValueError: an argument is out of its range, named with its rule.
        """
        check_name("output_type", output_type, OUTPUT_TYPES)
        if unknown := set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs):
            raise ValueError(
                "callback_on_step_end_tensor_inputs must be among "
                f"{self._callback_tensor_inputs}, got {sorted(unknown)}"
            )
        if num_waveforms_per_prompt < 1:
            raise ValueError(
                f"num_waveforms_per_prompt must be at least 1, got {num_waveforms_per_prompt}"
            )
        guidance = choose("guidance", guidance, "guidance_scale", guidance_scale)
        length_s = audio_length_in_s
        duration_s = choose("duration_s", duration_s, "audio_length_in_s", length_s, 10.0)
        prompts = [p for p in check_prompts(prompt) for _ in range(num_waveforms_per_prompt)]
        seed = draw_seeds(generator, seed, len(prompts))
        self.check_dtype()
        num_frames = self.num_frames(duration_s)
        seeds = spread_seeds(seed, len(prompts), "seed")
        decoder_seeds = (
            seeds
            if decoder_seed is None
            else spread_seeds(decoder_seed, len(seeds), "decoder_seed")
        )
        sampling = self.sampling(temperature, top_k, top_p, guidance)
        steps = self.check_steps(num_inference_steps, preview)
        negatives = spread_texts(negative_prompt, len(prompts))
        sources = plan if isinstance(plan, list) else [plan] * len(prompts)
        plans = [draft_plan(source, plan_fields) for source in sources]
        check_name("ending", ending, FADE_S)
        onload(self.planner)
        items = (prompts, negatives, plans, seeds)
        rings_s = [duration_s if ending == "ring" else None] * len(prompts)
        given = self.conditioner(*items, duration_s, num_frames, rings_s)
        onload(self.prior)
        frames = FrameGenerator(
            self.prior, given.condition, given.negative, num_frames, sampling, seeds
        )
        codes, rate = self.collect(frames, callback_on_step_end), self.sample_rate
        audio = codes
        if output_type != "latent":
            audio = self.decode(codes, decoder_seeds, num_inference_steps=steps, preview=preview)
            audio = with_ending(audio[..., : round(duration_s * rate)], rate, ending)
        self.maybe_free_model_hooks()
        audios = audio.float().cpu().numpy() if output_type == "np" else audio
        if not return_dict:
            return (audios,)
        return self.output_class(
            audios,
            rate,
            codes,
            seeds,
            decoder_seeds,
            describe_call(prompts, negative_prompt, duration_s, sampling, steps, preview)
            | {"ending": ending},
            given.plans,
        )

    @property
    def sample_rate(self) -> int:
        """Samples a second of what this generates (Hz): the decoder's, or else the codec's."""
        vocoder = None if self.decoder is None else self.decoder.vocoder
        return self.codec.sample_rate if vocoder is None else vocoder.log_mel.sample_rate

    @property
    def channels(self) -> int:
        """Audio channels of what this generates."""
        painted = self.decoder is not None and self.decoder.vocoder is not None
        return self.decoder.config.channels if painted else self.codec.channels  # type: ignore[union-attr]

    @property
    def conditioner(self) -> Conditioner:
        """What turns prompts and plans into what the prior reads."""
        return Conditioner(
            self.tokenizer,
            self.text_encoder,
            self.planner,
            bool(self.prior.config.reads_plan),
            self.codec.frame_rate,
            bool(self.prior.config.get("reads_form")),
        )

    def plan(
        self,
        prompt: str,
        duration_s: float = 10.0,
        seed: int | None = None,
        plan: PlanSource = None,
        **plan_fields: Unpack[PlanFields],
    ) -> Plan:
        """Plan a piece as a call with the same arguments does, without any sound.

        Raises:
            ValueError: an argument is out of its range, or the pipeline has no planner and no plan
                was given.
        """
        (prompt,), (seed,) = check_prompts(prompt), spread_seeds(seed, 1, "seed")
        frames, draft = self.num_frames(duration_s), draft_plan(plan, plan_fields)
        (made,) = self.conditioner([prompt], [None], [draft], [seed], duration_s, frames).plans
        if made is None:
            raise ValueError("this pipeline has no planner: a plan must be given")
        return made

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """(B, C, S) audio at the pipeline's rate -> (B, K, T) codes of all codebooks."""
        self.check_dtype()
        onload(self.codec)
        return self.codec.encode(self.as_codec_reads(audio).to(self.codec.device))

    def as_codec_reads(self, audio: Tensor) -> Tensor:
        """Bring (B, C, S) audio of the pipeline's rate and channels to the codec's."""
        heard = resample(audio, self.sample_rate, self.codec.sample_rate)
        mono = self.codec.channels == 1 < self.channels == heard.shape[1]
        return heard.mean(dim=1, keepdim=True) if mono else heard

    @torch.no_grad()
    def decode(
        self,
        codes: Tensor,
        seed: int | list[int] = 0,
        *,
        num_inference_steps: int | None = None,
        preview: bool = False,
    ) -> Tensor:
        """Codes to audio, without the prior.

        Args:
            codes: (B, k, T) int64 of the codec's first 1 <= k <= K codebooks.
            seed: of decoder and vocoder, spread over the batch as in ``__call__``.
            num_inference_steps: of the diffusion decoder, 1 to 16.
            preview: take the codec's own decode.

        Returns:
            (B, C, S) float32 audio as long as its frames; with a decoder of embedded tokens up to
            one of its patches (40 ms) longer.

        Raises:
            ValueError: codes have the wrong rank, dtype or range.
        """
        self.check_dtype()
        check_codes(codes, self.codec.num_codebooks, self.codec.codebook_size)
        seeds = spread_seeds(seed, len(codes), "seed")
        steps = self.check_steps(num_inference_steps, preview)
        onload(self.codec)
        pieces = self.decode_stream([codes.to(self.codec.device)], seeds, steps)
        return torch.cat(list(pieces), dim=-1)

    @torch.no_grad()
    def decode_stream(
        self, blocks: Iterable[Tensor], seeds: list[int], num_inference_steps: int | None
    ) -> Iterator[Tensor]:
        """Consecutive (B, k, t) pieces of codes -> (B, C, s) pieces of audio that join seamlessly.

        Args:
            blocks: codes on the codec's device.
            seeds: one per row, of decoder and vocoder.
            num_inference_steps: of the diffusion decoder; None takes the codec's own decode.
        """
        return run(self.decode_stages(seeds, num_inference_steps), blocks)

    def decode_stages(self, seeds: list[int], num_inference_steps: int | None) -> list[Stage]:
        """Make a chain of stages from codes to audio; another codec than ours waits for the end."""
        if num_inference_steps is not None and self.decoder is not None:
            sampler = FlowSampler(self.codec, self.decoder, self.scheduler)
            return [sampler.stage(seeds, num_inference_steps), sampler.vocoder.stage(seeds)]
        if isinstance(self.codec, SpectralCodec):
            return self.codec.decode_stages(seeds)
        return [Windows(self._decode_whole, size=sys.maxsize, halo=0)]

    def _decode_whole(self, codes: Tensor) -> Tensor:
        """Take another codec's own decode, at the pipeline's rate and channels."""
        audio = resample(self.codec.decode(codes), self.codec.sample_rate, self.sample_rate)
        return audio if audio.shape[1] == self.channels else audio.expand(-1, self.channels, -1)

    def interrupt(self) -> None:
        """Stop generating after the current frame; what there is so far is decoded.

        In a callback it ends the call that the callback belongs to; from a thread that does not
        generate, all calls.
        """
        own = self._calls.get(threading.get_ident())
        for call in [own] if own else list(self._calls.values()):
            call.set()

    def collect(self, frames: FrameGenerator, callback: Callable[..., Any] | None = None) -> Tensor:
        """Run the prior to its end: (B, K, T) codes."""
        codes: list[Tensor] = []
        interrupted = self._calls[threading.get_ident()] = threading.Event()
        with ExitStack() as stack:
            stack.callback(self._calls.pop, threading.get_ident())
            progress = stack.enter_context(self.progress_bar(total=frames.num_frames))
            for index, frame in enumerate(frames):
                codes.append(frame.codes)
                progress.update()
                if callback is not None:
                    time_s = (index + 1) / self.codec.frame_rate
                    changed = callback(self, index, time_s, {"codes": frame.codes})
                    if isinstance(changed, dict) and "codes" in changed:
                        codes[-1] = frames.replace(changed["codes"])
                if interrupted.is_set():
                    break
        return torch.stack(codes, dim=-1)

    def num_frames(self, duration_s: float) -> int:
        """Token frames that hold a duration; ValueError where it is out of range."""
        check_duration(duration_s, self.config.max_duration_s)
        samples = round(duration_s * self.sample_rate)
        frames = samples * self.codec.frame_rate / self.sample_rate
        return max(1, math.ceil(frames - 1e-6))  # less than rounding adds to a whole number

    def sampling(
        self,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float | None = None,
    ) -> Sampling:
        """Fill in the pipeline's defaults; ValueError where a value is out of its range."""
        defaults = self.config
        return Sampling(
            temperature=defaults.temperature if temperature is None else temperature,
            top_k=defaults.top_k if top_k is None else top_k,
            top_p=top_p,
            guidance=defaults.guidance if guidance is None else guidance,
            fine_temperature=defaults.fine_temperature,
        )

    def check_steps(self, steps: int | None, preview: bool) -> int | None:
        """Solver steps, or None where the codec's own decode is wanted or all there is."""
        check_num_steps(steps)
        if preview or self.decoder is None:
            return None
        return steps or self.decoder.config.default_steps
