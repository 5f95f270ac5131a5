"""How far an objective can be from its minimum: a proof, by a point of its dual problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


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
    each = g if len(g) > 1 else np.array([-g[0], g[0]])
    above = each > 0
    if not above.any():  # they sum to 0
        return float(np.vdot(G, G)) / (2 * l2)
    of_loss = G - l2 * W
    entropy = value - 0.5 * l2 * float(np.vdot(W, W)) - float(np.vdot(W, of_loss) + b @ g)
    mean = means.frequency + each
    share = float((each[above] / mean[above]).max())  # epsilon
    q = np.maximum(mean - each / share, 0)
    inner = q[q > 0]
    q_entropy = -float(inner @ np.log(inner))
    center = means.features.sum(axis=0)
    B = of_loss + (means.features - np.outer(q, center))[-len(W) :]
    rest = G - share * B
    gap = float(np.vdot(rest, rest)) / (2 * l2)
    gap += share * (float(np.vdot(W, B)) + entropy - q_entropy) + float(b @ g)
    return max(gap, 0.0)
