"""A report as one HTML page: numbers as words and figures, in a language."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from softly import figures, matrix_figure
from softly.languages import texts
from softly.pages import render
from softly.report import Report
from softly.subjects import shortened
from softly.verdict import TOPICS, Finding, verdict

_LONGEST = 40  # letters of a name that is shown
_NAMED = 5  # names in a sentence
_CELLS = 12  # classes whose confusion matrix is a table with its numbers
_WEIGHED = 30  # classes whose weights are shown
_HALF = 0.5

_SHARES = {
    *("accuracy", "accuracy_low", "accuracy_high", "accuracy_of_guessing", "confidence", "share"),
    *("covered", "half", "risk", "risk_half"),
}
_ROUGH = {"temperature", "best", "mean"}


@dataclass(frozen=True)
class Words:
    """How numbers and names are written in a language."""

    t: dict[str, str]

    def percent(self, share: float | None) -> str:
        if share is None or math.isnan(share):
            return "–"
        number = f"{100 * share:.1f}"
        if 0 < share < 1 and number in ("0.0", "100.0"):
            number = "<0.1" if number == "0.0" else ">99.9"
        return self.t["report.percent"].format(number=number)

    def number(self, value: float | None) -> str:
        if value is None or math.isnan(value):
            return "–"
        return f"{value:.3f}" if math.isfinite(value) else "∞"

    def rough(self, value: float) -> str:
        return f"{value:.3g}"

    def count(self, n: int) -> str:
        return f"{n:,}"

    def name(self, name: str) -> Markup:
        """Whatever is in it, text in a direction of its own; whole in its title."""
        short = shortened(" ".join(name.split()) or "␣", _LONGEST)
        if short == name:
            return Markup("<bdi>{}</bdi>").format(name)
        return Markup('<bdi title="{}">{}</bdi>').format(name, short)

    def names(self, names: Iterable[str]) -> Markup:
        every = list(names)
        said = Markup(", ").join(self.name(name) for name in every[:_NAMED])
        if len(every) <= _NAMED:
            return said
        return self.say("and_more", names=said, more=len(every) - _NAMED)

    def say(self, key: str, **values: Any) -> Markup:
        """A text, with values written by what they are."""
        written = {name: self._value(name, value) for name, value in values.items()}
        return escape(self.t[f"report.{key}"]).format(**written)

    def _value(self, name: str, value: Any) -> Any:
        if isinstance(value, Markup):
            return value
        if isinstance(value, list):
            return self.names(value)
        if isinstance(value, str):
            return self.name(value)
        if isinstance(value, int):
            return self.count(value)
        if name == "coverage":
            return self.t["report.percent"].format(number=f"{100 * value:.3g}")
        if name in _SHARES:
            return self.percent(value)
        return self.rough(value) if name in _ROUGH else self.number(value)


def page(report: Report, language: str = "en") -> str:
    """The page, as text: one file, which asks the network for nothing.

    Raises
    ------
    ValueError
        If there is no such language.
    """
    words = Words(texts(language))
    return render(
        "report.html",
        language,
        r=report,
        w=words,
        verdict=_by_topic(verdict(report), words),
        measures=_measures(report, words),
        drawn=_drawn(report, words),
        method=_method(report, words),
        confusion=_confusion_cells(report),
        risk=_risk(report),
        weights=_weights(report),
        data=report.to_dict(),
    )


def _by_topic(findings: list[Finding], words: Words) -> list[tuple[str, list[Markup]]]:
    said = {topic: [f for f in findings if f.topic == topic] for topic in TOPICS}
    return [
        (
            words.t[f"report.topic.{topic}"],
            [words.say(f"verdict.{f.key}", **f.values) for f in found],
        )
        for topic, found in said.items()
        if found
    ]


def _measures(report: Report, words: Words) -> list[dict[str, str]]:
    """Each measure with its interval, and what guessing has."""
    found = []
    for name, score in report.measures.items():
        write = words.percent if name == "accuracy" else words.number
        guess = getattr(report.guessing, name, None)
        found.append(
            {
                "name": words.t[f"report.measure.{name}"],
                "value": write(score.value),
                "interval": words.t["report.interval"].format(
                    low=write(score.low), high=write(score.high)
                ),
                "guessing": ""
                if guess is None
                else words.t["report.measure.guessing"].format(value=write(guess)),
            }
        )
    return found


def _method(report: Report, words: Words) -> Markup:
    of = report.calibration
    if of is None:
        return Markup("")
    values = {"temperature": of.temperature} if of.temperature is not None else {}
    return words.say(f"method.{of.method}", **values)


def _drawn(report: Report, words: Words) -> dict[str, Markup]:
    """The figures there are, by name."""
    t = words.t
    found = {
        "answers": figures.answers(report.confidence, "answers", t["report.figure.answers"], t),
        "risk": figures.risk_coverage(report.risk_coverage, "risk", t["report.figure.risk"], t),
    }
    if report.calibration:
        for name, of in (
            ("before", report.calibration.before),
            ("after", report.calibration.after),
        ):
            if of:
                found[name] = figures.reliability(of, name, t[f"report.figure.{name}"], t)
    if report.temperatures:
        found["temperatures"] = figures.temperatures(
            report.temperatures, "temperatures", t["report.figure.temperatures"], t
        )
    if report.sets:
        title = str(words.say("figure.sets", coverage=report.sets.coverage))
        found["sets"] = figures.set_sizes(report.sets, "sets", title, t)
    if len(report.confusion.shown) > _CELLS:
        names = [report.classes[i] for i in report.confusion.shown]
        found["confusion"] = matrix_figure.confusion_matrix(
            report.confusion.counts, names, "confusion", t["report.figure.confusion"]
        )
    return found


def _confusion_cells(report: Report) -> list[dict[str, Any]]:
    """Rows of the matrix with how dark each cell is, where it is drawn as a table."""
    counts = report.confusion.counts
    if len(counts) > _CELLS:
        return []
    dark = matrix_figure.darkness(counts)
    return [
        {
            "name": report.classes[i],
            "cells": [
                {"rows": int(n), "dark": float(part), "right": j == row}
                for j, (n, part) in enumerate(zip(counts[row], dark[row], strict=True))
            ],
        }
        for row, i in enumerate(report.confusion.shown)
    ]


def _risk(report: Report) -> dict[str, float]:
    """Of the surest half, and of all."""
    curve = report.risk_coverage
    half = int(np.abs(curve.coverage - _HALF).argmin())
    return {
        "half": float(curve.coverage[half]),
        "risk_half": float(curve.risk[half]),
        "risk": float(curve.risk[-1]),
    }


def _weights(report: Report) -> list[tuple[str, list[dict[str, Any]]]]:
    """Of each class that is shown, its heaviest features, with their size beside the largest."""
    if not report.weights:
        return []
    shown = list(report.weights.items())[:_WEIGHED]
    largest = max((abs(x) for _, parts in shown for _, x in parts), default=1.0) or 1.0
    return [
        (label, [{"name": n, "weight": x, "size": abs(x) / largest} for n, x in parts])
        for label, parts in shown
    ]
