"""Why the server does not do what is asked, although the request is right."""


class BusyError(Exception):
    """A live piece could not keep up beside those that are open.

    Args:
        retry_after_s: when to ask again (s).
    """

    def __init__(self, retry_after_s: float) -> None:
        self.retry_after_s = max(1, round(retry_after_s))
        super().__init__(f"no more streams would keep up: try again in {self.retry_after_s} s")


class QueueFullError(Exception):
    """As many jobs wait as may wait."""


class StorageError(Exception):
    """The folder of takes cannot be written to."""
