"""What softly says to people, in their language: one JSON file each, found by its name.

A new language is a new file here, with the keys of `en.json`. Keys begin with the command they
belong to; what stands in braces is filled in by `str.format`, or by a page's own script, so it is
a name and nothing more. Sentences say as much in every language, and need not be built alike.
"""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["available", "texts"]

_FOLDER = Path(__file__).parent


def available() -> list[str]:
    """The codes of the languages there are.

    Examples
    --------
    >>> available()
    ['en', 'ko']
    """
    return sorted(file.stem for file in _FOLDER.glob("*.json"))


def texts(language: str = "en") -> dict[str, str]:
    """All texts of a language, by their keys.

    Parameters
    ----------
    language : str
        Its code, such as ``en`` or ``ko``.

    Raises
    ------
    ValueError
        If there is no such language; the message says which there are.

    Examples
    --------
    >>> texts("ko")["language.name"]
    '한국어'
    """
    if language not in available():
        raise ValueError(
            f"'{language}' is not a language that softly speaks: choose one of "
            f"{', '.join(available())}"
        )
    content = (_FOLDER / f"{language}.json").read_text(encoding="utf-8")
    found: dict[str, str] = json.loads(content)
    return found
