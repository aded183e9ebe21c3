"""Pipeline: a prompt in, music out."""

import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from codec.component import find_folder
from codec.spectral_codec import SpectralCodec
from codec.stages import run
from codec.validation import check_codes
from codec.windows import Windows
from decoder.diffusion_decoder import DiffusionDecoder
from decoder.sampler import FlowSampler
from pipelines.inference.call_arguments import (
    check_duration,
    check_num_steps,
    check_prompt,
    check_prompts,
    spread_seeds,
    spread_texts,
)
from pipelines.inference.call_names import check_output_type, choose, draw_seeds, onload
from pipelines.inference.components import (
    DEFAULTS,
    OPTIONAL,
    check_fit,
    check_options,
    import_codec_class,
    read_index,
    renew_origins,
)
from pipelines.inference.conditioning import Conditioner
from pipelines.inference.edit_source import SourceToEdit, open_to_edit
from pipelines.inference.editing import EditOptions, Editor, SoundOptions
from pipelines.inference.endings import Ending, check_ending, with_ending
from pipelines.inference.looping import make_loop
from pipelines.inference.lora import LoraLoading
from pipelines.inference.plan_schema import PlanFields, PlanSource, draft_plan
from pipelines.inference.sharing import save_with_card
from pipelines.inference.shipped import find_shipped
from pipelines.inference.stream_state import Piece, StreamState
from pipelines.inference.streaming import Stream, StreamParts, fingerprint, prior_input
from pipelines.inference.text import load_text_encoder
from pipelines.music_output import MusicOutput, describe_call
from prior.frame_generator import FrameGenerator
from prior.model import Prior
from prior.plan import Plan
from prior.plan_draft import PlanDraft
from prior.sampling import Sampling

if TYPE_CHECKING:
    from codec.stages import Stage


class Pipeline(LoraLoading, DiffusionPipeline):
    """Text to music: text encoder, prior, diffusion decoder, vocoder.

    Args:
        tokenizer: of the text encoder (transformers).
        text_encoder: frozen (transformers).
        codec: its first codebooks are what the prior generates.
        prior: generates codes from token states.
        decoder: paints the fine spectrogram; None leaves the codec's own decode.
        scheduler: diffusers' flow-matching Euler solver; needed with a decoder.
        planner: a prior that writes plans (tempo, key, chords, instruments); None leaves the prior
            without a plan.
        guidance: default classifier-free guidance scale.
        temperature: default sampling temperature.
        top_k: default number of candidates per code.
        max_duration_s: the longest piece that may be asked for (s).
        fine_temperature: factor on the temperature of the third and later codebooks; None for what
            the prior's config says, where earlier versions kept it, or else 1.
    """

    tokenizer: Any
    text_encoder: nn.Module
    codec: Any  # a ``Codec`` that is a diffusers model
    prior: Prior
    decoder: DiffusionDecoder | None
    scheduler: FlowMatchEulerDiscreteScheduler | None
    planner: Prior | None
    config: Any  # the registered arguments, by attribute or by key

    _callback_tensor_inputs = ["codes"]  # noqa: RUF012  (diffusers' name and type)
    _exclude_from_cpu_offload = ["prior", "planner", "codec"]  # noqa: RUF012  (from layer by layer)
    model_cpu_offload_seq = "text_encoder->planner->prior->decoder->codec"
    _optional_components = list(OPTIONAL)  # noqa: RUF012  (diffusers' name and type)

    def __init__(
        self,
        tokenizer: Any,
        text_encoder: nn.Module,
        codec: Any,
        prior: Prior,
        decoder: DiffusionDecoder | None = None,
        scheduler: FlowMatchEulerDiscreteScheduler | None = None,
        planner: Prior | None = None,
        guidance: float = 3.0,
        temperature: float = 1.0,
        top_k: int = 250,
        max_duration_s: float = 600.0,
        fine_temperature: float | None = None,
    ) -> None:
        super().__init__()
        check_fit(codec, prior, decoder, scheduler, planner)
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            codec=codec,
            prior=prior,
            decoder=decoder,
            scheduler=scheduler,
            planner=planner,
        )
        if fine_temperature is None:
            fine_temperature = prior.config.get("_fine_temperature", 1.0)
        self.register_to_config(
            guidance=guidance,
            temperature=temperature,
            top_k=top_k,
            max_duration_s=max_duration_s,
            fine_temperature=fine_temperature,
        )
        self._calls: dict[int, threading.Event] = {}
        for part in (text_encoder, codec, prior, decoder, planner):
            if part is not None:
                part.eval()

    @classmethod
    def from_pretrained(cls, path: str | Path, **kwargs: Any) -> "Pipeline":
        """Load a saved pipeline from a folder, or from the hub.

        Args:
            path: a folder, a hub id, or "partita-tiny", the model that ships.
            **kwargs: components and stored defaults in place of those saved, ``torch_dtype``
                (float32 for codec and decoder) and ``HUB_OPTIONS`` of codec/component.py.

        Raises:
            FileNotFoundError: the folder is not a saved pipeline or lacks a file, or there is
                neither such a folder nor such a hub id.
            ValueError: a component is null, a stored default has the wrong type, a config or
                weights do not fit, or an option is not known.
        """
        folder = find_folder(find_shipped(path), kwargs)
        check_options(kwargs)
        index = read_index(folder, given=kwargs.keys())
        if "codec" not in kwargs:
            import_codec_class(index)
        if "tokenizer" not in kwargs and "text_encoder" not in kwargs:
            kwargs["tokenizer"], kwargs["text_encoder"] = load_text_encoder(folder)
        pipeline = super().from_pretrained(str(folder), **kwargs)
        if not Path(path).is_dir() and find_shipped(path) == str(path):
            pipeline.register_to_config(_name_or_path=str(path))  # the hub id, not its cache
        return pipeline

    def save_pretrained(self, path: str | Path, **kwargs: Any) -> None:
        """Save every component as safetensors, and check that none was written as null.

        Raises:
            ValueError: LoRA adapters are in use, or an option is given by which the folder could
                not be loaded again.
        """
        for name in ("variant", "max_shard_size"):
            if kwargs.get(name) is not None:
                raise ValueError(f"save_pretrained of a pipeline takes no {name}")
        if not kwargs.get("safe_serialization", True):
            raise ValueError("safe_serialization must be true: pickles are never loaded")
        if self.list_loras():
            raise ValueError("LoRA adapters are in use: fuse_lora() or unload_lora_weights() first")
        renew_origins(self)
        save_with_card(self, super().save_pretrained, Path(path), kwargs)
        read_index(Path(path))

    @classmethod
    def _dict_from_json_file(cls, json_file: str) -> dict[str, Any]:
        """Read a config; this class needs no code from the folder to find itself."""
        found = super()._dict_from_json_file(json_file)
        name = found.get("_class_name")
        return found | {"_class_name": name[-1] if isinstance(name, list) else name}

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
        ending: Ending = "cut",
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
            ending: "cut" stops where the duration is over, "fade" fades the last 3 s, "ring" closes
                the plan with a cadence and lets its last chord fade.
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
        check_output_type(output_type)
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
        check_ending(ending)
        onload(self.planner)
        items = (prompts, negatives, plans, seeds)
        given = self.conditioner(*items, duration_s, num_frames, rings=ending == "ring")
        onload(self.prior)
        frames = FrameGenerator(
            self.prior, given.condition, given.negative, num_frames, sampling, seeds
        )
        codes, rate = self.collect(frames, callback_on_step_end), self.codec.sample_rate
        audio = codes
        if output_type != "latent":
            audio = self.decode(codes, decoder_seeds, num_inference_steps=steps, preview=preview)
            audio = with_ending(audio[..., : round(duration_s * rate)], rate, ending)
        self.maybe_free_model_hooks()
        audios = audio.float().cpu().numpy() if output_type == "np" else audio
        if not return_dict:
            return (audios,)
        return MusicOutput(
            audios,
            rate,
            codes,
            seeds,
            decoder_seeds,
            describe_call(prompts, negative_prompt, duration_s, sampling, steps, preview)
            | ({} if ending == "cut" else {"ending": ending}),
            given.plans,
        )

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

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """(B, C, S) audio at the codec's rate -> (B, K, T) codes of all its codebooks."""
        self.check_dtype()
        onload(self.codec)
        return self.codec.encode(audio.to(self.codec.device))

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
            (B, C, T * hop_length) float32 audio.

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

    def decode_stages(self, seeds: list[int], num_inference_steps: int | None) -> "list[Stage]":
        """Make a chain of stages from codes to audio; another codec than ours waits for the end."""
        if not isinstance(self.codec, SpectralCodec):
            return [Windows(self.codec.decode, size=sys.maxsize, halo=0)]
        if num_inference_steps is None:
            return self.codec.decode_stages(seeds)
        assert self.decoder is not None
        assert self.scheduler is not None
        sampler = FlowSampler(self.codec, self.decoder, self.scheduler)
        return [sampler.stage(seeds, num_inference_steps), self.codec.vocoder.stage(seeds)]

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
        return Stream(piece, given.plans[0], parts, self.codec.sample_rate, chunk_s)

    def _modules(self) -> dict[str, nn.Module | None]:
        names = ("text_encoder", "codec", "prior", "decoder", "planner")
        return {name: getattr(self, name) for name in names}

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
                        codes[-1] = frames.last = changed["codes"]
                if interrupted.is_set():
                    break
        return torch.stack(codes, dim=-1)

    def num_frames(self, duration_s: float) -> int:
        """Token frames that hold a duration; ValueError where it is out of range."""
        check_duration(duration_s, self.config.max_duration_s)
        samples = round(duration_s * self.codec.sample_rate)
        frames = samples * self.codec.frame_rate / self.codec.sample_rate
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

    def check_dtype(self) -> None:
        """Raise ValueError unless codec and decoder are float32, in which they compute."""
        for name in ("codec", "decoder"):
            part = getattr(self, name)
            dtype = next((p.dtype for p in part.parameters()), torch.float32) if part else None
            if dtype not in (None, torch.float32):
                raise ValueError(
                    f"a pipeline computes in torch.float32, the {name} is {dtype}: "
                    f"pipeline.{name}.to(torch.float32)"
                )

    @property
    def components(self) -> dict[str, Any]:
        """Parts and defaults by name: ``Pipeline(**pipeline.components)`` is the same pipeline."""
        return {**super().components, **{name: self.config[name] for name in DEFAULTS}}
