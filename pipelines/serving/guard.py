"""Keeps out of the server what should not reach it: strangers, other sites, floods, dawdlers."""

import asyncio
import hmac
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "partita_token"
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' blob:; worker-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


@dataclass
class Refusal(Exception):
    """Refuses a request, with a status and a message."""

    status: int
    message: str


class Guard:
    """Guards the whole application as ASGI middleware.

    A ``Host`` that is a name is refused unless it is listed, so that no foreign name that resolves
    to this machine (DNS rebinding) is served; a request that a browser sends for another site's
    page is refused by its ``Origin`` or ``Sec-Fetch-Site``.

    Args:
        app: to guard.
        token: that a request must carry, in ``Authorization: Bearer`` or the page's cookie; None
            asks for none.
        hosts: names in ``Host`` besides ``localhost`` and addresses.
        max_body: bytes of a request's body.
        max_upload: bytes of an uploaded file's.
        patience_s: for a client to take what is sent, or to send what it announced.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str | None = None,
        hosts: Collection[str] = (),
        max_body: int = 1 << 20,
        max_upload: int = 64 << 20,
        patience_s: float = 60.0,
    ) -> None:
        self.app = app
        self.token = token
        self.hosts = {"localhost", *(host.lower() for host in hosts)}
        self.max_body = max_body
        self.max_upload = max_upload
        self.patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then pass on."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        try:
            self._check_site(scope, headers)
            if scope["path"] != "/healthz" and self.token is not None:
                if self._entering(scope):
                    # the page gets its cookie, and the address without the token
                    page = RedirectResponse("/", 303)
                    page.set_cookie(COOKIE, self.token, 31536000, httponly=True, samesite="strict")
                    return await page(scope, receive, send)
                self._check_token(scope, headers)
            limit = self.max_upload if scope["path"] == "/v1/takes" else self.max_body
            if not headers.get("content-length", "0").isdecimal():
                raise Refusal(400, "Content-Length must be a number")
            if int(headers.get("content-length", "0")) > limit:
                raise Refusal(413, f"the body must have at most {limit} bytes")
        except Refusal as refusal:
            return await _refuse(scope, receive, send, refusal)
        guarded = _GuardedChannel(scope, receive, send, limit, self.patience_s)
        try:
            await self.app(scope, guarded.receive, guarded.send)
        except Refusal as refusal:
            if not guarded.started:
                await _refuse(scope, receive, send, refusal)
        except Exception:
            if not guarded.given_up:  # else whatever came of that
                raise

    def _check_site(self, scope: Scope, headers: Headers) -> None:
        host = _host_name(headers.get("host", ""))
        if host not in self.hosts and not _is_address(host):
            rule = "Host must be localhost, an address or a name given with --allow-host"
            raise Refusal(421, f"{rule}, got {host!r}")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != headers["host"].lower():
            raise Refusal(403, "requests of other sites are refused")
        page = scope["type"] == "http" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not (
            page and scope["method"] == "GET"
        ):
            raise Refusal(403, "requests of other sites are refused")

    def _entering(self, scope: Scope) -> bool:
        """Tell whether the page is asked for with the right ``?token=``."""
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return self._fits(given)

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = HTTPConnection(scope).cookies.get(COOKIE, "")
        if not self._fits(given.strip()):
            raise Refusal(401, "a token is needed: Authorization: Bearer TOKEN, or /?token=")

    def _fits(self, given: str) -> bool:
        assert self.token is not None
        return hmac.compare_digest(given.encode(errors="replace"), self.token.encode())


class _GuardedChannel:
    """Limits what one request receives and sends."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, limit: int, patience_s: float
    ) -> None:
        self.scope, self.limit, self.patience_s = scope, limit, patience_s
        self._receive, self._send = receive, send
        self.received = 0
        self.whole = scope["type"] == "websocket"  # whose messages may come at any time
        self.started = False
        self.refusal: Refusal | None = None
        self.given_up = False

    async def receive(self) -> Message:
        if self.whole:
            message = await self._receive()
        else:
            try:
                message = await asyncio.wait_for(self._receive(), self.patience_s)
            except TimeoutError:
                self.refusal = Refusal(408, "the body did not come")
                raise self.refusal from None
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
            if self.received > self.limit:
                self.refusal = Refusal(413, f"the body must have at most {self.limit} bytes")
                raise self.refusal
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self.refusal is not None:  # the application took it for a body that is not JSON
                raise self.refusal
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        try:
            await asyncio.wait_for(self._send(message), self.patience_s)
        except (TimeoutError, ConnectionError):
            self.given_up = True
            # uvicorn would wait for what is buffered to be read
            transport = getattr(getattr(self._receive, "__self__", None), "transport", None)
            if transport is not None:
                transport.abort()
            raise


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    if scope["type"] == "websocket":
        await receive()
        return await send(
            {"type": "websocket.close", "code": 1008, "reason": refusal.message[:100]}
        )
    headers = {"connection": "close"}
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    reply = JSONResponse(error_body(refusal.message), refusal.status, headers)
    await reply(scope, receive, send)


def error_body(message: str, field: str | None = None, type: str = "invalid_request_error") -> Any:
    """Return an error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": type, "param": field, "code": None}}
