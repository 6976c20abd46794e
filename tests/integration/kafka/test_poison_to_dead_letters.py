"""
A thousand messages that are no transactions, among some that are, through a real broker into dead letters.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest
from kafka_servers import KafkaBroker, require_kafka
from poison_messages import KINDS, poison_messages

from fraudsdk.adapters.kafka.connection import KafkaConnection
from fraudsdk.adapters.kafka.dead_letters import DeadLetters, Origin, decrypted
from fraudsdk.adapters.kafka.digit_runs import has_run
from fraudsdk.adapters.kafka.messages import message_format, poison_of
from fraudsdk.adapters.kafka.producer import MessageProducer
from fraudsdk.domain.transaction import TransactionReader
from fraudsdk.errors import InvalidTransactionError, PoisonMessageError

require_kafka()

N_POISON = 1_000
SECRET = bytes(range(32))
GOOD = b'{"transaction_id":"t-1","user_id":"u-1","event_time":"2026-11-23T10:00:00Z","amount":12.50,"currency":"EUR"}'


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    server = KafkaBroker(tmp_path_factory.mktemp("broker")).start()
    for each in ("transactions", "masked", "encrypted"):
        server.create_topic(each)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def sent(broker):
    """What was sent, by the place that it got."""
    poison = poison_messages(N_POISON, seed=7)
    producer = MessageProducer(KafkaConnection(broker.bootstrap))
    for i, each in enumerate(poison):
        producer.send("transactions", each.key, each.value, [("n", b"%d" % i)])
        if i % 10 == 0:
            producer.send("transactions", b"u-1", GOOD)
    producer.finish()
    messages = broker.read_all("transactions")
    return messages, {place(each): poison[int(each.headers()[0][1])] for each in messages if each.headers()}


def place(message) -> tuple[int, int]:
    return message.partition(), message.offset()


def origin_of(letter) -> tuple[int, int]:
    headers = dict(letter.headers())
    return int(headers["fraudsdk.partition"]), int(headers["fraudsdk.offset"])


def refuse(messages, letters: DeadLetters, producer: MessageProducer, topic: str) -> int:
    """Read messages, send a dead letter of each that is none, and count the others."""
    reader, n_taken = TransactionReader(), 0
    decoded = message_format("json").decode_all([each.value() for each in messages])
    for message, mapping in zip(messages, decoded, strict=True):
        poison = mapping
        if not isinstance(mapping, PoisonMessageError):
            try:
                reader.read(mapping)
                n_taken += 1
                continue
            except InvalidTransactionError as error:
                poison = poison_of(error)
        origin = Origin(message.topic(), *place(message), message.timestamp()[1])
        letter = letters.letter(poison, origin, message.key(), message.value(), failed_at_us=0)
        producer.send(topic, letter.key, letter.value, letter.headers)
    producer.finish()
    return n_taken


def test_every_kind_of_poison_gets_its_reason_and_no_digit_of_a_card_number_stays(broker, sent):
    messages, poison = sent

    n_taken = refuse(messages, DeadLetters(), MessageProducer(KafkaConnection(broker.bootstrap)), "masked")
    letters = broker.read_all("masked")

    assert len(KINDS) >= 20
    assert N_POISON // 10 == n_taken
    assert N_POISON == len(letters) == len({origin_of(each) for each in letters})
    wrong = Counter()
    for letter in letters:
        was, headers = poison[origin_of(letter)], dict(letter.headers())
        wrong[was.kind, headers["fraudsdk.reason"].decode()] += was.reason != headers["fraudsdk.reason"].decode()
        kept = [letter.key() or b"", letter.value() or b"", *headers.values()]
        assert not any(has_run(each) for each in kept if each != headers["fraudsdk.timestamp_ms"])
        digits = [re.sub(rb"[^0-9]", b"", each) for each in kept]
        assert not any(was.pan.encode() in each for each in digits)
        assert b'"837"' not in kept[1]
    assert {} == {kind: n for kind, n in wrong.items() if n}


def test_encrypted_letters_are_the_messages_to_whoever_has_the_secret(broker, sent):
    messages, poison = sent
    refuse(messages, DeadLetters(SECRET), MessageProducer(KafkaConnection(broker.bootstrap)), "encrypted")

    for letter in broker.read_all("encrypted"):
        was, whole = poison[origin_of(letter)], decrypted(letter.value(), letter.headers(), [SECRET])
        is_cut = "fraudsdk.truncated" in dict(letter.headers())

        assert was.pan.encode() not in letter.value()
        assert was.key == whole[0]
        assert whole[1] == (was.value or b"")[: len(whole[1]) if is_cut else None]
        assert is_cut == (was.kind == "huge")
