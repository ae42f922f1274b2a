"""The texts of token ids, without loading a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from ..paths import resolve


@cache
def token_text(model: str) -> Callable[[int], str]:
    """Function from a token id to its text by the model's tokenizer. Nothing is fetched.

    A part of a character is shown as the tokenizer writes its bytes. Without a tokenizer on this machine the text of
    token 7 is "#7".
    """
    from huggingface_hub import try_to_load_from_cache
    from tokenizers import Tokenizer

    file = resolve(model) / "tokenizer.json"
    if not file.is_file():  # perhaps the name of a hub model that was downloaded before
        file = try_to_load_from_cache(model, "tokenizer.json") if model.count("/") == 1 else None
    if not isinstance(file, str | Path):
        return lambda token: f"#{token}"
    tokenizer = Tokenizer.from_file(str(file))

    def text(token: int) -> str:
        whole = tokenizer.decode([token], skip_special_tokens=False)
        if "\ufffd" not in whole:
            return whole
        return tokenizer.id_to_token(token) or f"#{token}"

    return text
