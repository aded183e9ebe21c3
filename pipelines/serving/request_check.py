"""Checks a request against the loaded pipeline and the server's limits."""

import copy
import threading

from pipelines.inference.music_generator import MusicGenerator
from pipelines.inference.text import MAX_TOKENS
from pipelines.serving.music_request import PieceFields, PlanOptions, SteerFields
from prior.plan import Plan


class RequestCheck:
    """Raises ValueError, with the name of the field, for what would not be made."""

    def __init__(self, pipeline: MusicGenerator, model: str, longest_s: float) -> None:
        self.pipeline = pipeline
        self.model = model
        self.longest_s = min(longest_s, float(pipeline.config.max_duration_s))
        self.tokenizer = copy.deepcopy(pipeline.tokenizer)  # not to be shared between threads
        self.lock = threading.Lock()

    def piece(self, fields: PieceFields) -> None:
        """Check what a piece is to be made from."""
        if fields.model not in (None, self.model):
            raise ValueError(f"model must be {self.model!r}, got {fields.model!r}")
        if fields.duration_s > self.longest_s:
            raise ValueError(
                f"duration_s must be at most {self.longest_s:g}, got {fields.duration_s:g}"
            )
        if round(fields.duration_s * self.pipeline.sample_rate) < 1:
            raise ValueError(f"duration_s must hold a sample, got {fields.duration_s:g}")
        self.pipeline.sampling(fields.temperature, fields.top_k, fields.top_p, fields.guidance)
        self.steer(fields)

    def steer(self, fields: PieceFields | SteerFields) -> None:
        """Check texts and plan."""
        if not fields.prompt.strip():
            raise ValueError("prompt must be a text that is not empty")
        for name, text in (("prompt", fields.prompt), ("negative_prompt", fields.negative_prompt)):
            with self.lock:
                count = len(self.tokenizer(text or "")["input_ids"])
            if count > MAX_TOKENS:
                raise ValueError(f"{name} may have at most {MAX_TOKENS} tokens, got {count}")
        self.plan(fields)

    def plan(self, fields: PlanOptions) -> None:
        """Check a plan and what goes before it."""
        draft = fields.draft()
        if not draft:
            return
        if not self.pipeline.prior.config.reads_plan:
            raise ValueError("plan was given, but this pipeline's prior reads none")
        self.pipeline.conditioner.check_form(draft.completed(Plan(100.0), 0.0))
