"""The study shows recorded runs, or trains its own with the parameters of the notebook."""

from __future__ import annotations

import inspect

from speceyes_lib.params import RecipeParams
from speceyes_lib.paths import resolve, run_dir
from speceyes_lib.training import miniature
from speceyes_lib.training.recipe_runs import runs_of_recipe


def test_runs_are_trained_only_if_the_parameters_say_so(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    signature, calls = inspect.signature(miniature.train_arms), []
    monkeypatch.setattr(
        miniature, "train_arms", lambda *a, **k: calls.append(signature.bind(*a, **k).arguments)
    )
    assert runs_of_recipe(RecipeParams()) == resolve(RecipeParams().path)
    assert not calls
    params = RecipeParams(run="mine", train=True, arms=["bonus"], seeds=[3], steps=5, held_out=7, processes=1)
    assert runs_of_recipe(params, report=calls.append) == run_dir("mine")
    (call,) = calls
    assert {name: call[name] for name in ("folder", "arms", "seeds", "held_out", "processes")} == {
        "folder": run_dir("mine"), "arms": ["bonus"], "seeds": [3], "held_out": 7, "processes": 1,
    }  # fmt: skip
    assert call["settings"].steps == 5


def test_the_arms_of_the_parameters_are_those_that_can_be_trained():
    assert set(RecipeParams().arms) == set(miniature.ARMS)
