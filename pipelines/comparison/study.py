"""Make what every measurement works with: arms, the folder and the derived data."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from pipelines.comparison.arm import Arm, TrainedArm, digest, is_held, lineage, train_arm
from pipelines.comparison.comparison_settings import Budget, ComparisonSettings, PriorVariant
from pipelines.comparison.equal_size import fit_width
from pipelines.comparison.piece_cache import TrackPiece, read_pieces, write_cache
from pipelines.data.tokens import INFO_NAME, read_token_infos
from pipelines.training.configuration import read_yaml


@dataclass
class Study:
    """Builds and trains the arms of one comparison."""

    settings: ComparisonSettings
    say: Callable[[str], None] = print
    _trained: dict[str, TrainedArm] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Locate everything that is computed."""
        return Path(self.settings.output_dir)

    @property
    def device(self) -> torch.device:
        """Find the device on which accelerate trains."""
        return PartialState().device

    @property
    def compared(self) -> list[str]:
        """Name the two backbones of which differences are claimed."""
        return [*self.settings.backbones][:2]

    def sized_backbones(self) -> dict[str, dict[str, Any]]:
        """Size every backbone to the study's parameter count, whatever the codes are."""
        settings = self.settings
        return {
            name: fit_width(settings.model | fields, settings.parameters, settings.tolerance)
            for name, fields in settings.backbones.items()
        }

    def model(
        self, fields: dict[str, Any], tokens: Sequence[str], parameters: int | None = None
    ) -> dict[str, Any]:
        """Fill in a Prior's config for some caches, its width fitted to the parameter count.

        Raises:
            ValueError: the caches hold fewer codebooks than asked for, or no width fits.
        """
        info = read_token_infos(tokens)[0]
        wanted = self.settings.model | fields
        num_codebooks = wanted.get("num_codebooks", info.num_codebooks)
        if num_codebooks > info.num_codebooks:
            raise ValueError(
                f"num_codebooks={num_codebooks} asked for, {tokens[0]} holds {info.num_codebooks}"
            )
        wanted |= {"num_codebooks": num_codebooks, "codebook_size": info.codebook_size}
        parameters = parameters or self.settings.parameters
        return fit_width(wanted, parameters, self.settings.tolerance)

    def arms(
        self,
        name: str,
        fields: dict[str, Any],
        tokens: Sequence[str],
        budget: Budget,
        parameters: int | None = None,
        starts: Sequence[Arm | None] | None = None,
    ) -> list[Arm]:
        """Build an arm per seed, from random weights or each from an arm of ``starts``."""
        model = self.model(fields, tokens, parameters)
        seeds = self.settings.seeds
        return [
            Arm(f"{name}, seed {seed}", model, tuple(tokens), budget, seed, start)
            for seed, start in zip(seeds, starts or [None] * len(seeds), strict=True)
        ]

    def arm_folder(self, arm: Arm) -> Path:
        """Locate the folder in which an arm is trained."""
        return self.folder / "arms" / arm.key(self.settings.optimization)

    def train_free(self, arms: Iterable[Arm]) -> None:
        """Train the arms except those that another run of this study is training."""
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

    def derived_cache(
        self, name: str, change: Callable[[str, list[TrackPiece]], list[TrackPiece]]
    ) -> str:
        """Write changed pieces of the caches of clips, without captions, as a cache."""
        folders, target = self.settings.context.tokens, self.folder / "data" / name
        splits = {}
        for split in ("train", "validation") if not target.is_dir() else ():
            pieces = change(split, read_pieces(folders, split))
            splits[split] = [replace(piece, captions=[]) for piece in pieces]
        return write_cache(target, splits, read_token_infos(folders)[0])

    def variants(self) -> tuple[list[PriorVariant], list[str]]:
        """List the variants whose config and caches are there, and why the others are not."""
        ready, missing = [], []
        for variant in self.settings.ladder:
            try:
                read_token_infos(variant.tokens)
                model = read_model(variant) | variant.model
                ready.append(replace(variant, model=model, config=None))
            except (OSError, ValueError) as error:
                missing.append(f"{variant.name}: {error}")
        return ready, missing

    def key(self, row: str) -> str:
        """Hash every setting but the list of rows: changes whenever a row's figures could."""
        values = asdict(self.settings) | {"rows": row, "document": ""}
        folders = {folder for variant in self.settings.ladder for folder in variant.tokens}
        folders |= set(self.settings.context.tokens)
        for folder in sorted(folders):
            info = Path(folder) / INFO_NAME
            values[folder] = info.read_text() if info.is_file() else None
        return digest(values)


def read_model(variant: PriorVariant) -> dict[str, Any]:
    """Read the ``model`` section of a variant's config.

    Raises:
        ValueError: the file is no prior's config.
        FileNotFoundError: there is no such file.
    """
    if variant.config is None:
        return {}
    content = read_yaml(variant.config)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError(f"{variant.config} has no model section")
    return dict(content["model"])
