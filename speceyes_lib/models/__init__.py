"""Who can be asked: `generate(requests)` over transformers or any OpenAI-compatible server."""
