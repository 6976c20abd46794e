"""What the log says, and what it never shows."""

from __future__ import annotations

import io
import json
import logging

import pytest
from fraudsdk_sidecar import logs
from hypothesis import given
from hypothesis import strategies as st

PAN = "4111111111111111"


@pytest.fixture
def logged():
    """Has the lines that were logged as objects; everything is as before afterwards."""
    root, stream = logging.getLogger(), io.StringIO()
    before = root.handlers[:], root.level, logs.LOGGER.level
    logs.configure("info", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], level, ours = before
    root.setLevel(level)
    logs.LOGGER.setLevel(ours)
    logging.captureWarnings(False)


def test_a_line_is_an_object_with_the_names_of_the_common_schema(logged):
    logs.event(logging.WARNING, "denied", "no", rpc_method="/x", client_id="ab")
    [line] = logged()

    assert ("warning", "no", "denied", "/x", "ab") == tuple(
        line[name] for name in ("log.level", "message", "event.action", "rpc.method", "client.id")
    )
    assert line["@timestamp"].endswith("Z") and line["ecs.version"] and line["service.name"] == "fraudsdk-sidecar"


@pytest.mark.parametrize("written", [PAN, "4111 1111 1111 1111", "4111-1111-1111-1111", f"x{PAN}y\n{PAN}"])
def test_no_card_number_is_shown_wherever_it_stands(logged, written):
    try:
        raise ValueError(written)
    except ValueError as error:
        logs.event(logging.ERROR, "failed", written, error=error, client_id=written)
    logging.getLogger("library").warning("of a library: %s", written)

    assert 2 == len(logged())
    assert PAN not in json.dumps(logged()).replace(" ", "").replace("-", "")


@given(st.text())
def test_any_text_is_one_line(text):
    record = logging.LogRecord("x", logging.INFO, "f", 1, "%s", (text,), None)

    line = logs.EcsFormatter().format(record)

    assert "\n" not in line and "\r" not in line
    assert json.loads(line)["message"] == logs.clean(text)


def test_a_flood_of_one_kind_is_thinned_and_counted_and_others_pass(logged, monkeypatch):
    now_s = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now_s[0])
    for _ in range(1_000):
        logs.event(logging.WARNING, "unauthenticated", "no")
    logs.event(logging.WARNING, "denied", "no")
    now_s[0] = 5.0
    logs.event(logging.WARNING, "unauthenticated", "no")

    lines = logged()

    assert 22 == len(lines)
    assert 980 == lines[-1]["event.withheld"]


def test_a_name_is_the_same_under_one_key_and_another_under_another():
    assert logs.Namer(b"k" * 16)("till") == logs.Namer(b"k" * 16)("till")
    assert logs.Namer(b"k" * 16)("till") != logs.Namer(b"j" * 16)("till")
    assert "till" not in logs.Namer()("till")
