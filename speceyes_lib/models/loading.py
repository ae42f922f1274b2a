"""A model by what a config calls it: a folder is loaded here, endpoints are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from ..paths import resolve, shown
from ..runs.provenance import folder_hash
from . import openai
from .base import Backend
from .endpoint import is_endpoint, parse_endpoints
from .openai import ServerBackend
from .transformers import TransformersBackend, check_architecture


def tokenizer_file(model: str) -> Path | None:
    """tokenizer.json of a model folder, or of a hub model that was downloaded before; nothing is fetched."""
    if not model:
        return None
    if (path := resolve(model) / "tokenizer.json").is_file():
        return path
    if model.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, "tokenizer.json")
    return Path(cached) if isinstance(cached, str) else None


@cache
def token_text(model: str) -> Callable[[int], str]:
    """Function from a token id to its text by the model's tokenizer, without loading the model.

    A part of a character is shown as the tokenizer writes its bytes. Where the tokenizer is not on this machine the
    text of token 7 is "#7".
    """
    path = tokenizer_file(model)
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


def check_model(model: str) -> None:
    """Refuse what cannot be opened, as far as can be known without loading it or asking a server.

    Raises UserError (ConfigError where the config is at fault).
    """
    if is_endpoint(model):
        for endpoint in parse_endpoints(model):
            openai.image_spec_of(endpoint.processor)
            _ = endpoint.key
    else:
        check_architecture(resolve(model))


def fingerprint(model: str) -> str:
    """sha256 of a folder's content; of a served model, of what is known of it."""
    return (
        openai.fingerprint(parse_endpoints(model)[0]) if is_endpoint(model) else folder_hash(resolve(model))
    )


def title(model: str) -> str:
    """The model's name for people and manifests: no machine's folder, no host."""
    return parse_endpoints(model)[0].model if is_endpoint(model) else shown(resolve(model))


def open_backend(
    model: str,
    role: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    attn: str = "auto",
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> Backend:
    """The backend of a folder, or of endpoints (which have dtype, device and attention settled on their side).

    Raises UserError as `check_model` does, and for a setting this machine cannot serve.
    """
    if is_endpoint(model):
        return ServerBackend(model, role, min_pixels, max_pixels)
    return TransformersBackend(resolve(model), role, dtype, device, attn, min_pixels, max_pixels)


def decoder(model: str) -> Callable[[Sequence[int]], str]:
    """Function that turns token ids of stored evidence into text; "(not recorded)" for a served model."""
    if is_endpoint(model):
        return lambda ids: "(not recorded)"
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(resolve(model)).decode


def settle_evidence(backend: Backend, evidence_k: int, required: bool) -> None:
    """Find out what evidence a server gives; refuse the run where less than `evidence_k` is not enough.

    Local models always give what is asked for. Raises UserError with the ways out.
    """
    if not isinstance(backend, ServerBackend):
        return
    if required:
        backend.check_alternatives(evidence_k)
    else:
        backend.probe(evidence_k)
