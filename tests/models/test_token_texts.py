"""What is known of a model without loading it."""

from __future__ import annotations

from speceyes_lib.models.token_texts import token_text


def test_token_texts_come_from_the_tokenizer_where_it_is():
    assert token_text("")(7) == "#7"
    text = token_text("data/demo/models/draft")
    assert len({text(i) for i in range(100, 140)}) > 30
    assert "#" not in text(100)
