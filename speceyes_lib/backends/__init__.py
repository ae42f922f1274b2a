"""Where text comes from: `generate(requests) -> generations`. Nothing heavy is imported before a backend is made."""

from .base import Backend, Generation, GenerationRequest

__all__ = ["Backend", "Generation", "GenerationRequest"]
