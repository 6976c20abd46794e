"""
Apache Kafka, one node on free ports, killed and started again as a test likes; and librdkafka's cluster within the process.

The mock cluster starts in a millisecond, fails on request, and is reached by other processes too.  It has neither TLS nor
logins nor an administrator, and keeps 5 MiB of a partition: what hangs on these asks a `KafkaBroker`.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import confluent_kafka
import pytest
from certificates import Authority
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from kafka_jars import jars
from servers import free_port

JAVA = shutil.which("java")

# The shortest waits that the broker takes: a test is not about them.
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # After a crash the controller waits as long for the broker that is gone before it takes in the new one.
    "broker.session.timeout.ms": "1000",
    "broker.heartbeat.interval.ms": "100",
    "log.segment.delete.delay.ms": "0",
}


def require_kafka() -> None:
    """Skip on a laptop without Java or the jars; fail in CI."""
    missing = None
    if JAVA is None:
        missing = "java is not installed: apt-get install openjdk-17-jre-headless"
    elif not jars():
        missing = "Kafka is not there: python tests/integration/kafka/kafka_jars.py"
    if missing is not None:
        assert os.environ.get("CI") != "true", missing
        pytest.skip(missing, allow_module_level=True)


class KafkaBroker:
    """
    One broker, its own controller, with a directory of its own.

    It is always reached at `bootstrap` in the clear, by the tests themselves.  With an authority there is `tls_bootstrap`
    too: by SASL/SCRAM-SHA-512 over TLS where there are users, else by TLS alone.

    Parameters
    ----------
    directory : Path
    n_partitions : int
        Of a topic whose maker does not say.
    authority : Authority or None
        Issues the broker's certificate.
    alternatives : str
        The broker's names on it.
    users : Mapping of str to str
        Passwords.
    asks_for_certificates : bool
        Whether a client over TLS must show a certificate of the authority.
    settings : Mapping of str to str
        Further settings of the broker, or others than this module's.
    """

    def __init__(
        self,
        directory: Path,
        *,
        n_partitions: int = 6,
        authority: Authority | None = None,
        alternatives: str = "IP:127.0.0.1,DNS:localhost",
        users: Mapping[str, str] | None = None,
        asks_for_certificates: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        assert authority is not None or not users, "a password in the clear is no test of anything"
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port, self.tls_port, self._controller_port = free_port(), free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.tls_bootstrap = None if authority is None else f"127.0.0.1:{self.tls_port}"
        self.process: subprocess.Popen | None = None
        self._n_partitions = n_partitions
        self._users = dict(users or {})
        self._log = directory / "server.log"
        tls = {} if authority is None else self._tls(authority, alternatives, asks_for_certificates)
        self._write(_SETTINGS | self._own_settings() | tls | dict(settings or {}))

    def start(self) -> KafkaBroker:
        if not (self.directory / "data" / "meta.properties").exists():
            self._format()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._properties)), stdout=log, stderr=subprocess.STDOUT
            )
        self._wait_until_ready()
        return self

    def create_topic(self, name: str, n_partitions: int | None = None, **config: str) -> None:
        """Make a topic; underscores in the names of its settings stand for dots."""
        topic = NewTopic(
            name, n_partitions or self._n_partitions, 1, config={key.replace("_", "."): config[key] for key in config}
        )
        admin = self.admin()  # kept until the answer is there
        admin.create_topics([topic], operation_timeout=20)[name].result()

    def delete_topic(self, name: str) -> None:
        admin = self.admin()
        admin.delete_topics([name], operation_timeout=20)[name].result()

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Take away what is in front of an offset, as retention does."""
        admin, place = self.admin(), confluent_kafka.TopicPartition(topic, partition, before)
        admin.delete_records([place], operation_timeout=20)[place].result()

    def admin(self, **options: object) -> AdminClient:
        return AdminClient(client_options(self.bootstrap, **options))

    def producer(self, **options: object) -> Producer:
        """A producer in the clear; see `client_options`."""
        return Producer(client_options(self.bootstrap, **options))

    def read_all(self, topic: str) -> list[confluent_kafka.Message]:
        """Everything in a topic, partition by partition."""
        return read_all(self.bootstrap, topic)

    def kill(self) -> None:
        """As a crash does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def pause(self) -> None:
        """It takes connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.resume()  # one that is paused does not end
            self.process.terminate()
            self.process.wait(timeout=30)

    @property
    def _properties(self) -> Path:
        return self.directory / "server.properties"

    def _own_settings(self) -> dict[str, str]:
        listeners = f"PLAINTEXT://{self.bootstrap}"
        security = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
        if self.tls_bootstrap is not None:
            listeners += f",SECURE://{self.tls_bootstrap}"
            security += f",SECURE:{'SASL_SSL' if self._users else 'SSL'}"
        return {
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": security,
            "log.dirs": str(self.directory / "data"),
            "num.partitions": str(self._n_partitions),
        }

    def _tls(self, authority: Authority, alternatives: str, asks_for_certificates: bool) -> dict[str, str]:
        served = authority.issue("broker", alternatives)
        both = self.directory / "broker.pem"
        both.write_bytes(served.key.read_bytes() + served.certificate.read_bytes())
        login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(both),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(authority.file),
            "ssl.client.auth": "required" if asks_for_certificates else "none",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.secure.scram-sha-512.sasl.jaas.config": login,
        }

    def _write(self, settings: Mapping[str, str]) -> None:
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="ascii")

    def _format(self) -> None:
        command = self._java("kafka.tools.StorageTool", "format", "--cluster-id", "AAAAAAAAAAAAAAAAAAAAAQ")
        command += ["--config", str(self._properties)]
        for user, password in self._users.items():
            command += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]"]
        with self._log.open("ab") as log:
            subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, timeout=60)

    @staticmethod
    def _java(main: str, *arguments: str) -> list[str]:
        # Two seconds less until it answers than with the defaults of a server that is to run for months.
        quick = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        log = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return [JAVA, *quick, log, "-cp", os.pathsep.join(map(str, jars())), main, *arguments]

    def _wait_until_ready(self, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        admin = self.admin()
        while True:
            try:
                if admin.list_topics(timeout=1).brokers:
                    return
            except confluent_kafka.KafkaException:
                assert self.process.poll() is None, self._log.read_text(encoding="utf-8")[-3000:]
            assert time.monotonic() < deadline, "the broker does not answer"


class MockCluster:
    """
    Brokers within the process, by librdkafka; whoever connects to `bootstrap` takes them for Kafka.

    Parameters
    ----------
    topics : Mapping of str to int
        Topics and how many partitions each has; others come as they are asked for, with four.
    n_brokers : int
    """

    def __init__(self, topics: Mapping[str, int] | None = None, *, n_brokers: int = 1) -> None:
        self._library = _librdkafka()
        why = ctypes.create_string_buffer(512)
        settings = self._library.rd_kafka_conf_new()
        self._library.rd_kafka_conf_set(settings, b"log_level", b"0", why, len(why))
        self._client = self._library.rd_kafka_new(0, settings, why, len(why))
        assert self._client, why.value.decode()
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._client, n_brokers)
        assert self._cluster, "there is no mock cluster"
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self.bootstrap = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        for name, n_partitions in (topics or {}).items():
            self.create_topic(name, n_partitions)

    def create_topic(self, name: str, n_partitions: int) -> None:
        self._must(self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), n_partitions, 1))

    def set_down(self, broker: int = 1) -> None:
        """Connections are refused and cut."""
        self._must(self._library.rd_kafka_mock_broker_set_down(self._cluster, broker))

    def set_up(self, broker: int = 1) -> None:
        self._must(self._library.rd_kafka_mock_broker_set_up(self._cluster, broker))

    def set_coordinator(self, group: str, broker: int) -> None:
        """Move the coordinator of a group."""
        self._must(self._library.rd_kafka_mock_coordinator_set(self._cluster, b"group", group.encode(), broker))

    def fail_next(self, api: int, *errors: int) -> None:
        """
        Answer the next requests of one kind with errors, one each.

        Parameters
        ----------
        api : int
            Key of Kafka's protocol: 0 Produce, 1 Fetch, 3 Metadata, 8 OffsetCommit, 10 FindCoordinator, 11 JoinGroup.
        *errors : int
            Such as ``KafkaError.NOT_LEADER_FOR_PARTITION``.
        """
        codes = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, api, len(errors), codes)

    def producer(self, **options: object) -> Producer:
        """See `client_options`."""
        return Producer(client_options(self.bootstrap, **options))

    def read_all(self, topic: str) -> list[confluent_kafka.Message]:
        """Everything in a topic, partition by partition."""
        return read_all(self.bootstrap, topic)

    def stop(self) -> None:
        if self._client:
            self._library.rd_kafka_mock_cluster_destroy(self._cluster)
            self._library.rd_kafka_destroy(self._client)
            self._client = None

    @staticmethod
    def _must(error: int) -> None:
        assert error == KafkaError.NO_ERROR, KafkaError(error)


def client_options(bootstrap: str, **options: object) -> dict[str, object]:
    """Options of a quiet client that is soon back; underscores in their names stand for dots."""
    quick = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100}
    named = {name.replace("_", "."): value for name, value in options.items()}
    return {"bootstrap.servers": bootstrap, "logger": _SILENT} | quick | named


def read_all(bootstrap: str, topic: str) -> list[confluent_kafka.Message]:
    """Everything that a topic holds now, partition by partition, each in its order."""
    options = {"group_id": "reads all", "enable_auto_commit": False, "enable_partition_eof": True}
    consumer = Consumer(client_options(bootstrap, **options))
    try:
        partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        consumer.assign(
            [confluent_kafka.TopicPartition(topic, each, confluent_kafka.OFFSET_BEGINNING) for each in partitions]
        )
        messages, n_ended = [], 0
        deadline = time.monotonic() + 60
        while n_ended < len(partitions):
            for each in consumer.consume(10_000, timeout=0.2):
                if each.error() is None:
                    messages.append(each)
                else:
                    assert each.error().code() == KafkaError._PARTITION_EOF, each.error()
                    n_ended += 1
            assert time.monotonic() < deadline, f"{topic} has no end"
        return sorted(messages, key=lambda each: (each.partition(), each.offset()))
    finally:
        consumer.close()


# What a client says while it waits for a broker is no news.
_SILENT = logging.Logger("kafka of the tests")
_SILENT.addHandler(logging.NullHandler())


def _librdkafka() -> ctypes.CDLL:
    """The library that confluent_kafka brought and has loaded."""
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    path = next(line.split(maxsplit=5)[5] for line in mapped.splitlines() if "librdkafka" in line)
    library = ctypes.CDLL(path)
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, ()),
        ("rd_kafka_conf_set", number, (pointer, text, text, text, ctypes.c_size_t)),
        ("rd_kafka_new", pointer, (number, pointer, text, ctypes.c_size_t)),
        ("rd_kafka_destroy", None, (pointer,)),
        ("rd_kafka_mock_cluster_new", pointer, (pointer, number)),
        ("rd_kafka_mock_cluster_destroy", None, (pointer,)),
        ("rd_kafka_mock_cluster_bootstraps", text, (pointer,)),
        ("rd_kafka_mock_topic_create", number, (pointer, text, number, number)),
        ("rd_kafka_mock_group_initial_rebalance_delay_ms", None, (pointer, ctypes.c_int32)),
        ("rd_kafka_mock_broker_set_down", number, (pointer, ctypes.c_int32)),
        ("rd_kafka_mock_broker_set_up", number, (pointer, ctypes.c_int32)),
        ("rd_kafka_mock_coordinator_set", number, (pointer, text, text, ctypes.c_int32)),
        (
            "rd_kafka_mock_push_request_errors_array",
            None,
            (pointer, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(number)),
        ),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
