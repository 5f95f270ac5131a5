"""What comes in: features as the passes want them, parameters that make sense, probabilities."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

# As scikit-learn's `validate_data` and `check_X_y` take them.
FEATURES: dict[str, Any] = {
    "accept_sparse": "csr",
    "accept_large_sparse": True,
    "dtype": [np.float64, np.float32],
    "order": "C",
}

_LITTLE = 1 << 20  # bytes
_TOLERANCE = 1e-3  # of the sum of probabilities: float16 softmax over many classes
_ROUNDED = 0.1  # as far from 1 as sums of rounded probabilities may be

_NEEDED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "C": (lambda x: isinstance(x, Real) and float(x) > 0, "a number above 0"),
    "l1_ratio": (lambda x: isinstance(x, Real) and 0 <= float(x) <= 1, "a number from 0 to 1"),
    "tol": (lambda x: isinstance(x, Real) and float(x) >= 0, "a number, 0 or above"),
    "max_iter": (lambda x: isinstance(x, Integral) and int(x) >= 1, "a whole number from 1 up"),
}


def prepared(X: Any) -> Any:
    """Validated features, with what sparse ones may hide made plain.

    Raises
    ------
    ValueError
        If squares of the numbers would overflow.
    """
    if sp.issparse(X):
        if X.shape[0] * X.shape[1] * X.dtype.itemsize <= _LITTLE:
            X = X.toarray()  # solved exactly, and faster
        elif not X.has_canonical_format:
            X = X.copy()
            X.sum_duplicates()
    _check_size(X)
    return X


def check_fit(**parameters: Any) -> None:
    """Raise ValueError for a parameter of a fit that makes no sense.

    Knows C, l1_ratio, tol and max_iter.
    """
    for name, value in parameters.items():
        holds, needed = _NEEDED[name]
        if not holds(value):
            raise ValueError(f"{name} is {value!r}, but {needed} is needed")


def probabilities(p: Any) -> NDArray[Any]:
    """Rows of probabilities, in float32 or float64.

    Raises
    ------
    ValueError
        If a row is no distribution.
    """
    p = np.asarray(p)
    if p.ndim != 2 or p.dtype.kind not in "buif" or p.shape[1] < 2:
        raise ValueError(
            f"p has shape {p.shape} and type {p.dtype}, but probabilities of two or more classes "
            "are needed, shape (N, K)"
        )
    is_float = p.dtype.kind == "f" and p.dtype.itemsize >= 4
    found: NDArray[Any] = p.astype(p.dtype if is_float else np.float64, copy=False)
    bad = no_distributions(found)
    if len(bad):
        row = found[bad[0]]
        near = bool((row >= 0).all() and abs(row.sum() - 1) <= _ROUNDED)
        cure = (
            "if they were rounded, divide each row by its sum"
            if near
            else "if these are logits, softly.softmax makes probabilities of them"
        )
        raise ValueError(
            f"p[{bad[0]}] is {np.array2string(row, threshold=6, precision=4)}, which sums to "
            f"{row.sum():.4g}, but probabilities are not negative and sum to 1: {cure}"
        )
    return found


def no_distributions(p: NDArray[Any]) -> NDArray[np.intp]:
    """The rows that are not probabilities."""
    sound = np.asarray(((p >= 0) & (p <= 1 + _TOLERANCE)).all(axis=1))
    sound[sound] = np.abs(p[sound].sum(axis=1) - 1) <= _TOLERANCE
    return np.flatnonzero(~sound)


def _check_size(X: Any) -> None:
    """Squares of features are added up on the way."""
    values = X.data if sp.issparse(X) else X
    largest = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    most = float(np.finfo(X.dtype).max) ** 0.4
    if largest > most:
        raise ValueError(
            f"X holds numbers as large as {largest:.1g}, but from {most:.0e} on sums of squares "
            f"overflow in {X.dtype}: scale the columns (sklearn.preprocessing.MaxAbsScaler)"
        )
