"""
Replay delivers each label when it was known, and loses none.
"""

from __future__ import annotations

import numpy as np

from fraudsdk.encoding.encoder import LABEL_NEVER
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.features.spec import Feature, FeatureSet
from fraudsdk.training.matrix import DAY_US
from fraudsdk.training.replay import replay

START_US = 1_735_689_600_000_000
KEY = b"sixteen byte key"
FEATURES = FeatureSet(
    "frauds", (Feature("frauds", "count", entity="merchant", filter=("fraud",), window="30d"),), currency="EUR"
)


def replayed(event_days, labels, known_days=None, delay_us=DAY_US):
    n = len(event_days)
    columns = {
        "transaction_id": np.array([f"t{i}" for i in range(n)], object),
        "user_id": np.array(["u"] * n, object),
        "merchant_id": np.array(["m"] * n, object),
        "amount": np.ones(n),
        "event_time_us": START_US + np.array(event_days) * DAY_US,
        "is_fraud": np.array(labels, object),
    }
    if known_days is not None:
        columns["label_time_us"] = np.array(
            [None if day is None else START_US + day * DAY_US for day in known_days], object
        )
    return replay(columns, FEATURES, Vocabulary(), hash_key=KEY, label_delay_us=delay_us)


def test_a_label_known_with_its_transaction_is_not_lost():
    """
    The memory does not know a transaction yet at its own time, and a label that comes then finds nothing.
    """
    memory = replayed([0, 1, 2], [1, 1, None], known_days=[0, 1, None])

    assert [0, 1, 2] == memory.rows[:, 0].tolist()
    assert 0 == memory.engine.memory.counters()["labels_for_forgotten_transactions"]


def test_a_label_stamped_before_its_transaction_is_known_right_after_it():
    memory = replayed([5, 6], [1, None], known_days=[2, None])

    assert [0, 1] == memory.rows[:, 0].tolist()
    assert START_US + 5 * DAY_US + 1 == memory.label_time_us[0]


def test_a_label_whose_time_is_missing_takes_the_delay():
    memory = replayed([0, 1, 2], [1, 1, None], known_days=[None, 9, None], delay_us=2 * DAY_US)

    assert [START_US + 2 * DAY_US, START_US + 9 * DAY_US, LABEL_NEVER] == memory.label_time_us.tolist()
    assert [0, 0, 1] == memory.rows[:, 0].tolist()


def test_the_matrix_has_the_times_at_which_labels_were_delivered():
    memory = replayed([5, 6], [1, 0], known_days=[2, 8])

    assert [START_US + 5 * DAY_US + 1, START_US + 8 * DAY_US] == memory.matrix().label_time_us.tolist()
