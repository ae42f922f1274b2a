"""The backends that open models, one entry each. Adding a backend takes a file beside this one and one line here."""

from __future__ import annotations

from .. import plugins
from . import openai, transformers
from .base import BackendType

# The first that takes the text of a config opens the model. A folder's backend takes every text, so it is the last.
BACKENDS: list[BackendType] = [
    *plugins.backends(),
    openai.BACKEND,
    transformers.BACKEND,
]


def backend_type(model: str) -> BackendType:
    """The backend of a model, by its text in a config."""
    return next(backend for backend in BACKENDS if backend.takes(model))
