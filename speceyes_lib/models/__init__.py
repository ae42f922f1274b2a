"""Backends: `generate(requests)` over transformers or any OpenAI-compatible server."""
