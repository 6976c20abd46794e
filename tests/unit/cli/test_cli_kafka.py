"""What `fraudsdk kafka` refuses, before it talks to anybody."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("confluent_kafka")
from fraudsdk.cli.app import main  # only where Kafka's client is

MODEL = str(Path(__file__).parents[3] / "compiled_models" / "reference")


@pytest.fixture
def key(tmp_path):
    (tmp_path / "key").write_bytes(b"sixteen bytes or more")
    return str(tmp_path / "key")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "--hash-key-file"),
        (["--hash-key-file", "KEY"], "name --redis URL or --state-dir DIR"),
        (["--hash-key-file", "KEY", "--state-dir", "state", "--model", "nowhere"], "nowhere"),
        (["--hash-key-file", "KEY", "--state-dir", "state", "--metrics", "all of it"], "--metrics must be HOST:PORT"),
        (["--kafka-user", "fraud"], "FRAUDSDK_KAFKA_PASSWORD"),
    ],
)
def test_a_mistake_is_one_sentence(key, capsys, given, said):
    argv = ["kafka", "--brokers", "127.0.0.1:1", "--model", MODEL, *(key if each == "KEY" else each for each in given)]

    assert 2 == main(argv)
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_brokers_or_the_demo(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["kafka"])
    assert "--brokers" in capsys.readouterr().err
