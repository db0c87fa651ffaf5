"""Sticky sessions: what a cookie is good for, and what is no cookie of ours."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.headers import Headers
from coulee.core.parts import Response
from coulee.core.peer import Routed
from coulee.lb import sticky
from coulee.lb.endpoint import Endpoint
from coulee.lb.policy import Policy
from coulee.lb.sticky import COOKIES_MAX, MAX_AGE_S_MAX, SECRETS_MAX, SameSite, Sticky
from tests.lb.stub import Asks, FakeView, endpoints

SECRET = "a secret of 32 bytes, or of more."
OTHER = b"another secret, which is older."


class First(Policy):
    """The first that is open, and a field of its own on answers."""

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        return next((each for each in self.view.usable if each.open and each.name not in tried), None)

    def mark(self, exchange: Routed, endpoint: Endpoint, response: Response) -> None:
        response.headers.add("X-Marked", endpoint.name)


def view_of(count: int = 3, secret: str | bytes | list[str | bytes] = SECRET, **settings: Any) -> FakeView:
    return FakeView(endpoints(count), Sticky(secret, otherwise=First(), **settings))


def marked(view: FakeView, endpoint: Endpoint, ask: Asks | None = None) -> str | None:
    """The Set-Cookie of an answer."""
    response = Response(200)
    view.policy.mark(ask or Asks(), endpoint, response)
    lines = response.headers.get_all("set-cookie")
    assert len(lines) <= 1
    return lines[0] if lines else None


def cookie_for(view: FakeView, endpoint: Endpoint) -> str:
    line = marked(view, endpoint)
    assert line is not None
    return line.partition(";")[0]


def asks(*cookies: str, tried: Collection[str] = ()) -> Asks:
    return Asks(headers={"Cookie": "; ".join(cookies)}, tried=tried)


def test_a_client_comes_back_to_whoever_answered() -> None:
    view = view_of()
    for endpoint in view.members:
        cookie = cookie_for(view, endpoint)
        assert view.choose(asks("a=1", cookie)) is endpoint
        assert marked(view, endpoint, asks("a=1", cookie)) is None
    assert view.choose() is view.members[0]


def test_the_other_policys_mark_is_there_too() -> None:
    view = view_of()
    response = Response(200)
    view.policy.mark(Asks(), view.members[1], response)
    assert response.headers["x-marked"] == "a1"
    assert "set-cookie" in response.headers


@pytest.mark.parametrize(
    ("settings", "attributes"),
    [
        ({}, "; Path=/; HttpOnly; SameSite=Lax"),
        ({"max_age_s": 60}, "; Path=/; HttpOnly; SameSite=Lax; Max-Age=60"),
        ({"path": "/shop/", "secure": True}, "; Path=/shop/; HttpOnly; SameSite=Lax; Secure"),
        ({"same_site": "Strict"}, "; Path=/; HttpOnly; SameSite=Strict"),
        ({"same_site": "None", "secure": True}, "; Path=/; HttpOnly; SameSite=None; Secure"),
    ],
)
def test_what_the_browser_is_told(settings: dict[str, Any], attributes: str) -> None:
    view = view_of(cookie="id", **settings)
    line = marked(view, view.members[0])
    assert line is not None
    assert re.fullmatch(r"id=[A-Za-z0-9_-]{48}" + re.escape(attributes), line)


def test_the_value_does_not_show_the_address() -> None:
    """Nor can anybody work it out who does not have the secret: with another secret it is another name."""
    mine, theirs = view_of(), view_of(secret="another secret of 32 bytes or so.")
    names = [urlsafe_b64decode(cookie_for(view, view.members[0])[7:])[:12] for view in (mine, theirs)]
    assert names[0] != names[1]
    assert b"10.0.0" not in names[0]
    assert cookie_for(mine, mine.members[0]) != cookie_for(mine, mine.members[1])


def test_another_machine_reads_it_and_so_does_this_one_after_a_restart() -> None:
    one, other = view_of(5), view_of(5)
    other.place(other.members[::-1])
    cookie = cookie_for(one, one.members[3])
    chosen = other.choose(asks(cookie))
    assert chosen is not None
    assert chosen.name == "a3"


def test_one_that_is_closed_or_was_tried_is_left_and_the_answer_brings_a_new_cookie() -> None:
    view = view_of()
    cookie = cookie_for(view, view.members[2])
    assert view.choose(asks(cookie, tried=["a2"])) is view.members[0]
    view.close(view.members[2])
    assert view.choose(asks(cookie)) is view.members[0]
    fresh = marked(view, view.members[0], asks(cookie))
    assert fresh is not None
    assert view.choose(asks(fresh.partition(";")[0])) is view.members[0]
    view.reopen(view.members[2])
    assert view.choose(asks(cookie)) is view.members[2]


def test_one_that_is_gone_is_nobody() -> None:
    view = view_of()
    cookie = cookie_for(view, view.members[2])
    gone = view.members[2]
    view.place(view.members[:2])
    assert view.choose(asks(cookie)) is view.members[0]
    assert marked(view, gone, Asks()) is None, "who is no member is not named"


def test_nobody_is_left() -> None:
    view = view_of(1)
    cookie = cookie_for(view, view.members[0])
    view.close(view.members[0])
    assert view.choose(asks(cookie)) is None


def test_it_expires() -> None:
    view = view_of(max_age_s=60)
    cookie = cookie_for(view, view.members[1])
    view.now = 59.0
    assert view.choose(asks(cookie)) is view.members[1]
    assert marked(view, view.members[1], asks(cookie)) is None
    view.now = 60.0
    assert view.choose(asks(cookie)) is view.members[0]
    fresh = marked(view, view.members[1], asks(cookie))
    assert fresh is not None
    view.now = 119.0
    assert view.choose(asks(fresh.partition(";")[0])) is view.members[1]


def test_one_of_the_session_does_not() -> None:
    view = view_of()
    cookie = cookie_for(view, view.members[1])
    view.now = 1e9
    assert view.choose(asks(cookie)) is view.members[1]


def test_a_secret_is_changed_without_losing_a_session() -> None:
    before, between, after = view_of(secret=OTHER), view_of(secret=[SECRET, OTHER]), view_of(secret=[SECRET])
    old = cookie_for(before, before.members[1])
    assert between.choose(asks(old)) is between.members[1]
    assert after.choose(asks(old)) is after.members[0]
    new = marked(between, between.members[1], asks(old))
    assert new is not None, "the old one is replaced while it is still good"
    new = new.partition(";")[0]
    for view in (between, after):
        assert view.choose(asks(new)) is view.members[1]
        assert marked(view, view.members[1], asks(new)) is None
    assert before.choose(asks(new)) is before.members[0]


def test_a_cookie_is_good_for_one_name_alone() -> None:
    shop, blog = view_of(cookie="shop"), view_of(cookie="blog")
    value = cookie_for(shop, shop.members[1]).removeprefix("shop=")
    assert shop.choose(asks(f"shop={value}")) is shop.members[1]
    assert blog.choose(asks(f"blog={value}")) is blog.members[0]


def test_of_several_the_first_that_is_good_counts() -> None:
    view = view_of()
    one, two = cookie_for(view, view.members[1]), cookie_for(view, view.members[2])
    forged = "coulee=" + "A" * 48
    assert view.choose(asks(forged, "coulee=", two, one)) is view.members[2]
    assert marked(view, view.members[1], asks(forged, two, one)) is None
    view.close(view.members[2])
    assert view.choose(asks(forged, two, one)) is view.members[1]


def test_few_cookies_are_looked_at() -> None:
    view = view_of()
    good = cookie_for(view, view.members[1])
    forged = "coulee=" + "A" * 48
    assert view.choose(asks(*[forged] * (COOKIES_MAX - 1), good)) is view.members[1]
    assert view.choose(asks(*[forged] * COOKIES_MAX, good)) is view.members[0]


def test_endpoints_with_one_address_are_told_apart_by_group() -> None:
    members = [Endpoint(("10.0.0.1", 80), name=group, group=group) for group in ("a", "b")]
    view = FakeView(members, Sticky(SECRET, otherwise=First()))
    assert [view.choose(asks(cookie_for(view, endpoint))) for endpoint in members] == members


def test_a_name_is_no_signature() -> None:
    policy = Sticky(SECRET)
    assert policy._keyed(b"secret", b"name", b"a") != policy._keyed(b"secret", b"cookie", b"a")


# ------------------------------------------------------------------------------------------------ forgeries

VIEW = view_of(max_age_s=1000)
GOOD = cookie_for(VIEW, VIEW.members[1]).removeprefix("coulee=")


def test_the_good_one_is_good() -> None:
    assert VIEW.choose(asks(f"coulee={GOOD}")) is VIEW.members[1]


@given(st.binary(max_size=80) | st.binary(min_size=36, max_size=36).map(urlsafe_b64encode))
def test_no_bytes_raise_or_stick(value: bytes) -> None:
    ask = Asks()
    ask.request.headers = Headers.from_block(b"\r\nCookie: coulee=" + value.replace(b"\r", b"").replace(b"\n", b""))
    assert VIEW.choose(ask) is VIEW.members[0]
    assert marked(VIEW, VIEW.members[0], ask) is not None


@given(st.integers(0, 47), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/= .\xe9"))
def test_no_other_letter_anywhere_sticks(at: int, letter: str) -> None:
    forged = GOOD[:at] + letter + GOOD[at + 1 :]
    assert (VIEW.choose(asks(f"coulee={forged}")) is VIEW.members[1]) == (forged == GOOD)


@pytest.mark.parametrize("forged", [GOOD[:-1], GOOD + "A", GOOD + "=", f'"{GOOD}"', GOOD[4:] + GOOD[:4], GOOD * 2, ""])
def test_neither_does_a_part_of_it_or_more(forged: str) -> None:
    assert VIEW.choose(asks(f"coulee={forged}")) is VIEW.members[0]


def test_what_was_signed_apart_does_not_fit_together() -> None:
    """The name of one, the expiry of another."""
    other = urlsafe_b64decode(cookie_for(VIEW, VIEW.members[2])[7:])
    good = urlsafe_b64decode(GOOD)
    for cut in (12, 18):
        forged = urlsafe_b64encode(other[:cut] + good[cut:]).decode()
        assert VIEW.choose(asks(f"coulee={forged}")) is VIEW.members[0]


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize("secret", ["", "15 bytes of it.", b"short", [SECRET, "short"]])
def test_a_short_secret_is_refused(secret: str | bytes | list[str | bytes]) -> None:
    with pytest.raises(ValueError, match=r"and 16 is the least; make one with: python -c 'import secrets"):
        Sticky(secret)


def test_the_shortest_secret() -> None:
    Sticky("sixteen bytes...")
    Sticky("\xe4" * 8)


@pytest.mark.parametrize("count", [0, SECRETS_MAX + 1])
def test_too_many_secrets_and_none_are_refused(count: int) -> None:
    Sticky([SECRET] * SECRETS_MAX)
    with pytest.raises(ValueError, match=f"there are {count} secrets; give one, or up to 8, the newest first"):
        Sticky([SECRET] * count)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"cookie": ""}, "is no name of a cookie"),
        ({"cookie": "a b"}, "is no name of a cookie"),
        ({"cookie": "\xe4"}, "is no name of a cookie"),
        ({"max_age_s": 0}, "max_age_s is 0; it must be from 1 to 34560000"),
        ({"max_age_s": MAX_AGE_S_MAX + 1}, "max_age_s is 34560001; it must be from 1"),
        ({"path": "shop"}, "path is 'shop'; it must begin with /"),
        ({"path": "/a;b"}, "must begin with / and have no blank, ; or control character"),
        ({"path": "/a b"}, "no blank"),
        ({"path": "/\n"}, "control character"),
        ({"same_site": "lax"}, "same_site is 'lax'; it must be Strict, Lax or None"),
        ({"same_site": "None"}, "add secure=True"),
        ({"cookie": "__Secure-id"}, "browsers refuse __Secure-id without Secure; add secure=True"),
        ({"cookie": "__Host-id"}, "browsers refuse __Host-id without Secure; add secure=True"),
        ({"cookie": "__host-id", "secure": True, "path": "/a"}, "browsers refuse __host-id with a path; leave path"),
    ],
)
def test_what_no_browser_would_keep_is_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Sticky(SECRET, **settings)


def test_what_browsers_keep() -> None:
    Sticky(SECRET, cookie="__Host-id", secure=True)
    Sticky(SECRET, cookie="__Secure-id", secure=True, path="/a")
    Sticky(SECRET, max_age_s=MAX_AGE_S_MAX)
    Sticky(SECRET, max_age_s=1)
    same_site: SameSite = "Strict"
    Sticky(SECRET, same_site=same_site)


def test_it_is_arranged_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sticky, "SLICE_ENDPOINTS", 10)
    members = endpoints(35)
    view = view_of(5)
    cookie = cookie_for(view, view.members[2])
    assert len(list(islice(view.policy.arrange(members), 2))) == 2
    assert view.choose(asks(cookie)) is view.members[2]
    assert sum(1 for _ in view.policy.arrange(members)) == 3
    assert view.choose(asks(cookie)) is members[2]


def test_by_default_new_clients_get_an_endpoint_in_turn() -> None:
    view = FakeView(endpoints(4), Sticky(SECRET))
    assert {view.choose() for _ in range(50)} == {*view.members}
