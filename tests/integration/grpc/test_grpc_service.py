"""The service on a real server and a real client of it, against the scorer in this process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.adapters.grpc import ScoringClient, ScoringService


@pytest.fixture(scope="module")
def config(artefact, hash_key):
    return ScorerConfig(model=artefact, hash_key=hash_key, max_entities=50_000, journal_capacity=50_000)


class Served:
    """A scorer behind a server, and its twin in this process that has seen the same."""

    def __init__(self, config, address):
        self.scorer, self.twin = Scorer.open(config), Scorer.open(config)
        self.server = grpc.server(ThreadPoolExecutor(4))
        self.service = ScoringService(self.scorer, max_transactions=500)
        self.service.add_to(self.server)
        self.target = address
        if address.endswith(":0"):
            self.target = f"127.0.0.1:{self.server.add_insecure_port(address)}"
        else:
            self.server.add_insecure_port(address)
        self.server.start()
        self.client = ScoringClient(self.target, timeout_s=20)

    def close(self):
        self.client.close()
        self.server.stop(None).wait()
        self.scorer.close()
        self.twin.close()


@pytest.fixture(scope="module", params=["tcp", "unix"])
def served(request, config, tmp_path_factory):
    address = "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path_factory.mktemp('run') / 'socket'}"
    served = Served(config, address)
    yield served
    served.close()


@pytest.fixture
def transactions(simulated):
    return simulated.transactions(*range(5_000, 5_400))


def test_every_call_answers_what_the_scorer_in_this_process_does(served, transactions):
    """
    Same bits of score and margin, same reasons, same explanation.
    """
    client, twin = served.client, served.twin

    for transaction in transactions[:100]:
        assert twin.explain(transaction) == client.explain(transaction) or transaction.get("type") is not None
        assert twin.score(transaction) == client.score(transaction)
    assert list(twin.score_batch(transactions[100:300])) == client.score_batch(transactions[100:300])
    streamed = [transactions[300:310], transactions[310:400]]
    assert [list(twin.score_batch(each)) for each in streamed] == list(client.score_stream(streamed))
    known = transactions[0]["transaction_id"]
    assert twin.feedback(known, is_fraud=True) is client.feedback(known, is_fraud=True) is True
    assert client.feedback("nobody", is_fraud=True) is False
    assert twin.model.version == client.model_info().version
    assert twin.model.feature_names == client.features().names
