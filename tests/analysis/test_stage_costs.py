"""What a stage did and cost is added up from its records."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_run import make_run

from speceyes_lib.analysis import stage_costs
from speceyes_lib.runs.reading import StageData
from speceyes_lib.runs.records import Counts, Manifest

TASKS = ("vstar/direct_attributes", "pope/random")


@pytest.fixture(scope="module")
def arms():
    return make_run(per_task=10, tasks=TASKS, failed=1)[0]


def stage(name: str, task: str, records: dict) -> StageData:
    own = {id_: r for id_, r in records.items() if id_.startswith(task)}
    manifest = Manifest(stage=name, task=task, counts=Counts(expected=len(own), done=len(own)))
    return StageData(manifest, Path(), own)


def stages_of(arms: dict, *names: str) -> list[StageData]:
    return [stage(f"02_{name}", task, arms[name]) for name in names for task in TASKS]


def draft_stages(arms: dict) -> list[StageData]:
    drafts = {id_: record.draft for id_, record in arms["collect"].items()}
    return [stage("01_draft", task, drafts) for task in TASKS]


def test_draft_overview_counts_failures_and_averages_the_clock(arms):
    table = stage_costs.draft_overview(draft_stages(arms))
    assert list(table.index) == list(TASKS)
    assert table["samples"].tolist() == [10, 10]
    assert table["failed"].tolist() == [1, 0]
    drafts = [r.draft for id_, r in arms["collect"].items() if id_.startswith("pope")]
    assert table.loc["pope/random", "draft_ms"] == pytest.approx(100 * sum(d.draft_s for d in drafts))
    assert (table["min_p10"] <= table["min_median"]).all()


def test_costs_add_up_to_the_wall_clock_of_the_records(arms):
    table = stage_costs.cost_overview(stages_of(arms, "baseline", "gated", "collect"))
    phases = ["decode_s", "router_s", "draft_s", "agent_s", "tool_s"]
    assert table[phases].sum(axis=1).tolist() == pytest.approx(table["wall_s"].tolist())
    assert table.loc["gated", "wall_s"] == pytest.approx(sum(r.wall_s for r in arms["gated"].values()))
    assert table.loc["collect", "draft_s"] == 0  # paid in stage 01


def test_every_sample_is_decided_once(arms):
    table = stage_costs.decision_overview(stages_of(arms, "baseline", "gated"))
    decisions = [c for c in table.columns if c not in ("samples", "failed", "zoomed", "turns")]
    assert table[decisions].sum(axis=1).tolist() == table["samples"].tolist() == [20, 20]
    assert table["failed"].tolist() == [1, 1]
    assert "collected" not in table  # no arm decided anything that way
