"""Large results reuse the pages of earlier ones, and only of those nobody holds."""

import gc
import threading

import numpy as np
import pytest

from softly.kernels import memory

LARGE = (memory._LARGE // 8,)

pytestmark = pytest.mark.skipif(not memory._CAN_KEEP, reason="the system cannot keep free pages")


@pytest.fixture(autouse=True)
def nothing_kept():
    memory._kept.clear()


def test_pages_of_a_result_that_is_gone_are_used_again():
    first = memory.empty(LARGE, np.float64)
    address = first.ctypes.data
    first[:] = 1
    del first
    again = memory.empty(LARGE, np.float64)
    assert again.ctypes.data == address


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[5:10],
        lambda a: a[::2],
        lambda a: a.reshape(2, -1).T,
        lambda a: a.view(np.int64),
        lambda a: memoryview(a),
        lambda a: np.asarray(a).view(np.recarray),
        lambda a: a.astype(np.float64, copy=False)[-3:],
    ],
)
def test_a_view_holds_the_pages(view):
    first = memory.empty(LARGE, np.float64)
    first[:] = 3
    held = view(first)
    before = np.array(held)
    del first
    gc.collect()
    other = memory.empty(LARGE, np.float64)
    other[:] = 9
    np.testing.assert_array_equal(np.array(held), before)


def test_few_pieces_are_kept_and_none_far_too_large():
    pieces = [memory.empty(LARGE, np.float64) for _ in range(5)]
    del pieces
    assert len(memory._kept) == memory._MOST_KEPT
    memory._kept.clear()
    large = memory.empty((5 * LARGE[0],), np.float64)
    del large
    memory.empty(LARGE, np.float64)[:] = 0
    assert max(len(pages) for pages in memory._kept) == 5 * memory._LARGE


def test_small_results_are_plain_arrays():
    assert memory.empty((3, 4), np.float32).base is None


def test_threads_never_share_pages():
    def work():
        for value in range(20):
            mine = memory.empty(LARGE, np.float64)
            mine[::4096] = mark = value + threading.get_ident() % 1000 / 1000
            if not (mine[::4096] == mark).all():
                wrong.append(value)

    wrong: list[int] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
