"""``partita plan``: the planner's plan of a piece, to be edited and generated from."""

import argparse

from pipelines.inference.loading import add_pipeline_arguments, check_output, load_pipeline
from pipelines.inference.plan_arguments import add_plan_arguments, describe_plan, plan_fields


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help='for example "a slow sad piano piece in D minor, 70 bpm"')
    parser.add_argument("--duration", type=float, default=10.0, help="in s")
    parser.add_argument("--seed", type=int, help="equal seeds, equal plans (default: drawn)")
    parser.add_argument("--output", default="plan.json", help=".json file")
    add_plan_arguments(parser)
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Plan, write, and print the plan."""
    from pipelines.inference.plan_schema import draft_plan, save_plan

    output = check_output(args.output, ("json",))
    draft_plan(args.plan, plan_fields(args))  # before anything is loaded
    pipeline = load_pipeline(args.pipeline, args.quiet)
    plan = pipeline.plan(args.prompt, args.duration, args.seed, args.plan, **plan_fields(args))
    save_plan(output, plan)
    print(f"{output}: {len(plan.chords)} chords")
    print("\n".join(describe_plan(plan, args.prompt, args.duration)))
    return 0
