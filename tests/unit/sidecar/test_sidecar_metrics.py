"""What is counted, and how a scraper reads it."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import urllib.error
import urllib.request

import pytest
from fraudsdk_sidecar import metrics
from fraudsdk_sidecar.addresses import Address
from fraudsdk_sidecar.figures import EDGES_NS, CallFigures, DecisionFigures, ObservedScorer
from fraudsdk_sidecar.metrics import MetricsServer, ServiceCollector, registry_of
from prometheus_client.parser import text_string_to_metric_families

from fraudsdk import ScorerConfig
from fraudsdk.errors import ConfigurationError


@pytest.fixture(scope="module")
def scorer(artefact, hash_key):
    with ObservedScorer.open(ScorerConfig(model=artefact, hash_key=hash_key, max_entities=50_000)) as scorer:
        scorer.figures = DecisionFigures()
        yield scorer


@pytest.fixture
def served(scorer):
    """Address of the figures of a scorer, and a switch for whether it is ready."""
    ready = threading.Event()
    calls = CallFigures()
    server = MetricsServer(
        Address("127.0.0.1", 0), registry_of(ServiceCollector(scorer, calls, scorer.figures)), ready.is_set
    )
    yield f"http://127.0.0.1:{server.port}", ready, calls
    server.close()


def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(text):
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_decisions_are_counted_as_they_were_made_one_by_one_and_in_batches(scorer, served, simulated):
    before = samples(fetch(f"{served[0]}/metrics")[1])
    decisions = [scorer.score(each) for each in simulated.transactions(*range(9_000, 9_200))]
    decisions += list(scorer.score_batch(simulated.transactions(*range(9_200, 9_500))))
    scorer.score(simulated.transactions(9_600)[0], record=False)
    after = samples(fetch(f"{served[0]}/metrics")[1])

    def rise(*name):
        return after[name] - before.get(name, 0.0)

    for outcome in {each.outcome for each in decisions}:
        n = sum(each.outcome is outcome for each in decisions)
        assert n == rise("fraudsdk_decisions_total", outcome.value)
    scored = [each.score for each in decisions if not math.isnan(each.score)]
    assert len(scored) == rise("fraudsdk_scores_count")
    assert sum(scored) == pytest.approx(rise("fraudsdk_scores_sum"))
    assert sum(score < 0.05 for score in scored) == rise("fraudsdk_scores_bucket", "0.05")
    assert 500 == rise("fraudsdk_events_total", "events")


def test_calls_are_counted_by_method_and_code_and_their_times_fall_into_buckets(served):
    url, _, calls = served
    for elapsed_ns in (999, 1_000, 1_001, 150_000, 20_000_000_000):
        calls.begin()
        calls.end("/a", "OK", elapsed_ns)
    calls.begin()
    calls.refused("/a", "UNAUTHENTICATED")
    found = samples(fetch(f"{url}/metrics")[1])

    assert 5 == found["fraudsdk_rpcs_total", "/a", "OK"]
    assert 1 == found["fraudsdk_rpcs_total", "/a", "UNAUTHENTICATED"]
    assert 1 == found["fraudsdk_rpcs_under_way",]
    assert 2 == found["fraudsdk_rpc_seconds_bucket", "/a", "1e-06"]
    assert 3 == found["fraudsdk_rpc_seconds_bucket", "/a", "2e-06"]
    assert 4 == found["fraudsdk_rpc_seconds_bucket", "/a", "10"]
    assert 5 == found["fraudsdk_rpc_seconds_bucket", "+Inf", "/a"]
    assert found["fraudsdk_rpc_seconds_sum", "/a"] == pytest.approx(20.000153)


def test_many_threads_lose_no_count():
    calls = CallFigures()

    def work():
        for _ in range(5_000):
            calls.begin()
            calls.end("/a", "OK", 1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 40_000 == calls.codes()["/a", "OK"] == sum(calls.latencies()["/a"].buckets)
    assert 0 == calls.under_way


def test_buckets_begin_at_a_microsecond():
    assert 1_000 == EDGES_NS[0] and list(EDGES_NS) == sorted(EDGES_NS)


def test_stages_are_histograms_that_add_up_over_processes(scorer, served, simulated):
    before = samples(fetch(f"{served[0]}/metrics")[1])
    for each in simulated.transactions(*range(9_700, 9_800)):
        scorer.score(each)
    after = samples(fetch(f"{served[0]}/metrics")[1])
    summary = scorer.latencies()["features"]
    buckets = [after["fraudsdk_stage_seconds_bucket", f"{edge / 1e9:g}", "features"] for edge in EDGES_NS]

    assert 100 == after["fraudsdk_stage_seconds_count", "features"] - before["fraudsdk_stage_seconds_count", "features"]
    assert buckets == sorted(buckets) and buckets[-1] == summary.n
    middle = next(edge for edge, n in zip(EDGES_NS, buckets, strict=True) if 2 * n >= summary.n)
    assert summary.p50_us * 1e3 <= middle
    assert 0 < after["fraudsdk_stage_seconds_sum", "features"] <= summary.n * summary.max_us / 1e6


def test_it_lives_before_it_serves(served):
    url, ready, _ = served

    assert (200, 503) == (fetch(f"{url}/healthz")[0], fetch(f"{url}/readyz")[0])
    ready.set()
    assert 200 == fetch(f"{url}/readyz")[0]
    assert 404 == fetch(f"{url}/")[0]


def test_scrapers_that_say_nothing_keep_nobody_else_out_for_long(served):
    """
    Four of them are waited for; the fifth and later are hung up on at once, and the figures come again afterwards.
    """
    port = int(served[0].rpartition(":")[2])
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
    hung_up = 0
    for each in silent:
        each.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            hung_up += each.recv(1) == b""
    for each in silent:
        each.close()

    assert 4 == hung_up
    assert 200 == fetch(f"{served[0]}/healthz")[0]


def test_a_scraper_that_takes_its_time_letter_by_letter_is_hung_up_on(served, monkeypatch):
    """
    A probe must find a place though four of them dribble: each letter begins the patience of a read anew.
    """
    monkeypatch.setattr(metrics, "_SCRAPER_TIMEOUT_S", 0.3)
    port = int(served[0].rpartition(":")[2])
    dribbling = socket.create_connection(("127.0.0.1", port))
    dribbling.settimeout(0.05)
    was_let_go = False
    for _ in range(200):
        with contextlib.suppress(TimeoutError):
            try:
                dribbling.send(b"G")
                was_let_go = dribbling.recv(1) == b""
            except ConnectionError:
                was_let_go = True
        if was_let_go:
            break
    dribbling.close()

    assert was_let_go


def test_a_port_that_is_taken_is_named(scorer, served):
    port = int(served[0].rpartition(":")[2])
    with pytest.raises(ConfigurationError, match=f"metrics.listen 127.0.0.1:{port} cannot be listened on"):
        MetricsServer(
            Address("127.0.0.1", port), registry_of(ServiceCollector(scorer, CallFigures(), scorer.figures)), bool
        )
