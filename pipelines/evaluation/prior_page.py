"""Build the page of ``partita evaluate prior``: tables of bits, and bits by position as a plot."""

from typing import Any

from pipelines.data.markdown import table
from pipelines.evaluation.report_files import MISSING, format_interval, format_number


def page_blocks(content: dict[str, Any]) -> list[str]:
    """Build the page."""
    seconds = content["seconds"]
    length = f"{content['num_frames']} frames" + (f", {seconds:.0f} s" if seconds else "")
    plans = " Every clip's own plan is read, except in the last column." if content["plans"] else ""
    return [
        f"{content['num_clips']} held-out clips, {length} in all; every clip weighs the same. Bits "
        "are cross-entropies: the fewer, the better a code was predicted. *Codes alone*: what "
        f"counting the codes of the training split would give.{plans}",
        *bit_blocks(content),
        worth_table(content["caption_worth"]),
        source_table(content),
        position_table(content),
    ]


def bit_blocks(content: dict[str, Any]) -> list[str]:
    """Build the table of bits of every codebook and of a whole frame."""
    unigram, conditions = content["unigram_bits"], content["conditions"]
    counted = [MISSING] * len(content["books"]) if isinstance(unigram, str) else unigram
    uniform, frame = content["uniform_bits"], content["frame"]
    rows = [
        [f"codebook {index}", *_bits(book, conditions), format_number(alone, 3), f"{uniform:.3f}"]
        for index, (book, alone) in enumerate(zip(content["books"], counted, strict=True))
    ]
    whole = [format_interval(frame[name], ".3f") for name in conditions]
    total = MISSING if isinstance(unigram, str) else f"{sum(unigram):.3f}"
    rows.append(["a frame", *whole, total, f"{len(content['books']) * uniform:.3f}"])
    notes = []
    if content["frame_rate"]:
        kbps = frame[conditions[0]]["kbps"]
        notes.append(f"{kbps:.3f} kbps at {content['frame_rate']:g} frames a second.")
    if isinstance(unigram, str):
        notes.append(f"No codes alone: {unigram}.")
    header = ["bits", *conditions, "codes alone", "all codes alike"]
    return [table(header, rows), " ".join(notes)]


def worth_table(worth: dict[str, Any]) -> str:
    """Build the table of what a wrong caption, none, or no plan costs."""
    header = ["instead of the own caption", "bits a frame", "nats in 10 s", "clips where it costs"]
    rows = []
    for condition, row in worth.items():
        cost = format_interval(row["bits_per_frame"], "+.3f")
        nats = row["nats_per_10_s"]
        share = f"{row['clips_where_it_costs']:.0%}"
        rows.append([condition, cost, MISSING if nats is None else f"{nats:+.1f}", share])
    return table(header, rows)


def source_table(content: dict[str, Any]) -> str:
    """Build the table of bits a frame by source."""
    conditions = content["conditions"]
    rows = [
        [source or "unknown", row["clips"], *_bits(row, conditions)]
        for source, row in content["sources"].items()
    ]
    return table(["bits a frame, by source", "clips", *conditions], rows)


def position_table(content: dict[str, Any]) -> str:
    """Build the table of bits a frame in the first parts of a clip, then in every fifth."""
    conditions, unit = content["conditions"], content["position_unit"]
    rows = [
        [row[unit], row["clips"], *_bits(row["frame"], conditions)]
        for index, row in enumerate(content["positions"])
        if index < 3 or index % 5 == 0
    ]
    return table([unit, "clips", *conditions], rows)


def plot_positions(figure: Any, content: dict[str, Any]) -> None:
    """Draw bits a frame by position under each condition, and bits of every codebook."""
    frames, books = figure.subplots(1, 2)
    positions, unit = content["positions"], content["position_unit"]
    places = [row[unit] for row in positions]
    for condition in content["conditions"]:
        frames.plot(places, [row["frame"][condition] for row in positions], label=condition)
    for index in range(len(content["books"])):
        books.plot(places, [row["books"][index] for row in positions], label=f"codebook {index}")
    books.axhline(content["uniform_bits"], ls=":", color="gray", lw=1)
    frames.set(xlabel=unit, ylabel="bits a frame")
    books.set(xlabel=unit, ylabel="bits a code, own caption")
    for axes in (frames, books):
        axes.legend()
        axes.grid(alpha=0.3)


def _bits(values: dict[str, float], conditions: list[str]) -> list[str]:
    return [f"{values[condition]:.3f}" for condition in conditions]
