"""Rows are the same to the byte with and without vector instructions, so a fleet may mix CPUs."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import hashlib
from fraudsdk._loader import host_has
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.simulation import SimulationSpec, simulate
from fraudsdk.training.replay import replay

columns = simulate(SimulationSpec(transactions=3_000, users=60, days=45, fraud_rate=0.02, seed=11))
replayed = replay(columns, reference_feature_set("EUR"), Vocabulary.fit(columns), hash_key=b"a key for tests only")
rows = replayed.matrix().rows
print(host_has(["avx"]), rows.shape[0] > 1_000, hashlib.sha256(rows.tobytes()).hexdigest())
"""


def said_by(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_rows_are_the_same_without_vector_instructions(plain_cpu):
    plain, here = said_by(plain_cpu + PROGRAM), said_by(PROGRAM)

    assert "False" == plain[0]
    assert here[1:] == plain[1:]
    assert "True" == here[1]
