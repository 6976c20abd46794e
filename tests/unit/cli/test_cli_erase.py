"""``fraudsdk state erase`` says in plain words whom it could erase, what it looked through, and what is still there."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil

import pytest
from keeps_state import HASH_KEY, go_on, plan

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.cli import main
from fraudsdk.encoding.hashing import keyed_hasher
from fraudsdk.entity_state import erasure

N = 200


@pytest.fixture(scope="module")
def transactions():
    return plan(N, seed=3)


@pytest.fixture(scope="module")
def made(artefact, transactions, tmp_path_factory):
    """A state directory."""
    state_dir = tmp_path_factory.mktemp("states") / "state"
    with Scorer.open(ScorerConfig(model=artefact, hash_key=HASH_KEY, state_dir=state_dir)) as scorer:
        go_on(scorer, transactions)
    return state_dir


@pytest.fixture
def kept(made, tmp_path):
    return shutil.copytree(made, tmp_path / "state")


@pytest.fixture
def user(transactions):
    return transactions[0]["user_id"]


@pytest.fixture
def erase(kept, artefact, tmp_path, capsys):
    """Run the command; gives exit code, output and remarks."""
    (tmp_path / "key").write_bytes(HASH_KEY)

    def of(*whom):
        code = main(
            ["state", "erase", str(kept), *whom, "--model", str(artefact), "--hash-key-file", str(tmp_path / "key")]
        )
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return of


@pytest.fixture
def info(kept, capsys):
    def of(*options):
        assert 0 == main(["state", "info", str(kept), *options])
        return capsys.readouterr().out

    return of


def files_with(directory, octets) -> list[str]:
    return [path.name for path in directory.iterdir() if octets in path.read_bytes()]


def test_what_was_erased_and_looked_through_is_said(kept, erase, user, transactions, info):
    key = keyed_hasher("user_id", HASH_KEY)(user).to_bytes(8, "little", signed=True)
    assert files_with(kept, key)
    assert 0 == json.loads(info("--json"))["tombstones"] and "tombstones" not in info()

    code, said, remarks = erase("--user", user)

    n = sum(each["user_id"] == user for each in transactions)
    assert (0, "") == (code, remarks)
    assert re.search(rf"erased +\d+ entities and {n} transactions; struck from what \d+ others count", said)
    [snapshot] = [path.name for path in kept.iterdir() if path.name != "lock"]
    assert re.search(rf"scanned +{snapshot} +[\d.]+ kB +nothing found", said)
    assert user not in said
    assert [] == files_with(kept, key)
    assert "tombstones  1, of identifiers that were erased" in info()
    assert 1 == json.loads(info("--json"))["tombstones"]
    assert 0 == main(["state", "verify", str(kept)])


def test_somebody_unknown_is_no_error_and_leaves_a_tombstone(erase, info):
    code, said, remarks = erase("--user", "nobody", "--device", "none")

    assert (0, "") == (code, remarks)
    assert "nobody of that name was remembered" in said
    assert 2 == json.loads(info("--json"))["tombstones"]


def test_several_of_a_kind_and_of_several_kinds(erase, info, transactions):
    users = sorted({each["user_id"] for each in transactions})[:2]
    device = next(each["device_id"] for each in transactions if "device_id" in each)

    code, said, _ = erase("--user", users[0], "--user", users[1], "--device", device)

    assert 0 == code and "nobody" not in said
    assert 3 == json.loads(info("--json"))["tombstones"]


def test_what_is_still_there_is_named_and_an_exit_code_says_so(kept, erase, user):
    (kept / "notes").write_bytes(b"abc" + keyed_hasher("user_id", HASH_KEY)(user).to_bytes(8, "big", signed=True))

    code, said, remarks = erase("--user", user)

    assert 1 == code and 1 == len(remarks.splitlines())
    assert re.search(r"scanned +notes +11 B +found 1 times, first at byte 3", said)
    assert "still says something of whom was erased, in what is named above" in remarks


@pytest.mark.parametrize(
    ("whom", "says"),
    [
        ([], "nobody is named; say whom to erase, as --user ID"),
        (["--email", "a@b"], "no feature reads 'email_hash', so that nothing that is kept names one"),
        (["--user", "4111111111111111"], "card number"),
        (["--user", " "], "names nobody"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(kept, erase, whom, says):
    before = {path.name: path.read_bytes() for path in kept.iterdir()}

    code, _, remarks = erase(*whom)

    assert 2 == code and 1 == len(remarks.splitlines())
    assert says in remarks and "4111111111111111" not in remarks
    assert before == {path.name: path.read_bytes() for path in kept.iterdir()}


def test_a_directory_that_can_only_be_read(kept, erase, user, monkeypatch):
    before = {path.name: path.read_bytes() for path in kept.iterdir()}

    def read_only(path, flags, *mode, **options):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, "Read-only file system", path)
        return opened(path, flags, *mode, **options)

    opened = os.open
    monkeypatch.setattr(os, "open", read_only)
    code, _, remarks = erase("--user", user)
    monkeypatch.undo()

    assert 2 == code and "cannot be used: Read-only file system" in remarks
    assert before == {path.name: path.read_bytes() for path in kept.iterdir()}


def test_a_file_that_cannot_be_removed_is_said_and_the_command_can_be_repeated(kept, erase, user, monkeypatch):
    def refused(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied", str(kept / "log"))

    monkeypatch.setattr(erasure, "remove_before", refused)
    code, _, remarks = erase("--user", user)
    assert 2 == code and f"{kept / 'log'}: Permission denied" in remarks
    monkeypatch.undo()

    assert 0 == erase("--user", user)[0]
    key = keyed_hasher("user_id", HASH_KEY)(user).to_bytes(8, "little", signed=True)
    assert [] == files_with(kept, key)


def test_another_key_erases_nothing(kept, artefact, tmp_path, capsys, user):
    (tmp_path / "other").write_bytes(b"another key of many bytes")
    before = {path.name: path.read_bytes() for path in kept.iterdir()}

    code = main(
        ["state", "erase", str(kept), "--user", user]
        + ["--model", str(artefact), "--hash-key-file", str(tmp_path / "other")]
    )

    assert 2 == code and "another hash_key" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in kept.iterdir()}


def test_a_restored_backup_is_erased_as_another_directory_was(kept, made, erase, user, artefact, tmp_path, capsys):
    backup = shutil.copytree(made, tmp_path / "backup")
    erase("--user", user)
    means = ["--model", str(artefact), "--hash-key-file", str(tmp_path / "key")]

    assert 0 == main(["state", "erase", str(backup), "--as-in", str(kept), *means])

    assert "nobody" not in capsys.readouterr().out
    assert [] == files_with(backup, keyed_hasher("user_id", HASH_KEY)(user).to_bytes(8, "little", signed=True))
    assert 2 == main(["state", "erase", str(backup), "--as-in", str(kept), "--user", user, *means])
    assert "run the command twice" in capsys.readouterr().err


def test_what_the_recovery_had_to_say_is_said(kept, erase, user):
    segment = max(kept.glob("*.fslog"))
    segment.write_bytes(segment.read_bytes()[:-20])

    code, _, remarks = erase("--user", user)

    assert 0 == code and "were no whole record" in remarks
    assert [] == [*kept.glob("*.torn")]
