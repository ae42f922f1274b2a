"""Decoding a token: the suite's greedy loop beside transformers' `generate`, and two layouts of the same weights.

    python benchmarks/bench_decoding.py [--write]

The embedded agent decodes 60 tokens after one picture and a question, alone and in a batch of 16. All ways must
give the same tokens. They take turns in random order. The machine is shared, so the median and the smallest are given.
`--write` puts the table into README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import time
from pathlib import Path

import torch
import transformers
from bench_confidence import write_between_markers
from PIL import Image

from speceyes_lib.models.base import GenerationRequest
from speceyes_lib.models.decoding import decode_batch
from speceyes_lib.models.transformers import TransformersBackend, read_in_one_stream
from speceyes_lib.paths import repo_root

NEW_TOKENS = 60
ROUNDS = {1: 30, 16: 10}  # by batch size
WAYS = ("generate, weights as loaded", "greedy, weights as loaded", "greedy, tall weights by column")


def lay_out(model: torch.nn.Module, by_column: bool) -> None:
    """Store the weights as the backend does, or by row as they were loaded."""
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data = layer.weight.data.contiguous()
    if by_column:
        read_in_one_stream(model)


def inputs_of(backend: TransformersBackend, count: int) -> dict:
    picture = Image.new("RGB", (96, 96), "grey")
    content = [
        {"type": "image", "image": picture},
        {"type": "text", "text": "what color is the circle? " * 6},
    ]
    request = GenerationRequest("x", [{"role": "user", "content": content}], NEW_TOKENS)
    return backend.batch_tensors([backend.prepared_row(request)] * count)


def decode(backend: TransformersBackend, way: str, count: int) -> tuple[float, list[list[int]]]:
    """(seconds of decoding, pictures encoded before; new tokens of each row)."""
    inputs = inputs_of(backend, count)
    with torch.inference_mode():
        start = time.perf_counter()
        if way.startswith("generate"):
            length = inputs["input_ids"].shape[1]
            tokens_by_row = backend.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)[
                :, length:
            ].tolist()
        else:
            tokens_by_row = [tokens for tokens, _ in decode_batch(backend.model, inputs, NEW_TOKENS, ends=())]
        return time.perf_counter() - start, tokens_by_row


def table() -> str:
    backend = TransformersBackend(
        repo_root() / "data/demo/models/agent", "agent", dtype="float32", device="cpu"
    )
    backend.model.generation_config.eos_token_id = None  # on and on
    lines = [
        (
            f"Embedded agent, {NEW_TOKENS} tokens after one picture, float32, one thread; {platform.machine()}, "
            f"{os.cpu_count()} cores, torch {torch.__version__.split('+')[0]}, "
            f"transformers {transformers.__version__}; "
            "wall-clock, first step included, the ways in turns."
        ),
        "",
        "| batch | way | ms per step, median | smallest | of the first |",
        "| --- | --- | --- | --- | --- |",
    ]
    for count, rounds in ROUNDS.items():
        spent: dict[str, list[float]] = {way: [] for way in WAYS}
        tokens_by_row = []
        for _ in range(rounds):
            for way in random.sample(WAYS, len(WAYS)):
                lay_out(backend.model, by_column=way.endswith("by column"))
                decode(backend, way, count)  # caches are warm
                seconds, tokens = decode(backend, way, count)
                spent[way].append(1e3 * seconds / NEW_TOKENS)
                tokens_by_row.append(tokens)
        if any(tokens != tokens_by_row[0] for tokens in tokens_by_row):
            raise SystemExit("the ways give different tokens")
        first = statistics.median(spent[WAYS[0]])
        for way in WAYS:
            median = statistics.median(spent[way])
            lines.append(f"| {count} | {way} | {median:.2f} | {min(spent[way]):.2f} | {median / first:.0%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    measured = table()
    print(measured)
    if arguments.write:
        write_between_markers(Path(__file__).with_name("README.md"), "bench_decoding", measured)
