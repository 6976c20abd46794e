"""Many transactions in few calls: each gets its own answer, in order, and no more wait than may."""

from __future__ import annotations

import threading

import pytest

from fraudsdk.adapters.grpc.batching import Batcher
from fraudsdk.adapters.grpc.errors import ServiceError, ServiceUnavailableError
from fraudsdk.domain.decision import approval
from fraudsdk.errors import ConfigurationError, DeadlineExceededError, InvalidTransactionError


class Service:
    """Decides on all but those called wrong, once it is let; remembers what it was asked."""

    def __init__(self):
        self.calls = []
        self.open = threading.Event()
        self.open.set()

    def score_batch(self, transactions):
        assert self.open.wait(20)
        names = [transaction["transaction_id"] for transaction in transactions]
        self.calls.append(names)
        for row, name in enumerate(names):
            if name.startswith("wrong"):
                raise InvalidTransactionError("amount", "is missing", "send it", row=row)
            if name.startswith("late"):
                raise DeadlineExceededError("too late")
        return [approval(name, 0.5, 0.0, "m/1") for name in names]


@pytest.fixture
def service():
    return Service()


def batcher(service, **bounds):
    return Batcher(service.score_batch, **({"max_batch": 4, "linger_s": 0.0, "max_queued": 100} | bounds))


def named(*names):
    return [{"transaction_id": name} for name in names]


def test_what_comes_while_a_call_is_under_way_goes_with_the_next(service):
    service.open.clear()
    with batcher(service, linger_s=0.0) as batches:
        decided = [batches.submit(each) for each in named("a", "b", "c", "d", "e", "f", "g", "h", "i")]
        service.open.set()
        answered = [each.result(20).transaction_id for each in decided]

    assert list("abcdefghi") == answered == [name for call in service.calls for name in call]
    assert len(service.calls) < 9
    assert max(map(len, service.calls)) <= 4


def test_a_wrong_transaction_fails_alone(service):
    service.open.clear()
    with batcher(service, max_batch=100) as batches:
        decided = {
            each["transaction_id"]: batches.submit(each) for each in named("a", *(f"wrong{i}" for i in range(7)), "b")
        }
        service.open.set()

        assert ["a", "b"] == [decided[name].result(20).transaction_id for name in ("a", "b")]
        for i in range(7):
            with pytest.raises(InvalidTransactionError):
                decided[f"wrong{i}"].result(20)


def test_a_call_that_fails_fails_for_all_of_its_batch_and_no_other(service):
    with batcher(service) as batches:
        with pytest.raises(DeadlineExceededError):
            batches.submit({"transaction_id": "late"}).result(20)

        assert "a" == batches.submit({"transaction_id": "a"}).result(20).transaction_id


def test_more_than_may_wait_are_refused_and_nothing_is_forgotten(service):
    service.open.clear()
    with batcher(service, max_queued=3, max_batch=1) as batches:
        under_way = batches.submit({"transaction_id": "first"})
        while not under_way.running():
            pass
        waiting = [batches.submit(each) for each in named("a", "b", "c")]
        with pytest.raises(ServiceUnavailableError, match="holds 3 transactions"):
            batches.submit({"transaction_id": "d"})
        service.open.set()

        assert list("abc") == [each.result(20).transaction_id for each in waiting]


def test_closing_answers_what_waits_and_takes_no_more(service):
    batches = batcher(service)
    decided = [batches.submit(each) for each in named(*"abcdef")]

    batches.close()

    assert all(each.done() for each in decided)
    with pytest.raises(ServiceUnavailableError, match="was closed"):
        batches.submit({"transaction_id": "g"})


def test_one_that_is_cancelled_in_time_is_not_sent(service):
    service.open.clear()
    with batcher(service, max_batch=1) as batches:
        under_way = batches.submit({"transaction_id": "a"})
        while not under_way.running():
            pass
        cancelled = batches.submit({"transaction_id": "b"})
        assert cancelled.cancel()
        service.open.set()
        batches.submit({"transaction_id": "c"}).result(20)

    assert [["a"], ["c"]] == service.calls


@pytest.mark.parametrize("bounds", [{"max_batch": 0}, {"linger_s": -1.0}, {"max_queued": 0}])
def test_bounds_that_bound_nothing_are_refused(service, bounds):
    with pytest.raises(ConfigurationError, match="give others"):
        batcher(service, **bounds)


@pytest.mark.parametrize("answer", [[], [approval("a", 0.5, 0.0, "m/1")] * 3], ids=["too few", "too many"])
def test_an_answer_of_another_length_fails_those_it_is_for_and_nobody_waits_for_ever(service, answer):
    with batcher(service) as batches:
        batches._score_batch = lambda transactions: answer
        first = batches.submit(named("a")[0])
        with pytest.raises(ServiceError, match="1 transactions were answered by"):
            first.result(20)
        batches._score_batch = service.score_batch

        assert "b" == batches.submit(named("b")[0]).result(20).transaction_id


@pytest.mark.parametrize("row", [-1, 1, 10**6])
def test_a_row_that_was_not_sent_is_the_fault_of_all_that_were(service, row):
    def refuses(_transactions):
        raise InvalidTransactionError("amount", "is missing", "send it", row=row)

    with batcher(service) as batches:
        batches._score_batch = refuses
        with pytest.raises(InvalidTransactionError):
            batches.submit(named("a")[0]).result(20)
        batches._score_batch = service.score_batch

        assert "b" == batches.submit(named("b")[0]).result(20).transaction_id
