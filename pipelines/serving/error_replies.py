"""Answers errors with JSON objects of OpenAI's shape, which name the field, never a prompt."""

import logging
import re
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from pipelines.serving.guard import error_body
from pipelines.serving.job_store import DuplicateJobError
from pipelines.serving.refusals import BusyError, QueueFullError, StorageError

LOG = logging.getLogger("partita.serve")


def first_fault(error: Exception) -> tuple[str, str | None]:
    """Say what is wrong with the first field that is, and name the field."""
    if not isinstance(error, ValidationError | RequestValidationError):
        message = " ".join(str(error).split())
        named = re.match(r"[a-z]\w*(?= must | may | was | is )", message)
        return message, named[0] if named else None
    fault = error.errors()[0]
    place = [str(part) for part in fault["loc"] if part not in ("body", "query", "path")]
    if fault["type"] == "json_invalid":
        return "the body is not JSON", None
    field = ".".join(place) or None
    if fault["type"] == "extra_forbidden":
        return f"unknown field: {field}", field
    message = fault["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field else message, field


def reply(status: int, message: str, field: str | None = None, **headers: str) -> JSONResponse:
    """Make the response."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse(error_body(message, field, kind), status, headers or None)


def add_error_replies(app: FastAPI) -> None:
    """Let the application answer errors with such objects."""

    async def busy(request: Request, error: Any) -> JSONResponse:
        request.app.state.metrics.refused.inc()
        return reply(503, str(error), retry_after=str(error.retry_after_s))

    async def missing(request: Request, error: Any) -> JSONResponse:
        return reply(404, str(error) if not error.filename else "there is no such file")

    async def broken(request: Request, error: Any) -> JSONResponse:
        LOG.error("fault", exc_info=error)
        return reply(500, "the server has a fault; its log says more")

    def answer(make: Callable[[Any], JSONResponse]) -> Callable[..., Awaitable[JSONResponse]]:
        async def handler(request: Request, error: Any) -> JSONResponse:
            return make(error)

        return handler

    invalid = answer(lambda error: reply(422, *first_fault(error)))
    storage = answer(lambda error: reply(507, f"the folder of takes cannot be used: {error}"))
    for kind, handler in (
        (RequestValidationError, invalid),
        (ValueError, invalid),
        (HTTPException, answer(lambda error: reply(error.status_code, str(error.detail)))),
        (BusyError, busy),
        (QueueFullError, answer(lambda error: reply(429, str(error), retry_after="10"))),
        (DuplicateJobError, answer(lambda error: reply(409, str(error), "id"))),
        (FileNotFoundError, missing),
        (StorageError, answer(lambda error: reply(507, str(error)))),
        (sqlite3.Error, storage),
        (InterruptedError, answer(lambda error: reply(503, str(error), retry_after="10"))),
        (OSError, storage),
        (Exception, broken),
    ):
        app.add_exception_handler(kind, handler)
