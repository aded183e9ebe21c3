"""Where a stream stands, in one safetensors file, so that it can go on later."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from codec.whole_file import write_whole
from pipelines.inference.plan_schema import draft_json, plan_json, read_plan
from pipelines.inference.safetensors_file import check_version, read_facts, read_safetensors
from prior.plan import Plan
from prior.plan_draft import PlanDraft
from prior.sampling import Sampling

FORMAT_VERSION = 3


@dataclass(frozen=True)
class Piece:
    """What a streamed piece is made from; with the pipeline it determines every sample."""

    prompt: str  # the text it began with
    duration_s: float  # its length (s)
    seed: int  # of the prior
    decoder_seed: int  # of decoder and vocoder
    negative_prompt: str | None  # what to move away from
    sampling: Sampling  # of the prior
    plan: PlanDraft | None  # what was given of one; the planner writes the rest for every prompt
    num_inference_steps: int | None  # of the diffusion decoder; None for the codec's own decode


@dataclass(frozen=True)
class StreamState:
    """A stream between two of its pieces of audio."""

    piece: Piece  # what is being generated
    plan: Plan | None  # what the prior reads now
    # (frame, text) from which frame on each prompt was read, the first one included
    prompts: list[tuple[int, str]]
    fingerprint: str  # of the pipeline; another one cannot continue
    tensors: dict[str, Tensor]  # of the prior and of every stage behind it, on the CPU

    def save(self, path: str | Path) -> None:
        """Write a file that appears under its name only when it is whole."""
        facts = {
            "format_version": FORMAT_VERSION,
            "piece": {
                **asdict(replace(self.piece, plan=None)),
                "plan": None if self.piece.plan is None else draft_json(self.piece.plan),
            },
            "plan": None if self.plan is None else plan_json(self.plan),
            "prompts": self.prompts,
            "fingerprint": self.fingerprint,
        }
        metadata = {name: json.dumps(value) for name, value in facts.items()}
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        write_whole(path, save(tensors, metadata))

    @classmethod
    def load(cls, path: str | Path) -> "StreamState":
        """Read a file written by :meth:`save`.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is truncated, of another version, or no stream's state.
        """
        metadata, tensors = read_safetensors(path)
        check_version(path, metadata, FORMAT_VERSION)
        facts = read_facts(path, metadata, ("piece", "plan", "prompts", "fingerprint"))
        try:
            piece = facts["piece"]
            sampling, given, plan = Sampling(**piece["sampling"]), piece["plan"], facts["plan"]
            given = None if given is None else read_plan(given)
            return cls(
                Piece(**(piece | {"sampling": sampling, "plan": given})),
                None if plan is None else read_plan(plan).completed(None, 0.0),
                [(int(frame), str(text)) for frame, text in facts["prompts"]],
                facts["fingerprint"],
                tensors,
            )
        except (TypeError, KeyError) as error:
            raise ValueError(f"{path}: the metadata are damaged: {error}") from error


def nested(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put tensors under a common prefix, copied to the CPU."""
    return {f"{prefix}.{name}": tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def below(prefix: str, tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return the tensors under a prefix, on ``device`` and without it."""
    start = f"{prefix}."
    return {
        name.removeprefix(start): tensor.to(device)
        for name, tensor in tensors.items()
        if name.startswith(start)
    }
