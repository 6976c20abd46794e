"""`fraudsdk kafka` as a user starts it: a process, a real broker, figures to scrape, and a signal that ends it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import orjson
import pytest
from kafka_servers import KafkaBroker, require_kafka
from servers import free_port, wait_for

require_kafka()
MODEL = Path(__file__).parents[3] / "compiled_models" / "reference"
N = 3_000


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    broker = KafkaBroker(tmp_path_factory.mktemp("broker")).start()
    for topic, n_partitions in (("transactions", 6), ("fraud-alerts", 3), ("transactions.dlq", 1)):
        broker.create_topic(topic, n_partitions)
    yield broker
    broker.stop()


class Service:
    """The process, and what it says."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        (folder / "key").write_bytes(b"the key of this test")
        self.port = free_port()
        self.log = folder / "log"
        command = [sys.executable, "-m", "fraudsdk.cli", "kafka", "--model", str(MODEL), *arguments]
        command += ["--hash-key-file", str(folder / "key"), "--metrics", f"127.0.0.1:{self.port}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def figure(self, name: str) -> float:
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")[-3000:]
        text = wait_for("figures", lambda: self.get("/metrics")[1])
        return sum(map(float, re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)))

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def produce(broker: KafkaBroker) -> None:
    command = [sys.executable, "-m", "fraudsdk.cli", "simulate", "--to-kafka", broker.bootstrap]
    subprocess.run(
        [*command, "--transactions", str(N), "--users", "60", "--days", "20"], check=True, capture_output=True
    )
    producer = broker.producer()
    producer.produce("transactions", b"{ no JSON, but a card 4111 1111 1111 1111", key=b"somebody")
    assert 0 == producer.flush(20)


def test_it_consumes_is_scraped_ends_on_a_signal_and_goes_on(broker, tmp_path):
    produce(broker)
    arguments = ("--brokers", broker.bootstrap, "--state-dir", str(tmp_path / "state"))
    service = Service(tmp_path, *arguments)
    try:
        wait_for("all to be scored", lambda: service.figure("fraudsdk_stream_scored_total") == N, 90)
        wait_for("all to be committed", lambda: service.figure("fraudsdk_stream_place") == N + 1, 30)
        assert (200, "ready\n") == service.get("/readyz")
        assert 1 == service.figure("fraudsdk_stream_dead_letters_total")
        assert 0 == service.figure("fraudsdk_stream_lag")
        assert N == service.figure("fraudsdk_events_total")

        assert 0 == service.end()
        lines = [orjson.loads(line) for line in service.log.read_bytes().splitlines()]
        assert {"stream-started", "stream-ended"} <= {each.get("event.action") for each in lines}

        again = Service(tmp_path, *arguments)
        wait_for("its partitions", lambda: again.figure("fraudsdk_stream_claims_total") == 6, 60)
        time.sleep(0.5)
        assert 0 == again.figure("fraudsdk_stream_scored_total")
        assert N + 1 == again.figure("fraudsdk_stream_place")
        assert 0 == again.end()
    finally:
        for each in (service, locals().get("again", service)):
            if each.process.poll() is None:
                each.process.kill()
                each.process.wait()
    assert b"4111" not in b"".join(each.value() for each in broker.read_all("transactions.dlq"))


def test_a_topic_that_is_not_there_is_said_in_a_sentence(broker, tmp_path):
    service = Service(
        tmp_path, "--brokers", broker.bootstrap, "--state-dir", str(tmp_path / "state"), "--topic", "none"
    )

    assert 2 == service.process.wait(timeout=60)
    (said,) = service.log.read_text(encoding="utf-8").splitlines()
    assert "has no topic 'none'; make it, or name another" in said


@pytest.mark.slow
def test_the_demo_checks_itself():
    done = subprocess.run(
        [sys.executable, "-m", "fraudsdk.cli", "kafka", "--demo", "--model", str(MODEL)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    assert "bit for bit, those of a scorer that nothing happened to" in done.stdout
