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


@pytest.fixture(scope="session", params=["reference", "native"])
def kernels(request):
    """Each of the two CPU kernel modules; `native` is skipped where nothing was compiled."""
    try:
        return importlib.import_module("softly.kernels." + {"reference": "fallback"}.get(request.param, request.param))
    except ImportError as reason:
        if request.param == "reference":
            raise
        pytest.skip(f"no compiled kernels: {reason}")
