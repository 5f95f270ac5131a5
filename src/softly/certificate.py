"""How far an objective can be from its minimum: a proof, by a point of its dual problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_MOST_SCALES = 20


@dataclass(frozen=True)
class ClassMeans:
    """What each class holds of the weight and of the features: the sums of s y and of s y x'."""

    frequency: Array  # (K,), sums to 1
    features: Array  # (K, D)


def duality_gap(
    parameters: Array, value: float, gradient: Array, l2: float, means: ClassMeans | None
) -> float:
    r"""A bound on F - F*, which is tight at the minimum.

    The dual of softmax regression (Collins, Globerson, Koo, Carreras and Bartlett, 2008) takes a
    distribution p_i for each row; if their mean is that of the classes, as the intercepts want it,

    .. math:: F^* \ge \bar H(p) - \frac{1}{2 \lambda} \Big\| \sum_i s_i (p_i - y_i) x_i \Big\|^2

    with H the entropy. The probabilities at hand miss that mean by the intercepts' gradient g. So
    they are mixed with one more distribution, :math:`p_i' = (1 - \epsilon) p_i + \epsilon q` with
    :math:`q = \bar p - g / \epsilon` and the least :math:`\epsilon` for which q is one; the entropy
    of a mixture is no less than the mixture of the entropies. With G the gradient of the
    coefficients and :math:`B = \overline{p x'} - q \bar x'` this leaves

    .. math:: F - F^* \le \frac{\|G - \epsilon B\|^2}{2 \lambda}
        + \epsilon \, (\langle W, B \rangle + \bar H(p) - H(q)) + \langle b, g \rangle

    in which nothing large cancels.

    Parameters
    ----------
    parameters, gradient : ndarray, shape (K, D) or (K, D + 1)
        W, and b in a last column if there are intercepts; one row for two classes, where the
        first has score 0.
    value : float
        F, the mean loss with its penalty.
    l2 : float
        The penalty; 0 proves nothing, and gives infinity.
    means : ClassMeans or None
        None where there are no intercepts.

    Returns
    -------
    float
        At least 0.
    """
    if l2 == 0:
        return np.inf if gradient.any() else 0.0
    if means is None:
        return float(np.vdot(gradient, gradient)) / (2 * l2)
    W, b, G, g = parameters[:, :-1], parameters[:, -1], gradient[:, :-1], gradient[:, -1]
    of_loss = G - l2 * W
    entropy = value - 0.5 * l2 * float(np.vdot(W, W)) - float(np.vdot(W, of_loss) + b @ g)
    share, B, q_entropy = _mixture(of_loss, g, means)
    rest = G - share * B
    gap = float(np.vdot(rest, rest)) / (2 * l2)
    gap += share * (float(np.vdot(W, B)) + entropy - q_entropy) + float(b @ g)
    return max(gap, 0.0)


def elastic_net_gap(
    parameters: Array,
    value: float,
    gradient: Array,
    l1: float,
    l2: float,
    means: ClassMeans | None,
) -> float:
    r"""A bound on F - F* with both penalties, which is tight at the minimum.

    The dual is that of `duality_gap` with the conjugate of the elastic net: for distributions p_i
    whose mean is that of the classes, and with :math:`U = \sum_i s_i (p_i - y_i) x_i'`,

    .. math:: F^* \ge \bar H(p) - \sum_{kj} \frac{(|U_{kj}| - \lambda_1)_+^2}{2 \lambda_2}

    where without :math:`\lambda_2` no entry of U may exceed :math:`\lambda_1`. The mixtures p' of
    `duality_gap` are therefore drawn to the targets as far as it pays, :math:`y + a (p' - y)`
    (Ndiaye, Fercoq, Gramfort and Salmon, 2017), which scales U by a and leaves at least a times the
    entropy.
    With L the mean loss, U that of p', and V what a U exceeds :math:`\lambda_1` by, this is

    .. math:: F - F^* \le \frac{\|\lambda_2 W + V\|^2}{2 \lambda_2}
        + \lambda_1 \|W\|_1 + \langle W, a U - V \rangle + (1 - a) L
        + a \, \big(\epsilon \, (\langle W, B \rangle + \bar H(p) - H(q))
        + \langle b, g \rangle\big)

    in which each entry of the first two terms is at least 0, and nothing large cancels.

    Parameters
    ----------
    parameters, gradient : ndarray, shape (K, D) or (K, D + 1)
        As for `duality_gap`; the gradient is that of the loss and the squares.
    value : float
        The mean loss with the squares' penalty.
    l1, l2 : float
        What the sum of sizes and half the sum of squares are multiplied with.
    means : ClassMeans or None
        None where there are no intercepts.

    Returns
    -------
    float
        At least 0.
    """
    d = parameters.shape[1] - (means is not None)
    W, b, g = parameters[:, :d], parameters[:, d:].ravel(), gradient[:, d:].ravel()
    U = gradient[:, :d] - l2 * W
    loss = value - 0.5 * l2 * float(np.vdot(W, W))
    mixed = 0.0
    if means is not None and g.any():
        entropy = loss - float(np.vdot(W, U)) - float(b @ g)
        share, B, q_entropy = _mixture(U, g, means)
        mixed = share * (float(np.vdot(W, B)) + entropy - q_entropy) + float(b @ g)
        U = U - share * B
    counts = (W != 0) | (np.abs(U) > l1)
    w, u = W[counts], U[counts]
    a = _scale(u, l1, l2, slope=float(w @ u) - loss + mixed)
    inside = np.clip(a * u, -l1, l1)
    gap = float(np.sum(l1 * np.abs(w) + w * inside)) + (1 - a) * loss + a * mixed
    if l2:
        gap += float(np.sum((l2 * w + a * u - inside) ** 2)) / (2 * l2)
    return max(gap, 0.0)


def _mixture(U: Array, g: Array, means: ClassMeans) -> tuple[float, Array, float]:
    """Epsilon, B and H(q) of `duality_gap`; no mixture where the intercepts miss nothing."""
    each = g if len(g) > 1 else np.array([-g[0], g[0]])
    mean = means.frequency + each
    above = each > 0
    if not above.any():
        return 0.0, np.zeros_like(U), 0.0
    share = float((each[above] / mean[above]).max())
    q = np.maximum(mean - each / share, 0)
    inner = q[q > 0]
    B = U + (means.features - np.outer(q, means.features.sum(axis=0)))[-len(U) :]
    return share, B, -float(inner @ np.log(inner))


def _scale(u: Array, l1: float, l2: float, slope: float) -> float:
    """The a from 0 to 1 for which the gap of `elastic_net_gap` is least.

    Its derivative is `slope` and what the entries outside of l1 add, convex and growing: Newton's
    method from 1 comes down to its root.
    """
    size = np.abs(u)
    size = size[size > l1]
    if not len(size):
        return 1.0
    if l2 == 0:
        return l1 / float(size.max())
    a = 1.0
    for _ in range(_MOST_SCALES):
        over = np.maximum(a * size - l1, 0)
        excess = slope + float(size @ over) / l2
        if excess <= 0 or not over.any():
            break
        a -= excess * l2 / float(size[over > 0] @ size[over > 0])
    return max(a, 0.0)
