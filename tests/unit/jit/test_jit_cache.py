"""
Machine code from the disk is run only if it is what was written, for this CPU, from these sources, by somebody trusted.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from types import FunctionType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraudsdk import _jit, _kernel_cache
from fraudsdk._jit import kernel
from fraudsdk._kernel_cache import MAX_FILES_PER_KERNEL, CompiledObject, KernelCache
from fraudsdk._loader import PORTABLE_LEVELS, Target, UnloadableCodeError, load, named_target, runnable_targets
from fraudsdk.errors import ConfigurationError

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="owners and permissions of POSIX")
NAME, KEY = "fraudsdk.some.kernel", "0123456789abcdef" * 4
COMPILED = CompiledObject(b"\x7fELF and so on", ("malloc",))


def plus_one(value):
    return value + 1


def new_kernel():
    """The same kernel as a new process would have it: not warm."""
    return kernel("int64(int64)")(plus_one)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    place = tmp_path / "kernels"
    monkeypatch.setenv("FRAUDSDK_CACHE_DIR", str(place))
    return place


@pytest.fixture
def cache(tmp_path):
    return KernelCache(tmp_path / "kernels")


def the_file_in(folder):
    [path] = folder.glob("*.kernel")
    return path


def test_what_was_compiled_once_is_loaded_afterwards(folder):
    first, second = new_kernel().warm_up(), new_kernel().warm_up()

    assert (True, "") == (first.compiled, first.not_kept_because)
    assert not second.compiled


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
        lambda data: data.replace(b"malloc", b"mallok").replace(b"PyErr", b"PyOrr"),
    ],
    ids=["half", "nothing", "last byte", "longer", "one bit", "another symbol"],
)
def test_a_damaged_file_is_compiled_anew_and_repaired(folder, damage):
    new_kernel().warm_up()
    path = the_file_in(folder)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))

    damaged = new_kernel()

    assert damaged.warm_up().compiled
    assert 2 == damaged(1)
    assert not new_kernel().warm_up().compiled


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_flipped_bit_goes_unnoticed(cache, position, bit):
    cache.write(NAME, KEY, COMPILED)
    path = the_file_in(cache.folder)
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << bit
    path.write_bytes(data)

    assert cache.read(NAME, KEY) is None


def test_a_file_under_another_kernels_name_is_not_taken(cache):
    cache.write(NAME, KEY, COMPILED)
    shutil.copy(cache._path(NAME, KEY), cache._path("fraudsdk.other.kernel", KEY))
    shutil.copy(cache._path(NAME, KEY), cache._path(NAME, "f" * 64))

    assert COMPILED == cache.read(NAME, KEY)
    assert cache.read("fraudsdk.other.kernel", KEY) is None
    assert cache.read(NAME, "f" * 64) is None


@POSIX
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o775, 0o1777])
def test_a_folder_that_others_may_write_is_not_used(folder, mode):
    new_kernel().warm_up()
    folder.chmod(mode)

    again = new_kernel().warm_up()

    assert again.compiled
    assert "may be written by others" in again.not_kept_because
    assert "may be written by others" in KernelCache(folder).problem()


@POSIX
def test_a_file_that_others_may_write_is_not_used(folder):
    new_kernel().warm_up()
    the_file_in(folder).chmod(0o666)

    assert new_kernel().warm_up().compiled
    assert not new_kernel().warm_up().compiled


@POSIX
@pytest.mark.skipif(sys.platform != "win32" and os.geteuid() != 0, reason="only root gives files away")
def test_what_belongs_to_another_user_is_not_used(folder):
    new_kernel().warm_up()
    os.chown(folder, 12_345, -1)

    assert new_kernel().warm_up().compiled
    assert "belongs to another user" in KernelCache(folder).problem()


@POSIX
def test_the_folder_is_made_for_its_owner_alone(cache):
    cache.write(NAME, KEY, COMPILED)

    assert 0o700 == cache.folder.stat().st_mode & 0o777


def test_code_for_another_cpu_is_not_loaded(folder, monkeypatch):
    """
    A home on a network, or an image that was built elsewhere.
    """
    new_kernel().warm_up()
    another = Target("z80", "-avx2")
    monkeypatch.setattr(_jit, "runnable_targets", lambda needs: (another,))

    assert new_kernel().warm_up().compiled


def test_code_for_a_level_that_this_cpu_reaches_is_loaded(folder):
    reached = [target for target in runnable_targets() if target.cpu in PORTABLE_LEVELS]
    if not reached:
        pytest.skip("no portable level is known for this CPU")
    new_kernel().prepare(KernelCache(folder), reached[-1])

    portable = new_kernel()

    assert not portable.warm_up().compiled
    assert 2 == portable(1)


def test_a_cpu_that_other_machines_cannot_recognise_is_refused():
    with pytest.raises(ConfigurationError, match="cpu must be host, x86-64-v2"):
        named_target("znver5")


@pytest.mark.parametrize("package", ["numba", "llvmlite", "numpy"])
def test_another_version_of_a_library_is_another_key(monkeypatch, package):
    def key():
        _kernel_cache._platform.cache_clear()
        return new_kernel().key(Target("x"))

    before = key()
    monkeypatch.setattr(_kernel_cache, "version", lambda name: "9.9" if name == package else "1.0")
    first = key()
    monkeypatch.setattr(_kernel_cache, "version", lambda name: "1.0")

    assert 3 == len({before, first, key()})
    monkeypatch.undo()
    assert before == key()


def test_a_setting_that_changes_code_is_another_key_and_one_that_does_not_is_not(monkeypatch):
    def key():
        _kernel_cache._platform.cache_clear()
        return new_kernel().key(Target("x"))

    before = key()
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    assert before == key()

    monkeypatch.setenv("NUMBA_OPT", "0")
    assert before != key()
    monkeypatch.undo()
    assert before == key()


def stamp_of(source):
    for remembered in (
        _kernel_cache._digest_of_sources,
        _kernel_cache._imports_of,
        _kernel_cache._contents,
        _kernel_cache._exists,
    ):
        remembered.cache_clear()
    return _kernel_cache.source_stamp(source)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the package, to be edited."""
    root = tmp_path / "fraudsdk"
    original = os.path.dirname(_kernel_cache.__file__)
    shutil.copytree(original, root, ignore=shutil.ignore_patterns("__pycache__", "training", "simulation"))
    monkeypatch.setattr(_kernel_cache, "__file__", str(root / "_kernel_cache.py"))
    return root


def test_an_edit_of_a_source_beside_the_kernel_is_another_key_and_a_new_time_is_not(tmp_path):
    source = tmp_path / "kernels.py"
    source.write_text("")
    (tmp_path / "helper.py").write_text("HALF = 0.5")

    before = stamp_of(source)
    os.utime(tmp_path / "helper.py", (1, 1))
    assert before == stamp_of(source)

    (tmp_path / "helper.py").write_text("HALF = 0.6")
    assert before != stamp_of(source)


@pytest.mark.parametrize(
    ("kernels", "edited"),
    [
        ("model/kernels.py", "_jit.py"),
        ("model/kernels.py", "_codegen.py"),
        ("model/kernels.py", "model/layout.py"),
        ("features/kernels.py", "domain/fields.py"),
        ("features/kernels.py", "entity_state/layout.py"),
        ("scorer/kernels.py", "features/kernels.py"),
        ("scorer/kernels.py", "entity_state/kernels.py"),
        ("scorer/kernels.py", "encoding/mapping_kernels.py"),
    ],
)
def test_an_edit_of_what_a_kernel_inlines_however_far_away_is_another_key(copied, kernels, edited):
    before = stamp_of(copied / kernels)
    with (copied / edited).open("a") as file:
        file.write("# edited\n")

    assert before != stamp_of(copied / kernels)


def test_an_edit_of_what_no_kernel_imports_is_the_same_key(copied):
    """
    Else every edit of a policy would cost its author a minute.
    """
    before = stamp_of(copied / "features" / "kernels.py")
    with (copied / "policy" / "policy.py").open("a") as file:
        file.write("# edited\n")

    assert before == stamp_of(copied / "features" / "kernels.py")


@pytest.mark.parametrize(
    "text",
    [
        "from fraudsdk.model import layout",
        "from fraudsdk.model import (\n    layout,\n)",
        "    from fraudsdk.model.layout import (\n    LANES)",
    ],
)
def test_every_spelling_of_an_import_is_followed(text):
    root = _kernel_cache.Path(_kernel_cache.__file__).parent

    assert root / "model" / "layout.py" in _kernel_cache._imported_by(text.encode(), root)


def test_a_full_disk_costs_the_next_start_and_not_this_one(folder, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_kernel_cache.os, "replace", refuse)
    unkept = new_kernel()
    warmed = unkept.warm_up()

    assert 2 == unkept(1)
    assert "No space left on device" in warmed.not_kept_because
    assert [] == list(folder.iterdir())  # no half of a file either


def test_without_a_home_every_process_compiles_for_itself(monkeypatch):
    monkeypatch.delenv("FRAUDSDK_CACHE_DIR", raising=False)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(_kernel_cache.Path, "home", homeless)
    warmed = new_kernel().warm_up()

    assert warmed.compiled
    assert "set FRAUDSDK_CACHE_DIR" in warmed.not_kept_because


def test_the_folder_is_the_one_that_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    monkeypatch.delenv("FRAUDSDK_CACHE_DIR", raising=False)
    assert tmp_path / "numba" / "fraudsdk" == KernelCache.of_environment().folder

    monkeypatch.setenv("FRAUDSDK_CACHE_DIR", str(tmp_path / "own"))
    assert tmp_path / "own" == KernelCache.of_environment().folder


def test_the_number_of_files_per_kernel_is_bounded(cache):
    for i in range(MAX_FILES_PER_KERNEL + 5):
        cache.write(NAME, f"{i:064x}"[::-1], COMPILED)
    cache.write("fraudsdk.some.kernels", KEY, COMPILED)

    assert MAX_FILES_PER_KERNEL + 1 == len(list(cache.folder.glob("*.kernel")))
    assert cache.read(NAME, f"{MAX_FILES_PER_KERNEL + 4:064x}"[::-1]) is not None


def test_what_a_killed_process_left_half_written_is_removed_when_it_is_old(cache):
    cache.write(NAME, KEY, COMPILED)
    old, new = cache.folder / ".killed.part", cache.folder / ".busy.part"
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (1, 1))

    cache.write(NAME, KEY, COMPILED)

    assert new.exists()
    assert not old.exists()


def test_a_file_that_another_process_removes_meanwhile_does_not_count_as_a_failure(cache, monkeypatch):
    cache.write(NAME, "f" * 64, COMPILED)
    glob = _kernel_cache.Path.glob

    def removing(folder, pattern):
        found = list(glob(folder, pattern))
        cache._path(NAME, "f" * 64).unlink(missing_ok=True)
        return found

    monkeypatch.setattr(_kernel_cache.Path, "glob", removing)

    assert "" == cache.write(NAME, KEY, COMPILED)
    assert COMPILED == cache.read(NAME, KEY)


def test_new_code_that_does_not_link_is_the_operators_to_mend_and_is_not_kept(folder, monkeypatch):
    fresh = new_kernel()
    monkeypatch.setattr(fresh, "compile", lambda target: CompiledObject(b"no object file", ()))

    with pytest.raises(ConfigurationError, match="cannot be linked"):
        fresh.warm_up()
    assert not folder.exists()


@pytest.mark.parametrize("offset", ["_ARRAY_SHAPE", "_ARRAY_DESCR", "_DESCR_ITEMSIZE"])
def test_a_numpy_that_keeps_arrays_in_another_way_is_refused(monkeypatch, offset):
    from fraudsdk import _codegen

    monkeypatch.setattr(_codegen, offset, getattr(_codegen, offset) - 8)

    with pytest.raises(ConfigurationError, match="are laid out in another way"):
        new_kernel().compile(Target("x86-64-v2"))


def test_code_that_the_linker_refuses_is_compiled_anew(folder):
    new_kernel().warm_up()
    fresh = new_kernel()
    KernelCache(folder).write(fresh.name, fresh.key(runnable_targets()[0]), CompiledObject(b"no object file", ()))

    assert fresh.warm_up().compiled
    assert 2 == fresh(1)


def test_a_missing_symbol_is_an_error_and_not_a_crash():
    code = kernel("int64(int64)")(plus_one).compile(runnable_targets()[0]).code

    with pytest.raises(UnloadableCodeError, match=r"no\.where: "):
        load("no.where", CompiledObject(code.replace(b"PyLong_FromLongLong", b"PyNowhere_FromLongs"), ()))


def test_what_was_typed_in_is_not_kept(folder):
    """
    Two versions of it could not be told apart.
    """
    typed = kernel("int64(int64)")(FunctionType(plus_one.__code__.replace(co_filename="<stdin>"), globals()))

    assert typed.warm_up().compiled
    assert 2 == typed(1)
    assert not folder.exists()


def test_without_a_cache_nothing_runs_where_numba_is_told_not_to_compile(folder, monkeypatch):
    monkeypatch.setattr(pytest.importorskip("numba").config, "DISABLE_JIT", 1)

    with pytest.raises(ConfigurationError, match="NUMBA_DISABLE_JIT is set"):
        new_kernel().warm_up()
