"""Compose the piece of a seed and an index, after drawing its source."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from codec.seeds import derive_seed
from pipelines.data.scores.arrange import arrange
from pipelines.data.scores.compose import DRUMS_ALONE, compose
from pipelines.data.scores.corpus import bach
from pipelines.data.scores.instruments import BASSES, INSTRUMENTS
from pipelines.data.scores.score import Score
from pipelines.data.scores.score_sound import check_programs
from pipelines.data.scores.score_sources import SOURCES
from pipelines.data.scores.songs import compose_song
from pipelines.errors import check_names, find_package_folder

VALIDATION_EVERY = 33  # one piece in this many is for validation
FREE_LEADS = 0.75
"""Share of the composed pieces whose lead is any instrument: styles choose a flute twenty times as
often as a glockenspiel, and in no style do pizzicato strings lead, but prompts ask for each."""
FREE_DRUMS = 0.5
"""Share of the composed pieces whose drums are drawn evenly, not by the style: all techno bands
have drums, but prompts ask for none."""

DRUMS_ALONE_SHARE = 0.02  # share of the composed pieces in which nothing but drums plays


@dataclass(frozen=True)
class ScoreJob:
    """Identify a piece to compose; it follows from the seed, the index and the sources."""

    seed: int
    index: int
    sources: tuple[str, ...]
    leads: tuple[str, ...] = ()  # of the composed pieces; none: see ``free_lead``

    @property
    def track(self) -> str:
        """Return the id of the piece."""
        return f"scores-{self.seed}-{self.index:07d}"

    @property
    def split(self) -> str:
        """Return "validation" for every 33rd piece, else "train"."""
        return "validation" if self.index % VALIDATION_EVERY == VALIDATION_EVERY - 1 else "train"


def piece_index(clip_id: str) -> int:
    """Read the index of a piece from the id of its clip: ``scores-0-0000012-1`` -> 12."""
    return int(clip_id.split("-")[2])


def check_sources(sources: Sequence[str]) -> None:
    """Raise an error with the install command where a source's program or corpus is missing."""
    if "mma" in sources:
        check_programs(["mma"])
    if "bach" in sources:
        find_package_folder("music21", "the source bach", "pip install 'partita[scores]'")


def compose_piece(job: ScoreJob) -> Score:
    """Draw a source, then the piece."""
    rng = random.Random(derive_seed(job.seed, "scores", job.index))
    check_names("sources", job.sources, SOURCES)  # an older dataset may name others
    weights = [SOURCES[source] for source in job.sources]
    source = rng.choices(job.sources, weights)[0]
    composers: dict[str, Callable[..., Score]] = {
        "generated": partial(
            compose, lead=free_lead(job), drums=free_drums(job), ensemble=drums_alone(job)
        ),
        "bach": bach,
        "mma": arrange,
        "songs": compose_song,
    }
    score = composers[source](rng, held_out=job.split == "validation")
    score.room = rng.uniform(0.2, 0.8)
    return score


def free_lead(job: ScoreJob) -> str | None:
    """Draw one of the wanted leads.

    If none is wanted, draw any instrument but a bass for ``FREE_LEADS`` of the pieces; None, which
    leaves it to the style, for the others.
    """
    rng = random.Random(derive_seed(job.seed, "lead", job.index))
    if job.leads:
        return rng.choice(job.leads)
    if rng.random() >= FREE_LEADS:
        return None
    return rng.choice([name for name in INSTRUMENTS if name not in BASSES])


def free_drums(job: ScoreJob) -> bool | None:
    """Draw drums or none for ``FREE_DRUMS`` of the pieces; None for the others."""
    rng = random.Random(derive_seed(job.seed, "drums", job.index))
    return rng.random() < 0.5 if rng.random() < FREE_DRUMS else None


def drums_alone(job: ScoreJob) -> str | None:
    """Draw an ensemble of drums for ``DRUMS_ALONE_SHARE`` of the pieces; None for the others."""
    rng = random.Random(derive_seed(job.seed, "drums alone", job.index))
    return DRUMS_ALONE if rng.random() < DRUMS_ALONE_SHARE else None
