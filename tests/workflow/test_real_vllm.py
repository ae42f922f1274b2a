"""The embedded models behind a real vLLM: the same records as here, sample by sample.

Skipped where none can be started; `make vllm-check` installs it. SPECEYES_VLLM_LIMIT: samples per split (0: all).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import real_vllm
from lab import free_port

from speceyes_lib.paths import PACKAGE
from speceyes_lib.workflow.plan import load_config
from speceyes_lib.workflow.vllm_commands import servers
from tests.inference.test_stages import untimed

pytestmark = pytest.mark.skipif(bool(why := real_vllm.why_not()), reason=f"no real vLLM: {why}")

LIMIT = int(os.environ.get("SPECEYES_VLLM_LIMIT", "10"))
CLOSE = 1e-4  # of scores and log-probabilities: other kernels add numbers in another order
CONFIG = """
name: small
prompts: demo
arms: [collect, gated]
data: {{kind: demo, root: {data}, seed: 2026, limit: {limit}}}
validation: {{root: ''}}
gate: {{threshold: 0.9}}
models: {{draft: '{draft}', agent: '{agent}', dtype: float32}}
workflow: {{group_by: run}}
"""


def reproduce(config: Path, runs: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "speceyes_lib", "reproduce", config],
        cwd=PACKAGE.parent,
        env=os.environ | {"SPECEYES_RUNS": str(runs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def records(runs: Path) -> dict[str, list[dict]]:
    """The records of the stages that call a model, by file."""
    paths = [p for p in sorted(runs.rglob("records.jsonl")) if "03_judging" not in p.parts]
    return {
        p.relative_to(runs).as_posix(): [untimed(json.loads(line)) for line in p.read_text().splitlines()]
        for p in paths
    }


def differences(local, served, where: str = "") -> list[tuple[str, object, object]]:
    """Every value that differs: its place, here, there."""
    if isinstance(local, dict) and isinstance(served, dict):
        names = local.keys() | served.keys()
        return [d for n in sorted(names) for d in differences(local.get(n), served.get(n), f"{where}.{n}")]
    if isinstance(local, list) and isinstance(served, list) and len(local) == len(served):
        pairs = enumerate(zip(local, served, strict=True))
        return [d for n, (a, b) in pairs for d in differences(a, b, f"{where}[{n}]")]
    if isinstance(local, float) and isinstance(served, float):
        return [] if abs(local - served) <= CLOSE else [(where, local, served)]
    return [] if local == served else [(where, local, served)]


def test_vllm_gives_the_records_of_the_local_run(tmp_path, capsys):
    urls = {r: f"http://127.0.0.1:{free_port()}/v1?model={r}" for r in ("draft", "agent")}
    folders = {r: f"data/demo/models/{r}" for r in urls}
    data = {"data": tmp_path / "benchmark", "limit": LIMIT}
    local, served = tmp_path / "local.yaml", tmp_path / "served.yaml"
    local.write_text(CONFIG.format(**data, **folders))
    served.write_text(CONFIG.format(**data, **{r: f"{urls[r]}&processor={folders[r]}" for r in urls}))
    reproduce(local, tmp_path / "local")
    with real_vllm.running(servers(load_config(served)), tmp_path):
        reproduce(served, tmp_path / "served")
    here, there = records(tmp_path / "local"), records(tmp_path / "served")
    assert here.keys() == there.keys()
    assert here
    found = [
        (name, row["id"], *difference)
        for name in here
        for row, other in zip(here[name], there[name], strict=True)
        for difference in differences(row, other)
    ]
    with capsys.disabled():
        print(f"\n{real_vllm.versions()}\n{sum(map(len, here.values()))} records, {len(found)} values differ")
        for line in found[:20]:
            print(*line)
    assert not found
