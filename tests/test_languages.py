"""All languages say the same things, with the same numbers in them."""

import string

import pytest

from softly import languages


def placeholders(text):
    return sorted(part[1:] for part in string.Formatter().parse(text) if part[1] is not None)


@pytest.mark.parametrize("language", languages.available())
def test_the_same_keys_and_placeholders(language):
    english, other = languages.texts("en"), languages.texts(language)
    assert list(other) == list(english)
    for key, text in other.items():
        assert text.strip() == text != "", key
        assert placeholders(text) == placeholders(english[key]), key
        for name, form, conversion in placeholders(text):
            assert name.isidentifier(), f"{key}: a page's script fills in plain names alone"
            assert (form, conversion) == ("", None), key


def test_an_unknown_language_is_one_sentence_with_those_there_are():
    for language in ("xx", "", "EN", "../en", "en.json"):
        with pytest.raises(ValueError, match=r"^'.*' is not a language .*: choose one of en, ko$"):
            languages.texts(language)
