"""softly turns scores into decisions.

The functions and losses need NumPy alone; the parts that need more (the
classifier needs scikit-learn) load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from softly.functions import (
    log_sigmoid,
    log_softmax,
    log_softmax_vjp,
    logit,
    logsumexp,
    sigmoid,
    softmax,
    softmax_inverse,
    softmax_jvp,
    softmax_vjp,
)
from softly.losses import cross_entropy

if TYPE_CHECKING:
    from softly.classifier import SoftmaxClassifier
    from softly.classifier_cv import SoftmaxClassifierCV
    from softly.linear_losses import LinearGradients, linear_cross_entropy
    from softly.path import RegularizationPath, regularization_path

__version__ = "0.1.0"

__all__ = [
    "LinearGradients",
    "RegularizationPath",
    "SoftmaxClassifier",
    "SoftmaxClassifierCV",
    "__version__",
    "cross_entropy",
    "linear_cross_entropy",
    "log_sigmoid",
    "log_softmax",
    "log_softmax_vjp",
    "logit",
    "logsumexp",
    "regularization_path",
    "sigmoid",
    "softmax",
    "softmax_inverse",
    "softmax_jvp",
    "softmax_vjp",
]

_on_first_use = {
    "LinearGradients": "softly.linear_losses",
    "RegularizationPath": "softly.path",
    "SoftmaxClassifier": "softly.classifier",
    "SoftmaxClassifierCV": "softly.classifier_cv",
    "linear_cross_entropy": "softly.linear_losses",
    "regularization_path": "softly.path",
}


def __getattr__(name: str) -> Any:
    if name in _on_first_use:
        value = getattr(import_module(_on_first_use[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'softly' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
