"""The weakened agent lies between the embedded one and its fine-tuned copy, and follows from its seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from speceyes_lib.models.transformers import TransformersBackend
from speceyes_lib.training.pretraining import Phase
from speceyes_lib.training.weakened_start import RECIPE, weaken

AGENT = Path(__file__).parents[2] / "data" / "demo" / "models" / "agent"
SHORT = replace(RECIPE, phases=(Phase("worse teacher", "pictures", 1, rate=30.0),), rows=1)


def test_the_same_seed_gives_the_same_agent_which_differs_from_the_embedded_one(tmp_path):
    seen = []
    first = weaken(AGENT, tmp_path / "first", recipe=SHORT, progress=lambda *args: seen.append(args))
    assert seen[-1] == (1, 1, "worse teacher")
    again = weaken(AGENT, tmp_path / "again", recipe=SHORT)
    assert (first / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    weights, before = (load_file(folder / "model.safetensors") for folder in (first, AGENT))
    assert set(weights) == set(before)
    moved = [not torch.equal(weights[name], before[name].float()) for name in weights]
    assert sum(moved) > len(moved) / 2
    assert TransformersBackend(first, "agent", dtype="float32").vocab_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "first"]
