"""Why a number is missing from a report."""


class UnmeasurableError(ValueError):
    """A metric does not apply to this clip; the message is the reason, fit for a report."""
