"""What is kept of poison holds no card data that anybody can read."""

from __future__ import annotations

import base64
import html
import json
import re
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.adapters.kafka.dead_letters import DeadLetters, Origin, decrypted
from fraudsdk.adapters.kafka.digit_runs import has_run, struck_out
from fraudsdk.errors import ConfigurationError, PoisonMessageError

SECRET = bytes(range(32))
ORIGIN = Origin("transactions", 3, 17, 1_795_428_000_123)
POISON = PoisonMessageError("bad_json", "is no JSON", "send one JSON object")
RUN = re.compile(r"\d(?:[\W_]{0,4}\d){11,}")

DIGITS = st.text("0123456789", min_size=12, max_size=19)
SEPARATOR = st.sampled_from(["", "", "", " ", "-", " - ", ".", "\u00a0", "\u2011", "_", "\n", "/"])
# What may stand around a number; no digits, which would make it longer than it is.
AROUND = st.text(alphabet="abXY ,.:;{}\"'é…", max_size=6)


@st.composite
def grouped_number(draw) -> tuple[str, str]:
    digits = draw(DIGITS)
    return digits, "".join(each + draw(SEPARATOR) for each in digits[:-1]) + digits[-1]


SPELLINGS = {
    "as it is": str.encode,
    "in JSON": lambda text: json.dumps({"note": text}).encode(),
    "in JSON, in UTF-8": lambda text: json.dumps({"note": text}, ensure_ascii=False).encode(),
    "in JSON as text in JSON": lambda text: json.dumps(json.dumps({"note": text})).encode(),
    "in escapes": lambda text: "".join(f"\\u{ord(each):04X}" for each in text if ord(each) < 1 << 16).encode(),
    "in escapes of escapes": lambda text: "".join(f"\\\\u{ord(e):04x}" for e in text if ord(e) < 1 << 16).encode(),
    "in a URL": lambda text: urllib.parse.urlencode({"note": text}).encode(),
    "all percent": lambda text: "".join(f"%{each:02x}" for each in text.encode()).encode(),
    "in HTML": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace"),
    "in HTML's numbers": lambda text: "".join(f"&#{ord(each)};" for each in text).encode(),
    "in HTML's hexadecimal": lambda text: "".join(f"&#x{ord(each):x};" for each in text).encode(),
    "UTF-16, little": lambda text: text.encode("utf-16-le"),
    "UTF-16, big": lambda text: text.encode("utf-16"),
    "UTF-32": lambda text: text.encode("utf-32-be"),
    "hexadecimal": lambda text: text.encode().hex().encode(),
    "full width": lambda text: text.translate({48 + i: 0xFF10 + i for i in range(10)}).encode(),
    "Arabic": lambda text: text.translate({48 + i: 0x660 + i for i in range(10)}).encode(),
    "mathematical, in escapes": lambda text: json.dumps(
        text.translate({48 + i: 0x1D7CE + i for i in range(10)})
    ).encode(),
    "Base64": lambda text: base64.b64encode(text.encode()),
    "Base64 for URLs, without its end": lambda text: base64.urlsafe_b64encode(text.encode()).rstrip(b"="),
    "Base64, twice, in JSON": lambda text: json.dumps(
        {"note": base64.b64encode(base64.b64encode(text.encode())).decode()}
    ).encode(),
}


@given(grouped_number(), AROUND, AROUND, st.sampled_from(sorted(SPELLINGS)))
def test_no_run_of_digits_survives_in_any_spelling(number, before, after, spelling):
    digits, grouped = number
    octets = SPELLINGS[spelling](f"{before}{grouped}{after}")

    kept = struck_out(octets)

    assert len(octets) == len(kept)
    assert not has_run(kept)
    # By another way than the one it was found by: read back as whoever gets the letter would.
    for read in (kept.decode(errors="replace"), kept.decode("utf-16-le", "replace"), kept.decode("utf-16", "replace")):
        meant = urllib.parse.unquote(html.unescape(unescaped(unescaped(read))))
        assert not RUN.search(meant)
        assert digits[:8] not in read and digits[:8] not in meant


def unescaped(text: str) -> str:
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda escape: chr(int(escape[1], 16)), text.replace("\\\\", "\\"))


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_keep_their_length_and_have_no_run(octets):
    kept = struck_out(octets)

    assert len(octets) == len(kept)
    assert not has_run(kept)
    assert kept == struck_out(kept)


@given(st.text(alphabet='0123456789 -\\u003%&#;"x=:Aa', max_size=120))
def test_what_is_struck_out_leaves_no_run_behind(text):
    kept = struck_out(text.encode())

    assert not has_run(kept)
    assert not RUN.search(kept.decode())


@pytest.mark.parametrize("n_times", [1, 2])
@pytest.mark.parametrize("before", ["", "card ", "a card:"])
def test_a_number_in_base64_goes_with_the_whole_word(n_times, before):
    octets = f"{before}4111111111111111".encode()
    for _ in range(n_times):
        octets = base64.b64encode(octets)

    assert b"*" * len(octets) == struck_out(octets)
    assert set(b"*=x") >= set(struck_out(b"x=" + octets))


def test_what_is_no_run_stays():
    harmless = (
        b'{"event_time":"2026-11-23T10:00:00Z","amount":1250,"mcc":"5411","ip":"203.0.113.7","user_id":"u-20491"}'
    )

    assert harmless == struck_out(harmless)
    assert b"12345678901" == struck_out(b"12345678901")
    assert b"1234567x8901234" == struck_out(b"1234567x8901234")


@pytest.mark.parametrize(
    "octets",
    [
        b'{"cvv":"837"}',
        b'{"CVV2" : 837}',
        b'{"card":{"cvc":["837"]}}',
        b'{"pin_block":"83\\"7"}',
        b'{"\\u0063vv":"837"}',
        b'"{\\"cvv\\":\\"837\\"}"',
        b"amount=12&cvv=837&x=1",
        b"<pay><ns:cvv>837</ns:cvv></pay>",
        b"CVV: 837",
        b'{"cvv":"837',
    ],
)
def test_a_verification_code_goes_by_the_name_it_was_sent_under(octets):
    kept = struck_out(octets)

    assert b"8" not in kept and b"7" not in kept


def test_tracks_go_with_the_name_of_the_card_holder():
    kept = struck_out(b'{"x":"%B4111111111111111^DOE/JANE^2512101"}')

    assert b"DOE" not in kept and b"2512" not in kept
    assert b"2512" not in struck_out(b";4111111111111111=2512101")


def test_a_letter_says_why_and_where_the_message_is():
    letter = DeadLetters().letter(POISON, ORIGIN, b"u-1", b"{", failed_at_us=1_795_428_000_500_000)

    assert (b"u-1", b"{") == (letter.key, letter.value)
    assert {
        "fraudsdk.reason": b"bad_json",
        "fraudsdk.error": b"message is no JSON; send one JSON object",
        "fraudsdk.topic": b"transactions",
        "fraudsdk.partition": b"3",
        "fraudsdk.offset": b"17",
        "fraudsdk.timestamp_ms": b"1795428000123",
        "fraudsdk.failed_at_us": b"1795428000500000",
        "fraudsdk.protection": b"masked/1",
        "fraudsdk.original_bytes": b"1",
    } == dict(letter.headers)


def test_a_card_number_in_the_key_or_in_the_error_is_masked():
    poison = PoisonMessageError("bad_json", "is 4111 1111 1111 1111", "do not")

    letter = DeadLetters().letter(poison, ORIGIN, b"4111111111111111", None, failed_at_us=0)

    assert b"*" * 16 == letter.key
    assert b"message is **** **** **** ****; do not" == dict(letter.headers)["fraudsdk.error"]
    assert letter.value is None and b"-1" == dict(letter.headers)["fraudsdk.original_bytes"]


@pytest.mark.parametrize("begin", range(4_080, 4_100))
def test_a_value_is_cut_without_laying_bare_the_number_that_the_cut_goes_through(begin):
    value = b"x" * begin + b"4111-1111-1111-1111" + b"y" * 100_000

    letter = DeadLetters(max_value_bytes=4_096).letter(POISON, ORIGIN, None, value, failed_at_us=0)

    assert 4_096 == len(letter.value)
    assert b"1" not in letter.value
    assert b"true" == dict(letter.headers)["fraudsdk.truncated"]


@pytest.mark.parametrize("key", [None, b"", b"u-1"])
def test_an_encrypted_letter_is_the_message_to_whoever_has_the_secret(key):
    letter = DeadLetters(SECRET).letter(POISON, ORIGIN, key, b"\xff4111111111111111", failed_at_us=0)

    assert letter.key is None
    assert b"4111" not in letter.value
    assert (key, b"\xff4111111111111111") == decrypted(letter.value, letter.headers, [bytes(32), SECRET])


def test_the_same_message_is_never_encrypted_to_the_same_letter():
    twice = [DeadLetters(SECRET).letter(POISON, ORIGIN, b"k", b"v", failed_at_us=0).value for _ in range(2)]

    assert twice[0] != twice[1]


@pytest.mark.parametrize("at", [4, 12, 24, -1])
def test_an_encrypted_letter_that_was_changed_is_refused(at):
    letter = DeadLetters(SECRET).letter(POISON, ORIGIN, b"k", b"v", failed_at_us=0)
    changed = bytearray(letter.value)
    changed[at] ^= 1

    with pytest.raises(ConfigurationError, match=r"not as it was written|another key"):
        decrypted(bytes(changed), letter.headers, [SECRET])


def test_an_encrypted_letter_under_another_s_headers_is_refused():
    letter = DeadLetters(SECRET).letter(POISON, ORIGIN, b"k", b"v", failed_at_us=0)
    other = DeadLetters(SECRET).letter(POISON, Origin("transactions", 3, 18), b"k", b"w", failed_at_us=0)

    with pytest.raises(ConfigurationError, match="another's"):
        decrypted(letter.value, other.headers, [SECRET])


def test_a_masked_letter_is_not_decrypted():
    letter = DeadLetters().letter(POISON, ORIGIN, b"k", b"v", failed_at_us=0)

    with pytest.raises(ConfigurationError, match="not encrypted"):
        decrypted(letter.value, letter.headers, [SECRET])


def test_a_secret_is_in_no_representation_and_has_32_bytes():
    assert repr(SECRET)[2:-1] not in repr(DeadLetters(SECRET))
    with pytest.raises(ConfigurationError, match="must have 32 bytes, has 5"):
        DeadLetters(b"short")
