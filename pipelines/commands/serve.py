"""``partita serve``: a page in the browser, and music over HTTP."""

import argparse
import ipaddress
import logging
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.inference.loading import add_pipeline_arguments, load_pipeline

if TYPE_CHECKING:
    from pipelines.serving.studio import Studio

INSTALL = "pip install 'partita[serve]'"
SHORTEST_TOKEN = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--takes", default="takes", metavar="FOLDER", help="of what is made")
    parser.add_argument("--token-file", metavar="FILE", help="a secret that clients must send")
    parser.add_argument(
        "--insecure", action="store_true", help="let everybody in who reaches the address"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that this machine is called by in addresses, besides localhost",
    )
    parser.add_argument("--longest", type=float, default=600.0, metavar="S", help="of a piece")
    parser.add_argument("--queue", type=int, default=1000, help="jobs that may wait")
    parser.add_argument("--streams", type=int, default=32, help="open at once, at most")
    parser.add_argument("--batch", type=int, default=8, help="jobs made at once")
    parser.add_argument("--log-prompts", action="store_true", help="prompts of jobs go to the log")
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Check the options, load, and serve until SIGINT or SIGTERM."""
    from pipelines.errors import import_package

    for package in ("fastapi", "uvicorn", "sse_starlette", "prometheus_client", "websockets"):
        import_package(package, "partita serve", INSTALL)
    token = read_token(args.token_file) if args.token_file else None
    check_options(args, token)
    with listen(args.host, args.port) as listener:
        check_takes_folder(Path(args.takes))
        return serve(args, token, listener)


def check_options(args: argparse.Namespace, token: str | None) -> None:
    """Raise ValueError for an option out of range, or a server that everybody could use."""
    if not is_loopback(args.host) and token is None and not args.insecure:
        raise ValueError(
            f"--host {args.host} can be reached from other machines: "
            "give --token-file FILE, or --insecure to let everybody in"
        )
    for name in ("queue", "streams", "batch"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")
    if not args.longest > 0:
        raise ValueError(f"--longest must be positive, got {args.longest}")
    if not 0 <= args.port < 65536:
        raise ValueError(f"--port must lie in [0, 65536), got {args.port}")


def check_takes_folder(folder: Path) -> None:
    """Make the folder of takes if it is missing, before anything is loaded.

    Raises:
        OSError: it cannot be made, is no folder, or cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OSError(f"--takes {folder} is a file") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(f"--takes {folder} cannot be written to")


def serve(args: argparse.Namespace, token: str | None, listener: socket.socket) -> int:
    """Serve on a socket that listens."""
    import warnings

    import uvicorn

    from pipelines.serving.application import build_application

    studio = open_studio(args)
    app = build_application(studio, token=token, hosts=args.allow_host)
    start_log(args.quiet)
    warnings.simplefilter(
        "ignore"
    )  # such as of a peak that was scaled down; the log has lines of its own
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws_max_size=1 << 20,
        ws_ping_timeout=60,
        timeout_graceful_shutdown=5,
    )
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{port}/ (takes in {studio.shelf.path})", flush=True)
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def open_studio(args: argparse.Namespace) -> "Studio":
    """Load the pipeline and open the folder of takes."""
    from pipelines.serving.studio import Studio

    pipeline = load_pipeline(args.pipeline, args.quiet)
    pipeline.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {
        "longest_s": args.longest,
        "max_queue": args.queue,
        "batch_size": args.batch,
        "max_streams": args.streams,
        "log_prompts": args.log_prompts,
    }
    return Studio(pipeline, Path(args.takes), **options)


def listen(host: str, port: int) -> socket.socket:
    """Bind before anything is loaded, so that a port in use is said at once.

    Raises:
        OSError: the address cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)  # who comes early waits until the model is loaded
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    return listener


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(path: str) -> str:
    """Read the secret; a file that is not there is made, with a new one that only its owner reads.

    Raises:
        ValueError: the secret is short, or not plain text on one line.
    """
    file = Path(path)
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(24) + "\n")
        print(f"wrote a new token to {path}", file=sys.stderr)
    token = file.read_text(errors="replace").strip()
    if len(token) < SHORTEST_TOKEN or not all(33 <= ord(c) < 127 and c not in ';,"' for c in token):
        raise ValueError(
            f"{path} must hold a token of at least {SHORTEST_TOKEN} letters, digits, - or _"
        )
    return token


def start_log(quiet: bool) -> None:
    """Write one line of JSON per event to standard error; errors only with ``--quiet``."""
    from pipelines.serving.service_metrics import JsonLines

    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name, level in (("partita.serve", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.ERROR if quiet else level)
