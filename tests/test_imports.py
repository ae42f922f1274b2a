"""Importing the library is free: no model library, no plotting, no network client, no side effect."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "speceyes_lib"
HEAVY = ("torch", "transformers", "openai", "torchvision", "qwen_vl_utils", "papermill", "seaborn")


def modules() -> list[str]:
    # demo.modeling and demo.training build and train torch models: they may import torch, nothing imports them
    files = (f.relative_to(PACKAGE.parent).with_suffix("") for f in sorted(PACKAGE.rglob("*.py")))
    names = (".".join(f.parts).removesuffix(".__init__") for f in files)
    return [n for n in names if n not in ("speceyes_lib.demo.modeling", "speceyes_lib.demo.training")]


def loaded(names: list[str], watched: tuple[str, ...]) -> str:
    """Which of the watched packages a fresh Python has loaded once it has imported these modules."""
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print(','.join(m for m in {watched!r} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_every_module_loads_nothing_heavy():
    assert loaded(modules(), HEAVY) == ""


def test_the_command_line_and_its_report_start_without_tables_statistics_and_plots():
    assert loaded(["speceyes_lib.run", "speceyes_lib.report"], ("pandas", "scipy", "matplotlib")) == ""


# each layer may import from the layers before it only (design: dependencies point one way)
LAYERS = [
    {"errors", "prompts"},
    {"paths", "records", "evidence", "estimates"},
    {"provenance", "endpoint", "hub", "human"},
    {"params", "paper", "recorded", "summary"},
    {"config", "store", "benchmarks", "images", "confidence", "metrics", "audit"},
    {"gate", "judging", "scheduler", "tools", "scores", "certify"},
    {"operating_point"},
    {"backends", "agents"},
    {"funnel", "server"},
    {"stages"},
    {"frames", "interchange", "verdicts", "scorers", "cost_model", "setting"},
    {"population", "position_bias"},
    {"replay"},
    {"planner", "economics", "confidence_run"},
    {"tables", "views", "overview", "table1"},
    {"figures", "findings", "benchmark_metrics", "forensics", "confidence_report"},
    {
        "analysis",
        "figures_confidence",
        "figures_judging",
        "findings_judging",
        "fidelity",
        "figures_replay",
        "paper_figures",
    },
    {"paper_run"},
    {"explore"},
    {"notebook", "report", "vllm"},
    {"run"},
]


def local_imports(path: Path) -> set[str]:
    """Top-level speceyes_lib modules that a file imports, anywhere in it."""
    parts = path.relative_to(PACKAGE).parts
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = list(parts[: len(parts) - node.level]) if node.level else None
            if base is None:
                if (node.module or "").split(".")[0] != "speceyes_lib":
                    continue
                target = (node.module or "").split(".")[1:]
            else:
                target = base + (node.module or "").split(".") if node.module else base
            names = [target[0]] if target else [alias.name for alias in node.names]
            found.update(names)
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_dependencies_point_one_way(path):
    rank = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    me = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if me in ("__init__", "demo"):  # demo makes data and models beside the pipeline; nothing depends on it
        return
    assert me in rank, f"give {me} its place among the layers"
    for other in local_imports(path) - {me, "__version__"}:
        assert other in rank, f"{path.name} imports {other}, which has no place among the layers"
        assert rank[other] <= rank[me], f"{me} (layer {rank[me]}) imports {other} (layer {rank[other]})"
