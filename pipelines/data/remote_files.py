"""Files at URLs: an object store, the hub, a web server (fsspec)."""


def is_remote(folder: str) -> bool:
    """Whether a folder is a URL."""
    return "://" in folder


def read_bytes(url: str) -> bytes:
    """Read a file through fsspec.

    Raises:
        ValueError: it is not there, access is refused, or its kind of URL needs another package.
    """
    import fsspec

    try:
        # a new connection: those of the parent of a data-loading process cannot be used there
        with fsspec.open(url, "rb", skip_instance_cache=True) as file:
            return file.read()
    except (OSError, ImportError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{url} cannot be read: {reason}") from error
