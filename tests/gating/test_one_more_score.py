"""A score is one line of the registry: with one added, parameters, live gate, replay and explorer offer it."""

from __future__ import annotations

import pytest
from programs import run_program

from speceyes_lib.gating.scores import GATE_SCORES, SCORES
from speceyes_lib.gating.separability import PAPER_SCORES

# The registry with one more line, before anything else has imported it: the probability of the runner-up, reversed.
PROGRAM = """
import json, os, sys, tempfile
from pathlib import Path

import numpy as np

import speceyes_lib.gating.scores as registry

source = Path(registry.__file__).read_text("utf-8")
line = '        Score("options", '
added = '        Score("no_rival", "no rival", "no rival", of_tokens=lambda t: 1 - np.exp(t.second)),\\n'
assert source.count(line) == 1
if sys.argv[1] == "no_rival":
    exec(compile(source.replace(line, added + line), registry.__file__, "exec"), registry.__dict__)

from explore_run import K_STORED, store_run
from synthetic_run import make_samples
from test_funnel import run as run_funnel
from speceyes_lib.analysis import sample_frame, summary
from speceyes_lib.explore import gating
from speceyes_lib.explore.gating_explorer import GatingExplorer
from speceyes_lib.explore.state import GateView
from speceyes_lib.inference.funnel import Gate
from speceyes_lib.params import AgentParams, ThresholdParams
from speceyes_lib.replay import replay_data
from speceyes_lib.runs import recorded_run

name = sys.argv[1]
observed = {"params": [AgentParams(score=name).score, ThresholdParams(score=name).score]}
record = run_funnel(["sure-easy"], gate=Gate(0.0, name))["sure-easy"]
observed["live gate"] = [record.decision, record.confidence]
observed["stored"] = list(record.draft.scores)
with tempfile.TemporaryDirectory() as folder:
    os.environ["SPECEYES_RUNS"] = folder
    store_run("tiny", make_samples(4), Path(folder))
    recorded = recorded_run.open("tiny")
    data = replay_data.load(recorded)
    score = data.score(name, K_STORED)
    observed["replay"] = [name in data.score_names, int(np.isfinite(score).sum())]
    frame = sample_frame.samples(recorded, ["collect"], scores=[name]).set_index("id")
    column = frame.loc[list(data.ids), f"score_{name}"].to_numpy()
    observed["frame"] = bool(np.array_equal(column, score, equal_nan=True))
    chosen = summary.choose_threshold(frame.reset_index(), name)
    observed["threshold"] = 0 <= chosen.threshold <= 1
    explorer = GatingExplorer("tiny", view=GateView(k=K_STORED, threshold=0.5))
    observed["explorer"] = [option for option in explorer.score.options if option == name]
    view = GateView(score=name, k=K_STORED, threshold=0.5)
    observed["outcome"] = gating.gate_summary(explorer.gating, view).n
print(json.dumps(observed))
"""


@pytest.mark.parametrize("score", ["min", "tie_aware", "no_rival"])
def test_every_score_of_the_registry_is_offered_everywhere(score):
    observed = run_program(PROGRAM, score)
    assert observed["params"] == [score, score]
    decision, confidence = observed["live gate"]
    assert decision == "accepted"
    assert 0 < confidence <= 1
    assert observed["stored"] == list(PAPER_SCORES)  # the stored fields stay the paper's
    assert observed["replay"][0]
    assert observed["replay"][1] > 0
    assert (
        observed["frame"] or score in PAPER_SCORES
    )  # of these the frame has what the made-up drafts recorded
    assert observed["threshold"]
    assert observed["explorer"] == [score]
    assert observed["outcome"] == 28


def test_the_papers_scores_stand_first_and_the_gate_can_go_by_all_scores_of_evidence():
    assert GATE_SCORES[:4] == PAPER_SCORES
    assert set(GATE_SCORES) == {name for name, score in SCORES.items() if score.needs == "evidence"}
    assert "tie_aware" in GATE_SCORES
