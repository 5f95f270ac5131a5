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
    from softly.calibration import (
        Calibrator,
        IsotonicScaling,
        MatrixScaling,
        TemperatureScaling,
        VectorScaling,
        from_probabilities,
        load_calibration,
    )
    from softly.classifier import SoftmaxClassifier
    from softly.classifier_cv import SoftmaxClassifierCV
    from softly.conformal import PredictionSets
    from softly.decisions import Decisions, decide
    from softly.linear_losses import LinearGradients, linear_cross_entropy
    from softly.path import RegularizationPath, regularization_path
    from softly.report import Report
    from softly.resampling import compare, measure

__version__ = "0.1.0"

__all__ = [
    "Calibrator",
    "Decisions",
    "IsotonicScaling",
    "LinearGradients",
    "MatrixScaling",
    "PredictionSets",
    "RegularizationPath",
    "Report",
    "SoftmaxClassifier",
    "SoftmaxClassifierCV",
    "TemperatureScaling",
    "VectorScaling",
    "__version__",
    "compare",
    "cross_entropy",
    "decide",
    "from_probabilities",
    "linear_cross_entropy",
    "load_calibration",
    "log_sigmoid",
    "log_softmax",
    "log_softmax_vjp",
    "logit",
    "logsumexp",
    "measure",
    "regularization_path",
    "sigmoid",
    "softmax",
    "softmax_inverse",
    "softmax_jvp",
    "softmax_vjp",
]

_on_first_use = {
    "Calibrator": "softly.calibration",
    "Decisions": "softly.decisions",
    "IsotonicScaling": "softly.calibration",
    "LinearGradients": "softly.linear_losses",
    "MatrixScaling": "softly.calibration",
    "PredictionSets": "softly.conformal",
    "RegularizationPath": "softly.path",
    "Report": "softly.report",
    "SoftmaxClassifier": "softly.classifier",
    "SoftmaxClassifierCV": "softly.classifier_cv",
    "TemperatureScaling": "softly.calibration",
    "VectorScaling": "softly.calibration",
    "compare": "softly.resampling",
    "decide": "softly.decisions",
    "from_probabilities": "softly.calibration",
    "linear_cross_entropy": "softly.linear_losses",
    "load_calibration": "softly.calibration",
    "measure": "softly.resampling",
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
