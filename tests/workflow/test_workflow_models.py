"""The workflow with the embedded models, behind a server and shared by shards, on a few samples."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest
from workflow_home import OPENING, make_home, ran, run, write_notebook

from speceyes_lib.demo.server import serving
from speceyes_lib.inference import stages
from speceyes_lib.judging.stage import run_judging
from speceyes_lib.params import NOTEBOOKS
from speceyes_lib.workflow.parameters_cell import cell
from speceyes_lib.workflow.plan import load_config, plan
from tests.conftest import MODELS
from tests.inference.test_stages import rounded, untimed

STAGES = {
    "01_small_model_inference": stages.run_draft_stage,
    "02_gated_agent_eval": stages.run_agent_stage,
    "03_judging": run_judging,
}
CONFIG = """
name: {name}
arms: [collect, gated]
data: {{kind: check, root: {root}, limit: 4, tasks: [vstar/direct_attributes, pope/adversarial]}}
validation: {{root: ""}}
models: {{draft: "{draft}", agent: "{agent}", device: cpu}}
gate: {{threshold: 0.97}}
workflow: {{group_by: run, shards: {shards}}}
"""


def configured(home: Path, name: str, root: Path | str, *, shards: int = 1, **models: str) -> str:
    """Write a config of the embedded models; its path. models: what `draft` and `agent` are, if not folders."""
    values = {role: str(MODELS / role) for role in ("draft", "agent")} | models
    path = f"configs/{name}.yaml"
    (home / path).write_text(CONFIG.format(name=name, root=root, shards=shards, **values))
    return path


def endpoint(base_url: str, role: str, name: str = "") -> str:
    return f"{base_url}?model={name or role}&processor={MODELS / role}&retries=0"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The repository in small, whose notebooks really ask the models and judge, and do nothing else."""
    home = make_home(tmp_path_factory.mktemp("home"))
    for name, work in STAGES.items():
        code = f"from {work.__module__} import {work.__name__}\n{work.__name__}(p)"
        path = home / "notebooks" / f"{name}.ipynb"
        write_notebook(path, cell(NOTEBOOKS[name]), OPENING.format(notebook=name), code)
    return home


@pytest.fixture(scope="module")
def alone(home, benchmark_root) -> dict[str, list[dict]]:
    """What the local models leave in one process without the workflow."""
    path = configured(home, "alone", benchmark_root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_HOME", str(home))
        patch.delenv("SPECEYES_RUNS", raising=False)
        for job in plan(load_config(path)):
            if work := STAGES.get(Path(job.notebook).stem):
                work(job.params)
    return records(home, "alone")


def records(home: Path, name: str) -> dict[str, list[dict]]:
    """The records of a finished run by stage folder, in order, without what the clock says."""
    folder, lines_by_folder = home / "data" / "runs" / name, {}
    for path in sorted(folder.glob("0[123]_*/**/records.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines_by_folder[path.parent.relative_to(folder).as_posix()] = [
            rounded(untimed(line)) for line in lines
        ]
    return lines_by_folder


def finished(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_served_models_leave_what_local_ones_do_and_a_finished_run_needs_no_server(
    home, alone, benchmark_root, tiny_draft, tiny_agent
):
    with serving({"draft": tiny_draft, "agent": tiny_agent}) as url:
        models = {role: endpoint(url, role) for role in ("draft", "agent")}
        path = configured(home, "served", benchmark_root, **models)
        finished(run(home, "reproduce", path))
    assert len(alone) == 10  # the drafts, and two arms answered and judged, of two tasks
    assert records(home, "served") == alone
    assert "nothing to do" in finished(run(home, "reproduce", path))


def test_shards_leave_what_one_job_does(home, alone, benchmark_root, tiny_draft, tiny_agent):
    with serving(
        {"draft": tiny_draft, "agent": tiny_agent}
    ) as url:  # otherwise every job loads the models again
        models = {role: endpoint(url, role) for role in ("draft", "agent")}
        printed = finished(
            run(home, "reproduce", configured(home, "sharded", benchmark_root, shards=2, **models))
        )
    assert [printed.count(f" {part}: done in") for part in ("1of2", "2of2")] == [2, 2]
    assert records(home, "sharded") == alone


@pytest.mark.parametrize(
    ("draft", "agent", "message"),
    [
        ("gone", "agent", "cannot be reached"),
        ("draft", "agnt", "there is no model 'agnt' (did you mean 'agent'?)"),
        ("few", "agent", "Start vLLM with --max-logprobs 128"),
    ],
)
def test_an_unfit_server_is_reported_in_one_line_before_any_work(
    tmp_path, benchmark_root, tiny_draft, tiny_agent, draft, agent, message
):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        few = serving({"few": tiny_draft}, max_logprobs=20)
        with few as few_url, serving({"draft": tiny_draft, "agent": tiny_agent}) as url:
            places = {"gone": f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "few": few_url}
            models = {
                "draft": endpoint(places.get(draft, url), "draft", draft),
                "agent": endpoint(url, "agent", agent),
            }
            home = make_home(tmp_path)
            done = run(home, "reproduce", configured(home, "refused", benchmark_root, **models))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr
    assert ran(home) == []
