"""
A kernel takes what its signature says, refuses everything else, and computes what Numba's own call would.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fraudsdk._jit import borrowed, deferred, device, kernel, warm_up
from fraudsdk._loader import host_has
from fraudsdk.errors import ConfigurationError

arctan2 = deferred("numpy:arctan2")


@device
def squared(value):
    return value * value


@kernel("float64(float64[::1])")
def sum_of_squares(values):
    total = 0.0
    for value in borrowed(values):
        total += squared(value)
    return total


@kernel("Tuple((int64, float64, float32, boolean))(int64, float64, float32, int64)")
def every_scalar(whole, number, single, flag):
    return whole, number, single, flag != 0


@kernel("void(int8[:, ::1], int64)", nogil=False)
def fill(table, value):
    table[:, :] = value


@kernel("float64(float64[::1])")
def reversed_dot(values):
    scratch = np.empty(len(values))
    for i in range(len(values)):
        scratch[i] = values[len(values) - 1 - i]
    return np.sum(scratch * values)


@kernel("float64(float64[::1])")
def half_of_the_sum_of_squares(values):
    return sum_of_squares(values) / 2.0


@kernel("float64(float64, float64)")
def angle(y, x):
    return arctan2(y, x)


@kernel("int64(int64)")
def fails_for_negative(value):
    if value < 0:
        raise ValueError("negative")
    return value


@kernel("int64(int64)")
def work(rounds):
    state = 1
    for i in range(rounds):
        state = (state ^ (state << 13)) * 31 + i
    return state


@kernel("int64(int64)", nogil=False)
def work_alone(rounds):
    state = 1
    for i in range(rounds):
        state = (state ^ (state << 13)) * 31 + i
    return state


@kernel("int64()", needs=("no-such-feature",))
def for_another_cpu():
    return 1


@pytest.mark.parametrize(
    "argument",
    [
        np.zeros(3, np.float32),
        np.zeros(3, np.int64),
        np.zeros((3, 3)),
        np.zeros(6)[::2],
        np.zeros(3, ">f8"),
        np.array([0.0, 1.0], dtype=object),
        np.frombuffer(bytes(24)),
        [1.0, 2.0],
        None,
    ],
    ids=["float32", "int64", "2-d", "strided", "byte order", "objects", "read only", "list", "None"],
)
def test_an_array_of_another_kind_is_refused_with_what_was_wanted(argument):
    with pytest.raises(
        TypeError, match=r"argument 0 of .*sum_of_squares must be a writable C-contiguous float64\[::1\]"
    ):
        sum_of_squares(argument)


def test_a_subclass_of_the_array_is_an_array(tmp_path):
    mapped = np.memmap(tmp_path / "values", dtype=np.float64, mode="w+", shape=3)
    mapped[:] = [1.0, 2.0, 3.0]

    assert 14.0 == sum_of_squares(mapped)


@pytest.mark.parametrize("arguments", [(), (np.zeros(1), np.zeros(1))])
def test_another_number_of_arguments_is_refused(arguments):
    with pytest.raises(TypeError, match="takes 1 arguments, by position"):
        sum_of_squares(*arguments)


def test_a_keyword_is_refused():
    sum_of_squares.warm_up()

    with pytest.raises(TypeError, match="keyword"):
        sum_of_squares(values=np.zeros(1))


@pytest.mark.parametrize(
    ("argument", "error"), [(1.5, TypeError), ("1", TypeError), (None, TypeError), (2**63, OverflowError)]
)
def test_what_is_no_whole_number_is_refused(argument, error):
    with pytest.raises(error):
        every_scalar(argument, 0.0, 0.0, 0)


@settings(deadline=None)
@given(
    whole=st.integers(-(2**63), 2**63 - 1),
    number=st.floats(allow_nan=False),
    single=st.floats(allow_nan=False, width=32),
    flag=st.booleans(),
)
def test_scalars_pass_unchanged(whole, number, single, flag):
    assert (whole, number, single, flag) == every_scalar(whole, number, single, flag)
    assert (whole, number) == every_scalar(np.int64(whole), np.float64(number), np.float32(single), np.int64(flag))[:2]


def test_minus_one_is_a_number_and_not_an_error():
    assert (-1, -1.0, -1.0, True) == every_scalar(-1, -1.0, -1.0, -1)


def test_an_error_of_the_argument_itself_reaches_the_caller():
    class Broken:
        def __index__(self):
            raise LookupError("no index today")

    with pytest.raises(LookupError, match="no index today"):
        every_scalar(Broken(), 0.0, 0.0, 0)


@settings(deadline=None)  # Numba compiles its own once
@given(values=arrays.arrays(np.float64, st.integers(0, 50), elements=st.floats(allow_nan=True)))
def test_a_kernel_computes_what_numbas_own_call_does(values):
    expected = sum_of_squares.made(values)

    np.testing.assert_array_equal(expected, sum_of_squares(values))


def test_a_kernel_writes_into_its_callers_array_and_returns_nothing():
    table = np.zeros((2, 3), np.int8)

    assert fill(table, 7) is None
    assert (table == 7).all()


def test_an_empty_array_is_an_array():
    fill(np.zeros((0, 3), np.int8), 1)

    assert 0.0 == sum_of_squares(np.zeros(0))


def test_scratch_arrays_are_freed():
    """
    A gigabyte in all, were it kept.
    """
    resource = pytest.importorskip("resource")
    values = np.ones(50_000)
    reversed_dot(values)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for _ in range(1_300):
        assert 50_000.0 == reversed_dot(values)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 100_000


def test_arguments_and_results_are_not_leaked():
    values, table = np.ones(3), np.zeros((1, 1), np.int8)
    gc.collect()  # what other tests left behind holds thousands of references to None
    before, none = (sys.getrefcount(values), sys.getrefcount(table)), sys.getrefcount(None)

    for _ in range(10_000):
        sum_of_squares(values)
        fill(table, 1)
    for _ in range(1_000):
        with pytest.raises(TypeError):
            fill(values, 1)

    assert before == (sys.getrefcount(values), sys.getrefcount(table))
    assert abs(sys.getrefcount(None) - none) < 5_000  # a reference a call would be 10,000


def test_a_kernel_may_call_a_kernel_and_name_things_that_are_made_late():
    assert 7.0 == half_of_the_sum_of_squares(np.array([1.0, 2.0, 3.0]))
    assert np.arctan2(1.0, 2.0) == angle(1.0, 2.0)


@kernel("float32(float64, int64)")
def scaled(number, whole):
    return number * whole


def test_a_kernel_of_numbers_is_a_c_function_at_an_address():
    call = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_double, ctypes.c_int64)(scaled.address)

    assert 3.75 == call(1.25, 3) == scaled(1.25, 3)


def test_a_kernel_of_arrays_has_no_address():
    with pytest.raises(TypeError, match="no function of numbers alone"):
        _ = sum_of_squares.address


def test_a_helper_can_be_called_from_python_too():
    """
    For its test; kernels inline another compilation of it.
    """
    assert 9.0 == squared(3.0)


def test_a_kernel_that_fails_says_so_rather_than_returning_rubbish():
    assert 3 == fails_for_negative(3)
    with pytest.raises(SystemError, match="fails_for_negative failed"):
        fails_for_negative(-1)


def moments_of_another_thread_during(run):
    """How often a second thread came to read the clock between the start and the end of a call."""
    moments, stop = [], threading.Event()

    def read_clock():
        while not stop.is_set():
            moments.append(time.perf_counter_ns())
            stop.wait(0.001)

    thread = threading.Thread(target=read_clock)
    thread.start()
    while not moments:
        time.sleep(0)
    started_ns = time.perf_counter_ns()
    run()
    ended_ns = time.perf_counter_ns()
    stop.set()
    thread.join()
    # The edges are the interpreter's: on the way into the call and out of it.
    margin_ns = (ended_ns - started_ns) // 10
    return sum(started_ns + margin_ns < moment_ns < ended_ns - margin_ns for moment_ns in moments)


def test_other_threads_run_while_a_kernel_does():
    work.warm_up()

    assert moments_of_another_thread_during(lambda: work(200_000_000)) > 0


def test_no_other_thread_runs_while_a_kernel_that_keeps_the_lock_does():
    work_alone.warm_up()

    assert 0 == moments_of_another_thread_during(lambda: work_alone(200_000_000))


def test_threads_that_warm_up_at_once_get_one_entry():
    @kernel("int64(int64)")
    def plus_one(value):
        return value + 1

    answers = []
    threads = [threading.Thread(target=lambda: answers.append(plus_one(1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [2] * 8 == answers


def test_a_kernel_for_another_cpu_is_left_out_and_says_what_it_needs():
    assert not host_has(for_another_cpu.needs)
    assert [] == warm_up(for_another_cpu.name)
    with pytest.raises(ConfigurationError, match="needs a CPU with no-such-feature"):
        for_another_cpu()


@pytest.mark.parametrize("signature", ["int64(int32)", "int64(float64[:])", "int64(unicode_type)"])
def test_a_signature_that_cannot_be_called_directly_is_refused_when_compiled(signature):
    @kernel(signature)
    def odd(value):
        return 1

    with pytest.raises(TypeError, match="kernels take"):
        odd.warm_up()
