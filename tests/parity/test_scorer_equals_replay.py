"""Online and offline are the same bits: rows from the engine one by one, margins from the scorer one by one."""

from __future__ import annotations

import numpy as np

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.domain.fields import EVENT_TIME_US, TRANSACTION_KEY
from fraudsdk.features.engine import FeatureEngine
from fraudsdk.features.kernels import SCORED
from fraudsdk.model.artefact import load_artefact


def labels_due(replayed):
    """(time, row) of every label that replay delivered, by time."""
    times = replayed.label_time_us
    due = np.flatnonzero(times != np.iinfo(np.int64).max)
    return [(int(times[i]), int(i)) for i in due[np.argsort(times[due], kind="stable")]]


def test_rows_one_by_one_are_byte_for_byte_those_of_replay(simulated, replayed):
    encoded = replayed.encoded
    engine = FeatureEngine(replayed.engine.feature_set, simulated.vocabulary)
    engine.warm_up()
    row = np.zeros(engine.n_features, dtype=np.float32)
    due = labels_due(replayed)
    compared = 0
    for i in range(len(encoded)):
        while due and due[0][0] <= encoded.ints[i, EVENT_TIME_US]:
            _, about = due.pop(0)
            engine.label(int(encoded.ints[about, TRANSACTION_KEY]), is_fraud=bool(encoded.labels[about]))
        status, _ = engine.observe(encoded.ints[i : i + 1], encoded.numbers[i : i + 1], row, record=True)

        assert (status == SCORED) == replayed.scored[i]
        if status == SCORED:
            compared += 1
            assert row.tobytes() == replayed.rows[i].tobytes(), f"row {i}"

    assert compared > 14_000
    assert engine.memory.pool.tobytes() == replayed.engine.memory.pool.tobytes()
    assert engine.memory.meta.tobytes() == replayed.engine.memory.meta.tobytes()


def test_a_stream_through_the_scorer_has_the_margins_of_a_replay(simulated, replayed, artefact, hash_key):
    model = load_artefact(artefact)
    expected = model.margins(np.ascontiguousarray(replayed.rows))
    due = labels_due(replayed)
    ids = simulated.columns["transaction_id"][replayed.order]
    with Scorer.open(ScorerConfig(model=artefact, hash_key=hash_key)) as scorer:
        for i, transaction in enumerate(simulated.transactions(*replayed.order)):
            while due and due[0][0] <= transaction["event_time_us"]:
                _, about = due.pop(0)
                scorer.feedback(ids[about], is_fraud=bool(replayed.encoded.labels[about]))
            decision = scorer.score(transaction)
            if replayed.scored[i]:
                assert np.float32(decision.margin).tobytes() == expected[i].tobytes(), f"transaction {i}"
            else:
                assert decision.decided_by == "lifecycle"
