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
    path = _tokenizer_file(model)
    if path is None:
        return lambda token: f"#{token}"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))

    def text(token: int) -> str:
        whole = tokenizer.decode([token], skip_special_tokens=False)
        if "\ufffd" not in whole:
            return whole
        return tokenizer.id_to_token(token) or f"#{token}"

    return text


def _tokenizer_file(model: str) -> Path | None:
    """tokenizer.json of a model folder, or of a hub model that was downloaded before."""
    if not model:
        return None
    if (path := resolve(model) / "tokenizer.json").is_file():
        return path
    if model.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, "tokenizer.json")
    return Path(cached) if isinstance(cached, str) else None
