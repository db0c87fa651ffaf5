"""Sticky sessions: a signed cookie that names the endpoint which answered first.

Rules:

- A cookie is the name of an endpoint, when it expires, and a signature of both, by HMAC-SHA256 (RFC 2104). The name is
  a keyed hash of the address, so nobody without the secret can tell an address from it, or make one.
- It keeps nothing here: any machine with the same secret reads it, and a restart loses no session.
- What we did not sign, what has expired, what names nobody, or somebody who is closed or was tried: another policy
  chooses, as for a new client, and the answer brings a new cookie.
- The first secret signs and all are valid. A cookie of another than the first sticks, and is replaced with the answer:
  so a secret is changed by putting a new one before it, and taking the old one away when sessions have passed.
- An answer that comes from the endpoint that the cookie names, with the first secret, brings none. A session that goes
  on for longer than `max_age_s` is chosen for anew.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, get_args

from coulee.core.headers import TOKEN
from coulee.lb.hashing import Deferring
from coulee.lb.keys import cookies, identity
from coulee.lb.turns import RoundRobin

if TYPE_CHECKING:
    from coulee.core.parts import Response
    from coulee.core.peer import PoolKey, Routed
    from coulee.lb.endpoint import Endpoint
    from coulee.lb.policy import Policy

SameSite = Literal["Strict", "Lax", "None"]

SECRET_BYTES_MIN: Final = 16

SECRETS_MAX: Final = 8
"""Each is tried for a cookie that somebody made up."""

COOKIES_MAX: Final = 4
"""Cookies of our name that are looked at in one request: a page of a neighbouring domain can set some of its own."""

MAX_AGE_S_MAX: Final = 400 * 24 * 3600
"""What browsers keep at most (RFC 6265bis section 5.5)."""

SLICE_ENDPOINTS: Final = 500
"""Endpoints that are named in one slice of `arrange`: some milliseconds."""

_NAME_BYTES: Final = 12
_EXPIRY_BYTES: Final = 6
_SIGNATURE_BYTES: Final = 18
_VALUE: Final = re.compile(r"[A-Za-z0-9_-]{48}")
"""The three as base64, which needs no padding then: one text for each value, and one value for each text."""

_PATH: Final = re.compile(r"/[\x21-\x3a\x3c-\x7e]*")


class Sticky(Deferring):
    """`Sticky(os.environ["STICKY_SECRET"])`. Raises `ValueError` for what makes no sense.

    `secret` is text or bytes, or several of them, newest first. `otherwise` chooses for clients without a valid cookie
    (at random, if it is not given). `cookie`, `max_age_s`, `path`, `secure` and `same_site` are those of Set-Cookie
    (RFC 6265 section 4.1.2); without `max_age_s` it lasts as long as the browser's session. It is always HttpOnly.
    """

    def __init__(
        self,
        secret: str | bytes | Sequence[str | bytes],
        *,
        otherwise: Policy | None = None,
        cookie: str = "coulee",
        max_age_s: int | None = None,
        path: str = "/",
        secure: bool = False,
        same_site: SameSite = "Lax",
    ) -> None:
        super().__init__(otherwise if otherwise is not None else RoundRobin())
        self._secrets = _secrets(secret)
        _check(cookie, max_age_s, path, secure, same_site)
        self.cookie = cookie
        self.max_age_s = max_age_s
        self._attributes = f"; Path={path}; HttpOnly; SameSite={same_site}" + ("; Secure" if secure else "")
        if max_age_s is not None:
            self._attributes += f"; Max-Age={max_age_s}"
        self._endpoints: dict[bytes, Endpoint] = {}
        """By name, with each secret."""
        self._names: dict[PoolKey, bytes] = {}
        """With the first secret."""

    def arrange(self, members: Sequence[Endpoint]) -> Iterator[None]:
        """See `Policy`."""
        endpoints: dict[bytes, Endpoint] = {}
        names: dict[PoolKey, bytes] = {}
        for number, endpoint in enumerate(members, start=1):
            for secret in reversed(self._secrets):
                name = self._keyed(secret, b"name", identity(endpoint))[:_NAME_BYTES]
                endpoints[name] = endpoint
                names[endpoint.key] = name
            if number % SLICE_ENDPOINTS == 0:
                yield
        yield from super().arrange(members)
        self._endpoints, self._names = endpoints, names

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        """See `Policy`."""
        for name in self._valid(exchange):
            endpoint = self._endpoints.get(name)
            if endpoint is not None and endpoint.open and endpoint.name not in tried:
                return endpoint
        return self.otherwise.choose(exchange, tried)

    def mark(self, exchange: Routed, endpoint: Endpoint, response: Response) -> None:
        """See `Policy`."""
        super().mark(exchange, endpoint, response)
        name = self._names.get(endpoint.key)
        if name is None or name in self._valid(exchange):
            return
        expiry = 0 if self.max_age_s is None else int(self.view.wall_clock) + self.max_age_s
        signed = name + expiry.to_bytes(_EXPIRY_BYTES, "big")
        value = urlsafe_b64encode(signed + self._signature(self._secrets[0], signed)).decode()
        response.headers.add("Set-Cookie", f"{self.cookie}={value}{self._attributes}")

    def _valid(self, exchange: Routed) -> Iterator[bytes]:
        """The names in the cookies that we signed and that have not expired."""
        for value in islice(cookies(exchange.request, self.cookie), COOKIES_MAX):
            if _VALUE.fullmatch(value) is None:
                continue
            raw = urlsafe_b64decode(value)
            signed, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
            expiry = int.from_bytes(signed[_NAME_BYTES:], "big")
            if not any(hmac.compare_digest(signature, self._signature(secret, signed)) for secret in self._secrets):
                continue
            if not expiry or self.view.wall_clock < expiry:
                yield signed[:_NAME_BYTES]

    def _signature(self, secret: bytes, signed: bytes) -> bytes:
        return self._keyed(secret, b"cookie", signed)[:_SIGNATURE_BYTES]

    def _keyed(self, secret: bytes, purpose: bytes, data: bytes) -> bytes:
        """A hash that only who has the secret can make, and that is good for one purpose and one cookie alone."""
        return hmac.digest(secret, b"%s %s %s" % (purpose, self.cookie.encode(), data), "sha256")


def _secrets(secret: str | bytes | Sequence[str | bytes]) -> list[bytes]:
    given = [secret] if isinstance(secret, str | bytes) else secret
    secrets = [each.encode() if isinstance(each, str) else each for each in given]
    if not 1 <= len(secrets) <= SECRETS_MAX:
        raise ValueError(f"there are {len(secrets)} secrets; give one, or up to {SECRETS_MAX}, the newest first")
    for each in secrets:
        if len(each) < SECRET_BYTES_MIN:
            raise ValueError(
                f"a secret has {len(each)} bytes, and {SECRET_BYTES_MIN} is the least; make one with:"
                " python -c 'import secrets; print(secrets.token_hex(32))'"
            )
    return secrets


def _check(cookie: str, max_age_s: int | None, path: str, secure: bool, same_site: str) -> None:
    """Raises `ValueError` for what a browser would not keep."""
    if not cookie.isascii() or TOKEN.fullmatch(cookie.encode()) is None:
        raise ValueError(f"{cookie!r} is no name of a cookie: use letters, digits and !#$%&'*+-.^_`|~")
    if max_age_s is not None and not 1 <= max_age_s <= MAX_AGE_S_MAX:
        raise ValueError(f"max_age_s is {max_age_s}; it must be from 1 to {MAX_AGE_S_MAX} (400 days), or None")
    if _PATH.fullmatch(path) is None:
        raise ValueError(f"path is {path!r}; it must begin with / and have no blank, ; or control character")
    if same_site not in get_args(SameSite):
        raise ValueError(f"same_site is {same_site!r}; it must be Strict, Lax or None (as text)")
    if same_site == "None" and not secure:
        raise ValueError("browsers refuse SameSite=None without Secure; add secure=True")
    if cookie.lower().startswith(("__host-", "__secure-")) and not secure:
        raise ValueError(f"browsers refuse {cookie} without Secure; add secure=True")
    if cookie.lower().startswith("__host-") and path != "/":
        raise ValueError(f"browsers refuse {cookie} with a path; leave path at /")
