"""The same answers in every thread, every process, on every level, and where nobody may write."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import softly
from family import answers, digests
from softly.kernels import chosen

HERE = Path(__file__).parent
NATIVE = chosen.name.startswith("native")


def run(code, **environment):
    """What a new process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(HERE), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "this processor has" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return done.stdout


PRINT = "import json, family; print(json.dumps(family.digests()))"


@cache
def here():
    return digests()


def assert_same(found):
    assert found.keys() == here().keys()
    assert [name for name, digest in here().items() if found[name] != digest] == []


# Threads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_threads_gives_the_same_bits(count):
    assert_same(json.loads(run(PRINT, SOFTLY_THREADS=str(count))))


def test_eight_callers_at_once():
    """Each gets its own answers, whatever the others ask for."""
    wrong = []

    def call():
        found = digests()
        wrong.extend(name for name, digest in here().items() if found[name] != digest)

    here()
    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


# Processes ----------------------------------------------------------------------------------------


# A program of its own: a child that is spawned imports it once more. The parent has used its
# threads before the children begin, and uses them again while they work.
CHILDREN = """
import json
import multiprocessing
import sys

import family

if __name__ == "__main__":
    method = sys.argv[1]
    before = family.digests()
    with multiprocessing.get_context(method).Pool(2) as pool:
        waiting = [pool.apply_async(family.digests) for _ in range(2)]
        after = family.digests()
        children = [answer.get(timeout=40) for answer in waiting]
    print(json.dumps([before, after, *children]))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_child_processes(tmp_path, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    program = tmp_path / "children.py"
    program.write_text(CHILDREN)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", program, method],
        env={**os.environ, "PYTHONPATH": str(HERE), "SOFTLY_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    everyone = json.loads(done.stdout)
    assert len(everyone) == 4
    for found in everyone:
        assert_same(found)


# Levels -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not NATIVE, reason="no compiled kernels")
@pytest.mark.parametrize("level", ["v2", "v3", "v4"])
def test_every_level_gives_the_same_answers(tmp_path, level):
    """v3 and v4 to the bit; v2, which has no fused multiply-add, to the last digits."""
    saved = tmp_path / "answers.npz"
    code = f"import numpy, family; numpy.savez({str(saved)!r}, **family.answers())"
    run(code, SOFTLY_CPU=level, SOFTLY_KERNELS="native")
    fused = level != "v2" and not chosen.name.endswith("v2")
    found, wanted = np.load(saved), answers()
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        if fused:
            np.testing.assert_array_equal(found[name], value, err_msg=name)
        else:
            computed = (
                np.float64 if "float64" in name else np.float32
            )  # also a loss, which is a float
            eps = max(np.finfo(value.dtype).eps, np.finfo(computed).eps)
            largest = np.max(abs(value), where=np.isfinite(value), initial=0)
            close = {"rtol": 16 * eps, "atol": 4 * eps * float(largest)}
            np.testing.assert_allclose(found[name], value, **close, err_msg=name)


# Installed where nobody may write -----------------------------------------------------------------


def everything_in(folder):
    """Paths and sizes."""
    return sorted((str(path), path.stat().st_size) for path in folder.rglob("*") if path.is_file())


def copy_of_the_installation(folder):
    """The Python files and the compiled module, which an editable install keeps apart."""
    package = folder / "softly"
    shutil.copytree(
        Path(softly.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    if NATIVE:
        shutil.copy(chosen._native.__file__, package / "kernels")
    for path in [*package.rglob("*"), package]:
        path.chmod(path.stat().st_mode & ~0o222)


def who_may_not_write():
    """How Python is started so that permissions bind it, which for root takes more."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv to change that")
    return ["setpriv", "--bounding-set=-dac_override,-fowner"]


def test_an_installation_that_is_read_only(tmp_path):
    folder = tmp_path / "installed"
    folder.mkdir()
    copy_of_the_installation(folder)
    before = everything_in(folder)
    packages = sorted({str(Path(module.__file__).parent.parent) for module in (np, pytest)})
    code = f"""
import sys
sys.path[:0] = [{str(folder)!r}, {str(HERE)!r}]
sys.path += {packages}
import softly
assert softly.__file__.startswith({str(folder)!r}), softly.__file__
from softly.kernels import chosen
assert chosen.name == {chosen.name!r}
try:
    open({str(folder / "softly" / "new")!r}, "w")
except OSError:
    pass
else:
    raise AssertionError("the folder can be written to: this shows nothing")
{PRINT}
"""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        # -S: an editable install would lead back to the sources.
        [*who_may_not_write(), sys.executable, "-S", "-W", "error", "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    for path in [folder, *folder.rglob("*")]:  # pytest will want to remove it
        path.chmod(path.stat().st_mode | 0o200)
    assert done.returncode == 0, done.stderr
    assert_same(json.loads(done.stdout))
    assert everything_in(folder) == before
