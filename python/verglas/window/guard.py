"""Who may ask the window, and what a browser may do with its pages; every request passes here first.

A browser carries out what any page tells it to, so a server on one's own machine is open to every site one visits
unless it asks for something that those do not have: a token in the query or in a cookie that no other site's request
carries, a ``Host`` that is this machine (a foreign name that resolves here is DNS rebinding), and for changes an
``Origin`` that is this server.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BODY_BYTES = 4 << 20  # a picked micrograph of 100,000 particles takes 2 MB
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# No script, style or picture but our own files; no other page may frame, script or be told of ours.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_WRONG_PASSWORD_S = 1.0  # a guesser's time


def is_loopback(host: str) -> bool:
    """Whether an address to listen at can be reached from this machine only.

    Examples
    --------
    >>> from verglas.window.guard import is_loopback
    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host in _LOOPBACK:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Guard:
    """What a request must have.

    Attributes
    ----------
    token : str
        By query or cookie.
    host : str
        Where the server listens.
    password : str
        Typed by those who have no token; empty: there is none, and they are refused.
    cookie : str
        Its name; with the port in it, since browsers keep cookies per machine, not per port.
    """

    token: str
    host: str = "127.0.0.1"
    password: str = field(default="", repr=False)
    cookie: str = "verglas"

    def host_fits(self, header: str) -> bool:
        """Whether a ``Host`` header names this machine: a number, which cannot be rebound, or a name that is its own.

        Examples
        --------
        >>> from verglas.window.guard import Guard
        >>> guard = Guard("secret")
        >>> guard.host_fits("localhost:8000"), guard.host_fits("evil.example:8000"), guard.host_fits("10.0.0.1")
        (True, False, False)
        """
        try:
            name = urlsplit(f"//{header}").hostname or ""
        except ValueError:
            return False
        if any(mark in header for mark in "@/\\ ?#"):
            return False
        if is_loopback(name):
            return True
        if is_loopback(self.host):
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in {self.host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        return True

    def token_fits(self, given: str) -> bool:
        """In a time that says nothing of how much of it was right."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def password_fits(self, given: str) -> bool:
        """As for the token; never without a password."""
        same = hmac.compare_digest(given.encode("utf-8", "replace"), self.password.encode())
        return bool(self.password) and same

    def cookie_header(self) -> str:
        """The cookie that carries the token, which no script sees and no other site's request carries."""
        return f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"


class Guarded:
    """An application behind a guard.

    Parameters
    ----------
    application : ASGI application
    guard : Guard
    """

    def __init__(self, application: Application, guard: Guard) -> None:
        self.application, self.guard = application, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] == "lifespan":
            await self.application(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _Headers(scope["headers"])
        by_query = self._token_in_query(scope)
        answer = _with_headers(send, self.guard.cookie_header() if by_query else "")
        problem = self._outer_problem(scope, headers)
        if problem:
            await _refuse(answer, *problem)
        elif by_query or self._token_in_cookie(headers):
            problem = _body_problem(scope["method"], headers)
            if problem:
                await _refuse(answer, *problem)
            else:
                await self.application(scope, _limit(receive), answer)
        elif self.guard.password:
            await self._ask_password(scope, headers, receive, send)
        else:
            await _refuse(answer, 403, "this address needs the token that verglas serve has printed")

    def _outer_problem(self, scope: Scope, headers: _Headers) -> tuple[int, str] | None:
        """What is wrong with a request whoever sends it."""
        host = headers.one("host")
        if host is None or not self.guard.host_fits(host):
            return 403, "this server does not go by that name"
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "expected GET or POST"
        if scope["method"] == "POST":
            # Cookies of a site are sent by forms of others where a browser does not know SameSite.
            origin = headers.one("origin")
            same_site = headers.one("sec-fetch-site") in (None, "same-origin")
            if origin is None or origin.partition("://")[2] != host or not same_site:
                return 403, "a change must come from a page of this server"
        return None

    def _token_in_query(self, scope: Scope) -> bool:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        return len(given) == 1 and self.guard.token_fits(given[0])

    def _token_in_cookie(self, headers: _Headers) -> bool:
        try:
            cookies = SimpleCookie(headers.one("cookie") or "")
        except CookieError:
            return False
        return self.guard.cookie in cookies and self.guard.token_fits(cookies[self.guard.cookie].value)

    async def _ask_password(self, scope: Scope, headers: _Headers, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST" and scope["path"] == "/login" and not _body_problem("POST", headers):
            body, more = b"", True
            while more:
                message = await _limit(receive)()
                body, more = body + message.get("body", b""), message.get("more_body", False)
                if message["type"] == "http.disconnect" or len(body) > 4096:
                    return await _refuse(_with_headers(send), 413, "too long")
            given = parse_qs(body.decode("utf-8", "replace")).get("password", [""])[0]
            if self.guard.password_fits(given):
                return await _refuse(_with_headers(send, self.guard.cookie_header()), 303, "", location="/")
            await asyncio.sleep(_WRONG_PASSWORD_S)
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>verglas</title>'
            '<form method="post" action="/login"><label>Password <input type="password" name="password" autofocus>'
            "</label> <button>Open</button></form></html>"
        )
        return await _refuse(_with_headers(send), 401, page, kind="text/html; charset=utf-8")


class _Headers:
    """The headers of a request; one that comes twice is none."""

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in raw:
            self._values.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))

    def one(self, name: str) -> str | None:
        values = self._values.get(name, [])
        return values[0] if len(values) == 1 else None


def _body_problem(method: str, headers: _Headers) -> tuple[int, str] | None:
    length = headers.one("content-length")
    if length is not None and (not length.isdecimal() or int(length) > MOST_BODY_BYTES):
        return 413, f"expected at most {MOST_BODY_BYTES >> 20} MB"
    if method == "POST" and length is None:
        return 411, "expected the length of what is sent"
    return None


def _limit(receive: Receive) -> Receive:
    """What is sent, until it is longer than anything that is meant."""
    seen = 0

    async def next_part() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > MOST_BODY_BYTES else message

    return next_part


def _with_headers(send: Send, cookie: str = "") -> Send:
    """An answer with the headers that tell a browser to keep others out; a policy that it brings stays."""

    async def answer(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            have = {name.lower() for name, _ in headers}
            wanted = {**_HEADERS, "content-security-policy": PAGE_POLICY}
            headers += [(k.encode(), v.encode()) for k, v in wanted.items() if k.encode() not in have]
            if cookie:
                headers.append((b"set-cookie", cookie.encode()))
            message = {**message, "headers": headers}
        await send(message)

    return answer


async def _refuse(
    send: Send, status: int, text: str, *, kind: str = "text/plain; charset=utf-8", location: str = ""
) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(text.encode())).encode())]
    if location:
        headers.append((b"location", location.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
