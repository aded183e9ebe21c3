"""The document: every row's tables, pictures and sentences in Markdown."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from accelerate import PartialState

from pipelines.benchmarks.machine import processor_name
from pipelines.comparison.comparison_settings import ComparisonSettings
from pipelines.data.markdown import bullets, write_page

TITLE = "# LSTM against Transformer, on notes and on tokens"
WHAT = """What does one gain by going from an LSTM over notes to a Transformer over latent audio
tokens? One command trains every model at equal parameter count and equal data, measures it and
writes this page. Notes and audio tokens go through the same code, the recipe of
`pipelines/train_prior.py`."""
TERMS = """Words: a *codec* turns music into *codes* (audio tokens), whole numbers that stand for
entries of its *codebooks*: several for each *frame* of 1/25 s, the first codebook being the
coarsest. A *prior* is a language model of such codes: it predicts the next frame from those before
it. For notes a frame is one note, and the codebooks are its pitch, time, duration, instrument,
tempo and velocity. A *position* is a frame in a sequence. A *backbone* is the network inside a
prior: a *Transformer*, an *LSTM* (here one that also attends to all its earlier outputs), or a
*plain LSTM* (which does not). *Nats* and *bits* (1 nat is 1.44 bits) are the cross-entropy of
held-out music, the less the better it was predicted. An *arm* is one training: a prior, its data,
its number of steps and a seed."""
READING = "reading.md"
"""File beside the plots with what a person reads out of the figures; it goes to the top."""
COMMANDS = """```bash
pip install -e '.[plot,notes,evaluate]'
partita prepare tokens data/music --codec runs/codec-tiny/model --output data/music-tokens
partita prepare tokens data/scores --codec runs/codec-tiny/model --output data/scores-tokens
partita prepare notes data/scores --output data/scores-notes
partita prepare notes data/scores --output data/scores-notes-mono --monophonic
python pipelines/compare.py --config configs/compare.yaml
```"""
AROUND = """`data/scores` comes from `partita prepare scores --audio keep`, `data/music` (its audio
kept) from `partita prepare music`; `runs/codec-tiny/model` is the codec that makes the tokens. The
shipped settings took about four hours on one thread. Ctrl-C stops, and the same command goes on. On
a CPU the same command in a second terminal, with `OMP_NUM_THREADS=1` in both, takes other arms:
small arms gain next to nothing from a second thread. `accelerate launch` or `torchrun` shares every
batch among processes instead. What each option means stands in
`pipelines/comparison/comparison_settings.py`."""


def write_document(settings: ComparisonSettings, sections: Sequence[str]) -> Path:
    """Write the document from the rows' sections and what a person wrote about them."""
    path = Path(settings.document)
    path.parent.mkdir(parents=True, exist_ok=True)
    reading = path.with_suffix("") / READING
    parts = [TITLE, WHAT, TERMS]
    if reading.is_file():
        parts += ["## In short", reading.read_text().strip()]
    parts += ["## How", COMMANDS, AROUND, bullets(facts(settings)), *sections]
    write_page(path, parts)
    return path


def facts(settings: ComparisonSettings) -> list[str]:
    """List seeds, rules, machine and date."""
    state = PartialState()
    device = str(state.device)
    if state.device.type == "cuda":
        device = torch.cuda.get_device_name(state.device)
    return [
        f"Seeds: {', '.join(map(str, settings.seeds))}. ± is one standard deviation over seeds.",
        'A difference is claimed ("is ahead") only where the 95 % interval of the differences, '
        "paired by seed (Student's t), leaves out zero.",
        f"Equal size: each width is the one whose parameter count is nearest to the target, within "
        f"{settings.tolerance:.0%}.",
        f"Machine: {processor_name()}, {torch.get_num_threads()} threads, "
        f"{state.num_processes} process(es), {device}; torch {torch.__version__}. "
        f"Written on {date.today()}.",
    ]
