"""``partita render``: thousands of prompts to finished files."""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.inference.loading import (
    add_lora_argument,
    add_pipeline_arguments,
    load_pipeline,
    parse_loras,
    read_settings,
)

if TYPE_CHECKING:
    from pipelines.rendering.engine import RenderSummary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rows", nargs="?", help=".jsonl or .csv file, or - for standard input")
    parser.add_argument("--output", metavar="DIR", type=Path, help="folder, made if missing")
    parser.add_argument("--status", metavar="DIR", type=Path, help="how the job there stands")
    row = parser.add_argument_group("what a row gets for a field that it leaves out")
    row.add_argument("--duration", dest="duration_s", type=float, default=10.0, help="in s")
    row.add_argument("--negative-prompt", help="what to move away from")
    row.add_argument("--guidance", type=float, help="how closely to follow the prompt; 1: off")
    row.add_argument("--temperature", type=float, help="0 takes the likeliest token")
    row.add_argument("--steps", type=int, help="of the decoder, 1 to 16")
    row.add_argument("--num-variations", type=int, default=1, help="items per row")
    row.add_argument("--format", default="wav", help="wav, flac, ogg or opus")
    row.add_argument("--ending", default="ring", help="ring, fade or cut")
    row.add_argument(
        "--loudness",
        dest="loudness_lufs",
        type=float,
        metavar="LUFS",
        help="BS.1770 (default: as it is)",
    )
    row.add_argument("--preview", action="store_true", help="without the decoder, fast")
    run = parser.add_argument_group("how the job runs")
    run.add_argument("--sheet", action="store_true", help="write index.html to listen with")
    run.add_argument("--skip-bad", action="store_true", help="leave faulty rows out")
    run.add_argument("--force", action="store_true", help="render anew what changed its settings")
    run.add_argument("--batch-size", type=int, default=16, help="items generated at once")
    run.add_argument("--threads", type=int, help="of PyTorch, all processes (default: its choice)")
    run.add_argument("--workers", type=int, default=0, help="processes of a local cluster")
    run.add_argument("--scheduler", metavar="URL", help="running dask scheduler, tcp://host:port")
    run.add_argument(
        "--progress", choices=("line", "json", "none"), default="line", help="what is printed"
    )
    run.add_argument("--log-file", metavar="FILE", help="append what happens, with the time")
    add_lora_argument(parser)
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Check, render, and print what came of it."""
    from codec.process_settings import cpu_threads

    if args.status is not None:
        return show_status(args)
    with cpu_threads(args.threads):
        return render_rows(args)


def render_rows(args: argparse.Namespace) -> int:
    """Render on the threads that are set."""
    if args.rows is None or args.output is None:
        raise ValueError("name the rows and --output, or --status alone (partita render --help)")
    from pipelines.inference.call_arguments import check_before_loading
    from pipelines.inference.shipped import find_shipped
    from pipelines.rendering.engine import ChangedItemsError, RenderOptions, render
    from pipelines.rendering.row_limits import RowLimits
    from pipelines.rendering.rows import (
        BadRowsError,
        Defaults,
        check_number,
        check_text,
        read_request,
        read_row_file,
    )

    options, defaults = read_settings(RenderOptions, args), read_settings(Defaults, args)
    if args.quiet and args.progress == "line":
        options = replace(options, progress="none")
    sampling = {"guidance": args.guidance, "temperature": args.temperature}
    saved, texts = find_shipped(args.pipeline), [args.negative_prompt]
    check_before_loading(saved, texts, args.duration_s, args.steps, (), sampling)
    check_number("num_variations", args.num_variations)
    check_text("format", args.format)
    check_text("ending", args.ending)
    if args.loudness_lufs is not None:
        check_number("loudness_lufs", args.loudness_lufs)
    rows = read_row_file(args.rows)
    if (Path(saved) / "model_index.json").is_file() and not args.skip_bad:
        request = read_request(rows, RowLimits(Path(saved)), defaults)  # seconds before loading
        if request.faults:
            return print_faults(BadRowsError(request.name, request.faults))
    if args.sheet:
        from pipelines.inference.plot import check_plotting
        from pipelines.rendering.sheet import write_sheet

        check_plotting()
    quiet = args.quiet or args.progress != "line"
    pipeline = load_pipeline(args.pipeline, quiet, loras=parse_loras(args.lora))
    pipeline.set_progress_bar_config(disable=True)
    try:
        summary = render(pipeline, rows, args.output, defaults, options)
    except (BadRowsError, ChangedItemsError) as error:
        return print_faults(error)
    if args.sheet:
        write_sheet(args.output)
    if args.progress != "json":
        print("\n".join(describe(summary, args.output)))
    return summary.exit_code


def print_faults(error: ValueError) -> int:
    """Print a line for every row that is named, and return exit code 2."""
    print(f"partita: error: {error}", file=sys.stderr)
    return 2


def show_status(args: argparse.Namespace) -> int:
    """Print how a job stands; exit code 1 where an item failed or the job did not end well."""
    from pipelines.rendering.job import read_status

    status = read_status(args.status)
    print(json.dumps(asdict(status)) if args.progress == "json" else status)
    return 1 if status.failed or status.state in ("stopped", "killed") else 0


def describe(summary: "RenderSummary", out: Path) -> list[str]:
    """Write a summary in lines."""
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
