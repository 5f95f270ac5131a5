"""A calibration as a JSON file: all that predicting takes, for any language to read."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import softly
from softly.scalings import METHODS, Affine, Monotone, Scaling

Array = NDArray[Any]

_FORMAT = 1
_INPUTS = ("logits", "probabilities")
# What a reader of the file computes, for a row z of logits.
_FORMULAS = {
    "identity": "softmax(z)",
    "temperature": "softmax(z / T)",
    "isotonic": "p = sigmoid(interpolate(logit(softmax(z)), knots, values)); p / sum(p)",
    "vector": "softmax(W * (z - mean(z)) / T + b)",
    "matrix": "softmax(W @ (z - mean(z)) / T + b)",
}


@dataclass(frozen=True)
class Stored:
    """What a file holds.

    Attributes
    ----------
    method : str
    scaling : Affine or Monotone
    columns : int
        Of the logits: as many as classes, or one for two of them.
    classes : ndarray, shape (K,)
    are_probabilities : bool
        Whether it is given probabilities, of which `from_probabilities` makes its logits.
    """

    method: str
    scaling: Scaling
    columns: int
    classes: Array
    are_probabilities: bool = False

    def to_json(self) -> str:
        fields: dict[str, Any] = {
            "softly": softly.__version__,
            "format": _FORMAT,
            "kind": "calibration",
            "method": self.method,
            "formula": _FORMULAS[self.method],
            "input": _INPUTS[self.are_probabilities],
            "columns": self.columns,
            "classes": self.classes.tolist(),
        }
        return json.dumps(fields | _numbers(self.scaling))


def read(path: str | os.PathLike[str]) -> Stored:
    """What a file holds that `Stored.to_json` made.

    Raises
    ------
    ValueError
        If the file is no such JSON.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:  # with the mark that some editors put first
            return _stored(json.load(file))
    except (KeyError, TypeError, ValueError, _Wrong) as error:  # of JSON, of text, of numbers
        raise ValueError(
            f"'{path}' is no calibration: a file that `softly calibrate` or to_json wrote is needed"
        ) from error


class _Wrong(Exception):
    """Fields that do not fit together."""


def _numbers(scaling: Scaling) -> dict[str, Any]:
    if isinstance(scaling, Monotone):
        return {"knots": scaling.knots.tolist(), "values": scaling.values.tolist()}
    return {"T": scaling.temperature, "W": scaling.weight.tolist(), "b": scaling.bias.tolist()}


def _stored(fields: Any) -> Stored:
    _need(isinstance(fields, dict))
    of_input = fields.get("input", _INPUTS[0])
    _need(
        fields["kind"] == "calibration",
        fields["format"] <= _FORMAT,
        fields["method"] in METHODS,
        of_input in _INPUTS,
    )
    classes, columns = np.array(fields["classes"]), int(fields["columns"])
    k = len(classes)
    _need(columns == k or (columns, k) == (1, 2), len(np.unique(classes)) == k)
    scaling = _monotone(fields) if fields["method"] == "isotonic" else _affine(fields, k)
    return Stored(fields["method"], scaling, columns, classes, of_input == _INPUTS[1])


def _monotone(fields: dict[str, Any]) -> Monotone:
    knots, values = (np.array(fields[name], float) for name in ("knots", "values"))
    _need(len(knots), knots.shape == values.shape)
    _need((np.diff(knots) > 0).all(), (np.diff(values) >= 0).all())
    return Monotone(knots, values)


def _affine(fields: dict[str, Any], k: int) -> Affine:
    temperature, weight, bias = (np.array(fields[name], float) for name in ("T", "W", "b"))
    _need((weight.shape, bias.shape) in _shapes(fields["method"], k))
    _need(*(np.isfinite(each).all() for each in (temperature, weight, bias)), temperature > 0)
    return Affine(float(temperature), weight, bias)


def _shapes(method: str, k: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """What weights and biases of a method may have; matrix scaling may end as vector scaling."""
    of_vector = ((k,), (k,))
    if method == "matrix":
        return [((k, k), (k,)), of_vector]
    return [of_vector] if method == "vector" else [((), ())]


def _need(*conditions: Any) -> None:
    if not all(conditions):
        raise _Wrong
