"""A line is whole or absent, and durable once flush returned."""

from __future__ import annotations

import json
import math
import os
import resource
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.domain.decision import Outcome
from fraudsdk.errors import ConfigurationError, DeadlineExceededError, SinkBackpressureError, SinkDeliveryError
from fraudsdk.sinks import NdjsonSink, decision_json
from fraudsdk.testing.contracts import a_decision, ample_deadline, decisions, passed_deadline


@pytest.fixture
def path(tmp_path):
    return tmp_path / "decisions.ndjson"


def test_a_line_holds_every_attribute_of_the_decision():
    decision = a_decision("t-1", degraded=True, degraded_because="state: timed out")

    expected = {
        "transaction_id": "t-1",
        "outcome": "REVIEW",
        "score": 0.25,
        "margin": -1.0986,
        "reasons": [
            {
                "code": "VEL01",
                "text": "Many payments by this user.",
                "customer_text": "There was more activity than usual.",
                "feature": "user_count_1h",
                "value": 7.0,
                "contribution": 1.5,
            }
        ],
        "model_version": "reference/1",
        "decided_by": "band",
        "degraded": True,
        "degraded_because": "state: timed out",
        "duplicate": False,
    }

    assert expected == json.loads(decision_json(decision))


@given(
    transaction_id=st.text(min_size=1),
    score=st.floats(allow_nan=True, allow_infinity=True),
    outcome=st.sampled_from(list(Outcome)),
)
def test_any_decision_is_one_line_of_strict_json(transaction_id, score, outcome):
    line = decision_json(a_decision(transaction_id, score=score, outcome=outcome))

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    parsed = json.loads(line, parse_constant=refuse)
    assert 1 == len(line.splitlines()) and line.isascii()
    assert (transaction_id, outcome.value) == (parsed["transaction_id"], parsed["outcome"])
    assert parsed["score"] == (score if math.isfinite(score) else None)


def test_a_second_sink_on_the_file_appends(path):
    for first in (0, 2):
        sink = NdjsonSink(path)
        sink.write(decisions(2, first=first))
        sink.flush(ample_deadline())
        sink.close()

    assert ["t-0", "t-1", "t-2", "t-3"] == [
        json.loads(line)["transaction_id"] for line in path.read_text().splitlines()
    ]


@pytest.mark.parametrize("n_whole", [0, 1, 700])
def test_a_line_torn_by_a_crash_is_cut_and_said(path, n_whole):
    whole = "".join(decision_json(decision) + "\n" for decision in decisions(n_whole))
    torn = decision_json(a_decision("t-torn"))[:-5]
    path.write_text(whole + torn)

    sink = NdjsonSink(path)
    sink.close()

    assert len(torn) == sink.torn_bytes
    assert whole == path.read_text()


def test_a_file_that_holds_something_else_is_left_alone(path):
    path.write_bytes(b"\x89PNG: the holiday pictures, without one newline")

    with pytest.raises(ConfigurationError, match="holds something else"):
        NdjsonSink(path)

    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_full_disk_refuses_the_batch_and_leaves_no_half_line(path):
    sink = NdjsonSink(path)
    sink.write(decisions(1))
    one_line = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(one_line) + 50, limits[1]))
    try:
        with pytest.raises(SinkBackpressureError, match="nothing was accepted"):
            sink.write(decisions(3, first=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert one_line == path.read_bytes()
    sink.write(decisions(1, first=1))
    assert 2 == len(path.read_bytes().splitlines())


def test_a_failed_fsync_names_the_decisions_once(path, monkeypatch):
    def fail(file):
        raise OSError(5, "Input/output error")

    sink = NdjsonSink(path)
    sink.write(decisions(2))
    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(SinkDeliveryError, match="2 decisions may not be on disk") as failure:
        sink.flush(ample_deadline())

    assert ("t-0", "t-1") == failure.value.transaction_ids
    sink.flush(ample_deadline())  # nothing is left to be named, and success is not claimed for what was lost


def test_write_flushes_by_itself_before_it_would_remember_too_many(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    sink = NdjsonSink(path, max_unflushed=2)

    sink.write(decisions(2))
    assert [] == synced
    sink.write(decisions(1, first=2))
    assert 1 == len(synced)


def test_a_passed_deadline_is_said_and_loses_nothing(path):
    sink = NdjsonSink(path)
    sink.write(decisions(1))

    with pytest.raises(DeadlineExceededError, match="1 decisions"):
        sink.flush(passed_deadline())

    sink.flush(ample_deadline())
    assert 1 == len(path.read_text().splitlines())


def test_others_cannot_read_the_file(path):
    NdjsonSink(path).close()

    assert 0 == stat.S_IMODE(path.stat().st_mode) & 0o007


def test_a_directory_that_is_absent_is_the_operators_error(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be opened for appending"):
        NdjsonSink(tmp_path / "absent" / "decisions.ndjson")
