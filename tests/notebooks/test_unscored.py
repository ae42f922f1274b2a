"""Notebook 01 reads to its end where no draft has a score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from scripted import ScriptedBackend

from speceyes_lib.inference.loaded_models import LoadedModels
from speceyes_lib.models import registry, transformers
from speceyes_lib.models.base import Generation, failed
from speceyes_lib.runs.evidence import Evidence
from speceyes_lib.runs.reading import is_finished
from speceyes_lib.workflow.plan import code_of
from tests.conftest import MODELS

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_small_model_inference.ipynb"
NO_TOKENS = Evidence((), (), np.zeros(0), np.zeros((0, 128), int), np.zeros((0, 128), np.float32))
NOTHING = {
    "no text": lambda request: Generation(request.id, "", (), "stop", 0.0, 1, NO_TOKENS, ("yes",)),
    "failed": lambda request: failed(request, "no answer", 0.0),
}


@pytest.mark.parametrize("answer", NOTHING.values(), ids=NOTHING)
def test_drafts_without_a_score_are_shown_and_the_stage_is_finished(
    answer, tmp_path, monkeypatch, benchmark_root, capsys
):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    monkeypatch.setattr(LoadedModels, "_loaded", {})
    silent = replace(transformers.BACKEND, open=lambda *_, **__: ScriptedBackend(answer))
    monkeypatch.setattr(registry, "BACKENDS", [silent])
    before, rest = code_of(NOTEBOOK).split("params = start", 1)
    cell = {"run": "silent", "tasks": ["pope/random"], "data_root": str(benchmark_root), "limit": 4}
    cell["draft_model"] = str(MODELS / "draft")
    variables: dict = {}
    exec(before, variables)
    variables |= cell
    with matplotlib.rc_context():
        exec(f"params = start{rest}", variables)
    assert is_finished("silent", "01_draft", "pope/random")
    assert variables["n"] == 0
    assert "0 of 0 drafts" in capsys.readouterr().out
