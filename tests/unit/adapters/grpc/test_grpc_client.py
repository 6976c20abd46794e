"""What a client loads, and what it refuses before it asks anybody."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fraudsdk.adapters.grpc import ClientTls, ScoringClient
from fraudsdk.errors import ConfigurationError


def test_a_client_loads_no_scorer():
    """
    A host that only asks has neither Numba's linker in memory nor a model.
    """
    program = "from fraudsdk.adapters.grpc import ScoringClient; import sys; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )

    assert {"fraudsdk.adapters.grpc.client", "grpc"} <= loaded
    assert not loaded & {"fraudsdk.scorer", "numba", "llvmlite"}


def test_every_public_name_exists_and_the_rest_do_not():
    from fraudsdk.adapters import grpc

    assert all(getattr(grpc, name) is not None for name in grpc.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        grpc.Nothing  # noqa: B018


@pytest.mark.parametrize("target", ["score.bank:443", "10.0.0.1:8080", "dns:///score.bank:443", "unix.bank:443"])
def test_a_token_does_not_leave_the_machine_in_plain_text(target):
    with pytest.raises(ConfigurationError, match="in plain text") as refused:
        ScoringClient(target, token="secret")

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("target", ["unix:/run/fraudsdk.sock", "localhost:8080", "127.0.0.1:8080", "[::1]:8080"])
def test_a_token_may_go_to_this_machine(target):
    ScoringClient(target, token="secret").close()


@pytest.mark.parametrize("wrong", [{"max_attempts": 0}, {"timeout_s": 0.0}])
def test_bounds_that_allow_no_call_are_refused(wrong):
    with pytest.raises(ConfigurationError, match="give others"):
        ScoringClient("localhost:1", **wrong)


def test_files_of_certificates_are_read_at_once(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        ScoringClient("localhost:1", tls=ClientTls(authority=tmp_path / "nowhere.pem"))
    with pytest.raises(ConfigurationError, match="come together"):
        ScoringClient("localhost:1", tls=ClientTls(certificate=tmp_path / "only.pem"))
