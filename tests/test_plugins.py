"""Plugins, used from outside the repository as docs/extending.md describes them."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
EXAMPLES = {
    re.match(r"# (\w+\.py)\n", block)[1]: block
    for block in re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text("utf-8"), re.DOTALL
    )
    if block.startswith("# ")
}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with the examples, the working directory; the library is only installed."""
    for name, text in EXAMPLES.items():
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "signs").mkdir()
    with (tmp_path / "signs" / "day.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "question", "A", "B", "answer", "file"))
        writer.writerow((1, "What does the sign say?", "yes", "no", "A", "1.png"))
        writer.writerow((2, "And this one?", "no", "yes", "A", "1.png"))
    Image.new("RGB", (100, 70), "red").save(tmp_path / "signs" / "1.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPECEYES_HOME", str(ROOT))
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def run(place: Path, plugins: list[str], program: str) -> subprocess.CompletedProcess[str]:
    paths = [str(place / name) if name.endswith(".py") else name for name in plugins]
    environment = os.environ | {"SPECEYES_PLUGINS": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=place, capture_output=True, text=True
    )


def test_every_example_has_at_most_40_lines():
    assert set(EXAMPLES) == {"my_score.py", "signs.py", "turning.py", "canned.py", "my_figures.py"}
    assert max(len(text.splitlines()) for text in EXAMPLES.values()) <= 40


def test_own_benchmark_backend_agent_and_score_make_a_run(place):
    result = run(
        place,
        ["my_score.py", "signs.py", "turning.py", "canned.py"],
        f"""
from speceyes_lib.inference import run_agent_stage, run_draft_stage
from speceyes_lib.params import AgentParams, DraftParams
from speceyes_lib.runs import recorded_run
from speceyes_lib.replay import load

common = dict(run="signs", tasks=["signs/day"], data_root={str(place)!r}, draft_model="canned:yes", k=8, k_store=16)
run_draft_stage(DraftParams(**common))
turning = dict(agent_model="canned:<turn>90</turn>", agent="turning", max_turns=2, router="none")
run_agent_stage(AgentParams(**common, **turning, arms=["collect"]))
run_agent_stage(AgentParams(**common, **turning, arms=["gated"], score="my_gap", threshold=0.5))
recorded = recorded_run.open("signs")
evidence = recorded.all_evidence()
print(sorted(evidence), recorded.records("gated")["signs/day/1"].decision)
for record in recorded.records("collect").values():
    print(record.trajectory.view_px, [turn.action for turn in record.trajectory.turns], record.trajectory.error.type)
print(round(recorded.records("gated")["signs/day/2"].confidence, 6))
""",
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "['signs/day/1', 'signs/day/2'] accepted",
        "(128, 128) ['tool', 'tool'] turn_limit",
        "(128, 128) ['tool', 'tool'] turn_limit",
        "0.893333",
    ]


def test_a_config_names_its_plugins(place):
    config = place / "mine.yaml"
    config.write_text(f"name: mine\nplugins: [{place / 'my_score.py'}]\ngate: {{score: my_gap}}\n", "utf-8")
    command = [sys.executable, "-m", "speceyes_lib", "jobs", str(config)]
    listed = subprocess.run(command, capture_output=True, text=True)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "mine: 02_gated_agent_eval" in listed.stdout
    config.write_text("name: mine\ngate: {score: my_gap}\n", "utf-8")
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "no score 'my_gap'" in refused.stderr


def test_an_album_draws_a_figure_of_a_plugin(place):
    result = run(
        place,
        ["my_figures.py"],
        """
from pathlib import Path
import pandas as pd
from speceyes_lib.report.album import Album
path = Album(Path("album"), {"run": "x"}).draw("answer_lengths", pd.DataFrame({"draft_answer": ["a", "bb"]}))
print(sorted(p.suffix for p in path.parent.iterdir()))
""",
    )
    assert result.stdout.strip() == "['.csv', '.json', '.pdf', '.png']", result.stderr


def test_code_of_plugins_is_code_of_the_run(place):
    program = 'from speceyes_lib.runs.provenance import code_hash; print(code_hash("gating.scores"))'
    with_score, again, without = (
        run(place, names, program).stdout for names in (["my_score.py"], ["my_score.py"], [])
    )
    (place / "my_score.py").write_text(EXAMPLES["my_score.py"].replace(":2", ":3"), "utf-8")
    changed = run(place, ["my_score.py"], program).stdout
    assert with_score == again
    assert len({with_score, without, changed}) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "adds nothing; expected one of SCORES"),
        ("SCORES = {'min': len}", "holds 'min', a name that exists already"),
        ("SCORES = [len]", "SCORES must be a dict"),
        ("SCORES = {'a': 1}", "must be a function"),
        ("import nothing_like_this", "cannot be loaded (ModuleNotFoundError"),
        ("def f(:", "cannot be loaded (SyntaxError"),
    ],
)
def test_a_plugin_that_is_none_is_refused_in_one_line(place, text, message):
    (place / "bad.py").write_text(text, "utf-8")
    config = place / "mine.yaml"
    config.write_text(f"name: mine\nplugins: [{place / 'bad.py'}]\n", "utf-8")
    command = [sys.executable, "-m", "speceyes_lib", "jobs", str(config)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_score_that_fails_names_itself(place):
    (place / "bad.py").write_text("def f(top): return 1 / 0\nSCORES = {'mine': f}\n", "utf-8")
    program = """
from speceyes_lib.errors import UserError
from speceyes_lib.gating import score_answers
try:
    score_answers([[-0.1, -2.0]], [0, 1], 2)
except UserError as error:
    print(error)
"""
    assert "score 'mine' failed on an answer of 1 tokens" in run(place, ["bad.py"], program).stdout
