"""Pages: one HTML file each, which asks the network for nothing.

A template extends `base.html`. It names the style sheets and scripts of this folder that it wants
in it, as in ``{% set styles, scripts = ["explain.css"], ["explain.js"] %}``, and fills the blocks
`title` and `main`. Whatever a script needs to know stands in `data`, as JSON in the element with
the id `data`. The page's policy lets these scripts run and no others, and lets nothing load.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from softly.languages import texts

__all__ = ["render"]

_FOLDER = Path(__file__).parent


def render(template: str, language: str = "en", **context: Any) -> str:
    """A page, as text.

    Parameters
    ----------
    template : str
        A file in this folder.
    language : str
        Its texts are the template's `t`.
    **context
        What the template is about. All of it is text on the page, never markup; `data` is
        embedded as JSON.

    Raises
    ------
    ValueError
        If there is no such language, or a number of `data` is none that JSON has (NaN, infinity).
    """
    page = _environment().get_template(template)
    return page.render(language=language, t=texts(language), **context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False}
    environment.globals |= {"inline": _inline, "allowed": _allowed}
    return environment


def _inline(name: str) -> Markup:
    """A style sheet or script of ours, as it is: no part of it is a template."""
    return Markup((_FOLDER / name).read_text(encoding="utf-8"))


def _allowed(scripts: list[str]) -> str:
    """The scripts by their digests, as a page's policy names what may run."""
    digests = (hashlib.sha256(_inline(name).encode()).digest() for name in scripts)
    named = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
    return " ".join(named) or "'none'"
