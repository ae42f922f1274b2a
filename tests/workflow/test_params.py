"""Parameters are checked strictly, and each notebook's cell is derived from them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from speceyes_lib.errors import ConfigError, build
from speceyes_lib.params import (
    ALL_NOTEBOOKS,
    AgentParams,
    ConfidenceParams,
    DraftParams,
    PositionBiasParams,
    PrepareParams,
    ThresholdParams,
)
from speceyes_lib.runs.arms import ARMS
from speceyes_lib.tasks.registry import TASKS
from speceyes_lib.workflow.parameters_cell import cell, plain_type, read_cell

models = pytest.mark.parametrize("model", ALL_NOTEBOOKS.values(), ids=list(ALL_NOTEBOOKS))


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (DraftParams, {"batch_size": "8"}, r"batch_size: .*integer.*'8'"),
        (DraftParams, {"batch_size": True}, r"batch_size: .*integer"),
        (DraftParams, {"batch_size": 8.0}, r"batch_size: .*integer"),
        (DraftParams, {"batch_size": 0}, r"batch_size: .*greater than or equal to 1"),
        (DraftParams, {"slope": True}, r"slope: .*number"),
        (DraftParams, {"slope": float("nan")}, r"slope: .*"),
        (DraftParams, {"slope": 0}, r"slope: .*greater than 0"),
        (DraftParams, {"k": 200}, r"k = 200.*k_store = 128"),
        (DraftParams, {"k": 1}, r"k: .*greater than or equal to 2"),
        (DraftParams, {"batchsize": 8}, r"batchsize: there is no such key \(did you mean 'batch_size'\?\)"),
        (DraftParams, {"dtype": "float"}, r"dtype: .*'float32'"),
        (DraftParams, {"device": "gpu"}, r"device: "),
        (DraftParams, {"draft_model": "http://h/v1"}, r"draft_model: .*'model' is missing"),
        (DraftParams, {"draft_model": "http://h/v1?model=m&timeout=3"}, r"did you mean 'timeout_s'"),
        (DraftParams, {"min_pixels": 9000, "max_pixels": 8000}, r"min_pixels = 9000 .* 8000"),
        (DraftParams, {"tasks": "pope/random"}, r"tasks: .*list"),
        (AgentParams, {"arms": []}, r"arms: name at least one arm"),
        (AgentParams, {"score": "mni"}, r"no score 'mni' \(did you mean 'min'\?\)"),
        (DraftParams, {"tasks": ["pope/randm"]}, r"'pope/randm' \(did you mean 'pope/random'\?\)"),
        (DraftParams, {"tasks": ["pope/random", "pope/random"]}, r"named twice"),
        (DraftParams, {"run": "a/b"}, r"run: .*folder name"),
        (DraftParams, {"run": ".."}, r"run: .*folder name"),
        (AgentParams, {"arms": ["gatd"]}, r"'gatd' \(did you mean 'gated'\?\)"),
        (AgentParams, {"threshold_from": ""}, r"'gated' needs a threshold"),
        (AgentParams, {"threshold": 1.5}, r"threshold: .*less than or equal to 1"),
        (AgentParams, {"agent_batch_size_batched": 1}, r"agent_batch_size_batched: "),
        (ConfidenceParams, {"modes": ["mni"]}, r"did you mean 'min'"),
        (PrepareParams, {"validation_root": "data/demo/benchmark"}, r"another folder than data_root"),
        (PrepareParams, {"validation_seed": 2026}, r"must differ from seed"),
    ],
)
def test_impossible_values_are_refused_by_name(model, values, message):
    with pytest.raises(ConfigError, match=rf"somewhere\.yaml: .*{message}"):
        build(model, values, "somewhere.yaml")


def test_every_fault_is_reported_at_once():
    with pytest.raises(ConfigError, match=r"batch_size.*slope"):
        build(DraftParams, {"batch_size": "8", "slope": "x"}, "somewhere")


def test_a_whole_number_is_a_number():
    assert build(DraftParams, {"slope": 1}, "somewhere").slope == 1


def test_an_arm_decides_mode_and_agent_batching():
    params = AgentParams(agent_batch_size=2, agent_batch_size_batched=16, first_look=True)
    arms = {name: params.arm(name) for name in ARMS}
    settings = {
        n: (arm.run_mode, arm.agent_batch_size, arm.batched, arm.without_tool) for n, arm in arms.items()
    }
    assert settings == {
        "collect": ("collect", 16, True, True),
        "baseline": ("baseline", 2, False, False),
        "gated": ("gated", 2, False, False),
        "baseline_batched": ("baseline", 16, True, False),
        "gated_batched": ("gated", 16, True, False),
        "specreason": ("specreason", 2, False, False),
    }


@pytest.mark.parametrize("arm", ARMS)
def test_what_an_arm_is_made_from_does_not_depend_on_the_other_arms(arm):
    alone, together = (
        AgentParams(arms=[arm]),
        AgentParams(arms=list(ARMS), run="other", tasks=["pope/random"]),
    )
    assert alone.arm_config(arm, 0.97) == together.arm_config(arm, 0.97)


def test_an_arm_is_made_from_what_it_uses():
    gated = AgentParams().arm_config("gated", threshold=0.97)
    assert (gated["threshold"], gated["k"]) == (0.97, 64)
    assert AgentParams(score="mean", k=32).arm_config("baseline") == AgentParams().arm_config("baseline")
    assert AgentParams(max_turns=2).arm_config("baseline") != AgentParams().arm_config("baseline")
    assert AgentParams(first_look=False).arm_config("gated", 0.9) == AgentParams().arm_config("gated", 0.9)
    assert AgentParams(specreason_threshold=3).arm_config("baseline") == AgentParams().arm_config("baseline")
    assert AgentParams(specreason_threshold=3).arm_config("specreason") != AgentParams().arm_config(
        "specreason"
    )
    assert AgentParams(sandbox="off").arm_config("baseline") == AgentParams().arm_config("baseline")
    assert AgentParams(agent="thyme", sandbox="off").arm_config("baseline")["sandbox"] == "off"
    assert "crop" not in AgentParams().arm_config("baseline")  # as runs that are older than the choice
    assert AgentParams(crop="original").arm_config("baseline")["crop"] == "original"
    assert "crop" not in AgentParams(agent="thyme", crop="original").arm_config("baseline")
    for arm, together in (("gated", False), ("gated_batched", True), ("collect", True)):
        assert AgentParams(concurrent=True).arm_config(arm, 0.9)["concurrent"] == together
    one, both = (AgentParams(router_small=small) for small in (False, True))
    assert one.arm_config("gated", 0.9) == both.arm_config("gated", 0.9)
    assert one.arm_config("collect") != both.arm_config("collect")


@models
def test_the_cell_holds_the_shown_parameters_and_their_defaults(model):
    written = read_cell(cell(model))
    assert tuple(written) == (model.shown or tuple(model.model_fields))
    fields = {name: model.model_fields[name] for name in written}
    assert written == {n: (plain_type(f.annotation), f.get_default()) for n, f in fields.items()}
    assert model(**{name: value for name, (_, value) in written.items()}) == model()


@models
def test_the_cell_is_short(model):
    assert len(cell(model).splitlines()) <= 12


@pytest.mark.parametrize(("model", "n"), [(DraftParams, 7), (ThresholdParams, 7), (PositionBiasParams, 4)])
def test_no_task_named_means_all_that_the_notebook_can_do(model, n):
    assert model(tasks=[]).tasks == model().tasks == list(TASKS[:n])


@models
def test_every_parameter_is_described(model):
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_the_cells_are_as_the_formatter_leaves_them():
    ruff = [sys.executable, "-m", "ruff", "format", "--line-length", "110", "-"]
    for model in ALL_NOTEBOOKS.values():
        done = subprocess.run(ruff, input=cell(model), capture_output=True, text=True, check=True)
        assert done.stdout == cell(model)


def test_where_a_model_is_served_is_not_what_records_depend_on():
    local, remote = (
        DraftParams(draft_model=f"http://{host}/v1?model=Qwen/X&concurrency={n}")
        for host, n in (("a", 1), ("b", 9))
    )
    assert local.stage_config() == remote.stage_config()
    assert local.stage_config()["draft_model"] == "served:Qwen/X"
    lower = DraftParams(if_fewer_alternatives="lower")
    assert lower.stage_config() == DraftParams().stage_config()
