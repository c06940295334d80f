"""Who may ask, and what a browser may do with the answer: an ASGI layer around everything else.

- Headers on every answer: nothing is loaded but from here, framed by nobody, guessed at by nobody.
- `Host` must be a name of this server, where those are known: a page elsewhere that has its own name point to 127.0.0.1
  (DNS rebinding) gets nothing.
- What changes or costs something is refused to pages of other sites: browsers say where a request comes from.
- `/v1` and `/metrics` want the token, where there is one; it is compared in constant time.
"""

import hmac
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scaleseg.server.refusal import Refusal, shown
from scaleseg.server.settings import Settings

__all__ = ["HEADERS", "Security", "hosts_of", "refused"]

POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' blob: data:", "connect-src 'self'",
    "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
))  # fmt: skip

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}

SAFE = ("GET", "HEAD", "OPTIONS")
GUARDED = ("/v1", "/metrics")
"""What wants the token, with all below it."""


class Security:
    """Lets through what may pass, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._check(scope["method"], scope["path"], Headers(scope=scope))
        except Refusal as refusal:
            await refused(refusal)(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if self.settings.hosts is not None and _without_port(host) not in self.settings.hosts:
            raise Refusal(
                421,
                f"Host is {shown(host)!r}, which this server is not called; start it with --allow-host to change that",
            )
        if method not in SAFE:
            _check_origin(headers, host)
        if self.settings.token is not None and _is_guarded(path):
            _check_token(headers, self.settings.token)


def refused(refusal: Refusal) -> JSONResponse:
    """A refusal as an answer, with all headers: it may be given outside of `Security`."""
    headers = {**HEADERS, "Cache-Control": "no-store", **refusal.headers()}
    return JSONResponse({"error": refusal.sentence}, refusal.status, headers)


def hosts_of(host: str, *, loopback: bool, allowed: Collection[str] = ()) -> frozenset[str] | None:
    """What a server that listens on `host` may be called; None, by any name, where others reach it and none is given."""
    if not loopback and not allowed:
        return None
    return frozenset({"localhost", "127.0.0.1", "::1", host.lower(), *(name.lower() for name in allowed)})


def _check_origin(headers: Headers, host: str) -> None:
    """Browsers send Sec-Fetch-Site, and Origin with what is not read alone; programs send neither."""
    site = headers.get("sec-fetch-site", "none")
    origin = headers.get("origin")
    foreign = origin is not None and _origin(origin) not in {
        _origin(f"{scheme}://{host}") for scheme in ("http", "https")
    }
    if site not in ("none", "same-origin") or foreign:
        raise Refusal(
            403, "the request comes from a page of another site; ask from this server's own page, or a program"
        )


def _check_token(headers: Headers, token: str) -> None:
    kind, _, given = headers.get("authorization", "").partition(" ")
    if not kind:
        raise Refusal(401, "a token is needed; give it in the header Authorization: Bearer ...")
    right = hmac.compare_digest(given.strip().encode(), token.encode())
    if kind.lower() != "bearer" or not right:
        raise Refusal(401, "the token is not the one that this server was started with; give that one")


def _is_guarded(path: str) -> bool:
    return any(path == guarded or path.startswith(f"{guarded}/") for guarded in GUARDED)


def _without_port(host: str) -> str:
    """The name in `Host`: of `localhost:8000`, `[::1]:8000`; nothing for what is no host."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _origin(text: str) -> tuple[str, str, int | None]:
    """Scheme, host and port, the scheme's own where none is named; nothing equals what cannot be read."""
    try:
        parts = urlsplit(text)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "unreadable", text, -1
    return parts.scheme, (parts.hostname or "").lower(), port
