"""The primitives over rows, and which of their versions is in use.

`reference` defines every primitive over any array library; `native` computes the same in
compiled code over several threads, and `fallback` does so in NumPy where nothing is compiled.
The environment variable ``SOFTLY_KERNELS=reference`` forces the last, ``native`` insists on the
second.
"""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from types import ModuleType

_SLOW = (
    "softly runs on its NumPy kernels, which are several times slower: {}. They are compiled where "
    "a C++ compiler is found: get one (for example `apt install g++`) and install softly again; "
    "SOFTLY_KERNELS=reference silences this"
)


def _choose(wanted: str) -> ModuleType:
    if wanted == "reference":
        return import_module("softly.kernels.fallback")
    if wanted not in ("", "native"):
        raise ImportError(
            f"SOFTLY_KERNELS is {wanted!r}: it may be 'reference', 'native', or not set at all"
        )
    try:
        import_module("softly.kernels._native")
    except ImportError as error:
        if wanted == "native":
            raise
        nothing = isinstance(error, ModuleNotFoundError)
        why = "no compiled ones were installed" if nothing else str(error)
        warnings.warn(_SLOW.format(why), RuntimeWarning, stacklevel=2)
        return import_module("softly.kernels.fallback")
    return import_module("softly.kernels.native")


chosen = _choose(os.environ.get("SOFTLY_KERNELS", ""))
