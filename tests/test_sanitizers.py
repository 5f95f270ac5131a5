"""The C++ kernels under the address and undefined-behaviour sanitizers (see sanitize.cpp)."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

native = pytest.importorskip("softly.kernels.native", reason="nothing was compiled")

HERE = Path(__file__).parent
SOURCES = HERE.parent / "cpp"
COMPILER = os.environ.get("CXX", "c++")
# Without optimisation no access is optimised away, and compiling takes a quarter of the time.
FLAGS = ["-std=c++20", "-O0", "-g1", "-fno-math-errno", "-ffp-contract=off", f"-I{SOURCES}"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# Not v4: what it reads and writes through the processor's masks, the sanitizers do not see.
LEVEL = "v3" if native.level == "v4" else native.level
PROCESSOR = [] if LEVEL == "base" else [f"-march=x86-64-{LEVEL}"]


def unavailable(what):
    """Skips, but not where it is decided whether a change lands."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


def compile_all(commands):
    """Side by side; what the compilers said, or None."""
    running = [
        subprocess.Popen([COMPILER, *command], stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    said = [process.communicate()[1] for process in running]
    return next(
        (text for process, text in zip(running, said, strict=True) if process.returncode), None
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sanitize")
    if shutil.which(COMPILER) is None:
        unavailable(f"there is no compiler {COMPILER}")
    (folder / "nothing.cpp").write_text("int main() {}")
    if compile_all([[*SANITIZERS, folder / "nothing.cpp", "-o", folder / "nothing"]]):
        unavailable(f"{COMPILER} has no sanitizers: libasan and libubsan are needed")
    sources = [SOURCES / "losses.cpp", SOURCES / "functions.cpp", HERE / "sanitize.cpp"]
    flags = [*FLAGS, *SANITIZERS, *PROCESSOR, f"-DSOFTLY_LEVEL={LEVEL}"]
    objects = [folder / source.with_suffix(".o").name for source in sources]
    failed = compile_all(
        [[*flags, "-c", a, "-o", b] for a, b in zip(sources, objects, strict=True)]
    )
    failed = failed or compile_all([[*SANITIZERS, *objects, "-o", folder / "sanitize"]])
    assert not failed, failed
    return folder / "sanitize"


def test_no_access_beyond_and_no_undefined_behaviour(program):
    done = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "cases" in done.stdout
