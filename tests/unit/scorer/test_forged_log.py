"""A log with right checksums and wrong words in it, as fuzzing found it: recovery says so, and follows none of them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from twin.comparison import Driver
from twin.events import Event

from fraudsdk.entity_state import log_kernels
from fraudsdk.entity_state.event_log import EventLog
from fraudsdk.entity_state.log_format import (
    AMENDMENT,
    EVENT,
    HEADER_CHECKSUM,
    HEADER_INTS,
    HEADER_NUMBERS,
    VERDICT,
    WORD,
    word_of,
)
from fraudsdk.entity_state.state_directory import StateDirectory, StateIdentity
from fraudsdk.errors import CorruptStateError
from fraudsdk.features.spec import Feature, FeatureSet
from fraudsdk.policy.recorded import DecisionRecorder
from fraudsdk.scorer.recovery import recover

IDENTITY = StateIdentity.of(b"record", b"state", b"a key of sixteen bytes")
FEATURES = FeatureSet(
    "forged",
    (Feature("n", "count", entity="user", window="1h"), Feature("a", "value", field="amount")),
    ring_cap=8,
)


@pytest.fixture
def directory(tmp_path):
    directory = StateDirectory(tmp_path / "state")
    yield directory
    directory.close()


@pytest.fixture
def engine():
    engine = Driver(FEATURES).engine
    layout = engine.record_layout
    ints, numbers = np.zeros((1, layout.n_ints), np.int64), np.zeros((1, len(layout.numbers)))
    engine.attach(ints, numbers, np.zeros(engine.n_features, np.float32))
    return engine


def write(directory, engine, *records):
    log = EventLog(directory, IDENTITY, engine.record_layout, sequence=1, lock=threading.Lock())
    with log._lock:
        for kind, payload in records:
            log_kernels.log_words(log.words, kind, np.asarray(payload, np.int64))
    log.close()
    return directory.segment(1)


def an_event(engine) -> list[int]:
    ints, numbers = Driver(FEATURES).encode([Event("t", 10**15, texts={"user_id": "u"}, numbers={"amount": 1.0})])
    assert ints.shape[1] == engine.record_layout.n_ints
    return [0, 0, 5, *ints[0].tolist(), *numbers[0].view(np.int64).tolist()]


def test_what_a_log_holds_is_recovered(directory, engine):
    write(directory, engine, (EVENT, an_event(engine)), (WORD, word_of(b'["version", 1, "m/1"]')))

    assert 3 == recover(directory, IDENTITY, engine, DecisionRecorder()).sequence


@pytest.mark.parametrize("n_words", [0, 3, -1, 200])
@pytest.mark.parametrize("kind", [EVENT, VERDICT, AMENDMENT])
def test_a_record_of_another_length_than_its_kind_has_is_refused(directory, engine, kind, n_words):
    payload = {EVENT: an_event(engine), VERDICT: [7, 0, 0, 5], AMENDMENT: [7, 1, 2]}[kind]
    changed = payload[:-1] if n_words < 0 else (payload * 200)[: n_words if n_words != len(payload) else n_words + 1]
    path = write(directory, engine, (kind, changed))
    before = path.read_bytes()

    with pytest.raises(CorruptStateError, match="number 1, that is of another length than its kind has"):
        recover(directory, IDENTITY, engine, DecisionRecorder())

    assert before == path.read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"\x80", b"[", b"7", b"[" * 3_000, b'["version", 1]', b'["version", 1, 2]', b'["version", 1, ["m"]]'),
        *(b'["version", 0, "m"]', b'["version", 1e9, "m"]', b'["version", 100000000000, "m"]', b'["version", -1, "m"]'),
        *(b'["colour", 1, "m"]', b'[["reason"], 1, "m"]', b'["reason", 1, "abc"]', b'["reason", 1, ["a", "b"]]'),
        *(b'["reason", true, ["a", "b", "c"]]', b'["reason", 1, ["a", "b", 3]]', b'["reason", 1, null]'),
    ],
)
def test_a_word_of_decisions_that_is_none_is_refused(directory, engine, text):
    write(directory, engine, (WORD, word_of(text)))

    with pytest.raises(CorruptStateError, match="number 1, that is no word of a decision"):
        recover(directory, IDENTITY, engine, DecisionRecorder())


@pytest.mark.parametrize("payload", [[], [-1], [2**62, 7], [17, 7, 7], [8, 7, 7]])
def test_a_text_of_another_length_than_it_says_is_refused(directory, engine, payload):
    write(directory, engine, (WORD, payload))

    with pytest.raises(CorruptStateError, match="is no word of a decision"):
        recover(directory, IDENTITY, engine, DecisionRecorder())


def test_transactions_of_another_shape_are_refused(directory, engine):
    path = write(directory, engine, (EVENT, an_event(engine)))
    words = np.fromfile(path, "<i8").astype(np.int64)
    words[HEADER_INTS] += 1
    words[HEADER_NUMBERS] -= 1
    words[HEADER_CHECKSUM] = log_kernels.checksum(words[:HEADER_CHECKSUM])
    words.astype("<i8").tofile(path)

    with pytest.raises(CorruptStateError, match="says that a transaction has"):
        recover(directory, IDENTITY, engine, DecisionRecorder())
