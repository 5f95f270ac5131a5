"""Shared by every test: the path to the oracle, steady Hypothesis runs, the kernels."""

import importlib
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# pytest's importlib mode leaves the tests' own folder off the path; `import oracle` needs it.
sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")

MODULES = {"reference": "softly.kernels.fallback", "native": "softly.kernels.native"}


def pytest_addoption(parser):
    parser.addoption("--exhaustive", action="store_true", help="every float32 there is, as well")


@pytest.fixture(scope="session", params=MODULES)
def kernels(request):
    """Each of the two CPU kernel modules; `native` is skipped where nothing was compiled."""
    try:
        return importlib.import_module(MODULES[request.param])
    except ImportError as reason:
        if request.param == "reference":
            raise
        pytest.skip(f"no compiled kernels: {reason}")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium for tests of pages; skipped where there is none."""
    from browser import started

    with started(tmp_path_factory.mktemp("chromium")) as running:
        yield running
