"""What the service is told, where it may come from, and what is refused before anything is started."""

from __future__ import annotations

import contextlib
import tomllib

import pytest
from fraudsdk_sidecar.addresses import Address
from fraudsdk_sidecar.settings import KEYS, changed, describe, value_of, variable_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraudsdk.errors import ConfigurationError

KEY = "a secret of some length"
TLS = '[tls]\ncertificate = "c.pem"\nkey = "k.pem"\n'
AUTH = '[auth]\nkeys = ["HS256=secret"]\naudience = "fraud"\nissuer = "bank"\n'


def test_flags_win_over_the_environment_and_that_over_the_file(load_settings):
    file = "[limits]\nthreads = 20\nstreams = 4\nclients = 7\n"
    environment = {"FRAUDSDK_SIDECAR_LIMITS_THREADS": "21", "FRAUDSDK_SIDECAR_LIMITS_STREAMS": "5"}

    limits = load_settings("--limits-threads", "22", file=file, environment=environment).limits

    assert (22, 5, 7) == (limits.threads, limits.streams, limits.clients)


def test_without_a_word_it_serves_this_machine_alone(load_settings):
    assert all(each.is_private for each in load_settings().addresses)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (
            {"flags": ["--limits-threads", "many"]},
            r"limits.threads \(flag --limits-threads\) must be a whole number from 1 to 256",
        ),
        ({"file": "[limits]\nthreads = 0"}, r"limits.threads \(file .*\) must be a whole number from 1 to 256, was 0"),
        ({"file": "[limits]\nthreads = true"}, "must be a whole number"),
        ({"file": "[tls]\npoll_s = nan"}, "must be a number of seconds"),
        ({"file": "workres = 2"}, "'workres', which nothing reads; did you mean workers?"),
        ({"file": "[limits]\nthread = 2"}, "'limits.thread', which nothing reads; did you mean limits.threads?"),
        ({"file": "limits = 3"}, "'limits', which nothing reads"),
        ({"file": "a = "}, "is no TOML"),
        ({"environment": {"FRAUDSDK_SIDECAR_WORKRES": "2"}}, "did you mean FRAUDSDK_SIDECAR_WORKERS"),
        (
            {"environment": {"FRAUDSDK_SIDECAR_REUSE_PORT": "perhaps"}},
            r"reuse_port \(environment .*\) must be true or false",
        ),
        ({"flags": ["--log-level", "loud"]}, "log.level .* must be one of debug, info, warning, error, was 'loud'"),
        ({"flags": ["--listen", "50051"]}, "listen must be HOST:PORT"),
        ({"flags": ["--listen", "localhost:70000"]}, "listen must be HOST:PORT"),
        ({"flags": ["--listen", "unix:relative"]}, "listen must be unix:/PATH"),
        ({"flags": ["--listen", ""]}, "listen is empty"),
        ({"flags": ["--limits-per-minute-of", "till"]}, "limits.per_minute_of .* must be names with a whole number"),
        ({"flags": ["--limits-streams", "16"]}, "limits.streams must be below limits.threads"),
        ({"flags": ["--workers", "2"]}, "workers is 2, each of which would remember something else; set redis.url"),
        ({"flags": ["--state-dir", "s"]}, "needs hash_key or hash_key_file"),
        ({"flags": ["--hash-key-file", "f"], "environment": {"FRAUDSDK_SIDECAR_HASH_KEY": KEY}}, "both set"),
        ({"environment": {"FRAUDSDK_SIDECAR_HASH_KEY": "short"}}, "at least 16 bytes"),
        ({"flags": ["--state-dir", "s"], "environment": {"FRAUDSDK_SIDECAR_REDIS_URL": "redis://r"}}, "leave one out"),
        ({"flags": ["--redis-reads-only"]}, "redis.reads_only is set without redis.url"),
        (
            {"flags": ["--record-to-brokers", "k:9092"]},
            "record_to.brokers is set without redis.reads_only: .* counts twice",
        ),
        ({"flags": ["--tls-certificate", "c"]}, "belong together"),
        ({"flags": ["--tls-client-ca", "c"]}, "tls.client_ca is set without"),
        ({"file": '[auth]\nkeys = ["HS256=f"]'}, "auth.keys need auth.audience and auth.issuer"),
        ({"flags": ["--auth-certificate-scopes", "score,root"]}, "auth.certificate_scopes must be among .* was root"),
        ({"flags": ["--metrics-listen", "unix:/m"]}, "metrics.listen must be HOST:PORT"),
        ({"flags": ["--model", ""]}, "model is not set"),
    ],
)
def test_what_will_not_do_is_named_with_what_it_was_and_what_to_do(load_settings, said, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        load_settings(*said.get("flags", ()), file=said.get("file", ""), environment=said.get("environment"))


@pytest.mark.parametrize("listen", ["0.0.0.0:50051", "[::]:50051", "10.0.0.7:50051", "sidecar.bank:50051"])
@pytest.mark.parametrize("file", ["", TLS, AUTH], ids=["neither", "tls alone", "auth alone"])
def test_other_machines_are_not_served_without_tls_and_authentication(load_settings, listen, file):
    with pytest.raises(ConfigurationError, match="which other machines reach, without TLS and authentication"):
        load_settings("--listen", listen, file=file)


@pytest.mark.parametrize("file", [TLS + AUTH, f'{TLS}client_ca = "ca.pem"\n', "insecure = true"])
def test_other_machines_are_served_with_both_or_where_it_is_written_out(load_settings, file):
    assert "0.0.0.0" == load_settings("--listen", "0.0.0.0:50051", file=file).addresses[0].host


def test_workers_that_share_redis_need_a_port_that_they_can_share(load_settings):
    environment = {"FRAUDSDK_SIDECAR_REDIS_URL": "redis://r", "FRAUDSDK_SIDECAR_HASH_KEY": KEY}

    with pytest.raises(ConfigurationError, match="which 2 workers cannot share"):
        load_settings("--workers", "2", "--listen", "unix:/run/s", environment=environment)
    assert 2 == load_settings("--workers", "2", environment=environment).workers


def test_secrets_have_no_flag_and_are_not_shown(load_settings):
    secret = {"FRAUDSDK_SIDECAR_REDIS_URL": "redis://fraud:hunter2@r", "FRAUDSDK_SIDECAR_HASH_KEY": KEY}

    shown = describe(load_settings(environment=secret))

    assert "hunter2" not in shown and KEY not in shown
    assert 2 == shown.count('"***"')
    with pytest.raises(SystemExit):
        load_settings("--hash-key", KEY)


def test_a_secret_that_will_not_do_is_not_shown(load_settings):
    with pytest.raises(ConfigurationError) as raised:
        load_settings(file="hash_key = 123456789")

    assert "123456789" not in str(raised.value)


def test_what_is_shown_says_the_same_when_it_is_read_again(load_settings):
    file = f'{TLS}{AUTH}[limits]\nper_minute_of = {{ till = 3, "a b" = 4 }}\n'
    before = load_settings("--listen", "unix:/run/a.sock,127.0.0.1:1", file=file)

    after = load_settings(file=describe(before))

    assert before == after
    assert tomllib.loads(describe(before))["limits"]["per_minute_of"] == {"till": 3, "a b": 4}


def test_what_kubernetes_says_of_a_service_with_our_name_is_not_taken_for_ours(load_settings):
    said = {"FRAUDSDK_SIDECAR_SERVICE_HOST": "10.0.0.1", "FRAUDSDK_SIDECAR_PORT_50051_TCP_ADDR": "10.0.0.1"}

    assert load_settings() == load_settings(environment=said)


def test_what_may_change_while_it_runs_is_told_from_what_may_not(load_settings):
    before, after = load_settings(), load_settings("--log-level", "debug", "--limits-threads", "20")

    assert (("log.level",), ("limits.threads",)) == changed(before, after)


def test_every_key_can_be_said_by_a_variable(load_settings):
    defaults = load_settings()
    for name in KEYS:
        value = value_of(defaults, name)
        if isinstance(value, bool | int | float):
            said = str(value).lower()
            assert defaults == load_settings(environment={variable_of(name): said}), name
    assert len({variable_of(name) for name in KEYS}) == len(KEYS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(KEYS)),
    value=st.one_of(
        st.text(max_size=40), st.integers().map(str), st.floats().map(str), st.sampled_from(["true", "a=1"])
    ),
)
def test_any_text_is_read_or_refused_by_name(load_settings, name, value):
    """
    No value of the environment makes anything but a value, or one error that names the key.
    """
    if "\0" in value:
        return
    with contextlib.suppress(ConfigurationError):
        load_settings(environment={variable_of(name): value})


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("unix:/run/s", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("[::ffff:127.0.0.1]:1", False),
        ("localhost.bank:1", False),
    ],
)
def test_an_address_is_private_where_no_other_machine_reaches_it(text, private):
    assert private == Address.parse(text).is_private
    assert text == str(Address.parse(text))
