"""scikit-learn's callbacks, where its version has them (1.9): each pass is a task of the fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupportMixin
    from sklearn.callback import with_callbacks as with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing to support."""

    def with_callbacks(method: Any) -> Any:
        """The method as it is."""
        return method


Attributes = Callable[[], dict[str, Any]]


class Tasks:
    """What the callbacks of an estimator are told while it fits."""

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any) -> None:
        self._estimator = estimator
        self._data = {"X": X, "y": y}
        if sample_weight is not None:
            self._data["metadata"] = {"sample_weight": sample_weight}
        self._fit: Any = None
        if hasattr(estimator, "_init_callback_context"):
            self._fit = estimator._init_callback_context(max_subtasks=None)
            self._fit.call_on_fit_task_begin(estimator=estimator, **self._data)
        self.are_followed = bool(getattr(estimator, "_skl_callbacks", []))
        self._pass: Any = self._begin() if self.are_followed else None

    def passed(self, attributes: Attributes | None = None) -> None:
        """A pass has ended, after which the estimator could have what this gives."""
        self._pass.call_on_fit_task_end(
            estimator=self._estimator, reconstruction_attributes=attributes, **self._data
        )
        self._pass = self._begin()

    def end(self) -> None:
        """So has the fit."""
        if self._pass is not None:
            self._pass.call_on_fit_task_end(estimator=self._estimator)  # has not begun, in fact
        if self._fit is not None:
            self._fit.call_on_fit_task_end(estimator=self._estimator, **self._data)

    def _begin(self) -> Any:
        task = self._fit.subcontext(task_name="pass")
        task.call_on_fit_task_begin(estimator=self._estimator, **self._data)
        return task
