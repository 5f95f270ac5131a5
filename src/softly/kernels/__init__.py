"""The primitives over rows, and which of their versions is in use.

`reference` defines every primitive in NumPy; `native` computes the same in
compiled code over several threads. The environment variable
``SOFTLY_KERNELS=reference`` forces the first, ``native`` insists on the second.
"""

from __future__ import annotations

import os
import warnings
from types import ModuleType

_SLOW = (
    "softly runs on its NumPy kernels, which are several times slower: it was installed where no "
    "C++ compiler was found. Install one (for example `apt install g++`) and install softly again; "
    "SOFTLY_KERNELS=reference silences this"
)


def _choose(wanted: str) -> ModuleType:
    from softly.kernels import reference

    if wanted == "reference":
        return reference
    if wanted not in ("", "native"):
        raise ImportError(
            f"SOFTLY_KERNELS is {wanted!r}: it may be 'reference', 'native', or not set at all"
        )
    try:
        from softly.kernels import native
    except ModuleNotFoundError:
        if wanted == "native":
            raise
        warnings.warn(_SLOW, RuntimeWarning, stacklevel=2)
        return reference
    return native


chosen = _choose(os.environ.get("SOFTLY_KERNELS", ""))
