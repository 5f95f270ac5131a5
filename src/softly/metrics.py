"""How good probabilities are: the one place that counts, and the one place that bins."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def accuracy(predicted: Array, target: Array) -> float:
    """The share of rows whose predicted class is the true one.

    Parameters
    ----------
    predicted, target : ndarray of int, shape (N,)

    Examples
    --------
    >>> accuracy(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]))
    0.75
    """
    return float(np.mean(predicted == target))


def log_loss(log_p: Array, target: Array) -> float:
    """The mean of minus the log of the probability given to the true class.

    Parameters
    ----------
    log_p : ndarray, shape (N, K)
        Logarithms of the probabilities.
    target : ndarray of int, shape (N,)

    Examples
    --------
    >>> round(log_loss(np.log([[0.8, 0.2], [0.5, 0.5]]), np.array([0, 1])), 4)
    0.4581
    """
    return float(-np.mean(log_p[np.arange(len(target)), target], dtype=np.float64))


def brier_score(p: Array, target: Array) -> float:
    """The mean squared distance of the probabilities from the truth: 0 best, 2 worst.

    Parameters
    ----------
    p : ndarray, shape (N, K)
    target : ndarray of int, shape (N,)

    References
    ----------
    Brier, "Verification of forecasts expressed in terms of probability", 1950.

    Examples
    --------
    >>> round(brier_score(np.array([[0.8, 0.2], [0.5, 0.5]]), np.array([0, 1])), 4)
    0.29
    """
    # |p - onehot|^2 = |p|^2 - 2 p[target] + 1
    at_target = p[np.arange(len(target)), target].astype(np.float64)
    return float(np.mean(np.einsum("ij,ij->i", p, p, dtype=np.float64) - 2 * at_target + 1))


def calibration_error(confidence: Array, correct: Array, bins: int = 15) -> float:
    """How far confidence is from the share of right answers, on average over bins.

    The bins hold the same number of rows, but for rows of the same confidence, which are
    never parted.

    Parameters
    ----------
    confidence : ndarray, shape (N,)
        The probability of the predicted class.
    correct : ndarray of bool, shape (N,)
    bins : int

    References
    ----------
    Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
    binning", 2015; bins of equal mass as in Nguyen and O'Connor, 2015.

    Examples
    --------
    >>> round(calibration_error(np.full(4, 0.75), np.array([True, True, True, False])), 4)
    0.0
    """
    confidence = confidence.astype(np.float64)
    inner = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1])
    bin_of = np.searchsorted(inner, confidence, side="left")
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def confusion_matrix(predicted: Array, target: Array, n_classes: int) -> NDArray[np.int64]:
    """How often each true class (row) was given each predicted class (column).

    Parameters
    ----------
    predicted, target : ndarray of int, shape (N,)
    n_classes : int

    Examples
    --------
    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 1, 0]), 2)
    array([[1, 1],
           [0, 1]])
    """
    pairs = np.bincount(target * n_classes + predicted, minlength=n_classes**2)
    return pairs.reshape(n_classes, n_classes)
