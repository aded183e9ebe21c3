"""Training speed: wall-clock and processor seconds to a given held-out loss."""

from collections.abc import Sequence

from pipelines.comparison.arm import TrainedArm
from pipelines.comparison.comparison_row import ComparisonRow
from pipelines.comparison.ladder import pairs
from pipelines.comparison.spread import show, verdict
from pipelines.comparison.study import Study
from pipelines.data.markdown import table

COLUMNS = ["prior", "target (nats per code)", "steps", "seconds", "processor seconds"]


def measure(study: Study) -> ComparisonRow:
    """Measure the time to the lowest loss that both of two compared priors reach."""
    row = ComparisonRow(
        "Training speed: seconds to a given loss",
        "For two priors that generate the same codes the target is the lowest loss that all their "
        "arms reach. Seconds are those of training alone, without validation; between validations "
        "the curve is taken to be straight.",
    )
    rows = []
    for pair in pairs(study):
        trained = {
            variant.name: [study.train(arm) for arm in study.variant_arms(variant)]
            for variant in pair
        }
        target = max(min(arm.curve.loss) for of_variant in trained.values() for arm in of_variant)
        times = {name: [to_loss(arm, target) for arm in found] for name, found in trained.items()}
        for name, found in times.items():
            columns = [show(values) for values in zip(*found, strict=True)]
            rows.append([name, f"{target:.3f}", *columns])
        row.reading += [
            verdict(
                f"{what} to {target:.3f} nats per code",
                {name: [time[place] for time in found] for name, found in times.items()},
                "s",
            )
            for place, what in ((1, "Seconds"), (2, "Processor seconds"))
        ]
    if rows:
        row.tables = [table(COLUMNS, rows)]
    else:
        row.missing = ["no two priors that are compared generate the same codes"]
    return row


def to_loss(arm: TrainedArm, target: float) -> tuple[float, float, float]:
    """Steps, seconds and processor seconds until the held-out loss is at the target."""
    curve = arm.curve
    after = next(index for index, loss in enumerate(curve.loss) if loss <= target)
    if after == 0:
        return float(curve.step[0]), curve.wall_s[0], curve.cpu_s[0]
    above, below = curve.loss[after - 1], curve.loss[after]
    share = (above - target) / (above - below)

    def at(values: Sequence[float]) -> float:
        return float(values[after - 1] + share * (values[after] - values[after - 1]))

    return at(curve.step), at(curve.wall_s), at(curve.cpu_s)
