"""Scripts for real runs: bash reads them as they were meant, whatever folders are called."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.errors import UserError
from speceyes_lib.training.verl_config import (
    BREAKS,
    VerlPlan,
    hydra_value,
    overrides,
    version_warnings,
    write_verl_config,
)
from speceyes_lib.training.verl_preflight import read_script

ODD = 'a folder\'s "odd" name; $(touch gone) `x` & ${HOME} é,=[x] \\'
PLAN = VerlPlan("/models/Qwen2.5-VL-7B", "/data", "/opt/verl")


def bash_reads(script: Path) -> None:
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def started_with(script: Path, verl: Path) -> list[str]:
    """The arguments that a launch script gives to Python, run with a Python that only writes them down."""
    fake = script.parent / "bin"
    fake.mkdir()
    (fake / "python3").write_text('#!/usr/bin/env bash\nprintf "%s\\0" "$@" > "$WRITTEN"\npwd\n')
    (fake / "python3").chmod(0o755)
    verl.mkdir(parents=True)
    written = script.parent / "arguments"
    env = {**os.environ, "PATH": f"{fake}:{os.environ['PATH']}", "WRITTEN": str(written)}
    subprocess.run(["bash", script, "trainer.nnodes=3"], env=env, check=True, capture_output=True)
    return written.read_text().split("\0")[:-1]


def test_the_files_are_bash_and_yaml_and_hold_the_recipe(tmp_path):
    run, judge, tools = (tmp_path / "run.sh", tmp_path / "judge.sh", tmp_path / "zoom_tool.yaml")
    assert {run, judge, tools} <= set(write_verl_config(PLAN, tmp_path))
    bash_reads(run)
    bash_reads(judge)
    variables, given_settings = read_script(run.read_text(), run)
    assert variables["LLM_AS_A_JUDGE_BASE"] == "http://127.0.0.1:18901/v1"
    for key, value in {
        "trainer.logger": "[console,file,tensorboard]", "trainer.rollout_data_dir": f"{tmp_path}/rollouts",
        "data.train_batch_size": "128", "actor_rollout_ref.actor.ppo_mini_batch_size": "128",
        "actor_rollout_ref.rollout.n": "8", "data.max_response_length": "16384",
        "actor_rollout_ref.rollout.multi_turn.max_assistant_turns": "5",
        "custom_reward_function.path": "/opt/verl/recipe/deepeyes/deepeyes.py",
    }.items():  # fmt: skip
        assert given_settings[key] == value
    (tool,) = yaml.safe_load(tools.read_text())["tools"]
    assert tool["tool_schema"]["function"]["name"] == "image_zoom_in_tool"
    assert tool["tool_schema"]["function"]["parameters"]["required"] == ["bbox_2d"]
    assert "--max-model-len 32768" in judge.read_text()
    write_verl_config(PLAN, tmp_path)  # the same plan again
    with pytest.raises(UserError, match=r"plan\.json is of another plan"):
        write_verl_config(replace(PLAN, gpus=4), tmp_path)


def test_odd_folder_names_reach_verl_as_they_are(tmp_path):
    out = tmp_path / ODD
    plan = replace(
        PLAN, data=f"/data/{ODD}", verl=str(tmp_path / "verl" / ODD), model=f"/m/{ODD}", judge_model=ODD
    )
    write_verl_config(plan, out)
    bash_reads(out / "judge.sh")
    arguments = started_with(out / "run.sh", Path(plan.verl))
    assert arguments[:2] == ["-m", "verl.trainer.main_ppo"]
    assert arguments[-1] == "trainer.nnodes=3"
    settings_given = dict(word.split("=", 1) for word in arguments[2:] if not word.startswith("--"))
    wanted = overrides(plan, out)
    assert settings_given == {k: hydra_value(v) for k, v in wanted.items()} | {"trainer.nnodes": "3"}
    assert not (tmp_path / "gone").exists()
    assert not list(tmp_path.rglob("gone"))
    assert (out / "rollouts").is_dir()
    assert [p.name for p in (out / "logs").glob("*/*")] == ["console.log"]
    _, again = read_script((out / "run.sh").read_text(), out / "run.sh")
    assert again["data.train_files"] == f"/data/{ODD}/train.parquet"
    assert again["actor_rollout_ref.model.path"] == f"/m/{ODD}"


@settings(deadline=None)
@given(
    st.text(
        st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.sampled_from(" \\\"'${}[],=:"),
        min_size=1,
    )
)
def test_any_path_survives_quoting_for_bash_and_for_hydra(tmp_path_factory, text):
    script = (
        f"python3 -m verl.trainer.main_ppo {__import__('shlex').quote('model.path=' + hydra_value(text))}\n"
    )
    assert read_script(script, Path("run.sh"))[1] == {"model.path": text}


@pytest.mark.parametrize("server", ["vllm", "sglang"])
def test_the_judge_is_served_where_the_plan_looks_for_it(server, tmp_path):
    write_verl_config(replace(PLAN, judge="http://10.0.0.7:9000/v1", judge_server=server), tmp_path)
    command = (tmp_path / "judge.sh").read_text().splitlines()[-1]
    assert "--host 0.0.0.0 --port 9000" in command
    assert "--log-requests" not in command
    assert ("sglang.launch_server" in command) == (server == "sglang")


def test_versions_that_break_say_what_breaks(tmp_path):
    assert [bool(version_warnings(v)) for v in ("0.7.0", "0.7.1", "0.6.1", "0.8.0", "0.9.1", "0.95", "1.0")] == [
        False, False, True, True, True, True, True,
    ]  # fmt: skip
    assert len(version_warnings("0.9.1")) == len(BREAKS["0.9"])
    write_verl_config(replace(PLAN, version="0.8.0"), tmp_path)
    assert "# warning: verl 0.8.0" in (tmp_path / "run.sh").read_text()
    bash_reads(tmp_path / "run.sh")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group_size": 1}, "group of one has no advantage"),
        ({"gpus": 0}, "gpus = 0: must be at least 1"),
        ({"judge": "http://127.0.0.1:18901"}, "ends in /v1"),
        ({"judge": "localhost/v1"}, "must be an address"),
        ({"prompts": 3, "group_size": 3}, "divisible by the 8 GPUs"),
        ({"name": "a/b"}, "plain folder name"),
        ({"data": "/a\nb"}, "data = .*no script can hold"),
    ],
)
def test_plans_that_cannot_run_are_refused(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        write_verl_config(replace(PLAN, **change), tmp_path)
    assert not list(tmp_path.iterdir())
