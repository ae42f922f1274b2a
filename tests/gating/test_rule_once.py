"""The accept rule stands in `gating/gate.py` alone: a change there changes every place that decides or counts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from programs import run_program

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "speceyes_lib"

# Runs with the rule's comparison replaced before anything else has imported it. The threshold always equals a score.
PROGRAM = """
import json, os, sys, tempfile
from pathlib import Path

import numpy as np

import speceyes_lib.gating.gate as gate

source = Path(gate.__file__).read_text("utf-8")
rule = "np.asarray(score, dtype=np.float64) > threshold"
assert source.count(rule) == 1
exec(compile(source.replace(rule, rule.replace(">", sys.argv[1])), gate.__file__, "exec"), gate.__dict__)

from explore_run import K_STORED, store_run
from replay_arrays import from_arrays
from synthetic_run import make_samples
from test_funnel import run as run_funnel
from speceyes_lib.explore import charts, gating
from speceyes_lib.runs import recorded_run
from speceyes_lib.explore.state import Chosen, GateView
from speceyes_lib.gating import calibration_samples, certificates
from speceyes_lib.gating.threshold import choose_threshold
from speceyes_lib.inference.funnel import Gate
from speceyes_lib.replay import outcomes
from speceyes_lib.replay.settings import Setting
from speceyes_lib.report.sample_page import gate_lines

counts = {}
score = run_funnel(["sure-easy"])["sure-easy"].confidence
record = run_funnel(["sure-easy"], gate=Gate(score))["sure-easy"]
counts["live gate"] = int(record.decision == "accepted")

scores, right = [0.5, 0.7, 0.9], [False, True, True]
data = from_arrays(draft_right=right, agent_right=right, scores={"min": scores})
setting = Setting(threshold=0.7, router="none")
counts["replay"] = int(outcomes.replay(data, setting)["accepted"].iloc[0]) - 1
counts["decisions"] = int((outcomes.decisions(data, setting)["decision"] == "accepted").sum()) - 1
counts["curve"] = int(outcomes.curve(data, setting, [0.9, 0.7])["accepted"].iloc[-1]) - 1

low = 0.7
high = float(np.nextafter(low, 1))
point = choose_threshold([low, high], [False, True], [True, True])
assert gate.accepts([low, high], point.threshold).tolist() == [False, True]
counts["chosen threshold"] = int(point.threshold == high)

samples = calibration_samples.gate_samples(scores, right, right)
counts["certificate, measured"] = round(certificates.threshold_outcome(samples, 0.7)["coverage_pct"] * 3 / 100) - 1
bound = certificates.conformal_risk_control(scores, [False, True, False], [0, 1, 2], 0.3)
assert gate.accepts(scores, bound.threshold).tolist() == [False, False, True]
counts["certificate, chosen"] = int(bound.threshold > 0.7)

counts["sentence"] = int(gate_lines(None, 0.7, "rejected", 0.7)[0].startswith("Accepted"))

with tempfile.TemporaryDirectory() as folder:
    os.environ["SPECEYES_RUNS"] = folder
    store_run("tiny", make_samples(4), Path(folder))
    explorer = gating.Gating(recorded_run.open("tiny", strict=False))
    view = GateView(k=K_STORED)
    part = explorer.part("all", "")
    score = part.score("min", K_STORED)
    known = np.unique(score[charts.gated_mask(part, "large") & np.isfinite(score)])
    middle = float(known[len(known) // 2])
    at = GateView(k=K_STORED, threshold=middle)
    above = int((known > middle).sum())
    counts["explorer"] = round(gating.gate_summary(explorer, at).accepted.value * part.n / 100) - above
    stepped = charts.stepped(part, GateView(k=K_STORED, threshold=middle - 1e-9), 1)
    assert gate.accepts(known, stepped).sum() == above
    counts["explorer, step"] = int(stepped > middle)
print(json.dumps(counts))
"""


@pytest.mark.parametrize(("comparison", "passes"), [(">", 0), (">=", 1)])
def test_a_score_equal_to_the_threshold_is_treated_alike_everywhere(comparison, passes):
    counts = run_program(PROGRAM, comparison)
    assert counts == dict.fromkeys(counts, passes)


# a step of the explorer orders thresholds among each other; SpecReason has a rule of its own (its score is a digit);
# an early exit compares a token's probability with the one at which it leaves
OTHER_RULES = {"explore/charts.py", "agents/specreason.py", "replay/early_exit.py"}


def sources() -> Iterator[tuple[str, str]]:
    """Every file of the library, and the code of every notebook."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text("utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        yield path.name, "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def test_no_other_file_orders_a_value_against_a_threshold():
    compared = []
    for name, source in sources():
        if name in {"gating/gate.py", *OTHER_RULES}:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Gt | ast.GtE | ast.Lt | ast.LtE):
                sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
                if any(s.endswith(("threshold", "thresholds")) for s in sides) and not any(
                    s[0].isdigit() for s in sides
                ):
                    compared.append(f"{name}, line {node.lineno}: {ast.unparse(node)}")
    assert not compared
