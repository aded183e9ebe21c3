"""Names why the server does not do what is asked, although the request is right."""


class BusyError(Exception):
    """Refuses a live piece that could not keep up beside those that are open.

    Args:
        retry_after_s: when to ask again (s).
    """

    def __init__(self, retry_after_s: float) -> None:
        self.retry_after_s = max(1, round(retry_after_s))
        super().__init__(f"no more streams would keep up: try again in {self.retry_after_s} s")


class QueueFullError(Exception):
    """Refuses a job where as many wait as may."""


class StorageError(Exception):
    """Refuses a job whose take could not be written."""
