"""Work in threads comes back in order, and no more is taken ahead than is needed."""

import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histpert.threads import in_order

N_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@given(st.lists(st.integers(), max_size=40))
def test_what_is_made_of_tasks_comes_in_their_order(tasks):
    assert list(in_order(lambda task: 2 * task, tasks)) == [2 * task for task in tasks]


def test_a_slow_task_is_waited_for():
    def slow_first(task):
        time.sleep(0.05 if task % 5 == 0 else 0)
        return task

    assert list(in_order(slow_first, range(12))) == list(range(12))


def test_few_tasks_are_taken_ahead_of_what_is_asked_for():
    taken = []

    def many():
        for number in range(10_000):
            taken.append(number)
            yield number

    results = in_order(lambda task: task, many())
    for number in range(30):
        assert next(results) == number
        assert len(taken) <= number + N_CORES + 2
    results.close()
    assert len(taken) <= 30 + N_CORES + 2


def test_nothing_is_taken_before_a_result_is_asked_for():
    in_order(lambda task: pytest.fail("not asked for"), iter(lambda: pytest.fail("not asked for"), None))


@pytest.mark.skipif(N_CORES < 2, reason="a core has one thread")
def test_tasks_run_at_the_same_time():
    meeting = threading.Barrier(2, timeout=20)
    assert len(list(in_order(lambda _: meeting.wait(), range(2)))) == 2


def test_an_error_in_a_task_is_raised_in_its_turn():
    def inverse(task):
        return 1 / task

    results = in_order(inverse, [1, 2, 0, 4])
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_an_error_of_the_tasks_themselves_is_raised():
    def tasks():
        yield 1
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        list(in_order(lambda task: task, tasks()))
