"""Every sink keeps the one contract."""

from __future__ import annotations

import json

import pytest

from fraudsdk.sinks import BackgroundSink, MemorySink, NdjsonSink, WhenFull
from fraudsdk.testing.contracts import SinkContract


def ids_in(path):
    return list(dict.fromkeys(json.loads(line)["transaction_id"] for line in path.read_text().splitlines()))


class TestMemorySink(SinkContract):
    @pytest.fixture
    def sink(self):
        return MemorySink(capacity=100)

    def delivered(self, sink):
        return [decision.transaction_id for decision in sink.decisions]


class TestNdjsonSink(SinkContract):
    @pytest.fixture
    def sink(self, tmp_path):
        self.path = tmp_path / "decisions.ndjson"
        sink = NdjsonSink(self.path)
        yield sink
        sink.close()

    def delivered(self, sink):
        return ids_in(self.path)


@pytest.mark.parametrize("when_full", list(WhenFull))
class TestBackgroundSinkInFrontOfMemory(SinkContract):
    @pytest.fixture
    def sink(self, when_full):
        self.memory = MemorySink(capacity=100)
        sink = BackgroundSink(self.memory, when_full=when_full, capacity=100)
        yield sink
        sink.close()

    def delivered(self, sink):
        return [decision.transaction_id for decision in self.memory.decisions]


class TestBackgroundSinkInFrontOfAFile(SinkContract):
    @pytest.fixture
    def sink(self, tmp_path):
        self.path = tmp_path / "decisions.ndjson"
        sink = BackgroundSink(NdjsonSink(self.path), when_full=WhenFull.DROP_OLDEST, capacity=100)
        yield sink
        sink.close()

    def delivered(self, sink):
        return ids_in(self.path)
