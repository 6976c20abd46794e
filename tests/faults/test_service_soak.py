"""A short soak of both services: flat memory, descriptors and threads, every message and call accounted for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kafka_servers import require_kafka

require_kafka()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is that of Linux"),
]

SOAK = Path(__file__).with_name("soaks_services.py")
ROOT = SOAK.parents[2]
SETTLES_MINUTES, LEAKS_MINUTES = 0.8, 0.4
LEAK_MIB_PER_S = 2


def soak(folder, minutes, *flags) -> tuple[int, dict, str]:
    """Exit code, verdict, and all that was printed."""
    ran = subprocess.run(
        [sys.executable, str(SOAK), str(folder), "--minutes", str(minutes), *map(str, flags)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sidecar")])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    table, brace, verdict = ran.stdout.partition("{")
    assert brace, ran.stderr[-3_000:]
    return ran.returncode, json.loads(brace + verdict), table


def test_services_under_half_of_their_load_stay_as_they_were(tmp_path):
    """
    Calls and streams, some cancelled, connections broken, a stream of messages: nothing grows, fails or is left over.
    """
    code, verdict, table = soak(tmp_path, SETTLES_MINUTES)

    assert verdict["is_sound"], verdict
    assert verdict["is_flat"], f"{verdict['processes']}\n{table}"
    assert 0 == code


def test_a_leak_in_a_service_is_found_out(tmp_path):
    code, verdict, _ = soak(tmp_path, LEAKS_MINUTES, "--leak", LEAK_MIB_PER_S)
    leaking = verdict["processes"]["sidecar"]

    assert 1 == code
    assert not leaking["is_flat"] and verdict["processes"]["stream"]["is_flat"]
    assert leaking["resident_mib_per_minute"] > LEAK_MIB_PER_S * 60 / 2
    assert leaking["descriptors_more"] > 5
