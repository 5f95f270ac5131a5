"""The pool: all the work is done, once, whoever asks and from wherever."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from softly.kernels import threads


def test_every_row_is_worked_on_once():
    done = np.zeros(100_003, int)

    def work(start, stop):
        done[start:stop] += 1

    threads.over_rows(work, len(done), costs_bytes=1 << 30)
    assert (done == 1).all()


def test_little_work_stays_on_the_callers_thread():
    seen = []
    threads.over_rows(lambda a, b: seen.append((a, b, threading.get_ident())), 10, costs_bytes=80)
    assert seen == [(0, 10, threading.get_ident())]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be placed here")
@pytest.mark.skipif(threads.current_processor is None, reason="no compiled kernels")
def test_workers_are_kept_off_the_callers_processor():
    everywhere = os.sched_getaffinity(0)
    if len(everywhere) < 2:
        pytest.skip("there is one processor only")
    here = min(everywhere)
    os.sched_setaffinity(0, {here})
    try:
        threads.run([lambda: None] * 10)
        os.sched_setaffinity(0, everywhere)
        threads._pool._kept_off = None
        threads.run([lambda: time.sleep(0.001)] * 50)
        off = [os.sched_getaffinity(worker) for worker in threads._pool.workers]
        assert all(len(mask) == len(everywhere) - 1 for mask in off)
    finally:
        os.sched_setaffinity(0, everywhere)
    assert os.sched_getaffinity(0) == everywhere


def test_an_error_comes_out_and_nothing_runs_after_it():
    running = []

    def task(i):
        running.append(i)
        if i == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        threads.run([lambda i=i: task(i) for i in range(10_000)])
    after = len(running)
    assert after < 10_000
    assert len(running) == after


def test_a_worker_that_asks_for_workers_does_the_work_itself():
    done = []

    def outer():
        threads.run([lambda: done.append(1) for _ in range(10)])

    threads.run([outer for _ in range(50)])
    assert len(done) == 500


def child(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_works_while_the_interpreter_shuts_down():
    done = child(
        "import atexit, numpy as np, softly\n"
        "x = np.zeros((5000, 100))\n"
        "atexit.register(lambda: print(softly.softmax(x, axis=1).sum()))\n",
        SOFTLY_THREADS="2",
    )
    assert (done.stdout.strip(), done.stderr) == ("5000.0", "")


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5"])
def test_a_number_of_threads_that_is_none(wrong):
    done = child("import softly", SOFTLY_THREADS=wrong)
    assert f"SOFTLY_THREADS is '{wrong}': it must be a whole number from 1 up" in done.stderr


def test_the_kernels_that_were_asked_for():
    show = "from softly.kernels import chosen; print(chosen.name)"
    assert child(show, SOFTLY_KERNELS="reference").stdout == "reference\n"
    assert "it may be 'reference', 'native'" in child(show, SOFTLY_KERNELS="fast").stderr
    assert "SOFTLY_CPU is 'v9', but this processor has" in child(show, SOFTLY_CPU="v9").stderr


def test_importing_softly_loads_nothing_heavy():
    heavy = "{'scipy', 'sklearn', 'polars', 'torch', 'typer', 'rich', 'skops', 'matplotlib'}"
    done = child(f"import sys, softly; print(sorted({heavy} & set(sys.modules)))")
    assert done.stdout == "[]\n"
