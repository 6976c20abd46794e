"""
`state` looks at what a scorer keeps, verifies it, shortens its recovery and moves it, and says in one sentence what is wrong.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keeps_state import HASH_KEY, go_on, plan

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.cli import main
from fraudsdk.cli.commands import state
from fraudsdk.entity_state import log_kernels
from fraudsdk.entity_state import survey as survey_module
from fraudsdk.entity_state.layout import META_BUMP, META_JOURNAL_NEXT
from fraudsdk.entity_state.log_format import HEADER_WORDS, PLACE, RECORD_KIND, RECORD_WORDS, VERDICT
from fraudsdk.entity_state.state_directory import StateDirectory, StateFiles
from fraudsdk.entity_state.survey import survey, verify
from fraudsdk.entity_state.transfer import import_state
from fraudsdk.errors import FraudSDKError, StateUnavailableError
from fraudsdk.scorer import kept_state
from fraudsdk.scorer.streamed_log import StreamedLog

N = 200
N_RUNS = 4
SEGMENT = f"log-{1:020d}.fslog"
MAX_ENTITIES = JOURNAL_CAPACITY = 10_000
SIXTEEN_BYTES = 16


def config_of(artefact, directory):
    bounds = {"max_entities": MAX_ENTITIES, "journal_capacity": JOURNAL_CAPACITY}
    return ScorerConfig(model=artefact, hash_key=HASH_KEY, state_dir=directory, **bounds)


def remembered(artefact, directory):
    """All that a scorer remembers when it is opened on a copy of a directory."""
    looked_at = directory.with_name(f"{directory.name}, looked at")
    shutil.copytree(directory, looked_at)
    with Scorer.open(config_of(artefact, looked_at)) as scorer:
        memory = scorer._engine.memory
        found = [memory.meta, memory.pool[: memory.meta[META_BUMP]], memory.journal[: memory.meta[META_JOURNAL_NEXT]]]
        words = [tuple(each) for each in scorer._recorder.words]
        sequence = scorer.counters()["logged_changes"]
    shutil.rmtree(looked_at)
    return [each.tobytes() for each in found], words, sequence


@pytest.fixture(scope="module")
def transactions():
    return plan(N, seed=3)


@pytest.fixture(scope="module")
def made(artefact, transactions, tmp_path_factory):
    """Two state directories, each the work of four scorers one after another: with snapshots, and without."""
    folder = tmp_path_factory.mktemp("states")
    for name, runs_with_snapshot in (("with snapshots", (1, 2)), ("log alone", ())):
        for run in range(N_RUNS):
            with pytest.MonkeyPatch.context() as patch:
                if run in runs_with_snapshot:
                    patch.setattr(kept_state, "RECORDS_PER_CLOSING_SNAPSHOT", 1)
                with Scorer.open(config_of(artefact, folder / name)) as scorer:
                    go_on(scorer, transactions[: N * (run + 1) // N_RUNS])
    return folder


@pytest.fixture(params=["with snapshots", "log alone"])
def kept(request, made, tmp_path):
    """A state directory of one's own, of either kind."""
    return shutil.copytree(made / request.param, tmp_path / "state")


@pytest.fixture
def with_snapshots(made, tmp_path):
    return shutil.copytree(made / "with snapshots", tmp_path / "state")


@pytest.fixture
def log_alone(made, tmp_path):
    return shutil.copytree(made / "log alone", tmp_path / "state")


@pytest.fixture
def key_file(tmp_path):
    (tmp_path / "key").write_bytes(HASH_KEY + b"\n")
    return tmp_path / "key"


@pytest.fixture
def said(capsys):
    """Run ``fraudsdk state``, which must go well; gives what it printed."""

    def of(*argv):
        code = main(["state", *(str(word) for word in argv)])
        printed = capsys.readouterr()

        assert 0 == code, printed.err
        return printed.out

    return of


@pytest.fixture
def complaint(capsys):
    """Run ``fraudsdk state``, which must fail with a sentence; gives that."""

    def of(*argv, code=2):
        assert code == main(["state", *(str(word) for word in argv)])
        printed = capsys.readouterr()
        assert 1 == len(printed.err.splitlines()), printed.err
        assert printed.err.startswith("fraudsdk state: ") and "Traceback" not in printed.err
        return printed.err

    return of


def segments_of(directory) -> list[Path]:
    return [path for _, path in StateFiles(directory).segments()]


def snapshots_of(directory) -> list[Path]:
    return [path for _, path in StateFiles(directory).snapshots()]


def records_of(words) -> list[int]:
    """Where each record of a segment begins."""
    begins, at = [], HEADER_WORDS
    while at < len(words):
        begins.append(at)
        at += int(words[at]) & 0xFFFFFFFF
    return begins


def flip(path: Path, at: int) -> None:
    octets = bytearray(path.read_bytes())
    octets[at] ^= 1
    path.write_bytes(octets)


def listing(directory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# --- info -------------------------------------------------------------------------------------------------------------


def test_info_says_what_is_there_and_what_a_recovery_reads(with_snapshots, artefact, said):
    _, _, n_changes = remembered(artefact, with_snapshots)
    document = json.loads(said("info", with_snapshots, "--json"))
    newest = document["snapshots"][-1]

    assert [path.name for path in snapshots_of(with_snapshots)] == [each["name"] for each in document["snapshots"]]
    assert [path.name for path in segments_of(with_snapshots)] == [each["name"] for each in document["segments"]]
    assert [path.stat().st_size for path in segments_of(with_snapshots)] == [
        each["bytes"] for each in document["segments"]
    ]
    assert N * 3 // N_RUNS == newest["counters"]["events"]
    assert 0 < newest["counters"]["entities"] < MAX_ENTITIES
    assert (MAX_ENTITIES, JOURNAL_CAPACITY) == (newest["max_entities"], newest["journal_capacity"])
    assert newest["name"] == document["recovery"]["snapshot"]
    assert n_changes - (newest["before_change"] - 1) == document["recovery"]["changes"]
    assert document["segments"][-1]["changes"] == document["recovery"]["changes"]


def test_info_of_a_log_without_a_snapshot(log_alone, artefact, said):
    _, _, n_changes = remembered(artefact, log_alone)
    document = json.loads(said("info", log_alone, "--json"))

    assert [] == document["snapshots"]
    assert (None, n_changes) == (document["recovery"]["snapshot"], document["recovery"]["changes"])
    assert N_RUNS == len(document["recovery"]["segments"])


def test_info_is_for_people_too(kept, said):
    (kept / "notes.txt").write_text("do not touch")
    printed = said("info", kept)

    for path in kept.iterdir():
        assert path.name == "lock" or path.name in printed
    assert re.search(r"recovery +reads .* and applies \d+ changes of the log, [\d.]+ kB in all", printed)
    assert "under 1 s old" in printed or re.search(r"\d+ (s|min) old", printed)
    assert ("remembered  " in printed) == bool(snapshots_of(kept))


def test_info_and_verify_look_beside_a_scorer_that_is_writing(artefact, kept, transactions, said):
    n_before = len(segments_of(kept))
    config = replace(config_of(artefact, kept), durability="sync")  # so that an answer is in the log
    with Scorer.open(config) as scorer:
        scorer.score(transactions[0] | {"transaction_id": "one more"})

        assert n_before + 1 == len(json.loads(said("info", kept, "--json"))["segments"])
        assert "nothing is wrong" in said("verify", kept)


def test_info_says_which_snapshot_cannot_be_read_and_begins_with_the_one_before(with_snapshots, said):
    older, newest = snapshots_of(with_snapshots)
    os.truncate(newest, newest.stat().st_size - SIXTEEN_BYTES)
    document = json.loads(said("info", with_snapshots, "--json"))

    assert "was cut off" in document["snapshots"][-1]["problem"]
    assert older.name == document["recovery"]["snapshot"]
    assert "cannot be read" in said("info", with_snapshots)


def test_info_of_a_last_segment_that_cannot_be_read(log_alone, said):
    flip(segments_of(log_alone)[-1], 8)
    document = json.loads(said("info", log_alone, "--json"))

    assert document["segments"][-1]["problem"]
    assert "cannot be read" in said("info", log_alone)


@pytest.mark.parametrize(
    ("n_bytes", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_999, "1.0 MB"),
        (8_500_000_000, "8.5 GB"),
        (2 * 10**12, "2.0 TB"),
    ],
)
def test_sizes_are_said_in_few_digits(n_bytes, words):
    assert words == state.size(n_bytes)


# --- verify -----------------------------------------------------------------------------------------------------------


def test_what_was_kept_well_is_found_so_and_left_as_it_is(kept, said):
    before = listing(kept)

    assert "nothing is wrong; a recovery would apply" in said("verify", kept)
    assert before == listing(kept)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_that_was_changed_is_found(made, tmp_path_factory, data):
    """
    A changed byte is wrong wherever a crash cannot have put it, and said where it can: at the end of the log.
    """
    directory = shutil.copytree(made / "with snapshots", tmp_path_factory.mktemp("changed") / "state")
    path = data.draw(st.sampled_from([*segments_of(directory), *snapshots_of(directory)]))
    flip(path, data.draw(st.integers(0, path.stat().st_size - 1)))
    verified = verify(StateFiles(directory))

    assert verified.wrong or any("are no whole change" in each.found for each in verified.reports)
    if path != segments_of(directory)[-1]:
        assert path.name in {each.name for each in verified.wrong}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_file_holds_it_is_looked_at_and_verified(made, tmp_path_factory, data):
    """
    No file makes either of them fail, and none that nobody could have written is taken for whole.
    """
    directory = shutil.copytree(made / "with snapshots", tmp_path_factory.mktemp("hostile") / "state")
    path = data.draw(st.sampled_from([*segments_of(directory), *snapshots_of(directory)]))
    octets = path.read_bytes()
    begin, n_cut = (data.draw(st.integers(0, len(octets))) for _ in range(2))
    hostile = octets[:begin] + data.draw(st.binary(max_size=200)) + octets[begin + n_cut :]
    path.write_bytes(hostile)

    found, verified = survey(StateFiles(directory)), verify(StateFiles(directory))
    assert path in {each.path for each in (*found.snapshots, *found.segments)}
    if path in snapshots_of(directory):
        assert (hostile == octets) == (path.name not in {each.name for each in verified.wrong})


def test_verification_says_how_far_it_is(kept):
    told = []
    verify(StateFiles(kept), told.append)

    assert sorted(told) == told
    assert sum(path.stat().st_size for path in (*segments_of(kept), *snapshots_of(kept))) == told[-1]


def test_verification_is_not_disturbed_by_a_scorer_that_begins_segments_and_removes_them(
    artefact, tmp_path, transactions, monkeypatch
):
    kept = tmp_path / "state"
    monkeypatch.setattr(kept_state, "SEGMENT_BYTES", 3_000)
    monkeypatch.setattr(kept_state, "RECORDS_PER_SNAPSHOT", 15)
    done = threading.Event()

    def write():
        with Scorer.open(replace(config_of(artefact, kept), durability="sync")) as scorer:
            go_on(scorer, transactions)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    wrong, n_looks = [], 0
    while not done.wait(0.001):
        if kept.is_dir() and StateFiles(kept).segments():
            wrong += verify(StateFiles(kept)).wrong
            wrong += [each for each in survey(StateFiles(kept)).snapshots if each.problem]
            n_looks += 1
    writer.join()

    assert n_looks > 5
    assert [] == wrong
    assert segments_of(kept)[0].name != SEGMENT, "it removed none: nothing was tried"


def test_a_torn_tail_is_no_error_and_it_is_said_what_would_happen(kept, said):
    last = segments_of(kept)[-1]
    os.truncate(last, last.stat().st_size - 3)
    printed = said("verify", kept)

    assert re.search(r"\d+ bytes at its end are no whole change, as a crash leaves them", printed)
    assert re.search(rf"a recovery would move them to {last.stem}-\d+\.torn", printed)


def test_a_last_segment_without_one_whole_change_is_no_error(kept, said):
    os.truncate(segments_of(kept)[-1], 8 * HEADER_WORDS + 5)

    assert f"{8 * HEADER_WORDS + 5} bytes at its end are no whole change" in said("verify", kept)
    assert "no whole change yet" in said("info", kept)
    assert "bytes at the end of the log are no whole change" in said("info", kept)


@pytest.mark.parametrize("n_bytes", [0, 7, 8 * HEADER_WORDS])
def test_a_segment_that_was_begun_and_not_written_to_is_no_error(n_bytes, kept, tmp_path, said):
    os.truncate(segments_of(kept)[-1], n_bytes)

    assert "begun, and holds no change yet" in said("verify", kept)
    assert "no whole change yet" in said("info", kept)
    said("export", kept, "--out", tmp_path / "state.tar")
    with tarfile.open(tmp_path / "state.tar") as tar:
        assert segments_of(kept)[-1].name not in tar.getnames()


@pytest.mark.parametrize("nth_byte", [8 * 20, 8 * 100], ids=["in the first change", "in a later one"])
def test_a_hole_in_the_last_segment_is_a_damaged_disk_and_no_crash(nth_byte, log_alone, complaint):
    flip(segments_of(log_alone)[-1], 8 * HEADER_WORDS + nth_byte)

    assert "whole changes follow later: a disk was damaged" in complaint("verify", log_alone, code=1)


def test_a_segment_that_was_cut_off_though_another_follows(log_alone, complaint):
    first = segments_of(log_alone)[0]
    os.truncate(first, first.stat().st_size - 8)
    said = complaint("verify", log_alone, code=1)

    assert first.name in said and "is not as it was written from byte" in said and "are lost" in said


def test_a_segment_that_is_not_there(log_alone, complaint):
    gone, after = segments_of(log_alone)[1:3]
    gone.unlink()
    first, until = (int(re.sub(r"\D", "", path.stem)) for path in (gone, after))

    assert f"the changes {first} to {until - 1} are missing" in complaint("verify", log_alone, code=1)


def test_a_log_whose_beginning_is_not_there(log_alone, complaint):
    segments_of(log_alone)[0].unlink()

    assert "the changes 1 to" in complaint("verify", log_alone, code=1)


def test_a_gap_that_the_snapshot_after_it_fills_is_no_error(with_snapshots, tmp_path, said):
    """
    As power that fails leaves it without syncing: the end of a log, which a snapshot outlived, is gone.
    """
    [newest] = snapshots_of(with_snapshots)[-1:]
    needed = with_snapshots / newest.name.replace("snapshot-", "log-").replace(".fssnap", ".fslog")
    before = next(path for path in reversed(segments_of(with_snapshots)) if path < needed)
    verified = verify(StateFiles(with_snapshots))
    os.truncate(before, 8 * records_of(np.fromfile(before, "<i8"))[-1])

    assert needed.exists() and not verified.wrong
    assert "are missing; the snapshot before" in said("verify", with_snapshots)
    assert "a snapshot of the changes before" in said("export", with_snapshots, "--out", tmp_path / "state.tar")


def test_more_than_one_thing_is_wrong(with_snapshots, complaint, capsys):
    for path in snapshots_of(with_snapshots):
        flip(path, path.stat().st_size // 2)
    said = complaint("verify", with_snapshots, code=1)

    assert "was changed or cut off" in said and "(2 more above)" in said


def test_a_file_under_the_name_of_another(with_snapshots, complaint):
    newest = snapshots_of(with_snapshots)[-1]
    newest.rename(newest.with_name(f"snapshot-{10**6:020d}.fssnap"))

    assert "it was renamed" in complaint("verify", with_snapshots, code=1)


def test_a_segment_of_other_state(artefact, log_alone, tmp_path, transactions, complaint):
    config = ScorerConfig(model=artefact, hash_key=HASH_KEY[::-1], state_dir=tmp_path / "other", max_entities=10_000)
    with Scorer.open(config) as scorer:
        go_on(scorer, transactions[: N // N_RUNS])
    shutil.copy(segments_of(tmp_path / "other")[0], segments_of(log_alone)[0])

    assert "another hash_key" in complaint("verify", log_alone, code=1)


def test_leftovers_and_strangers_are_named_and_are_no_error(kept, said):
    for name in (f"snapshot-{9:020d}.tmp", f"log-{9:020d}.torn", "notes.txt"):
        (kept / name).write_bytes(b"left")
    printed = said("verify", kept)

    assert "a snapshot that was never finished, or is being written" in printed
    assert "what a recovery cut off the log" in printed
    assert re.search(r"notes.txt .* is no part of the state", printed)


def test_files_that_a_scorer_removes_meanwhile_are_looked_for_again(kept, monkeypatch):
    real, calls = survey_module._survey, []

    def vanishing_once(files):
        calls.append(files)
        if len(calls) == 1:
            raise FileNotFoundError(2, "No such file or directory", "log-1")
        return real(files)

    monkeypatch.setattr(survey_module, "_survey", vanishing_once)

    assert survey(StateFiles(kept)).segments
    assert 2 == len(calls)


def test_files_that_never_stay_end_the_looking(kept, monkeypatch):
    def vanishing(files):
        raise FileNotFoundError(2, "No such file or directory", "log-1")

    monkeypatch.setattr(survey_module, "_survey", vanishing)
    with pytest.raises(StateUnavailableError, match="removed while they were read, 5 times: log-1; try again later"):
        survey(StateFiles(kept))


# --- compact ----------------------------------------------------------------------------------------------------------


def test_compaction_leaves_the_same_state_and_nothing_to_replay(artefact, kept, key_file, said):
    before = remembered(artefact, kept)
    bounds = () if snapshots_of(kept) else ("--max-entities", MAX_ENTITIES, "--journal-capacity", JOURNAL_CAPACITY)
    printed = said("compact", kept, "--model", artefact, "--hash-key-file", key_file, *bounds)

    assert "a recovery reads it and 0 changes" in printed
    assert f"bounds {MAX_ENTITIES:,} and {JOURNAL_CAPACITY:,}" in printed
    assert 0 == survey(StateFiles(kept)).n_to_replay
    assert before == remembered(artefact, kept)
    assert not verify(StateFiles(kept)).wrong


def test_compacting_again_writes_nothing(artefact, kept, key_file, said):
    said("compact", kept, "--model", artefact, "--hash-key-file", key_file)
    before = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    said("compact", kept, "--model", artefact, "--hash-key-file", key_file)

    assert before == {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}


def test_compaction_removes_what_two_snapshots_make_superfluous(artefact, with_snapshots, key_file, said):
    n_before, newest = len(listing(with_snapshots)), snapshots_of(with_snapshots)[-1]
    said("compact", with_snapshots, "--model", artefact, "--hash-key-file", key_file)

    assert 2 == len(snapshots_of(with_snapshots)) and newest in snapshots_of(with_snapshots)
    assert len(listing(with_snapshots)) < n_before


def test_compaction_needs_no_model_where_the_scorer_has_none(made, tmp_path, key_file, transactions, simulated, said):
    from fraudsdk.features.catalogue import reference_feature_set

    features = tmp_path / "features.toml"
    features.write_text(reference_feature_set("EUR").to_toml())
    config = ScorerConfig(
        model=None, features=features, hash_key=HASH_KEY, state_dir=tmp_path / "s", max_entities=10_000
    )
    with Scorer.open(config) as scorer:
        go_on(scorer, transactions[:20])

    printed = said("compact", tmp_path / "s", "--features", features, "--hash-key-file", key_file)
    assert "a recovery reads it and 0 changes" in printed
    with Scorer.open(config) as scorer:
        assert 20 == scorer.counters()["events"]


def test_a_wrong_key_changes_nothing(artefact, kept, tmp_path, complaint):
    (tmp_path / "wrong").write_bytes(HASH_KEY[::-1])
    before = listing(kept)

    assert "was kept with another hash_key" in complaint(
        "compact", kept, "--model", artefact, "--hash-key-file", tmp_path / "wrong"
    )
    assert before == listing(kept)


def test_a_key_that_is_not_there(artefact, kept, tmp_path, complaint):
    assert "cannot be read" in complaint("compact", kept, "--model", artefact, "--hash-key-file", tmp_path / "none")


def test_transactions_without_their_decision_are_left_to_a_scorer(
    artefact, tmp_path, key_file, transactions, complaint, said
):
    policy, kept = tmp_path / "policy.toml", tmp_path / "state"
    policy.write_text(
        "version = 1\n[bands]\nreview = 0.000001\n"
    )  # what is reviewed is decided after it was remembered
    config = replace(config_of(artefact, kept), policy=policy)
    with Scorer.open(config) as scorer:
        go_on(scorer, transactions[:5])
    [log] = segments_of(kept)
    words = np.fromfile(log, "<i8")
    verdicts = [at for at in records_of(words) if words[at + RECORD_KIND] == VERDICT]
    os.truncate(log, 8 * verdicts[-1])  # killed between the two

    argv = ("compact", kept, "--model", artefact, "--hash-key-file", key_file)
    assert "1 transactions in" in (complained := complaint(*argv)) and "were remembered and not decided" in complained
    assert [] == snapshots_of(kept)
    Scorer.open(config).close()
    assert "0 changes" in said(*argv)


# --- export and import ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.* bytes at the end of log:RuntimeWarning")
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_was_exported_and_imported_is_the_same_state(made, artefact, tmp_path_factory, data):
    """
    Wherever the log was cut, exported and imported it gives the bytes that it gives where it is.
    """
    folder = tmp_path_factory.mktemp("moved")
    origin = shutil.copytree(made / data.draw(st.sampled_from(["with snapshots", "log alone"])), folder / "state")
    last = segments_of(origin)[-1]
    os.truncate(last, last.stat().st_size - data.draw(st.integers(0, last.stat().st_size - 8 * HEADER_WORDS)))
    exported, into = str(folder / "state.tar"), folder / "new"

    assert 0 == main(["state", "export", str(origin), "--out", exported])
    assert 0 == main(["state", "import", exported, "--into", str(into)])
    assert remembered(artefact, origin) == remembered(artefact, into)


def test_an_export_is_a_plain_tar_of_what_a_recovery_reads(with_snapshots, tmp_path, said):
    out = tmp_path / "state.tar"
    printed = said("export", with_snapshots, "--out", out)
    found = survey(StateFiles(with_snapshots))

    with tarfile.open(out, "r:") as tar:
        names = tar.getnames()
    assert ["contents.json", found.newest.path.name, *(each.path.name for each in found.to_replay)] == names
    assert f"{found.n_to_replay} changes of the log" in printed
    assert 0o600 == out.stat().st_mode & 0o777


def test_the_same_state_gives_the_same_file(kept, tmp_path, said):
    said("export", kept, "--out", tmp_path / "one.tar")
    said("export", shutil.copytree(kept, tmp_path / "copy"), "--out", tmp_path / "two.tar")

    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_an_export_leaves_out_a_torn_tail_and_says_so(kept, tmp_path, capsys):
    last = segments_of(kept)[-1]
    os.truncate(last, last.stat().st_size - 3)

    assert 0 == main(["state", "export", str(kept), "--out", str(tmp_path / "state.tar")])
    assert "are no whole change and were left out" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.* was changed or cut off:RuntimeWarning")
def test_an_export_begins_with_the_newest_snapshot_that_is_whole(artefact, with_snapshots, tmp_path, capsys):
    older, newest = snapshots_of(with_snapshots)
    flip(newest, newest.stat().st_size // 2)

    assert 0 == main(["state", "export", str(with_snapshots), "--out", str(tmp_path / "state.tar")])
    assert newest.name in capsys.readouterr().err
    assert 0 == main(["state", "import", str(tmp_path / "state.tar"), "--into", str(tmp_path / "new")])
    assert [older.name] == [path.name for path in snapshots_of(tmp_path / "new")]
    assert remembered(artefact, with_snapshots) == remembered(artefact, tmp_path / "new")


@pytest.mark.parametrize("kind", ["cut off", "gone"])
def test_a_log_that_lacks_changes_is_not_exported(kind, log_alone, tmp_path, complaint):
    first = segments_of(log_alone)[0]
    if kind == "gone":
        first.unlink()
    else:
        os.truncate(first, first.stat().st_size - 8)
    (tmp_path / "state.tar").write_text("the one of yesterday")

    assert "lacks the changes 1 to" in (said := complaint("export", log_alone, "--out", tmp_path / "state.tar")) or (
        "are lost with that" in said
    )
    assert "the one of yesterday" == (tmp_path / "state.tar").read_text()
    assert {"state", "state.tar"} == {path.name for path in tmp_path.iterdir()}


def test_a_state_without_one_whole_change_is_not_exported(log_alone, tmp_path, complaint):
    for path in segments_of(log_alone)[1:]:
        path.unlink()
    os.truncate(segments_of(log_alone)[0], 8 * HEADER_WORDS)

    assert "not one whole change" in complaint("export", log_alone, "--out", tmp_path / "state.tar")


def test_an_export_into_the_state_directory_itself(kept, complaint):
    assert "lies in the state directory itself" in complaint("export", kept, "--out", kept / "state.tar")


@pytest.fixture
def exported(kept, tmp_path, said):
    said("export", kept, "--out", tmp_path / "state.tar")
    return tmp_path / "state.tar"


def test_an_import_into_an_empty_directory(exported, artefact, kept, tmp_path, said):
    (tmp_path / "new").mkdir()

    assert "every checksum is right" in said("import", exported, "--into", tmp_path / "new")
    assert remembered(artefact, kept) == remembered(artefact, tmp_path / "new")
    assert 0o700 == (tmp_path / "new").stat().st_mode & 0o777
    assert {0o600} == {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()}


def test_state_is_never_imported_over_state(exported, kept, complaint):
    before = listing(kept)

    assert "holds state already" in complaint("import", exported, "--into", kept)
    assert before == listing(kept)


def test_a_directory_that_holds_anything_else(exported, tmp_path, complaint):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter-1.txt").write_text("It was a dark and stormy night")

    assert "is not empty, it holds chapter-1.txt" in complaint("import", exported, "--into", tmp_path / "thesis")


def test_a_directory_that_was_filled_while_the_export_was_verified(exported, tmp_path, complaint, monkeypatch):
    from fraudsdk.entity_state import transfer

    def filling(*args):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "lock").touch()
        return verify(args[1])

    monkeypatch.setattr(transfer, "_require_whole", filling)

    assert "cannot be made: Directory not empty" in complaint("import", exported, "--into", tmp_path / "new")
    assert ["lock"] == [path.name for path in (tmp_path / "new").iterdir()]


@pytest.mark.parametrize(("into", "why"), [("key", "is a file"), ("no/such", "does not exist")])
def test_a_place_where_no_directory_can_be(into, why, exported, key_file, tmp_path, complaint):
    assert why in complaint("import", exported, "--into", tmp_path / into)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_export_that_was_cut_off_or_changed_is_refused_or_makes_no_difference(made, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("import")
    origin = made / data.draw(st.sampled_from(["with snapshots", "log alone"]))
    whole = folder / "whole.tar"
    assert 0 == main(["state", "export", str(origin), "--out", str(whole)])
    octets = bytearray(whole.read_bytes())
    if data.draw(st.booleans(), label="cut off"):
        del octets[data.draw(st.integers(0, len(octets) - 1)) :]
    else:
        octets[data.draw(st.integers(0, len(octets) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / "broken.tar").write_bytes(octets)
    import_state(whole, folder / "expected")
    refusal = ""
    try:
        import_state(folder / "broken.tar", folder / "new")
    except FraudSDKError as error:
        refusal = str(error)

    if refusal:
        assert "nothing was imported" in refusal or "import it with" in refusal
        assert {"whole.tar", "broken.tar", "expected"} == {path.name for path in folder.iterdir()}
    else:  # what was changed is padding, or what a tar says of owners and times
        assert listing(folder / "expected") == listing(folder / "new")


def an_export(path, members, contents=None):
    """A tar of members (name, octets, how it differs from a plain file), and what it says of itself."""
    if contents is None:
        contents = {"format": 1, "files": [{"name": name, "n_bytes": len(octets)} for name, octets, _ in members]}
    text = contents if isinstance(contents, bytes) else json.dumps(contents).encode()
    with tarfile.open(path, "w") as tar:
        for name, octets, differs in [("contents.json", text, {}), *members]:
            member = tarfile.TarInfo(name)
            member.size = len(octets)
            for attribute, value in differs.items():
                setattr(member, attribute, value)
            tar.addfile(member, io.BytesIO(octets))
    return path


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("/etc/passwd", {}),
        ("../evil", {}),
        (f"../{SEGMENT}", {}),
        (f"sub/{SEGMENT}", {}),
        ("lock", {}),
        ("log-1.fslog", {}),
        ("", {}),
        ("log-" + "\u0661" * 20 + ".fslog", {}),
        (SEGMENT, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}),
        (SEGMENT, {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd", "size": 0}),
        (SEGMENT, {"type": tarfile.DIRTYPE, "size": 0}),
        (SEGMENT, {"type": tarfile.FIFOTYPE, "size": 0}),
    ],
)
def test_a_hostile_member_is_refused(name, differs, tmp_path, complaint):
    evil = an_export(tmp_path / "evil.tar", [(name, b"" if differs else b"evil", differs)])

    assert "nothing was imported" in complaint("import", evil, "--into", tmp_path / "new")
    assert ["evil.tar"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"[" * 100_000, "contents.json that cannot be read"),
        (b"\xff", "contents.json that cannot be read"),
        ({"format": 1}, "contents.json that cannot be read"),
        ({"format": 1, "files": 7}, "contents.json that cannot be read"),
        ({"format": 2, "files": []}, "has format 2 and this version reads 1"),
        ({"format": 1, "files": []}, "names no files"),
        ({"format": 1, "files": [{"name": SEGMENT, "n_bytes": -1}]}, "a size of '-1'"),
        ({"format": 1, "files": [{"name": SEGMENT, "n_bytes": 4}] * 2}, "names a file twice"),
        ({"format": 1, "files": [{"name": [], "n_bytes": 4}]}, "no part of a state"),
        ({"format": 1, "files": [{"name": SEGMENT, "n_bytes": 5}]}, "where its contents say"),
        ({"format": 1, "files": [{"name": f"log-{2:020d}.fslog", "n_bytes": 4}]}, "where its contents say"),
        (b"{}" + b" " * (1 << 20), "does not begin with contents.json"),
    ],
)
def test_contents_that_cannot_be(contents, said, tmp_path, complaint):
    evil = an_export(tmp_path / "evil.tar", [(SEGMENT, b"evil", {})], contents)

    assert said in complaint("import", evil, "--into", tmp_path / "new")
    assert ["evil.tar"] == [path.name for path in tmp_path.iterdir()]


def test_a_file_more_than_the_contents_name(log_alone, tmp_path, complaint):
    first, second = segments_of(log_alone)[:2]
    files = [{"name": first.name, "n_bytes": first.stat().st_size}]
    members = [(first.name, first.read_bytes(), {}), (second.name, second.read_bytes(), {})]
    evil = an_export(tmp_path / "evil.tar", members, {"format": 1, "files": files})

    assert "which its contents do not name" in complaint("import", evil, "--into", tmp_path / "new")


def test_an_export_with_a_torn_tail_is_none_of_ours(log_alone, tmp_path, complaint):
    first = segments_of(log_alone)[0]
    evil = an_export(tmp_path / "evil.tar", [(first.name, first.read_bytes()[:-3], {})])

    assert "bytes at its end that are no whole change" in complaint("import", evil, "--into", tmp_path / "new")


def test_an_export_that_lacks_changes(log_alone, tmp_path, complaint):
    members = [(path.name, path.read_bytes(), {}) for path in segments_of(log_alone)]
    evil = an_export(tmp_path / "evil.tar", [members[0], members[2]])

    said = complaint("import", evil, "--into", tmp_path / "new")
    assert "are missing; nothing was imported" in said and ".partial" not in said


@pytest.mark.parametrize("octets", [b"", b"not a tar at all", b"\0" * 10_240])
def test_a_file_that_is_no_export(octets, tmp_path, complaint):
    (tmp_path / "file").write_bytes(octets)

    assert "is no export of state" in complaint("import", tmp_path / "file", "--into", tmp_path / "new")


def test_a_file_that_is_not_there(tmp_path, complaint):
    assert "none.tar: No such file" in complaint("import", tmp_path / "none.tar", "--into", tmp_path / "new")


# --- a full disk, and what every action refuses -----------------------------------------------------------------------

ACTIONS = ("info", "verify", "compact", "erase", "export")


@pytest.fixture
def argv_of(artefact, key_file, tmp_path):
    more = {
        "compact": ("--model", artefact, "--hash-key-file", key_file),
        "erase": ("--user", "u-1", "--model", artefact, "--hash-key-file", key_file),
        "export": ("--out", tmp_path / "state.tar"),
    }
    return lambda action, directory: (action, directory, *more.get(action, ()))


@pytest.mark.parametrize("action", ["compact", "erase", "export", "import"])
def test_a_full_disk_is_said_and_leaves_nothing_half_done(action, argv_of, log_alone, tmp_path, complaint, monkeypatch):
    assert 0 == main(["state", "export", str(log_alone), "--out", str(tmp_path / "there.tar")])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    argv = ("import", tmp_path / "there.tar", "--into", tmp_path / "new")

    said = complaint(*(argv if action == "import" else argv_of(action, log_alone)))
    assert "could not be written: No space left on device; free its disk" in said
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("action", ACTIONS)
def test_a_directory_that_is_none(action, argv_of, tmp_path, key_file, complaint):
    assert "No such file" in complaint(*argv_of(action, tmp_path / "none"))
    assert "Not a directory" in complaint(*argv_of(action, key_file))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("action", ACTIONS)
def test_a_directory_that_holds_no_state(action, argv_of, tmp_path, complaint):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter-1.txt").touch()

    assert "holds no state" in complaint(*argv_of(action, tmp_path / "thesis"))
    assert ["chapter-1.txt"] == [path.name for path in (tmp_path / "thesis").iterdir()]


@pytest.mark.parametrize("action", ACTIONS)
def test_a_directory_that_may_not_be_read(action, argv_of, kept, complaint, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", forbidden)

    assert f"{kept}: Permission denied" in complaint(*argv_of(action, kept))


@pytest.mark.parametrize("action", ["compact", "erase", "export"])
def test_a_directory_in_use_by_a_scorer(action, argv_of, kept, tmp_path, complaint):
    directory = StateDirectory(kept)
    before = listing(kept)

    assert "is in use by another process" in complaint(*argv_of(action, kept))
    assert before == listing(kept)
    assert not (tmp_path / "state.tar").exists()
    directory.close()


@pytest.mark.parametrize("action", [*ACTIONS, "import"])
def test_every_action_has_help_with_an_example_that_is_understood(action, capsys):
    from fraudsdk.cli import app

    with pytest.raises(SystemExit) as exited:
        main(["state", action, "--help"])
    [example] = re.findall(r"Example:\n  fraudsdk (.*)", capsys.readouterr().out)

    assert 0 == exited.value.code
    assert action == app._parser().parse_args(example.split()).action


def test_debug_is_heard_behind_an_action(tmp_path, capsys):
    assert 2 == main(["state", "info", str(tmp_path), "--debug"])
    assert "Traceback" in capsys.readouterr().err


# --- of a stream ------------------------------------------------------------------------------------------------------


@pytest.fixture
def streamed(artefact, transactions, tmp_path):
    """The state of a stream at place 120, and eighty transactions that were scored and not committed."""
    directory = tmp_path / "streamed"
    with StreamedLog.open(config_of(artefact, directory), b"transactions Xx0 3") as log:
        log.scorer.score_batch(transactions[:120])
        log.commit(120)
        log.scorer.score_batch(transactions[120:])
    return directory


def test_info_says_the_place_of_a_stream_and_what_is_after_it(streamed, said):
    document = json.loads(said("info", streamed, "--json"))

    assert {"next": 120, "origin": "transactions Xx0 3"}.items() <= document["place"].items()
    assert 80 <= document["place"]["changes_after"]
    assert document["segments"][0]["changes"] == document["recovery"]["changes"] + document["place"]["changes_after"]
    for_people = said("info", streamed)
    assert "place       place 120 of 'transactions Xx0 3'\n" in for_people
    assert f"{document['place']['changes_after']} changes after the place do not count" in for_people


def test_info_of_a_host_says_no_place(kept, said):
    assert json.loads(said("info", kept, "--json"))["place"] is None
    assert "place " not in said("info", kept)


def test_verification_says_where_what_counts_of_a_stream_ends(streamed, said):
    assert "what counts ends at place 120 of 'transactions Xx0 3'\n" in said("verify", streamed)


def test_a_place_that_is_none_is_wrong(streamed, complaint):
    path = streamed / SEGMENT
    words = np.fromfile(path, "<i8").astype(np.int64)
    at, _ = log_kernels.last_of_kind(words, HEADER_WORDS, PLACE)
    record = words[at : at + int(words[at] & 0xFFFFFFFF)]
    record[0], record[RECORD_WORDS] = len(record), -7
    log_kernels.seal(record)
    words.astype("<i8").tofile(path)

    assert "has a place in a stream that is none" in complaint("verify", streamed, code=1)
    assert "place       cannot be read: " in "\n".join(state._summary_lines(survey(StateFiles(streamed))))


def test_an_export_ends_at_the_place_and_says_what_it_left_out(streamed, artefact, tmp_path, capsys):
    assert 0 == main(["state", "export", str(streamed), "--out", str(tmp_path / "state.tar")])
    out = capsys.readouterr()
    assert "bytes that came after place 120 of 'transactions Xx0 3' were left out: the stream has them" in out.err
    assert "up to place 120 of 'transactions Xx0 3'" in out.out

    imported = import_state(tmp_path / "state.tar", tmp_path / "imported")
    assert 120 == imported.place.next
    with StreamedLog.open(config_of(artefact, tmp_path / "imported"), b"transactions Xx0 3") as log:
        assert 120 == log.place
        assert 0 == log.scorer.recovered.n_torn_bytes


def test_compaction_of_a_stream_keeps_its_place(streamed, artefact, key_file, said):
    said("compact", streamed, "--model", artefact, "--hash-key-file", key_file)
    document = json.loads(said("info", streamed, "--json"))
    assert {"next": 120, "origin": "transactions Xx0 3", "changes_after": 0} == document["place"]
    assert 0 == document["recovery"]["changes"]
