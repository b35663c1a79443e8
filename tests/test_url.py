"""AMQP URLs: what is read, what is refused, and what is never shown."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from yarl import URL

from rmqarq.errors import ConfigurationError
from rmqarq.url import Endpoint, masked, parse_url, parse_urls

LOCAL = Endpoint("localhost", 5672, "guest", "guest", "/", tls=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amqp://localhost", LOCAL),
        ("amqp://localhost/", LOCAL),
        ("amqp://localhost/%2F", LOCAL),
        ("amqp://localhost/%2f", LOCAL),
        ("amqp://guest:guest@localhost:5672/", LOCAL),
        ("AMQP://LocalHost", LOCAL),
        ("amqps://h", Endpoint("h", 5671, "guest", "guest", "/", tls=True)),
        ("amqp://u:p@h:1/v", Endpoint("h", 1, "u", "p", "v", tls=False)),
        (
            "amqp://a%40b:p%2F%3A%40%23@h/a%2Fb",
            Endpoint("h", 5672, "a@b", "p/:@#", "a/b", tls=False),
        ),
        ("amqp://u:@h", Endpoint("h", 5672, "u", "", "/", tls=False)),
        ("amqp://[::1]:5673", Endpoint("::1", 5673, "guest", "guest", "/", tls=False)),
        (
            "amqp://h?heartbeat=30",
            Endpoint("h", 5672, "guest", "guest", "/", tls=False, heartbeat=30),
        ),
    ],
)
def test_a_url_is_read_into_an_endpoint(text: str, expected: Endpoint) -> None:
    assert parse_url(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("localhost", "it must begin with amqp:// or amqps://"),
        ("http://h", "it must begin with"),
        ("redis://h", "it must begin with"),
        ("amqp://", "it names no host"),
        ("amqp:///vhost", "it names no host"),
        ("amqp://h:99999", "host or port can't be read"),
        ("amqp://[::1", "host or port can't be read"),
        ("amqp://h/a/b", "a '/' in a virtual host must be written %2F"),
        ("amqp://h//", "a '/' in a virtual host must be written %2F"),
        ("amqp://h/..", "the virtual host can't be '.' or '..'"),
        ("amqp://h/#frag", "'#' must be written %23"),
        ("amqp://h?heartbeat=0", "whole seconds from 1 to 65535"),
        ("amqp://h?heartbeat=65536", "whole seconds from 1 to 65535"),
        ("amqp://h?heartbeat=1.5", "whole seconds from 1 to 65535"),
        ("amqp://h?heartbeat=", "whole seconds from 1 to 65535"),
        ("amqp://h?heartbeat=-1", "whole seconds from 1 to 65535"),
        ("amqp://h?verify=0&cafile=x", "not cafile, verify; everything else has a"),
    ],
)
def test_what_would_have_to_be_guessed_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(text)
    assert problem in str(caught.value)
    assert repr(text) in str(caught.value)


def test_several_urls_may_be_separated_by_commas_or_come_as_a_sequence() -> None:
    written = parse_urls("amqp://a, amqp://b,")
    assert [each.host for each in written] == ["a", "b"]
    assert parse_urls(["amqp://a", " amqp://b "]) == written


@pytest.mark.parametrize("given", ["", " , ", []])
def test_no_url_at_all_is_refused(given: str | list[str]) -> None:
    with pytest.raises(ConfigurationError, match="the broker URL is empty"):
        parse_urls(given)


def test_port_0_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        parse_url("amqp://h:0")


@given(user=st.text(min_size=1), password=st.text(), vhost=st.text(), tls=st.booleans())
def test_aiormq_reads_the_rebuilt_url_as_we_read_the_first(
    user: str, password: str, vhost: str, tls: bool
) -> None:
    assume(vhost not in (".", ".."))  # refused: a URL can't tell them from no path
    endpoint = Endpoint("h", 5, user, password, vhost or "/", tls=tls)
    try:
        rebuilt = URL(endpoint.url(heartbeat=10, name="rmqarq:test&=1"))
    except UnicodeEncodeError:
        pytest.fail("every text can be quoted")
    assert (rebuilt.user, rebuilt.password or "") == (user, password)
    assert rebuilt.path == f"/{vhost or '/'}"
    assert rebuilt.scheme == ("amqps" if tls else "amqp")
    assert dict(rebuilt.query) == {"heartbeat": "10", "name": "rmqarq:test&=1"}


def test_an_endpoint_shows_everything_but_its_password() -> None:
    endpoint = parse_url("amqps://user:S3CRET@[::1]/a%2Fb")
    expected = "amqps://user:***@[::1]:5671/a%2Fb"
    assert str(endpoint) == expected
    assert repr(endpoint) == f"Endpoint({expected})"
    assert endpoint.__rich_repr__() == [("url", expected)]
    assert "S3CRET" in endpoint.url(heartbeat=1, name="x")
    assert "S3CRET" in str(msgspec.structs.astuple(endpoint))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amqp://u:S3CRET@h/v", "amqp://u:***@h/v"),
        ("amqp://u:S3@CRET@h/v", "amqp://u:***@h/v"),
        ("amqp://u:S3:CRET@h/v", "amqp://u:***@h/v"),
        ("amqp://u:S3/CRET@h/v", "amqp://u:***@h/v"),
        ("amqp://u:S3#CRET@h/v", "amqp://u:***@h/v"),
        ("amqp://:S3CRET@h", "amqp://:***@h"),
        ("u:S3CRET@h", "u:***@h"),
        ("amqp://a:S3CRET@h,amqp://b:S3CRET@i", "amqp://a:***@h,amqp://b:***@i"),
        ("can't reach amqp://a:S3CRET@h/", "can't reach amqp://a:***@h/"),
        ("amqp://h/v", "amqp://h/v"),
        ("amqp://u@h/v", "amqp://u@h/v"),
        ("no URL at all", "no URL at all"),
    ],
)
def test_a_password_is_masked_wherever_the_url_stands(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "amqp://u:S3CRET/b:c@h",
        "amqp://u:S3CRET b@h",
        "amqp://u:S3CRET?b:c@h",
        "amqp://a:ok@h,amqp://b:x/S3CRET@i",
    ],
)
def test_a_malformed_url_keeps_its_password_to_itself(text: str) -> None:
    assert "S3CRET" not in masked(text)


@pytest.mark.parametrize(
    "text",
    [
        "amqp://u:S3CRET",
        "amqp://u:se:/S3CRET@h",
        "amqp://u:a://S3CRET@h:x",
        "amqp://h/?password=S3CRET",
        "amqp://h?token=S3CRET",
    ],
)
def test_a_password_where_none_belongs_is_not_shown(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(text)
    assert "S3CRET" not in str(caught.value)


def test_a_comma_in_a_password_does_not_give_it_away() -> None:
    (endpoint,) = parse_urls("amqp://u:S3CRET,more@h")
    assert endpoint.password == "S3CRET,more"
    with pytest.raises(ConfigurationError) as caught:
        parse_urls("amqp://u:S3CRET,more@h:port")
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["amqp://u:S3CRET@h:bad", "http://u:S3CRET@h", "amqp://u:S3CRET@h/a/b"]
)
def test_a_refused_url_is_named_without_its_password(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(text)
    assert "S3CRET" not in str(caught.value)
    assert "S3CRET" not in repr(caught.value.params)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
