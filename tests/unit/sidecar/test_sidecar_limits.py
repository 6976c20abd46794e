"""How often a client may call."""

from __future__ import annotations

from fractions import Fraction

from fraudsdk_sidecar.auth import Client
from fraudsdk_sidecar.limits import RateLimiter, Rates, StreamPlaces
from hypothesis import given
from hypothesis import strategies as st

S = 1_000_000_000
TILL = Client("till", frozenset())
STRANGER = Client("10.0.0.7", frozenset(), is_anonymous=True)


class Clock:
    def __init__(self):
        self.now_ns = 5 * S

    def __call__(self):
        return self.now_ns


class NaiveBucket:
    """A bucket with tokens in it."""

    def __init__(self, per_minute):
        self.per_minute = per_minute
        self.every_ns = 60 * S // per_minute
        self.tokens = Fraction(per_minute)
        self.at_ns = 0

    def take(self, now_ns):
        self.tokens = min(self.tokens + Fraction(now_ns - self.at_ns, self.every_ns), Fraction(self.per_minute))
        self.at_ns = now_ns
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return float((1 - self.tokens) * self.every_ns / S)


@given(
    per_minute=st.integers(1, 500),
    pauses_ns=st.lists(st.one_of(st.just(0), st.integers(0, 3 * S), st.integers(0, 300 * S)), max_size=60),
)
def test_a_limit_is_that_of_a_bucket_with_tokens_in_it(per_minute, pauses_ns):
    clock = Clock()
    limiter, naive = RateLimiter(Rates(client=per_minute), 10, monotonic_ns=clock), NaiveBucket(per_minute)
    for pause_ns in pauses_ns:
        clock.now_ns += pause_ns

        assert naive.take(clock.now_ns) == limiter.take(TILL)


def test_a_minutes_worth_at_once_and_then_one_when_it_is_due():
    clock = Clock()
    limiter = RateLimiter(Rates(anonymous=100), 10, monotonic_ns=clock)

    assert [0.0] * 100 == [limiter.take(STRANGER) for _ in range(100)]
    assert 0.6 == limiter.take(STRANGER)
    clock.now_ns += 6 * S // 10
    assert 0.0 == limiter.take(STRANGER)
    assert limiter.take(STRANGER) > 0.0


def test_a_refusal_costs_nothing():
    clock = Clock()
    limiter = RateLimiter(Rates(client=1), 10, monotonic_ns=clock)
    limiter.take(TILL)

    assert [60.0] * 3 == [limiter.take(TILL) for _ in range(3)]


def test_clients_do_not_share_and_an_address_is_not_a_name():
    limiter = RateLimiter(Rates(anonymous=1, client=1), 10, monotonic_ns=Clock())

    assert 0.0 == limiter.take(STRANGER)
    assert 0.0 == limiter.take(Client("10.0.0.7", frozenset()))
    assert limiter.take(STRANGER) > 0.0


def test_a_named_client_has_its_own_rate_and_zero_is_any():
    limiter = RateLimiter(Rates(client=0, of={"till": 2}), 10, monotonic_ns=Clock())

    assert [0.0, 0.0] == [limiter.take(TILL) for _ in range(2)]
    assert limiter.take(TILL) > 0.0
    assert [0.0] * 1000 == [limiter.take(Client("other", frozenset())) for _ in range(1000)]


def test_an_address_cannot_take_the_rate_of_a_name():
    assert 100 == Rates(of={"10.0.0.7": 5_000}).per_minute(STRANGER)


def test_clients_that_are_remembered_are_bounded_and_the_longest_silent_is_forgotten():
    limiter = RateLimiter(Rates(client=1), 3, monotonic_ns=Clock())
    clients = [Client(f"c-{i}", frozenset()) for i in range(4)]
    for client in clients:
        limiter.take(client)

    assert 3 == len(limiter)
    assert limiter.take(clients[3]) > 0.0
    assert 0.0 == limiter.take(clients[0])


def test_streams_have_places_and_no_client_has_them_all():
    places = StreamPlaces(3, 2)

    assert ["", "", "too many open streams of this client"] == [places.take(TILL) for _ in range(3)]
    assert "" == places.take(STRANGER)
    assert "too many open streams" == places.take(STRANGER)
    places.leave(TILL)
    assert "" == places.take(STRANGER)
    for each in (TILL, STRANGER, STRANGER):
        places.leave(each)
    assert not places._held


def test_a_rate_that_was_lowered_keeps_nobody_waiting_longer_than_its_own_minute():
    clock = Clock()
    limiter = RateLimiter(Rates(client=1), 10, monotonic_ns=clock)
    limiter.take(TILL)
    limiter.rates = Rates(client=6_000)

    assert limiter.take(TILL) <= 0.01
