"""``partita score``: the plan of a piece as a lead sheet for a notation program or a sequencer."""

import argparse
from pathlib import Path

from pipelines.inference.loading import check_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="a token file (.safetensors) or a plan file (.json)")
    parser.add_argument("--output", required=True, help=".mid or .musicxml file")


def run(args: argparse.Namespace) -> int:
    """Write chords, tune, tempo and sections of the plan."""
    from pipelines.data.scores.lead_sheet import SHEET_FORMATS, write_lead_sheet
    from pipelines.inference.plan_schema import draft_plan
    from pipelines.inference.token_file import load_tokens

    output = check_output(args.output, SHEET_FORMATS)
    seconds = None
    if Path(args.input).suffix == ".safetensors":
        tokens = load_tokens(args.input)
        source, seconds = tokens.settings.get("plan"), tokens.duration_s
        if source is None:
            raise ValueError(f"{args.input} holds no plan: it was encoded, or made without one")
    else:
        source = args.input
    plan = draft_plan(source).completed(None, 0.0)
    if seconds is not None:
        num_beats = seconds * plan.tempo_bpm / 60
    else:
        last = max((chord.beat for chord in plan.chords), default=0.0) + plan.beats_per_bar
        num_beats = (plan.end_beat or last) - plan.first_beat
    write_lead_sheet(output, plan, num_beats)
    print(f"{output}: {plan}")
    return 0
