"""A gate judged from a table: what three columns allow, what more columns add, and what is never shown without them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from speceyes_lib.analysis import gather_own_results
from speceyes_lib.analysis.confidence_data import gather_confidence
from speceyes_lib.errors import StageError
from speceyes_lib.formats import import_table
from speceyes_lib.gating import accepts
from speceyes_lib.params import CertifiedParams, ConfidenceParams, OwnResultsParams


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))


def table(n: int = 400, scale: float = 1.0) -> pd.DataFrame:
    random = np.random.default_rng(0)
    right = random.random(n) < 0.8
    sure = np.clip(np.where(right, 0.85, 0.5) + 0.1 * random.standard_normal(n), 0, 1)
    return pd.DataFrame({"id": np.arange(n), "draft_right": right, "confidence": scale * sure})


def params(**others) -> OwnResultsParams:
    return OwnResultsParams(**{"run": "r", "score": "confidence", "repeats": 3} | others)


def test_without_an_agent_only_errors_of_the_draft_are_counted():
    import_table(table(), "r")
    run = gather_own_results(params())
    assert list(run.missing.values()) == ["agent_right", "agent_s", "top_logprobs", "group"]
    points = run.certified(params())
    assert set(points["rule"]) == {
        "selective",
        "accepted_wrong",
        "accepted_wrong_bound",
        "wrong_passes",
        "plug_in",
    }
    assert points[["accuracy_pct", "agent_pct", "regret_pct", "speedup"]].isna().all(axis=None)
    ledger = run.ledger({"half": 0.7})
    assert list(ledger) == ["threshold", "accepted", "accepted_pct", "wrong", "risk_pct", "missed"]
    assert run.break_even(0.7).empty


def test_the_ledger_counts_what_a_hand_count_gives():
    import_table(table().assign(agent_right=np.arange(400) % 3 > 0, draft_s=0.1, agent_s=1.0), "r")
    run = gather_own_results(params())
    frame, row = run.frame, run.ledger({"half": 0.5}).loc["half"]
    taken = accepts(frame["confidence"], 0.5)
    draft, agent = frame["draft_right"].astype(bool), frame["agent_right"].astype(bool)
    assert row["gained"] == (taken & draft & ~agent).sum() > 0
    assert row["lost"] == (taken & ~draft & agent).sum() > 0
    assert row["accuracy_pct"] == pytest.approx(100 * np.where(taken, draft, agent).mean())
    assert row["speedup"] == pytest.approx(400 / (400 * 0.1 + (~taken).sum()))
    assert run.break_even(0.5)["pays"].all()


def test_scores_on_another_scale_get_a_threshold_on_that_scale():
    import_table(table(), "r")
    small = gather_own_results(params()).certified(params())
    import_table(table(scale=1000.0), "r", replace=True)
    run = gather_own_results(params())
    large = run.certified(params())
    for (_, a), (_, b) in zip(small.iterrows(), large.iterrows(), strict=True):
        assert (a["rule"], a["certified"]) == (b["rule"], b["certified"])
        if a["certified"]:
            assert a["coverage_pct"] == b["coverage_pct"]
            accepted = accepts(run.frame["confidence"], b["threshold"])
            assert accepted.sum() == accepts(run.frame["confidence"] / 1000, a["threshold"]).sum() > 0


def test_a_certified_threshold_is_the_one_of_the_first_half():
    import_table(table(), "r")
    run = gather_own_results(params())
    threshold = run.certified(params()).query("rule == 'selective'")["threshold"].iloc[0]
    assert f"{threshold:.6g}" in run.sentences(params(repeats=1))[1]


def test_notebooks_that_compare_with_an_agent_refuse_a_run_without_one():
    import_table(table(), "r")
    with pytest.raises(StageError, match=r"no answer of an agent is recorded.*study_own_results"):
        gather_confidence(CertifiedParams(run="r", score="confidence", threshold_from=""))
    import_table(table().assign(agent_right=True), "r", replace=True)
    assert (
        gather_confidence(CertifiedParams(run="r", score="confidence", threshold_from=""))
        .frame["agent_right"]
        .all()
    )
    with pytest.raises(StageError, match=r"none of the scores min, mean.*study_own_results"):
        gather_confidence(ConfidenceParams(run="r", score="confidence", threshold_from=""))


def test_tasks_and_scores_of_the_run_are_known_to_the_notebooks_that_read_it():
    import_table(table().assign(task="mine"), "r")
    assert params().tasks == ["table/mine"]
    with pytest.raises(ValueError, match=r"no score 'confidenc' \(did you mean 'confidence'"):
        OwnResultsParams(run="r", score="confidenc")
    with pytest.raises(ValueError, match="no task 'table/other'"):
        params(tasks=["table/other"])
