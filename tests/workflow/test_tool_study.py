"""The embedded study with scripted models: whole, continued, and refused where it would mix."""

from __future__ import annotations

import json

import pytest
from study_models import study

from speceyes_lib.analysis.tool_study import ToolStudy, read_tool_study
from speceyes_lib.errors import ConfigError, DataError
from speceyes_lib.stats.resampling import Bootstrap
from speceyes_lib.tool_speculation.records import read_runs
from speceyes_lib.workflow.cli import main

FEW = Bootstrap(draws=50)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield study(profiles=["science", "coding"])


@pytest.fixture(scope="module")
def recorded(folder) -> ToolStudy:
    return read_tool_study(folder, FEW)


def test_every_arm_runs_on_every_task_and_lossless_arms_change_nothing(recorded):
    assert list(recorded.profiles) == ["science", "coding"]
    assert {len(runs) for arms in recorded.profiles.values() for runs in arms.values()} == {1}
    assert set(recorded.profiles["coding"]) == {"baseline", "exact", "original", "weak", "weak_original"}
    results = recorded.results()
    science = results[results["profile"] == "science"].set_index("arm")
    assert {"jaccard", "tool_name_only", "normalised", "none", "look_ahead", "shadow"} <= set(science.index)
    lossless = results[results["lossless"]]
    assert (lossless["same_messages"] == 1).all()
    assert (lossless["same_answers"] == 1).all()
    assert science.loc["none", "hits"] == science.loc["weak", "hits"] == 0
    assert (results["hits"] <= results["calls"]).all()
    threshold = recorded.plan["threshold"]
    guesses = [g for run in recorded.profiles["science"]["exact_gate"] for s in run.steps for g in s.guesses]
    assert guesses
    assert all((g.refused is None) == (g.scores["separability_min"] >= threshold) for g in guesses)


def test_frames_of_a_study_have_their_shares(recorded):
    ceilings = recorded.ceilings()
    assert (ceilings["tool_share_pct"].diff().dropna() > 0).all()
    assert (ceilings["ceiling"] > 1).all()
    losses = recorded.losses(["exact", "original"])
    assert losses.loc["exact", "ceiling"] == pytest.approx(100)
    reasons = ["no guess", "wrong guess", "not executed", "too late", "waiting", "saved"]
    assert losses[reasons].sum(axis=1).to_numpy() == pytest.approx([100, 100])
    assert recorded.delays().loc["baseline", "p95_more_ms"] == 0
    both = recorded.two_by_two()
    assert both.loc[("baseline", "without gate"), "speedup"] == 1
    assert len(both) == 4
    assert not [finding for finding in recorded.findings() if "different days" not in finding]


def test_the_gate_and_the_replay_of_a_study(recorded):
    scores = recorded.scores()
    assert scores.loc["separability_min", "auroc"] == scores.loc["logprob_sum", "auroc"] == 1
    assert recorded.predictors().loc["speculator", "n"] == recorded.ceilings().loc["science", "steps"] - 1
    assert set(recorded.gate_fronts()) == {"validation", "test"}
    chosen = recorded.chosen().set_index("label")
    assert chosen.loc["always", "saving_pct"] == chosen.loc["gated", "saving_pct"] == pytest.approx(100)
    assert chosen.loc["gated", "waste_pct"] == 0
    shares = recorded.shares()
    assert {"exact, replayed", "exact, measured", "original, measured"} <= set(shares["setting"])
    fidelity = recorded.fidelity()
    assert fidelity.loc["exact", "tasks"] == 1
    assert "look_ahead cannot be replayed" in fidelity.loc["look_ahead", "note"]


def test_a_study_that_ended_anywhere_goes_on_and_keeps_what_it_has(folder, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(folder.parent))
    path = folder / "science" / "runs.jsonl"
    before = path.read_bytes()
    lines = before.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:50])
    plan = (folder / "plan.json").read_bytes()
    assert study(profiles=["science", "coding"]) == folder
    assert (folder / "plan.json").read_bytes() == plan
    assert path.read_bytes().splitlines()[:-1] == before.splitlines()[:-1]
    last, again = (json.loads(content.splitlines()[-1]) for content in (before, path.read_bytes()))
    assert (last["task_id"], last["arm"], last["answer"]) == (again["task_id"], again["arm"], again["answer"])
    assert len({(run.task_id, run.arm) for run in read_runs(path)}) == len(lines)


def test_other_parameters_are_not_mixed_into_a_study(folder, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(folder.parent))
    with pytest.raises(ConfigError, match="other values of tokens_per_s"):
        study(profiles=["science"], tokens_per_s=900.0)


def test_what_is_no_study_is_one_sentence(tmp_path, capsys):
    with pytest.raises(DataError, match="no study of tool speculation"):
        read_tool_study(tmp_path)
    (tmp_path / "odd.tar.xz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="no packed run"):
        read_tool_study(tmp_path / "odd.tar.xz")
    assert main(["tools", "study", "--max", "3"]) == 2
    assert "tools study has no max" in capsys.readouterr().err
    assert main(["tools", "study", "--set", 'profiles=["codding"]']) == 2
    assert "did you mean 'coding'" in capsys.readouterr().err
