"""Training speed: wall-clock and processor seconds to a given held-out loss."""

from collections.abc import Sequence

import numpy as np

from pipelines.comparison.arm import TrainedArm
from pipelines.comparison.ladder import pairs
from pipelines.comparison.row import Plot, Row, Series, Table
from pipelines.comparison.settings import Rung
from pipelines.comparison.spread import show, verdict
from pipelines.comparison.study import Study


def measure(study: Study) -> Row:
    """The row of the study."""
    row = Row(
        "speed",
        "Training speed: seconds to a given loss",
        "For two rungs that write the same codes the target is the lowest loss that all their arms "
        "reach. Seconds are those of updates alone, without validation; "
        "between validations the curve is taken to be straight.",
    )
    groups = pairs(study)
    if not groups:
        row.missing.append("no two rungs that are compared write the same codes")
    columns = ["rung", "target (nats per code)", "updates", "seconds", "processor seconds"]
    rows = []
    for group in groups:
        trained = {rung.name: [study.train(arm) for arm in study.rung_arms(rung)] for rung in group}
        target = reachable([arm for of_rung in trained.values() for arm in of_rung])
        times = {name: [to_loss(arm, target) for arm in of_rung] for name, of_rung in
                 trained.items()}  # fmt: skip
        for name, found in times.items():
            cells = [show([time[place] for time in found]) for place in range(3)]
            rows.append([name, f"{target:.3f}", *cells])
        row.plots.append(curve_plot(group, trained, len(row.plots)))
        row.reading += [
            verdict(
                f"{what} to {target:.3f} nats per code",
                {name: [time[place] for time in found] for name, found in times.items()},
                unit,
            )
            for place, what, unit in ((1, "Seconds", "s"), (2, "Processor seconds", "s"))
        ]
    row.tables = [Table(columns, rows)]
    return row


def reachable(trained: Sequence[TrainedArm]) -> float:
    """The lowest loss that every arm gets to."""
    return max(min(arm.curve.loss) for arm in trained)


def to_loss(arm: TrainedArm, target: float) -> tuple[float, float, float]:
    """Updates, seconds and processor seconds until the held-out loss is at the target."""
    curve = arm.curve
    after = next(index for index, loss in enumerate(curve.loss) if loss <= target)
    if after == 0:
        return float(curve.step[0]), curve.wall_s[0], curve.cpu_s[0]
    above, below = curve.loss[after - 1], curve.loss[after]
    share = (above - target) / (above - below)
    return tuple(
        float(values[after - 1] + share * (values[after] - values[after - 1]))
        for values in (curve.step, curve.wall_s, curve.cpu_s)
    )  # type: ignore[return-value]


def curve_plot(group: Sequence[Rung], trained: dict[str, list[TrainedArm]], index: int) -> Plot:
    """Loss over seconds of training, mean over seeds."""
    series = {}
    for rung in group:
        curves = [arm.curve for arm in trained[rung.name]]
        losses = np.asarray([curve.loss for curve in curves])
        times = np.mean([curve.wall_s for curve in curves], axis=0).tolist()
        series[rung.name] = Series(
            times, losses.mean(0).tolist(), losses.min(0).tolist(), losses.max(0).tolist()
        )
    name = f"speed-{index}" if index else "speed"
    return Plot(name, "Held-out loss over training time", "seconds", "nats per code", series)
