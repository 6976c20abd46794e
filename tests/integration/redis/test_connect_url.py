"""What a URL of Redis may say, what is refused, and that nothing of it is ever shown."""

from __future__ import annotations

import contextlib
import re
import socket
import string
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.errors import ConfigurationError, StateUnavailableError

redis = pytest.importorskip("redis")
from fraudsdk.adapters.redis import RedisStore, connect  # noqa: E402  # only where Redis is

SECRET = "correct-horse"
SPECIAL = st.text(string.printable + "äß€𝄞", min_size=1, max_size=20)


def kwargs_of(url, **options):
    client = connect(url, **options)
    try:
        return client.get_connection_kwargs()
    finally:
        client.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://redis.bank", {"host": "redis.bank", "port": 6379, "db": 0, "username": None, "password": None}),
        ("redis://redis.bank:7000/3", {"host": "redis.bank", "port": 7000, "db": 3}),
        (
            "redis://fraud:s%40f%2Fe@redis.bank/",
            {"host": "redis.bank", "username": "fraud", "password": "s@f/e", "db": 0},
        ),
        ("redis://:secret@redis.bank", {"username": None, "password": "secret"}),
        ("redis://fraud:a:b@redis.bank", {"username": "fraud", "password": "a:b"}),
        ("redis://[2001:db8::7]:7000", {"host": "2001:db8::7", "port": 7000}),
        ("unix:///run/redis.sock", {"path": "/run/redis.sock", "db": 0}),
        ("unix://fraud:secret@/run/a%20b.sock?db=2", {"path": "/run/a b.sock", "db": 2, "password": "secret"}),
        ("rediss://redis.bank", {"host": "redis.bank", "ssl_cert_reqs": "required", "ssl_check_hostname": True}),
        ("redis+sentinel://:secret@s1,s2:7000/cards?db=4", {"db": 4, "password": "secret"}),
        ("rediss+sentinel://s1/cards", {"ssl_check_hostname": True}),
    ],
)
def test_a_url_says_where_and_who(url, expected):
    options = kwargs_of(url)

    assert expected == {name: options.get(name) for name in expected}


@pytest.mark.parametrize(
    "url", ["redis://here", "rediss://here", "unix:///run/redis.sock", "redis+sentinel://here/cards"]
)
def test_every_client_waits_as_long_as_it_was_told_and_tries_once(url):
    options = kwargs_of(url, timeout_s=0.25)

    assert (0.25, 0.25) == (options["socket_timeout"], options["socket_connect_timeout"])
    assert 0 == options["retry"].get_retries()
    assert not options.get("decode_responses")
    assert 2 == options["protocol"]  # with 3 a server can have it wait for longer
    assert url.startswith("unix") or options["socket_keepalive"]


def test_sentinels_have_a_login_and_a_place_of_their_own():
    client = connect("redis+sentinel://fraud:secret@s1,[::1]:7000/cards?sentinel_user=watch&sentinel_password=s%26p")
    sentinels = [each.get_connection_kwargs() for each in client.connection_pool.sentinel_manager.sentinels]

    assert [("s1", 26379), ("::1", 7000)] == [(each["host"], each["port"]) for each in sentinels]
    assert {("watch", "s&p", 0.5, 0)} == {
        (each["username"], each["password"], each["socket_timeout"], each["retry"].get_retries()) for each in sentinels
    }
    assert "cards" == client.connection_pool.service_name


def test_sentinels_without_a_password_are_not_given_that_of_redis():
    client = connect("redis+sentinel://fraud:secret@s1/cards")
    (sentinel,) = client.connection_pool.sentinel_manager.sentinels

    assert not sentinel.get_connection_kwargs()["password"]


def test_what_the_documentation_shows_is_accepted():
    text = (Path(__file__).parents[3] / "docs" / "redis.md").read_text(encoding="utf-8")
    shown = re.findall(r"\| `((?:redis|unix)[^`]+)` \|", text)
    asks_nothing = [url for url in shown if "cluster" not in url and "ca_file" not in url]

    assert (5, 3) == (len(shown), len(asks_nothing))
    for url in asks_nothing:
        connect(url).close()
    with pytest.raises(ConfigurationError, match=r"ca_file .*No such file"):
        connect(next(url for url in shown if "ca_file" in url))


@given(user=SPECIAL, password=SPECIAL)
def test_any_login_comes_through_percent_encoded(user, password):
    options = kwargs_of(f"redis://{quote(user, safe='')}:{quote(password, safe='')}@here")

    assert (user, password) == (options["username"], options["password"])


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (None, "is of type NoneType"),
        ("", "none that can be read"),
        ("redis.bank:6379", "none that can be read"),
        ("http://redis.bank", "none that can be read"),
        ("redis://u:pass@word@here", "none that can be read"),
        ("redis://u:pass/word@here", "none that can be read"),
        ("redis://u:pass#word@here", "none that can be read"),
        ("redis://u:pass?word@here", "none that can be read"),
        ("redis://u:100%@here", "write a % itself as %25"),
        ("redis://u:%ff@here", "write a % itself as %25"),
        ("redis://here\n", "control character"),
        ("redis://u:pass word@here", "blank"),
        ("redis://", "too few or too many hosts"),
        ("redis://one,two", "too few or too many hosts"),
        ("redis+cluster://", "too few or too many hosts"),
        ("unix://here/run/redis.sock", "too few or too many hosts"),
        ("unix://", "names no path"),
        ("redis://here:0", "port from 1 to 65535"),
        ("redis://here:70000", "port from 1 to 65535"),
        ("redis://here:port", "port from 1 to 65535"),
        ("redis://2001:db8::7", "IPv6 address in"),
        ("redis+sentinel://s1,/cards", "HOST or HOST:PORT"),
        ("redis+sentinel://s1", "names no service"),
        ("redis+sentinel://s1/cards/0", "with .db=DB"),
        ("redis://here/cards", "database in the Redis URL is no number"),
        ("unix:///run/redis.sock?db=-1", "database in the Redis URL is no number"),
        ("redis+cluster://n1,n2/1", "a cluster has one alone"),
        ("redis://here?db=1", "an option db, which .* does not take"),
        ("redis://here?socket_timeout=60", "an option socket_timeout"),
        ("redis://here?ca_file=ca.pem", "an option ca_file"),
        ("rediss://here?verify=no", "it takes ca_file, certificate_file, key_file"),
        ("unix:///run/redis.sock?db", "not NAME=VALUE"),
        ("unix:///run/redis.sock?db=1&db=2", "there twice"),
        ("rediss://here?ca_file=/not/there.pem", "ca_file .*No such file"),
        ("rediss://here?ca_file=/dev/null", "ca_file .* cannot be used"),
        ("rediss://here?certificate_file=a.pem", "without the other"),
        (
            "rediss://here?certificate_file=/not/there.pem&key_file=/not/there.pem",
            "certificate_file or key_file .*No such",
        ),
    ],
)
def test_a_url_that_will_not_do_is_refused_with_a_remedy(url, problem):
    with pytest.raises(ConfigurationError, match=problem) as refused:
        connect(url)

    assert "; " in str(refused.value)  # "what was wrong; what to do"


@pytest.mark.parametrize("timeout_s", [0, -1, 61, float("nan"), float("inf"), "0.5", None])
def test_a_timeout_that_will_not_do_is_refused(timeout_s):
    with pytest.raises(ConfigurationError, match="timeout_s must be over 0 and at most 60"):
        connect("redis://here", timeout_s=timeout_s)


@given(before=SPECIAL, after=SPECIAL, scheme=st.sampled_from(["redis", "rediss", "unix", "redis+sentinel", "no"]))
def test_no_error_shows_a_password_however_it_was_written(before, after, scheme):
    # Not encoded at all: what is before and after the secret may look like a host, a port, a path or an option.
    shown = ""
    try:
        connect(f"{scheme}://fraud:{before}{SECRET}{after}@here:6379/0").close()
    except ConfigurationError as error:
        shown = "".join(traceback.format_exception(error))

    assert SECRET not in shown


@pytest.mark.parametrize("form", ["redis://{}", "rediss://{}", "redis+sentinel://{}/cards", "unix://{}"])
def test_a_call_into_nowhere_is_made_once(tmp_path, form):
    kind, at = (socket.AF_UNIX, f"{tmp_path}/sock") if form.startswith("unix") else (socket.AF_INET, ("127.0.0.1", 0))
    with socket.socket(kind) as nowhere:
        nowhere.bind(at)
        nowhere.listen()
        named = at if kind == socket.AF_UNIX else "{}:{}".format(*nowhere.getsockname())
        with connect(form.format(named), timeout_s=0.1) as client, pytest.raises(StateUnavailableError):
            RedisStore(client, "tx.1").claim(b"me")

        assert 1 == n_connections(nowhere)


def n_connections(listener):
    """How many came and were not answered."""
    listener.setblocking(False)
    n = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            n += 1
    return n


def test_no_repr_and_no_unanswered_call_shows_a_password():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and not listening: connections are refused
        at = f"127.0.0.1:{closed.getsockname()[1]}"
        for url in (
            f"redis://fraud:{SECRET}@{at}/0",
            f"rediss://fraud:{SECRET}@{at}/0",
            f"unix://fraud:{SECRET}@/not/there.sock",
            f"redis+sentinel://fraud:{SECRET}@{at}/cards?sentinel_password={SECRET}",
        ):
            client = connect(url, timeout_s=0.2)
            with pytest.raises(StateUnavailableError) as unanswered:
                RedisStore(client, "tx.1").claim(b"me")

            assert SECRET not in "".join(traceback.format_exception(unanswered.value))
            assert SECRET not in repr(client) + repr(client.connection_pool) + repr(
                client.connection_pool.make_connection()
            )
        with pytest.raises(StateUnavailableError, match="no node of the Redis cluster") as unanswered:
            connect(f"redis+cluster://fraud:{SECRET}@{at}", timeout_s=0.2)
        assert SECRET not in "".join(traceback.format_exception(unanswered.value))
