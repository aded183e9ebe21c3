"""What every measurement works with: the settings, the folder, the arms and the derived data."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml

from codec.protocols import Codec
from pipelines.comparison.arm import Arm, TrainedArm, is_held, lineage, train_arm
from pipelines.comparison.equal_size import fit_width
from pipelines.comparison.pieces import Piece, join_tracks, read_pieces, write_cache
from pipelines.comparison.settings import Budget, Rung, Settings
from pipelines.data.tokens import load_codec, read_token_info, read_token_infos
from pipelines.training.prior_data import TOKEN_RATE


@dataclass
class Study:
    """One comparison.

    Args:
        settings: the YAML file's.
        say: prints progress.
    """

    settings: Settings
    say: Callable[[str], None] = print
    _trained: dict[str, TrainedArm] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Of everything that is computed."""
        return Path(self.settings.output_dir)

    @property
    def sounds(self) -> Path:
        """Where sound examples go: beside the document."""
        document = Path(self.settings.document)
        return document.with_suffix("") if document.suffix else document

    @property
    def device(self) -> torch.device:
        """What accelerate trains on."""
        from accelerate import PartialState

        return PartialState().device

    @property
    def compared(self) -> list[str]:
        """The two backbones of which differences are claimed."""
        return [*self.settings.backbones][:2]

    def model(
        self, fields: dict[str, Any], tokens: Sequence[str], parameters: int | None = None
    ) -> dict[str, Any]:
        """A Prior's whole config for some caches, its width fitted to the parameter count.

        Raises:
            ValueError: the caches hold fewer books than asked for, or no width fits.
        """
        info = read_token_infos(tokens)[0]
        wanted = self.settings.model | fields
        books = wanted.get("num_codebooks", info.num_codebooks)
        if books > info.num_codebooks:
            raise ValueError(
                f"num_codebooks={books} asked for, {tokens[0]} holds {info.num_codebooks}"
            )
        wanted |= {"num_codebooks": books, "codebook_size": info.codebook_size}
        parameters = parameters or self.settings.parameters
        return fit_width(wanted, parameters, self.settings.tolerance)

    def arm(
        self,
        name: str,
        fields: dict[str, Any],
        tokens: Sequence[str],
        budget: Budget,
        seed: int,
        parameters: int | None = None,
        start: Arm | None = None,
    ) -> Arm:
        """An arm of this study."""
        model = self.model(fields, tokens, parameters)
        return Arm(f"{name}, seed {seed}", model, tuple(tokens), budget, seed, start)

    def arm_folder(self, arm: Arm) -> Path:
        """Where an arm is trained."""
        return self.folder / "arms" / arm.key(self.settings.optimization)

    def train_free(self, arms: Iterable[Arm]) -> None:
        """Train the arms, save those that another run of this study is training."""
        for arm in arms:
            if not any(is_held(self.arm_folder(part)) for part in lineage(arm)):
                self.train(arm)

    def train(self, arm: Arm) -> TrainedArm:
        """Train an arm, or take what an earlier call or run has trained."""
        key = arm.key(self.settings.optimization)
        if key not in self._trained:
            self.say(f"arm {key}: {arm.name}")
            self._trained[key] = train_arm(arm, self.folder / "arms", self.settings.optimization)
        return self._trained[key]

    def rungs(self) -> tuple[list[Rung], list[str]]:
        """The rungs whose config and caches are there, and why the others are not."""
        ready, missing = [], []
        for rung in self.settings.ladder:
            try:
                for folder in rung.tokens:
                    read_token_info(folder)
                ready.append(replace(rung, model=rung_model(rung) | rung.model, config=None))
            except (OSError, ValueError) as error:
                missing.append(f"{rung.name}: {error}")
        return ready, missing

    def rung_arms(self, rung: Rung) -> list[Arm]:
        """A rung's arms, one per seed."""
        budget = self.settings.ladder_budget
        return [
            self.arm(rung.name, rung.model, rung.tokens, budget, seed)
            for seed in self.settings.seeds
        ]

    def joined(self, folders: Sequence[str]) -> str:
        """A cache of whole tracks out of caches of clips, without captions."""
        infos = read_token_infos(folders)
        key = digest([asdict(info) for info in infos])
        target = self.folder / "data" / f"tracks-{key}"
        splits = {}
        for split in ("train", "validation"):
            clips = read_pieces(folders, split) if not target.is_dir() else []
            splits[split] = [replace(p, captions=[]) for p in join_tracks(clips)]
        return write_cache(target, splits, infos[0])

    def validation(self, folders: Sequence[str]) -> list[Piece]:
        """The held-out pieces of some caches."""
        return read_pieces(folders, "validation")

    @cached_property
    def codec(self) -> Codec | None:
        """The codec behind the tokens, if one is named."""
        return load_codec(self.settings.codec) if self.settings.codec else None

    def key(self, row: str) -> str:
        """Changes whenever a row's figures could: every setting but the list of rows."""
        values = asdict(self.settings) | {"rows": row, "document": ""}
        folders = {folder for rung in self.settings.ladder for folder in rung.tokens}
        folders |= set(self.settings.context.tokens)
        for folder in sorted(folders):
            info = Path(folder) / "tokens.json"
            values[folder] = info.read_text() if info.is_file() else None
        return digest(values)


def rung_model(rung: Rung) -> dict[str, Any]:
    """The ``model`` section of a rung's config.

    Raises:
        ValueError: the file is no prior's config.
        FileNotFoundError: there is no such file.
    """
    if rung.config is None:
        return {}
    content = yaml.safe_load(Path(rung.config).read_text())
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError(f"{rung.config} has no model section")
    return dict(content["model"])


def digest(values: Any) -> str:
    """A short hash of anything that JSON can write."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def seconds(frames: float) -> float:
    """Frames of the audio codecs in seconds."""
    return frames / TOKEN_RATE
