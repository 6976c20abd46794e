"""With ``durability="none"`` power that fails takes the end of the log and leaves the snapshot, which was synced."""

from __future__ import annotations

import os

import pytest
from keeps_state import HASH_KEY, plan

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.entity_state.log_format import HEADER_WORDS
from fraudsdk.scorer import kept_state

N = 200


@pytest.fixture
def transactions():
    return plan(N, seed=3)


@pytest.fixture
def config(artefact, tmp_path):
    return ScorerConfig(
        model=artefact, hash_key=HASH_KEY, state_dir=tmp_path / "state", durability="none", max_entities=10_000
    )


@pytest.mark.filterwarnings("ignore:.* bytes at the end of log:RuntimeWarning")
@pytest.mark.parametrize("left_of_log", [0.0, 0.4, 0.9])
def test_what_comes_after_the_snapshot_is_found_again(config, transactions, left_of_log, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(kept_state, "RECORDS_PER_CLOSING_SNAPSHOT", 1)
        with Scorer.open(config) as scorer:
            for transaction in transactions[:100]:
                scorer.score(transaction)
    [log] = config.state_dir.glob("log-*.fslog")
    os.truncate(log, int(8 * HEADER_WORDS + left_of_log * (log.stat().st_size - 8 * HEADER_WORDS)))

    with Scorer.open(config) as scorer:
        assert 100 == scorer.counters()["events"]
        for transaction in transactions[100:]:
            scorer.score(transaction)
    for _ in range(2):
        with Scorer.open(config) as scorer:
            assert N == scorer.counters()["events"]
            assert scorer.score(transactions[-1], record=True).duplicate
