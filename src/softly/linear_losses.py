"""cross_entropy of a linear layer, without ever holding all its scores.

Scores of N rows and K classes may be far larger than what they are made of. So some rows are
scored at a time, turned into their gradient in place, and taken up by the gradients of features
and weights. How the work is cut depends on shapes and the budget alone; pieces run on several
threads, each piece's BLAS on one, so that threads change no bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from softly import arrays
from softly.linear.layer import Layer, LinearGradients
from softly.linear.layout import BUDGET
from softly.linear.passes import Pass
from softly.losses import Empty, Reduction, prepare

__all__ = ["LinearGradients", "linear_cross_entropy"]


def linear_cross_entropy(
    features: Any,
    weight: Any,
    target: Any,
    bias: Any = None,
    *,
    class_weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    logit_cap: float | None = None,
    temperature: Any = 1.0,
    where: Any = None,
    focal: float = 0.0,
    reduction: Reduction = "mean",
    empty: Empty = "nan",
    memory_budget: int = BUDGET,
    return_grad: bool = False,
) -> Any:
    r"""The `cross_entropy` of ``features @ weight.T + bias``, which is never held as a whole.

    .. math:: z = W x + b, \qquad
              \frac{\partial \ell}{\partial x} = W^T \frac{\partial \ell}{\partial z}, \quad
              \frac{\partial \ell}{\partial W} = \sum_x \frac{\partial \ell}{\partial z} x^T, \quad
              \frac{\partial \ell}{\partial b} = \sum_x \frac{\partial \ell}{\partial z}

    Parameters
    ----------
    features : array_like, shape (..., D)
        What the layer is given, a row for each prediction.
    weight : array_like, shape (K, D)
        A row for each class. Half types are worked on in float32 a block at a time; integers
        are made float64 as a whole.
    target : array_like
        As in `cross_entropy`: integers of shape (...), floats of shape (..., K), or a pair
        ``(indices, probabilities)`` of shape (..., m) each.
    bias : array_like, shape (K,), optional
        Added to the scores.
    class_weight, sample_weight, ignore_index, label_smoothing, z_loss, logit_cap, temperature, \
where, focal, reduction, empty
        As in `cross_entropy`. Rows that are ignored or of weight 0 take part in no product.
    memory_budget : int
        Bytes that may be allocated beyond the gradients. More of it makes the products more
        efficient, up to some 500 rows of scores, and lets more threads take part; with less
        than 120 rows of scores, scores are computed more than once. The sums behind gradients
        of half types count: each takes 4 bytes until it is rounded.
    return_grad : bool
        Also return the gradients of the value (with ``"none"``: of the sum of the values).

    Returns
    -------
    value : float, or array of shape (...) with ``reduction="none"``
        Whatever the budget and the number of threads, the scores have the same bits.
    gradients : LinearGradients
        ``features``, ``weight`` and ``bias`` (None without a bias). Only with
        ``return_grad=True``.

    Raises
    ------
    ValueError
        If shapes do not match, `memory_budget` does not suffice for one row, or an option is
        not as `cross_entropy` needs it.
    TypeError
        If an array holds no real numbers, or is of a library other than NumPy and PyTorch
        (on the CPU).

    References
    ----------
    Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", 2024, for never
    holding all the scores.

    Examples
    --------
    >>> import numpy as np
    >>> import softly
    >>> features, weight = np.eye(3), np.array([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0]])
    >>> value, gradients = softly.linear_cross_entropy(
    ...     features, weight, [0, 1, 1], return_grad=True
    ... )
    >>> round(value, 4)
    0.3157
    >>> gradients.weight.round(3)
    array([[-0.04 ,  0.04 ,  0.167],
           [ 0.04 , -0.04 , -0.167]])
    """
    layer = Layer.of(features, weight, bias)
    asked = prepare(
        (*layer.lead, layer.n_classes),
        len(layer.lead),
        layer.dtype,
        target,
        class_weight=class_weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        logit_cap=logit_cap,
        temperature=temperature,
        where=where,
        focal=focal,
        reduction=reduction,
        empty=empty,
    )
    once = Pass(layer, asked, int(memory_budget), return_grad)
    once.run()
    value = asked.value(once.loss)
    if reduction == "none":
        losses = arrays.narrowed(value, layer.dtype).reshape(layer.lead)
        value = layer.left("features", losses)
        value = value[()] if isinstance(value, np.ndarray) else value
    return (value, once.gradients()) if return_grad else value
