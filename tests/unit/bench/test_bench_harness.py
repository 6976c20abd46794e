"""A gate that cannot fail is none; a noisy round must not fail one."""

from __future__ import annotations

import math

import _report
import numpy as np
import pytest
from _turns import Turns, take_turns

GATES = {"how fast": {"peer": 2.0, "other": 1.5}}


@pytest.fixture(autouse=True)
def gates(monkeypatch):
    monkeypatch.setattr(_report, "_gates", lambda: GATES)
    monkeypatch.setattr(_report, "RESULTS", {})


def test_ratios_at_or_above_their_gates_hold_and_are_kept_for_the_results():
    _report.hold("how fast", {"peer": 2.0, "other": 9.0, "not gated": 0.1})

    assert {"peer": 2.0, "other": 9.0, "not gated": 0.1} == _report.RESULTS["how fast"]["ratios"]
    assert GATES["how fast"] == _report.RESULTS["how fast"]["gates"]


@pytest.mark.parametrize(
    ("ratios", "complaint"),
    [
        ({"peer": 1.99, "other": 9.0}, "peer: 1.99 times ours, at least 2 is due"),
        ({"peer": math.nan, "other": 9.0}, "peer: nan"),
        ({"peer": 2.0}, "other: not timed"),
    ],
)
def test_a_lost_ratio_fails_and_is_kept_for_the_results_nevertheless(ratios, complaint):
    with pytest.raises(AssertionError, match=complaint):
        _report.hold("how fast", ratios)

    assert ratios.keys() == _report.RESULTS["how fast"]["ratios"].keys()


def test_a_question_without_gates_is_an_error():
    with pytest.raises(KeyError, match="how slow"):
        _report.hold("how slow", {"peer": 2.0})


def test_one_spoiled_round_does_not_move_a_ratio():
    ours = np.full((5, 10), 100.0)
    peer = np.full((5, 10), 300.0)
    ours[2] = 90_000.0  # another process had the core

    assert {"peer": 3.0} == Turns({"ours": ours, "peer": peer}).ratios()


def test_the_fastest_calls_are_compared_where_a_peer_is_rarely_undisturbed():
    peer = np.full((3, 10), 9_000.0)
    peer[:, 4] = 2_000.0

    assert {"peer": 20.0} == Turns({"ours": np.full((3, 10), 100.0), "peer": peer}, fastest=True).ratios()


class Rounds:
    """The part of pytest-benchmark's fixture that turns are taken with."""

    def __init__(self):
        self.extra_info = {}

    def pedantic(self, target, setup, rounds):
        for _ in range(rounds):
            arguments, options = setup()
            target(*arguments, **options)


def test_every_contestant_gets_every_item_of_every_round():
    seen = {"ours": [], "peer": [], "other": []}

    turns = take_turns(Rounds(), {name: items.append for name, items in seen.items()}, [[1, 2], [3, 4]], warm=False)

    assert [[1, 2, 3, 4]] * 3 == list(seen.values())
    assert {(2, 2)} == {elapsed.shape for elapsed in turns.elapsed_ns.values()}


def test_quantiles_are_of_one_item_of_a_call():
    turns = Turns({"ours": np.full((3, 1), 5_000_000.0), "peer": np.full((3, 1), 10_000_000.0)})

    figures = turns.figures(1_000)

    assert pytest.approx(5.0) == figures["ours"]["p50_us"]
    assert pytest.approx(2.0) == figures["peer"]["times ours"]


def test_results_name_their_commit_and_machine(tmp_path):
    _report.report("how fast", {"ours": {"p50_us": np.float64(1.5)}})

    path = _report.write_results(tmp_path)

    environment = _report.environment()
    assert path.stem.endswith(environment["commit"])
    assert {"cpu", "cores", "governor", "load_average", "python", "libraries"} <= environment.keys()
    assert '"p50_us": 1.5' in path.read_text()
