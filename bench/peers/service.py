"""
The fraud service that most teams write: events in Redis, features in pandas, a booster, SHAP for what is not approved.

Written plainly and not badly: one round trip to Redis per transaction, sorted sets by event time, old events removed.
"""

from __future__ import annotations

import math
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from peers.windows import ENTITIES, NAMES, WINDOWS_US

LONGEST_US = max(WINDOWS_US.values())


@contextmanager
def redis_server() -> Iterator[int | None]:
    """The port of a server of our own, None where Redis is not installed."""
    binary = shutil.which("redis-server")
    if binary is None:
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for(port, server)
        yield port
    finally:
        server.terminate()
        server.wait(timeout=10)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    import redis

    deadline = time.monotonic() + 10
    while True:
        try:
            redis.Redis(port=port).ping()
        except redis.ConnectionError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


@dataclass(frozen=True, slots=True)
class Answer:
    outcome: str
    margin: float
    contributions: np.ndarray | None


class PlainService:
    """
    Parameters
    ----------
    port : int
        Of Redis.
    booster : xgboost.Booster
        Of the features `windows.NAMES`.
    review, decline : float
        Lowest score of each outcome.
    """

    def __init__(self, port: int, booster: Any, *, review: float, decline: float) -> None:
        import redis
        import shap

        self._redis = redis.Redis(port=port)
        self._booster = booster
        self._explainer = shap.TreeExplainer(booster)
        self._review, self._decline = review, decline

    def remember(self, transactions: list[Mapping[str, Any]]) -> None:
        """History, without a decision."""
        pipeline = self._redis.pipeline(transaction=False)
        for transaction in transactions:
            for entity in ENTITIES:
                pipeline.zadd(_key(entity, transaction), {_member(transaction): transaction["event_time_us"]})
        pipeline.execute()

    def score(self, transaction: Mapping[str, Any]) -> Answer:
        import pandas
        import xgboost

        features = self._features(transaction)
        row = pandas.DataFrame([features], columns=list(NAMES), dtype=np.float32)
        margin = float(self._booster.predict(xgboost.DMatrix(row, nthread=1), output_margin=True)[0])
        score = 1 / (1 + math.exp(-margin))
        outcome = "DECLINE" if score >= self._decline else "REVIEW" if score >= self._review else "APPROVE"
        contributions = None if outcome == "APPROVE" else self._explainer.shap_values(row)[0]
        return Answer(outcome, margin, contributions)

    def _features(self, transaction: Mapping[str, Any]) -> dict[str, float]:
        import pandas

        now_us = transaction["event_time_us"]
        pipeline = self._redis.pipeline(transaction=False)
        for entity in ENTITIES:
            key = _key(entity, transaction)
            pipeline.zadd(key, {_member(transaction): now_us})
            pipeline.zremrangebyscore(key, "-inf", now_us - LONGEST_US)
            pipeline.zrangebyscore(key, f"({now_us - LONGEST_US}", now_us, withscores=True)
        features = {}
        for entity, found in zip(ENTITIES, pipeline.execute()[2::3], strict=True):
            events = pandas.DataFrame(
                {
                    "amount_minor": [int(member.partition(b":")[2]) for member, _ in found],
                    "time_us": [int(when) for _, when in found],
                }
            )
            for window, width_us in WINDOWS_US.items():
                amount_minor = events["amount_minor"][events["time_us"] > now_us - width_us]
                count, total = len(amount_minor), amount_minor.sum() / 100
                features[f"{entity}_count_{window}"] = count
                features[f"{entity}_sum_{window}"] = total
                features[f"{entity}_mean_{window}"] = total / count
                features[f"{entity}_max_{window}"] = amount_minor.max() / 100
        return features


def _key(entity: str, transaction: Mapping[str, Any]) -> str:
    return f"{entity}:{transaction[f'{entity}_id']}"


def _member(transaction: Mapping[str, Any]) -> str:
    return f"{transaction['transaction_id']}:{round(100 * float(transaction['amount']))}"
