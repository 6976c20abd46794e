"""Pages that are asked for ahead of use, and pages that nobody may write to."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import sys

import numpy as np
import pytest

from fraudsdk import _pages

N_BYTES = 64 << 20


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def test_pages_that_were_supplied_cost_no_fault_when_they_are_written():
    words = np.zeros(N_BYTES // 8, np.int64)
    if not _pages.populate(words.ctypes.data, words.nbytes):
        pytest.skip("this system supplies no pages ahead")
    before = faults()

    words[::512] = 1

    assert faults() - before < 16  # the ends of the array, and the interpreter's own


def test_what_pages_hold_stays():
    words = np.arange(1 << 16)
    _pages.populate(words.ctypes.data, words.nbytes)

    assert np.array_equal(np.arange(1 << 16), words)


def test_less_than_a_page_needs_no_asking():
    assert _pages.populate(4096 + 1, 100)


def test_a_system_that_cannot_says_so(monkeypatch):
    words = np.zeros(N_BYTES // 8, np.int64)
    monkeypatch.setattr(_pages, "_MADV_POPULATE_WRITE", 9_999)

    assert not _pages.populate(words.ctypes.data, words.nbytes)


def test_writing_to_a_read_only_page_ends_the_process():
    code = (
        "import mmap, ctypes\nfrom fraudsdk._pages import make_read_only\n"
        "pages = mmap.mmap(-1, 4096)\naddress = ctypes.addressof(ctypes.c_char.from_buffer(pages))\n"
        "make_read_only(address, 4096)\nprint(pages[0], flush=True)\npages[0] = 1\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "0\n" == done.stdout
    assert done.returncode < 0, done.stderr


def test_a_refusal_to_protect_is_told(monkeypatch):
    monkeypatch.setattr(_pages, "_call", lambda *arguments: ctypes.set_errno(1) or -1)

    with pytest.raises(_pages.ConfigurationError, match=r"refuses to make model memory read-only.*allow mprotect"):
        _pages.make_read_only(4096, 4096)
