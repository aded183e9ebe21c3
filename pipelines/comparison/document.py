"""The document: every row's tables, pictures and sentences in Markdown."""

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from pipelines.comparison.lines import draw
from pipelines.comparison.row import Row, bulleted
from pipelines.comparison.settings import Settings

TITLE = "# LSTM against Transformer, on notes and on tokens"
WHAT = """What does one gain by going from an LSTM over notes to a Transformer over latent audio
tokens? One command trains every arm at equal parameter count and equal data, measures it and
writes this page. Notes and audio tokens go through the same code: a rung is a prior's config and a
token cache, trained by the recipe of `pipelines/train_prior.py`."""
NOT_YET = """**The full run has not been made yet: there are no figures on this page.** The command
below writes it anew, with a section for each of these: training speed against sequence length;
recall of repeats after a gap; the ladder from a plain LSTM over notes to a Transformer over tokens;
seconds to a given loss; sizes and data amounts at equal compute; what the far past of a whole piece
is worth; solo, duo and band; writing speed and state; what notes and what tokens carry."""
READING = "reading.md"
"""Beside the plots: what a person reads out of the figures; it goes to the top."""
PREPARE = (
    "pip install -e '.[plot,notes,evaluate]'",
    "partita prepare tokens data/music --codec runs/codec-tiny/model --output data/music-tokens",
    "partita prepare tokens data/scores --codec runs/codec-tiny/model --output data/scores-tokens",
    "partita prepare notes data/scores --output data/scores-notes",
    "partita prepare notes data/scores --output data/scores-notes-mono --monophonic",
)
AROUND = """`data/scores` comes from `partita prepare scores`, `data/music` (its audio kept) from
`partita prepare music`; `runs/codec-tiny/model` is the codec that makes the tokens. `--plan` prints
minutes per arm and trains nothing; `--quick` runs every measurement on made-up data into
`runs/compare-quick`; Ctrl-C stops, and the same command goes on. On a CPU the same command in a
second terminal, with `OMP_NUM_THREADS=1` in both, takes other arms: small arms gain next to nothing
from a second thread. `accelerate launch` or `torchrun` shares every batch among processes instead.
What each option means stands in `pipelines/comparison/settings.py`."""


def write_document(
    settings: Settings, rows: Sequence[Row], command: str, machine: Sequence[str], minutes: float
) -> Path:
    """Write the document, its plots and their numbers.

    Args:
        settings: of the study.
        rows: what has been measured.
        command: that gave it.
        machine: lines that describe it.
        minutes: of all runs, those side by side added up.

    Returns:
        The document's path.
    """
    path = Path(settings.document)
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = path.with_suffix("")
    parts = [TITLE, WHAT]
    if not rows:
        parts.append(NOT_YET)
    reading = figures / READING
    if rows and reading.is_file():
        parts.append("## In short\n\n" + reading.read_text())
    parts.append(how(settings, command, machine, minutes, bool(rows)))
    parts += [section(row, figures, path.parent) for row in rows]
    text = "\n\n".join(part.strip() for part in parts) + "\n"
    part_path = path.with_name(f".{path.name}.part")
    part_path.write_text(text)
    os.replace(part_path, path)
    return path


def how(
    settings: Settings, command: str, machine: Sequence[str], minutes: float, measured: bool
) -> str:
    """Commands, seeds and machine."""
    lines = ["## How", "", "```bash", *PREPARE, command, "```", "", AROUND, ""]
    facts = [
        f"Seeds: {', '.join(map(str, settings.seeds))}. ± is one standard deviation over seeds.",
        'A difference is claimed ("is ahead") only where the 95 % interval of the differences, '
        "paired by seed (Student's t), leaves out zero; for timings, only where the runs do not "
        "overlap.",
        f"Equal size: each width is the one whose parameter count is nearest to the target, within "
        f"{settings.tolerance:.0%}.",
    ]
    if measured:
        facts += [
            *machine,
            f"Written on {date.today()}; {minutes:.0f} minutes of all runs, those side by side "
            "added up.",
        ]
    return "\n".join(lines) + "\n" + bulleted(facts)


def section(row: Row, figures: Path, beside: Path) -> str:
    """One row."""
    parts = [f"## {row.title}", row.method]
    parts += [table.markdown() for table in row.tables if table.rows]
    for plot in row.plots:
        picture = draw(plot, figures)
        numbers = (figures / f"{plot.name}.csv").relative_to(beside)
        link = f"[numbers]({numbers})"
        parts.append(
            f"![{plot.title}]({picture.relative_to(beside)})\n\n{link}" if picture else link
        )
    if row.reading:
        parts.append(bulleted(row.reading))
    if row.examples:
        parts.append(bulleted([f"[{text}]({path})" for path, text in row.examples]))
    if row.missing:
        parts.append("Not measured:\n\n" + bulleted(row.missing))
    return "\n\n".join(parts)
