"""What commands share about plans: ``--plan``, options that override it, and what is printed."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prior.plan import Plan


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--plan`` and the options that override it."""
    group = parser.add_argument_group(
        "the plan", "options go before the plan file, and that before the prompt"
    )
    group.add_argument("--plan", metavar="FILE", help="JSON of partita plan, whole or in part")
    group.add_argument("--bpm", type=float, help="beats a minute")
    group.add_argument("--key", help='for example "D minor"')
    group.add_argument("--meter", help="4/4, 3/4, 2/4 or 6/8")
    group.add_argument("--chords", help='"Dm Bb F", a bar each, or "Dm:2 A7:2" in beats; repeated')
    group.add_argument("--instruments", help='"flute, piano": who plays the tune comes first')
    group.add_argument(
        "--drums", action=argparse.BooleanOptionalAction, default=None, help="with drums or without"
    )
    group.add_argument("--melody", metavar="FILE", help="a tune: MIDI, MusicXML or ABC")
    group.add_argument("--sections", help='"intro:4 verse:8 chorus:8", in bars')


def plan_fields(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options' values as keyword arguments of the pipeline."""
    from pipelines.inference.plan_schema import FLAG_FIELDS

    return {name: value for name in FLAG_FIELDS if (value := getattr(args, name)) is not None}


def describe_plan(plan: "Plan", prompt: str, seconds: float) -> list[str]:
    """Write the plan in a line, and in others what it does not follow or cannot hold."""
    from pipelines.inference.prompt_words import compare_prompt

    lines = [f"plan: {plan}", *compare_prompt(prompt, plan)]
    bars = sum(section.bars for section in plan.sections)
    form_s = bars * plan.beats_per_bar * 60 / plan.tempo_bpm
    if bars and abs(form_s - seconds) > 1:
        lines.append(f"the sections last {form_s:.1f} s, the piece {seconds:.1f} s")
    return lines
