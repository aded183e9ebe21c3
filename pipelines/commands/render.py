"""``partita render``: thousands of prompts to finished files."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.inference.loading import add_pipeline_arguments, load_pipeline

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline
    from pipelines.rendering.engine import RenderOptions, RenderSummary
    from pipelines.rendering.rows import Defaults, Request


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of ``partita render``."""
    parser.add_argument("rows", nargs="?", help=".jsonl or .csv file, or - for standard input")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder, made if missing")
    parser.add_argument("--status", metavar="DIR", type=Path, help="how the job there stands")
    add_defaults(parser.add_argument_group("what a row gets that does not say"))
    run = parser.add_argument_group("how the job runs")
    run.add_argument("--plan", action="store_true", help="say what it will take, and stop")
    run.add_argument("--sheet", action="store_true", help="write index.html to listen with")
    run.add_argument("--skip-bad", action="store_true", help="leave faulty rows out")
    run.add_argument("--force", action="store_true", help="render anew what changed its settings")
    run.add_argument("--batch-size", type=int, default=16, help="items written at once (16)")
    run.add_argument("--threads", type=int, help="of PyTorch, all processes (default: its choice)")
    run.add_argument("--workers", type=int, default=0, help="processes of a local cluster")
    run.add_argument("--scheduler", metavar="URL", help="running dask scheduler, tcp://host:port")
    run.add_argument(
        "--progress", choices=("line", "json", "none"), default="line", help="(default: line)"
    )
    run.add_argument("--log-file", metavar="FILE", help="append what happens, with the time")
    add_pipeline_arguments(parser)


def add_defaults(group: argparse._ArgumentGroup) -> None:
    """Declare what stands in for fields that a row leaves out."""
    group.add_argument("--duration", type=float, default=10.0, help="in s (default: 10)")
    group.add_argument("--negative-prompt", help="what to move away from")
    group.add_argument("--guidance", type=float, help="how closely to follow the prompt; 1: off")
    group.add_argument("--temperature", type=float, help="0 takes the likeliest token")
    group.add_argument("--steps", type=int, help="of the decoder, 1 to 16")
    group.add_argument("--num-variations", type=int, default=1, help="items per row (default: 1)")
    group.add_argument("--format", default="wav", help="wav, flac, ogg or opus (default: wav)")
    group.add_argument("--loudness", type=float, metavar="LUFS", help="BS.1770 (default: as it is)")
    group.add_argument("--preview", action="store_true", help="without the decoder, fast")


def run(args: argparse.Namespace) -> int:
    """Check, render, and print what came of it."""
    from codec.process_settings import cpu_threads

    with cpu_threads(args.threads):
        return render_rows(args)


def render_rows(args: argparse.Namespace) -> int:
    """Render on the threads that are set."""
    if args.status is not None:
        return show_status(args)
    if args.rows is None or args.out is None:
        raise ValueError("name the rows and --out, or --status alone (see partita render --help)")
    from pipelines.rendering.engine import ChangedItemsError, read_good_rows, render_items
    from pipelines.rendering.rows import BadRowsError

    options, defaults = options_of(args), defaults_of(args)
    if args.sheet:
        from pipelines.inference.plot import check_plotting

        check_plotting()
    pipeline = load_pipeline(args.pipeline, args.quiet or args.progress != "line")
    pipeline.set_progress_bar_config(disable=True)
    try:
        request = read_good_rows(pipeline, args.rows, defaults, args.skip_bad)
        if args.plan:
            return show_plan(pipeline, request, args.out, options)
        summary = render_items(pipeline, request, args.out, options)
    except (BadRowsError, ChangedItemsError) as error:  # a report has a line for every row
        print(f"partita: error: {error}", file=sys.stderr)
        return 2
    if args.sheet:
        from pipelines.rendering.sheet import write_sheet

        write_sheet(args.out)
    if args.progress != "json":
        print("\n".join([*describe(summary, args.out), *beside_plan(summary, args)]))
    return summary.exit_code


def show_plan(pipeline: "Pipeline", request: "Request", out: Path, options: "RenderOptions") -> int:
    """Print what the job will take, and keep it; a job that cannot fit is an error."""
    from pipelines.rendering.origin import describe_origin
    from pipelines.rendering.plan import describe_plan, items_left, plan_job, write_plan

    if options.scheduler is not None:
        raise ValueError("--plan measures this machine: leave --scheduler out")
    items, origin = items_left(request.items, out), describe_origin(pipeline)
    if not items:
        print(f"{out}: nothing is left to render")
        return 0
    plan = plan_job(pipeline, origin, items, out, options.batch_size, options.workers)
    print("\n".join(describe_plan(plan)))
    plan.check()
    write_plan(out, plan)
    return 0


def beside_plan(summary: "RenderSummary", args: argparse.Namespace) -> list[str]:
    """The plan's figures beside the real ones, where the whole of a plan was carried out."""
    from pipelines.rendering.plan import compare, measure_run, read_plan

    plan = read_plan(args.out)
    carried_out = (summary.done, args.batch_size, args.workers)
    if plan is None or (plan.items, plan.batch_size, plan.workers) != carried_out:
        return []
    return compare(plan, measure_run(args.out, summary))


def options_of(args: argparse.Namespace) -> "RenderOptions":
    """How the job runs, from the command line."""
    from pipelines.rendering.engine import RenderOptions

    return RenderOptions(
        batch_size=args.batch_size,
        workers=args.workers,
        scheduler=args.scheduler,
        force=args.force,
        skip_bad=args.skip_bad,
        progress="none" if args.quiet and args.progress == "line" else args.progress,
        log_file=args.log_file,
    )


def defaults_of(args: argparse.Namespace) -> "Defaults":
    """What rows get that do not say, from the command line."""
    from pipelines.rendering.rows import Defaults

    return Defaults(
        duration_s=args.duration,
        negative_prompt=args.negative_prompt,
        guidance=args.guidance,
        temperature=args.temperature,
        steps=args.steps,
        num_variations=args.num_variations,
        format=args.format,
        loudness_lufs=args.loudness,
        preview=args.preview,
    )


def show_status(args: argparse.Namespace) -> int:
    """Print how a job stands; exit code 1 where an item failed or the job did not end well."""
    from pipelines.rendering.job import read_status, render_status

    status = read_status(args.status)
    print(json.dumps(asdict(status)) if args.progress == "json" else render_status(status))
    return 1 if status.failed or status.state in ("stopped", "killed") else 0


def describe(summary: "RenderSummary", out: Path) -> list[str]:
    """A summary in lines."""
    from pipelines.rendering.job import clock

    lines = [f"{out}: {summary.done} of {summary.items} items rendered"]
    if summary.skipped:
        lines[0] += f", {summary.skipped} already there"
    if summary.done:
        rate = summary.audio_s / max(summary.seconds, 1e-9)
        lines.append(
            f"{clock(summary.audio_s)} of audio in {clock(summary.seconds)}: "
            f"{rate:.1f} times as fast as it plays"
        )
    if summary.damaged:
        lines.append(f"damaged files rendered again: {', '.join(summary.damaged)}")
    if summary.faults:
        lines.append(f"rows left out: {len(summary.faults)}")
        lines += [f"  {fault}" for fault in summary.faults]
    if summary.failed:
        lines.append(f"failed: {len(summary.failed)} (the same command tries them again)")
        lines += [f"  {entry.id}: {entry.error}" for entry in summary.failed]
    return lines
