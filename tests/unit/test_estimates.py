"""Tokens of text whose tokenizer is unknown: a stated estimate by bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.runtime.meter import estimated_tokens, tokens_of_parts


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("four", 1),
        ("fours", 2),
        ("the quick brown fox", 5),
        ("\u0434\u0430", 2),  # two letters of Cyrillic
        ("\u4f60\u597d", 3),  # two characters of Chinese
        ("caf\u00e9", 2),
        ("\U0001f600", 2),
        ("\ud800", 1),  # half a pair, as broken clients send it
    ],
)
def test_the_estimate(text: str, tokens: int) -> None:
    assert estimated_tokens(text) == tokens


@given(st.text(), st.text())
def test_more_text_is_never_fewer_tokens(one: str, more: str) -> None:
    whole = estimated_tokens(one + more)
    assert max(estimated_tokens(one), estimated_tokens(more)) <= whole
    assert whole <= estimated_tokens(one) + estimated_tokens(more)
    assert whole <= tokens_of_parts([one, more]) - 8
