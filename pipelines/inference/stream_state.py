"""Where a stream stands, in one safetensors file, so that it can go on later."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from codec.whole_file import write_whole
from prior.plan import ChordChange, Plan
from prior.sampling import Sampling

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Piece:
    """What a streamed piece is made from; with the pipeline it determines every sample.

    Attributes:
        prompt: the text it began with.
        duration_s: its length (s).
        seed: of the prior.
        decoder_seed: of decoder and vocoder.
        negative_prompt: what to move away from.
        sampling: of the prior.
        plan: as given; None lets the planner write one for every prompt.
        num_inference_steps: of the diffusion decoder; None for the codec's own decode.
    """

    prompt: str
    duration_s: float
    seed: int
    decoder_seed: int
    negative_prompt: str | None
    sampling: Sampling
    plan: Plan | None
    num_inference_steps: int | None


@dataclass(frozen=True)
class StreamState:
    """A stream between two of its pieces of audio.

    Attributes:
        piece: what is being generated.
        plan: what the prior reads now.
        prompts: (frame, text) from which frame on each prompt was read, the first one included.
        fingerprint: of the pipeline; another one cannot continue.
        tensors: of the prior and of every stage behind it, on the CPU.
    """

    piece: Piece
    plan: Plan | None
    prompts: list[tuple[int, str]]
    fingerprint: str
    tensors: dict[str, Tensor]

    def save(self, path: str | Path) -> None:
        """Write a file that appears under its name only when it is whole."""
        facts = {
            "format_version": FORMAT_VERSION,
            "piece": asdict(self.piece),
            "plan": None if self.plan is None else asdict(self.plan),
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
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
        return cls(**_read_facts(path, metadata), tensors=tensors)


def _read_facts(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    names = ("format_version", "piece", "plan", "prompts", "fingerprint")
    if metadata.get("format_version", str(FORMAT_VERSION)) != str(FORMAT_VERSION):
        version = metadata["format_version"]
        raise ValueError(f"{path}: format_version must be {FORMAT_VERSION}, got {version}")
    missing = [name for name in names if name not in metadata]
    if missing:
        raise ValueError(f"{path} is not a stream's state: the metadata lack {missing[0]!r}")
    try:
        facts = {name: json.loads(metadata[name]) for name in names}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: the metadata are damaged: {error}") from error
    piece = facts["piece"]
    known = {field.name for field in fields(Piece)}
    if not isinstance(piece, dict) or piece.keys() != known:
        raise ValueError(f"{path}: the piece must have exactly {sorted(known)}")
    try:
        piece |= {"sampling": Sampling(**piece["sampling"]), "plan": _read_plan(piece["plan"])}
        plan = _read_plan(facts["plan"])
    except TypeError as error:
        raise ValueError(f"{path}: the metadata are damaged: {error}") from error
    prompts = [(int(frame), str(text)) for frame, text in facts["prompts"]]
    return {
        "piece": Piece(**piece),
        "plan": plan,
        "prompts": prompts,
        "fingerprint": facts["fingerprint"],
    }


def _read_plan(values: dict[str, Any] | None) -> Plan | None:
    if values is None:
        return None
    chords = tuple(ChordChange(**chord) for chord in values["chords"])
    instruments = tuple(values["instruments"])
    return Plan(**(values | {"chords": chords, "instruments": instruments}))


def nested(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under a common prefix, copied to the CPU."""
    return {f"{prefix}.{name}": tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def below(prefix: str, tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The tensors under a prefix, on ``device`` and without it."""
    start = f"{prefix}."
    return {
        name.removeprefix(start): tensor.to(device)
        for name, tensor in tensors.items()
        if name.startswith(start)
    }
