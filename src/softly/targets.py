"""What rows are to be, as a fit takes it: labels or shares of classes, and what each row counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, column_or_1d

Array = NDArray[Any]

_TOLERANCE = 1e-5  # for the sum of a row's shares: that of float32 softmax over many classes


@dataclass(frozen=True)
class Targets:
    """Targets of N rows of K classes.

    Attributes
    ----------
    classes : ndarray, shape (K,)
        The labels, sorted.
    values : ndarray
        The number of each row's class, int64 of shape (N,); or its shares of the classes, float64
        of shape (N, K), which sum to 1.
    weight : ndarray of float64, shape (N,), or None
        None where all are 1.
    """

    classes: Array
    values: Array
    weight: NDArray[np.float64] | None

    @property
    def total_weight(self) -> float:
        return float(len(self.values) if self.weight is None else self.weight.sum())


def read(X: Any, y: Any, sample_weight: Any, class_weight: Any) -> Targets:
    """Targets from labels of any kind, shape (N,), or from shares, shape (N, K).

    Raises
    ------
    ValueError
        If fewer than two classes have weight, or shares are no distributions.
    """
    weight = _row_weights(X, sample_weight, class_weight)
    y = np.asarray(y)
    shared = y.ndim == 2 and y.shape[1] > 1
    read_values = _shares if shared else _labels
    classes, values = read_values(y)
    if class_weight is not None:
        assert weight is not None
        values, weight = _weigh_classes(class_weight, classes, values, weight)
    _require_two(classes, values, weight)
    return Targets(classes, values, weight)


def read_batch(
    X: Any, y: Any, sample_weight: Any, class_weight: Any, *, classes: Any, known: Array | None
) -> Targets:
    """Targets of some of the rows: labels among `classes`, or those `known` from earlier batches.

    Raises
    ------
    ValueError
        If the classes are not said at first, change later, or y has others.
    """
    if classes is None and known is None:
        raise ValueError(
            "classes is None, but the first batch needs all labels there will be: "
            "partial_fit(X, y, classes=...)"
        )
    every = known if classes is None else np.unique(classes)
    assert every is not None
    if known is not None and not np.array_equal(every, known):
        raise ValueError(f"classes is {every}, but the first batch had {known}: they cannot change")
    if len(every) < 2:
        raise ValueError(f"classes is {every}, but a classifier needs two or more")
    y = column_or_1d(y, warn=True)
    check_classification_targets(y)
    index = np.minimum(np.searchsorted(every, y), len(every) - 1).astype(np.int64)
    strange = every[index] != y
    if strange.any():
        raise ValueError(
            f"y has the label {y[strange].tolist()[0]!r}, but classes is {every}: all labels there "
            "will be are said with the first batch"
        )
    weight = _row_weights(X, sample_weight, class_weight)
    if class_weight is not None:
        assert weight is not None
        weight *= np.array([float(class_weight.get(label, 1)) for label in every.tolist()])[index]
    return Targets(every, index, weight)


def of_target(scores: Array, target: Array) -> Array:
    """What each row has in the column of its class: (N,) of (N, K)."""
    own: Array = np.take_along_axis(scores, target[:, None], axis=1)[:, 0]
    return own


def shuffled_by_class(target: Array) -> NDArray[np.intp]:
    """The rows, class by class, by chance within each."""
    shuffled = np.random.RandomState(0).permutation(len(target))
    by_class: NDArray[np.intp] = shuffled[np.argsort(target[shuffled], kind="stable")]
    return by_class


def columns_of(y: Array, k: int, classes: Any) -> tuple[Array, NDArray[np.int64]]:
    """The labels that K columns of scores stand for, and each row's column.

    Raises
    ------
    ValueError
        If labels and columns do not fit together.

    Examples
    --------
    >>> columns_of(np.array(["b", "a", "b"]), 2, None)
    (array(['a', 'b'], dtype='<U1'), array([1, 0, 1]))
    """
    seen = np.unique(y)
    if not len(seen):
        raise ValueError("y is empty, but rows with their classes are needed")
    if classes is not None:
        labels = column_or_1d(classes)
        if len(labels) != k or len(np.unique(labels)) != k:
            raise ValueError(
                f"classes has {len(np.unique(labels))} different labels, but the logits have {k} "
                "columns: one each is needed"
            )
    elif len(seen) == k:
        labels = seen
    elif seen.dtype.kind in "iu" and seen[0] == 0 and seen[-1] < k:
        labels = np.arange(k)
    elif seen.dtype.kind in "iu" and 0 < len(among := seen[(seen >= 0) & (seen < k)]) < len(seen):
        stray = np.setdiff1d(seen, among)[0]
        raise ValueError(
            f"y has the label {stray}, but {k} columns stand for 0 to {k - 1}: mend it, or say "
            "which label each column stands for, by classes=[...]"
        )
    else:
        raise ValueError(
            f"y has {len(seen)} classes ({', '.join(map(str, seen[:5].tolist()))}"
            f"{', ...' if len(seen) > 5 else ''}), but the logits have {k} columns: say which "
            "label each column stands for, by classes=[...]"
        )
    order = np.argsort(labels, kind="stable")
    place = np.minimum(np.searchsorted(labels[order], y), k - 1)
    target = order[place].astype(np.int64)
    strange = labels[target] != y
    if strange.any():
        raise ValueError(
            f"y has the label {y[strange].tolist()[0]!r}, which none of the columns stands for: "
            f"{', '.join(map(str, labels[:5].tolist()))}{', ...' if k > 5 else ''}"
        )
    return labels, target


def _row_weights(X: Any, sample_weight: Any, class_weight: Any) -> Array | None:
    """What each row counts before its class does; None where all count 1."""
    if sample_weight is None and class_weight is None:
        return None
    weight: Array = _check_sample_weight(
        sample_weight, X, dtype=np.float64, copy=True, ensure_non_negative=True
    )
    return weight


def _labels(y: Array) -> tuple[Array, Array]:
    y = column_or_1d(y, warn=True)
    check_classification_targets(y)
    classes, index = np.unique(y, return_inverse=True)
    return classes, index.astype(np.int64, copy=False)


def _shares(y: Array) -> tuple[Array, Array]:
    if y.dtype.kind not in "buif":
        raise ValueError(
            f"y has shape {y.shape} and type {y.dtype}: labels have shape (N,), and shares of the "
            "classes, of shape (N, K), are numbers"
        )
    values = y.astype(np.float64)
    total = values.sum(axis=1)
    bad = np.flatnonzero(~((values >= 0).all(axis=1) & (np.abs(total - 1) <= _TOLERANCE)))
    if len(bad):
        row = bad[0]
        raise ValueError(
            f"y has shape {y.shape}, so its rows are shares of the classes, but row {row} is "
            f"{np.array2string(y[row], threshold=6)}: shares are not negative and sum to 1"
        )
    return np.arange(y.shape[1]), values / total[:, None]


def _weigh_classes(
    class_weight: Any, classes: Array, values: Array, weight: Array
) -> tuple[Array, Array]:
    """Class weights made row weights; shares are weighed, and brought back to the sum 1."""
    if values.ndim == 1:
        of_class = compute_class_weight(
            class_weight, classes=classes, y=classes[values], sample_weight=weight
        )
        return values, weight * of_class[values]
    if class_weight == "balanced":
        mass = weight @ values
        of_class = mass.sum() / (len(classes) * np.maximum(mass, np.finfo(float).tiny))
    else:
        of_class = np.array([float(class_weight.get(int(c), 1)) for c in classes])
    weighted = values * of_class
    total = weighted.sum(axis=1)
    return weighted / np.where(total > 0, total, 1)[:, None], weight * total


def _require_two(classes: Array, values: Array, weight: Array | None) -> None:
    if len(classes) < 2:
        raise ValueError(
            f"y holds one class only ({classes[0]!r}), but a classifier needs two or more"
        )
    counted = values if weight is None else values[weight > 0]
    held = np.unique(counted) if values.ndim == 1 else np.flatnonzero(counted.any(axis=0))
    if len(held) < 2:
        raise ValueError(
            f"only rows of the class {classes[held[0]]!r} have a weight above 0, but a classifier "
            "needs two or more classes"
        )
