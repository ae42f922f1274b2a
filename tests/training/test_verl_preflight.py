"""Before a real run: each trap of the recipe is found, and a sound folder passes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from servers import completion, scripted_server

from speceyes_lib.errors import DataError
from speceyes_lib.training import verl_data
from speceyes_lib.training.verl_config import VerlPlan, write_verl_config
from speceyes_lib.training.verl_preflight import preflight
from speceyes_lib.workflow import cli

GIB = 1 << 30


def examiner(number: int, body: dict) -> tuple[int, dict]:
    """A judge that knows the colour."""
    right = body["messages"][-1]["content"].rstrip().endswith("green")
    return 200, completion("CORRECT" if right else "INCORRECT")


@pytest.fixture(scope="module")
def there(tmp_path_factory) -> VerlPlan:
    """Everything that a run needs, small, apart from the judge."""
    root = tmp_path_factory.mktemp("there")
    verl_data.write_example(root / "raw")
    verl_data.prepare(root / "raw", root / "data", validation=4, report=lambda _: None)
    configs = root / "verl/recipe/deepeyes/configs"
    configs.mkdir(parents=True)
    (configs / "deepeyes_multiturn_grpo.yaml").touch()
    (configs.parent / "deepeyes.py").touch()
    (root / "model").mkdir()
    (root / "model/config.json").write_text("{}")
    (root / "model/model.safetensors").write_bytes(bytes(1000))
    return VerlPlan(str(root / "model"), str(root / "data"), str(root / "verl"), gpus=2)


def checked(
    plan: VerlPlan, out: Path, script=examiner, gpus: list[int] | None = None, edit=("", "")
) -> dict[str, str]:
    with scripted_server(script, ["judge"]) as server:
        write_verl_config(replace(plan, judge=server.base_url), out)
        file = out / "run.sh"
        file.write_text(file.read_text().replace(*edit) if edit[0] else file.read_text())
        checks = preflight(out, lambda: gpus if gpus is not None else [80 * GIB] * 2)
    return {check.name: check.state for check in checks} | {f"{c.name}:": c.text for c in checks}


def test_a_sound_folder_passes(there, tmp_path):
    states = checked(there, tmp_path)
    assert {name: state for name, state in states.items() if not name.endswith(":")} == dict.fromkeys(
        ["loggers", "dumps of rollouts", "dumps of validation", "batch", "model", "recipe", "tool", "data.train_files",
         "data.val_files", "judge, a right answer", "judge, a wrong answer", "memory", "disk"], "ok"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("edit", "name", "remedy"),
    [
        (
            ("trainer.logger=[console,file,tensorboard]", "trainer.logger=[console,wandb]"),
            "loggers",
            "add it",
        ),
        (("trainer.rollout_data_dir", "trainer.other"), "dumps of rollouts", "set trainer.rollout_data_dir"),
        (("ppo_mini_batch_size=128", "ppo_mini_batch_size=256"), "batch", "lower it"),
        (("/train.parquet", "/gone.parquet"), "data.train_files", "verl-data"),
        (("zoom_tool.yaml", "gone.yaml"), "tool", "write it again"),
        (("recipe/deepeyes/deepeyes.py", "recipe/gone.py"), "recipe", "--recurse-submodules"),
        (("model.path=/", "model.path=/gone/"), "model", "fetch the model"),
    ],
)
def test_an_edited_script_is_checked_as_it_stands(edit, name, remedy, there, tmp_path):
    states = checked(there, tmp_path, edit=edit)
    assert states[name] == "fault"
    assert remedy in states[f"{name}:"]


@pytest.mark.parametrize(
    ("replies", "faults"),
    [
        (("CORRECT", "CORRECT"), ["judge, a wrong answer"]),
        (("INCORRECT", "INCORRECT"), ["judge, a right answer"]),
        (
            ("The answer is correct.", "That is not correct, it is green."),
            ["judge, a right answer", "judge, a wrong answer"],
        ),
        ((None, "INCORRECT"), ["judge, a right answer"]),
    ],
)
def test_a_judge_that_errs_or_answers_prose_is_found(replies, faults, there, tmp_path):
    states = checked(there, tmp_path, lambda number, _: (200, completion(replies[number])))
    assert [name for name, state in states.items() if state == "fault"] == faults


def test_a_judge_that_is_down_or_refuses_is_found(there, tmp_path):
    write_verl_config(replace(there, judge="http://127.0.0.1:9/v1"), tmp_path / "down")
    judge = next(check for check in preflight(tmp_path / "down", lambda: None) if check.name == "judge")
    assert judge.state == "fault"
    assert "start judge.sh" in judge.text
    states = checked(there, tmp_path / "refuses", lambda *_: (500, {"error": "x"}))
    assert "HTTP 500" in states["judge, a right answer:"]


@pytest.mark.parametrize(
    ("gpus", "state"), [([], "fault"), ([100, 80 * GIB], "fault"), ([80 * GIB] * 3, "ok")]
)
def test_memory_is_compared_with_an_estimate(gpus, state, there, tmp_path):
    assert checked(there, tmp_path, gpus=gpus)["memory"] == state


def test_narrow_pictures_and_missing_columns_are_found(there, tmp_path):
    verl_data.write_example(tmp_path / "raw")
    (tmp_path / "data").mkdir()
    for name, source in {"train": verl_data.THINKLITE, "val": verl_data.VSTAR}.items():
        (tmp_path / "raw" / source).rename(tmp_path / f"data/{name}.parquet")
    states = checked(replace(there, data=str(tmp_path / "data")), tmp_path / "out")
    assert states["data.train_files"] == "fault"
    assert "20 x 60 px" in states["data.train_files:"]
    assert states["data.val_files"] == "ok"


def test_a_folder_without_a_script_or_with_another_one_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"run\.sh is missing; write it by speceyes verl-config"):
        preflight(tmp_path)
    for text, message in (("echo 'open", "No closing quotation"), ("echo hello\n", "no command starts verl")):
        (tmp_path / "run.sh").write_text(text)
        with pytest.raises(DataError, match=message):
            preflight(tmp_path)


def test_the_commands_write_and_check(there, tmp_path, capsys):
    arguments = ["verl-config", str(tmp_path / "out"), "--model", there.model, "--data", there.data,
                 "--verl-folder", there.verl, "--judge", "http://127.0.0.1:9/v1", "--verl", "0.8.0"]  # fmt: skip
    assert cli.main(arguments) == 0
    assert "removed" in capsys.readouterr().err
    assert cli.main(["verl-check", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().out.startswith("fault")
    assert cli.main(["verl-data", "--self-test"]) == 0
    assert capsys.readouterr().out.count("ok: ") == 6
    assert cli.main(["verl-data"]) == 2
    assert json.loads((tmp_path / "out/plan.json").read_text())["gpus"] == 8
