"""A benchmark is one file and one line: with a toy one registered, every stage of the pipeline takes it."""

from __future__ import annotations

from programs import run_program

# The registry with the toy's name among its files, before anything else has imported it.
PROGRAM = """
import json, os, re, sys
from pathlib import Path

import toy_benchmark
sys.modules["speceyes_lib.tasks.toy"] = toy_benchmark
import speceyes_lib.tasks.registry as registry

source = Path(registry.__file__).read_text("utf-8")
source, changed = re.subn(r"^FILES = \\((.+)\\)", r'FILES = (\\1, "toy")', source, flags=re.MULTILINE)
assert changed == 1
exec(compile(source, registry.__file__, "exec"), registry.__dict__)

from synthetic_run import write_run
from speceyes_lib.analysis import audit, paper_comparison, position_bias, run_result, sample_frame, summary
from speceyes_lib.analysis.reported import TABLES, read_reported
from speceyes_lib.explore.gating import Gating, gate_summary
from speceyes_lib.explore.state import GateView
from speceyes_lib.explore.widgets import task_options
from speceyes_lib.formats.importing import import_files
from speceyes_lib.formats.speceyes_export import export
from speceyes_lib.judging import benchmark_measures, scorer_comparison, verdict_frames
from speceyes_lib.judging.stage import run_judging
from speceyes_lib.params import FiguresParams, JudgingParams, PositionBiasParams
from speceyes_lib.replay import outcomes, replay_data
from speceyes_lib.replay.settings import Setting
from speceyes_lib.report.paper_table import layout, table1, table1_latex
from speceyes_lib.report.labels import split_label
from speceyes_lib.runs import recorded_run

folder = Path(sys.argv[1])
os.environ["SPECEYES_RUNS"] = str(folder / "runs")
toy_benchmark.write(folder / "data")
TASK = "toy/easy"
observed = {"tasks": list(registry.TASKS), "reported": list(registry.REPORTED_TASKS), "label": split_label(TASK)}

samples = registry.load_task(TASK, folder / "data")
observed["loaded"] = len(samples)
arms = ["collect", "baseline", "gated"]
write_run("toy", samples, folder / "data", arms)
frames = {}
for protocol in ("paper", "strict"):
    run_judging(JudgingParams(run="toy", tasks=[TASK], arms=arms, data_root=str(folder / "data"),
                                    protocol=protocol, if_changed="restart"))
    recorded = recorded_run.open("toy")
    judged = verdict_frames.verdicts(recorded, arms)
    metrics = benchmark_measures.measures_of(verdict_frames.of_source(judged, "final", "baseline"), protocol)
    observed[f"metrics, {protocol}"] = list(zip(metrics["measure"], metrics["n"]))
observed["metric table"] = list(benchmark_measures.benchmark_metrics(judged))
records = [record for arm in arms for record in recorded.judged(arm).values()]
scored = scorer_comparison.compare_scorers(records)
observed["scorers"] = {name: bool(scored[name].notna().any()) for name in ("paper", "strict", "lmms-eval")}

params = FiguresParams(run="toy", tasks=[TASK], arms=arms, threshold_from="", bootstrap=100)
run = run_result.summarised(params)
observed["frame"] = len(run.frame)
observed["splits"] = {arm: list(values["splits"]) for arm, values in run.summary["arms"].items()}
gathered = paper_comparison.gather_paper(params, run)
long = gathered.results()
observed["table 1"] = sorted(set(layout(long)["split"]))
observed["table 1 in HTML"] = "Toy easy" in table1(long).to_html()
observed["table 1 in LaTeX"] = "Toy easy" in table1_latex(long, "caption", "label")
observed["audit"] = len(audit.audit_reported({name: read_reported(name) for name in TABLES}))

data = replay_data.load(recorded)
rows = outcomes.replay(data, Setting(threshold=0.5, k=64))
observed["replay"] = dict(zip(rows["task"], rows["n"].astype(int)))
explorer = Gating(recorded_run.open("toy", strict=False))
observed["explorer"] = gate_summary(explorer, GateView(threshold=0.5)).n
observed["choices"] = [label for label, _ in task_options([*registry.TASKS])]
observed["position bias"] = PositionBiasParams(tasks=[TASK]).tasks == [TASK]

export("toy", folder / "files")
runs, problems = import_files("speceyes", [folder / "files"], "again", str(folder / "data"))
observed["imported"] = sorted({part.task for parts in runs.values() for part in parts})
observed["problems"] = [str(problem) for problem in problems]
print(json.dumps(observed))
"""


def test_every_stage_takes_a_benchmark_that_the_paper_does_not_report(tmp_path):
    observed = run_program(PROGRAM, str(tmp_path))
    assert observed["tasks"] == [*observed["reported"], "toy/easy"]
    assert len(observed["reported"]) == 7
    assert observed["label"] == "Toy easy"
    assert observed["loaded"] == observed["frame"] == observed["explorer"] == 6
    assert observed["metrics, strict"] == observed["metrics, paper"] == [["accuracy", 6]]
    assert observed["metric table"] == ["toy"]
    assert observed["scorers"] == {"paper": True, "strict": True, "lmms-eval": False}
    assert all(splits == ["toy/easy"] for splits in observed["splits"].values())
    assert observed["table 1"] == sorted([*observed["reported"], "toy/easy", "average"])
    assert observed["table 1 in HTML"]
    assert observed["table 1 in LaTeX"]
    assert observed["audit"] == 7
    assert observed["replay"] == {"toy/easy": 6, "pooled": 6, "average": 6}
    assert "Toy easy" in observed["choices"]
    assert observed["position bias"]
    assert observed["imported"] == ["toy/easy"]
    assert observed["problems"] == []
