"""Configs and parameters are refused before anything runs, with the key and the nearest valid name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from workflow_home import environment, make_home, write_notebook

from speceyes_lib.errors import ConfigError, StageError
from speceyes_lib.params import NOTEBOOKS, AgentParams, DraftParams
from speceyes_lib.paths import PACKAGE
from speceyes_lib.tasks.registry import TASKS
from speceyes_lib.workflow import cli, reproduce
from speceyes_lib.workflow.config import RunConfig, config_key
from speceyes_lib.workflow.execute import ACCEPT_VARIABLE
from speceyes_lib.workflow.parameters_cell import cell
from speceyes_lib.workflow.plan import groups, load_config, plan
from tests.conftest import MODELS


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_HOME", str(tmp_path))
    monkeypatch.delenv("SPECEYES_RUNS", raising=False)
    return make_home(tmp_path)


def config(home, text: str):
    (home / "configs" / "x.yaml").write_text(text)
    return load_config("configs/x.yaml")


# ------------------------------------------------------------------ config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam: x", r"nam: there is no such key \(did you mean 'name'\?\)"),
        (
            "draft: {batchsize: 4}",
            r"draft\.batchsize: .*did you mean 'batch_size'.*valid are batch_size, k_store",
        ),
        ('draft: {batch_size: "8"}', r"draft\.batch_size: .*integer.*got '8'"),
        ("draft: {batch_size: true}", r"draft\.batch_size: .*integer"),
        ("draft: 8", r"draft: .*got 8"),
        ("gate: {slope: 1e-3}", r"gate\.slope: .*number.*'1e-3'"),
        ("gate: {score: mni}", r"gate\.score: .*'min'"),
        ("gate: {k: 200}", r"k = 200.*k_store = 128"),
        ("data: {tasks: [pope/randm]}", r"data\.tasks: .*'pope/randm' \(did you mean 'pope/random'\?\)"),
        ("arms: [gatd]", r"arms: .*did you mean 'gated'"),
        ("validation: {root: ''}", r"validation\.root: there is no threshold"),
        ("workflow: {group_by: task}", r"workflow\.group_by: .*'split'"),
        ("name: a\nname: b", r"key 'name' is given twice"),
        ("name: [", r"not valid YAML"),
        ("demo", r"expected keys with values"),
        ("name: a/b", r"name: .*folder name"),
    ],
)
def test_a_config_with_a_mistake_is_refused_by_key_path(home, text, message):
    with pytest.raises(ConfigError, match=rf"^configs/x\.yaml: .*{message}"):
        config(home, text)


def test_the_message_on_an_absent_config_lists_the_others(home):
    with pytest.raises(ConfigError, match=r"configs/smal\.yaml: cannot be read.*configs/small\.yaml"):
        load_config("configs/smal.yaml")


def test_every_parameter_can_be_set_from_a_config():
    config = RunConfig()
    for model in NOTEBOOKS.values():
        keys = {name: config_key(model, name) for name in model.model_fields}
        decided_by_the_plan = {name for name, key in keys.items() if key is None}
        assert decided_by_the_plan <= {
            "if_changed",
            "accept_failures",
            "threshold_from",
            "arm",
            "mirrored",
        }, model.__name__
        for name in keys.keys() - decided_by_the_plan:
            section, key = keys[name]
            assert key in type(getattr(config, section) if section else config).model_fields, (model, name)


def test_the_embedded_config_is_the_notebooks_defaults(monkeypatch):
    """Run by hand with its defaults, a notebook does what the workflow does."""
    monkeypatch.delenv("SPECEYES_HOME", raising=False)
    for job in plan(load_config("configs/demo.yaml")):
        if job.params.run == "demo":
            decided = {"if_changed": "refuse", "tasks": list(TASKS)}
            assert job.params.model_copy(update=decided) == type(job.params)(), job.name


def test_one_key_reaches_every_notebook_that_needs_it(home):
    jobs = plan(config(home, "draft: {max_new_tokens: 7}\ngate: {k: 32}\nprompts: deepeyes"))
    drafts = [j.params for j in jobs if isinstance(j.params, DraftParams)]
    agents = [j.params for j in jobs if isinstance(j.params, AgentParams)]
    assert {(p.max_new_tokens, p.k, p.prompts) for p in drafts} == {(7, 32, "deepeyes")}
    assert {(p.draft_max_new_tokens, p.max_new_tokens, p.k) for p in agents} == {(7, 512, 32)}


# ------------------------------------------------------------------ jobs


def test_the_threshold_comes_from_the_validation_run_and_never_from_the_benchmark(home):
    jobs = {j.name: j for j in plan(load_config("configs/small.yaml"))}
    chosen = "data/runs/small_validation/04_threshold/operating_point.json"
    assert chosen in jobs["small_validation_04_threshold"].outputs
    evaluated = jobs["small_02_gated_agent_eval"]
    assert (evaluated.params.threshold_from, chosen in evaluated.inputs) == (chosen, True)
    validation = [j.params for name, j in jobs.items() if "validation" in name]
    assert {p.data_root for p in validation if hasattr(p, "data_root")} == {"data/demo/validation"}
    assert {p.arms[0] for p in validation if hasattr(p, "arms")} == {"collect"}


def test_a_given_threshold_needs_no_validation_run(home):
    jobs = plan(config(home, "gate: {threshold: 0.97}\nvalidation: {root: ''}"))
    assert [j.name for j in jobs if "validation" in j.name] == []
    assert {j.params.threshold for j in jobs if isinstance(j.params, AgentParams)} == {0.97}


def test_every_input_that_is_made_is_made_by_an_earlier_job(home):
    written: set[str] = set()
    for job in plan(load_config("configs/small.yaml")):
        assert {i for i in job.inputs if i.startswith("data/runs/")} <= written, job.name
        assert not written & set(job.outputs), "two jobs write the same file"
        written |= set(job.outputs)


@pytest.mark.parametrize(
    ("group_by", "names"),
    [
        ("run", [""]),
        ("benchmark", ["vstar", "hr", "pope"]),
        ("split", [task.replace("/", "_") for task in TASKS]),
    ],
)
def test_tasks_are_grouped_without_losing_one(group_by, names):
    grouped = groups(list(TASKS), group_by)
    assert list(grouped) == names
    assert [task for tasks in grouped.values() for task in tasks] == list(TASKS)


def test_drawing_figures_is_no_reason_to_run_models_again(monkeypatch):
    monkeypatch.delenv("SPECEYES_HOME", raising=False)
    for job in plan(load_config("configs/demo.yaml")):
        if isinstance(job.params, DraftParams | AgentParams):
            assert [i for i in job.inputs if i.endswith(("/frames.py", "/judging/stage.py", "/run.py"))] == []


def test_what_measures_time_runs_alone(home):
    alone = {j.name for j in plan(load_config("configs/small.yaml")) if j.exclusive}
    assert {name.partition("_0")[2][0] for name in alone} == {"1", "2"}


def test_only_what_runs_models_gets_the_sizes_and_gpus_of_models(home):
    jobs = plan(config(home, "workflow: {gpus_per_job: 2, shards: 2}\narms: [gated]"))
    with_models = {job.name.partition("_0")[2][0] for job in jobs if job.runs_models}
    assert with_models == {"1", "2"}
    assert all(job.gpus == (2 if job.runs_models else 0) for job in jobs)


def test_the_validation_set_is_shared_by_kernels_that_may_run_side_by_side(monkeypatch):
    monkeypatch.delenv("SPECEYES_HOME", raising=False)
    config = load_config("configs/demo.yaml")
    config = config.model_copy(
        update={"workflow": config.workflow.model_copy(update={"validation_kernels": 3})}
    )
    jobs = [j for j in plan(config) if j.params.run == config.validation_run]
    drafts = [j for j in jobs if isinstance(j.params, DraftParams)]
    assert sorted(task for j in drafts for task in j.params.tasks) == sorted(TASKS)
    assert (len(drafts), len({j.executed for j in jobs})) == (3, len(jobs))
    assert not any(j.exclusive for j in jobs)


# ------------------------------------------------------------------ notebooks


def test_a_complete_home_has_nothing_to_object_to(home):
    reproduce.check(load_config("configs/small.yaml"))


def test_benchmarks_are_read_also_without_a_validation_set(home, benchmark_root, tmp_path):
    text = (
        "data: {{kind: check, root: {}}}\nvalidation: {{root: ''}}\ngate: {{threshold: 0.97}}\n"
        f"models: {{{{draft: {MODELS / 'draft'}, agent: {MODELS / 'agent'}}}}}"
    )
    reproduce.check(config(home, text.format(benchmark_root)))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match=r"data\.root: "):
        reproduce.check(config(home, text.format(empty)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch_size: int = 16", "batch_size: int = 9", r"batch_size is int = 9, expected int = 16"),
        ("batch_size: int = 16", "batch_size: float = 8", r"batch_size is float = 8, expected int = 16"),
        ("batch_size: int = 16", "batch_size: int = True", r"batch_size is int = True, expected int = 16"),
        (
            "batch_size: int = 16",
            "batchsize: int = 8",
            r"batchsize is not a parameter \(did you mean 'batch_size'\?\)",
        ),
        ("batch_size: int = 16", "batch_size = 8", r"`batch_size = 8` is not `name: type = literal`"),
        ("batch_size: int = 16", "batch_size: int = 2 * 4", r"parameters cell: "),
        ("batch_size: int = 16", "", r"batch_size is missing.*speceyes cell 01_small_model_inference"),
    ],
)
def test_a_parameters_cell_that_differs_from_its_model_is_refused(home, old, new, message):
    text = cell(DraftParams)
    changed = "\n".join(line.replace(old, new) if old in line else line for line in text.splitlines())
    write_notebook(home / "notebooks" / "01_small_model_inference.ipynb", changed)
    with pytest.raises(ConfigError, match=rf"notebooks/01_small_model_inference\.ipynb: .*{message}"):
        reproduce.check(load_config("configs/small.yaml"))


def test_a_notebook_without_parameters_cell_is_refused(home):
    path = home / "notebooks" / "03_judging.ipynb"
    notebook = json.loads(path.read_text())
    notebook["cells"][0]["metadata"] = {}
    path.write_text(json.dumps(notebook))
    with pytest.raises(ConfigError, match="no cell has the tag `parameters`"):
        reproduce.check(load_config("configs/small.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {draft: models/draft, agent: models/x}", r"models\.agent: models/x: no model here"),
        ("models: {draft: models}", r"models\.draft: models: no model here \(config\.json is missing\)"),
        ("models: {draft: 'http://127.0.0.1:8000/v1?model=m'}", r"models\.draft: processor: "),
        ("models: {draft: 'http://h/v1?model=m&modle=m'}", r"models\.draft: .*did you mean 'model'"),
        (
            "data: {kind: check, root: data/none}",
            r"data\.root: there is no folder data/none",
        ),
        (
            "prompts: deepeye",
            r"no prompt set 'deepeye' \(did you mean 'deepeyes'\?\)",
        ),
    ],
)
def test_what_is_missing_is_reported_before_anything_runs(home, text, message):
    with pytest.raises(ConfigError, match=message):
        reproduce.check(config(home, text))


def test_data_that_cannot_be_read_are_reported_before_anything_runs(home, benchmark_root):
    root = shutil.copytree(benchmark_root, home / "data" / "mine")
    text = "data: {kind: check, root: data/mine, tasks: [vstar/direct_attributes]}\ngate: {threshold: 0.9}\n"
    text += "models: {draft: models/draft, agent: models/agent}"
    reproduce.check(config(home, text))
    picture = min((root / "vstar" / "direct_attributes").glob("*.jpg"))
    picture.write_bytes(picture.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"data\.root: vstar/direct_attributes: .*not a readable picture"):
        reproduce.check(config(home, text))
    picture.unlink()
    with pytest.raises(ConfigError, match=r"data\.root: vstar/direct_attributes: .*this picture is missing"):
        reproduce.check(config(home, text))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stage", "01_small_model_inferenc"], r"did you mean '01_small_model_inference'"),
        (["stage", "01_small_model_inference", "--set", "limits=6"], r"limits: .*did you mean 'limit'"),
        (["stage", "01_small_model_inference", "--set", "limit=six"], r"limit: .*integer.*'six'"),
        (["stage", "01_small_model_inference", "--set", "limit"], r"write name=value"),
        (["stage", "own", "--set", "n=1.5"], r"own\.ipynb: n: .*integer"),
        (["check", "configs/none.yaml"], r"cannot be read"),
        (["headline", "configs/small.yaml"], r"summary\.json"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(home, capsys, arguments, message):
    write_notebook(home / "notebooks" / "own.ipynb", "n: int = 1  # how many\nname: str | None = None\n")
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert re.search(message, printed.err)


def test_the_cell_command_prints_what_check_wants(capsys):
    assert cli.main(["cell", "02_gated_agent_eval"]) == 0
    assert capsys.readouterr().out == cell(AgentParams)


def test_jobs_and_status_list_the_same_jobs(home, capsys):
    assert cli.main(["jobs", "configs/small.yaml"]) == 0
    jobs = capsys.readouterr().out.splitlines()
    assert cli.main(["status", "configs/small.yaml"]) == 0
    *states, total = capsys.readouterr().out.splitlines()
    assert total == f"0 of {len(jobs)} jobs finished"
    assert [" ".join(line.split()[:2]).rstrip(":") for line in states] == [
        " ".join(line.removesuffix(":").split()[:2]).rstrip(":") for line in jobs
    ]


def test_the_snakefile_is_beside_the_package():
    assert (PACKAGE.parent / "Snakefile").is_file()


def test_a_job_starts_without_what_only_the_headline_needs():
    heavy = ("pandas", "papermill", "snakemake")
    code = f"import sys, speceyes_lib.workflow.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


# ------------------------------------------------------------------ shards and clusters

SMALL = """
name: small
data: {tasks: [pope/random, hr/hr_bench_4k]}
models: {draft: models/draft, agent: models/agent}
gate: {threshold: 0.97}
"""


def test_shards_of_a_notebook_come_before_the_job_that_merges_them(home):
    jobs = {
        j.name: j for j in plan(config(home, SMALL + "workflow: {group_by: run, shards: 3, gpus_per_job: 1}"))
    }
    alone = {j.name: j for j in plan(config(home, SMALL + "workflow: {group_by: run}"))}
    merging = jobs["small_01_small_model_inference"]
    parts = [jobs[f"{merging.name}_{i}of3"] for i in (1, 2, 3)]
    assert [p.command for p in parts] == ["shard:1of3", "shard:2of3", "shard:3of3"]
    assert merging.command == "notebook"
    assert set(merging.inputs) == {*alone[merging.name].inputs, *(o for p in parts for o in p.outputs)}
    assert merging.outputs == alone[merging.name].outputs
    assert all(p.params == merging.params and p.inputs == alone[merging.name].inputs for p in parts)
    assert all("/shards/" in o for p in parts for o in p.outputs)
    drafts = set(merging.outputs)
    assert all(drafts <= set(jobs[f"small_02_gated_agent_eval_{i}of3"].inputs) for i in (1, 2, 3))
    assert {j.notebook for j in jobs.values() if j.gpus} == {
        merging.notebook,
        "notebooks/02_gated_agent_eval.ipynb",
    }


def test_a_shards_job_does_its_part_and_reports_it(home, monkeypatch, capsys):
    from speceyes_lib.inference import stages

    seen = []

    def work(params, progress, shard):
        seen.append((params.tasks, str(shard), params.accept_failures))
        progress(1, 2, "pope/random")
        return []

    monkeypatch.setattr(stages, "run_draft_stage", work)
    job = next(
        j for j in plan(config(home, SMALL + "workflow: {group_by: run, shards: 2}")) if j.shard == "2of2"
    )
    (home / job.executed).parent.mkdir(parents=True)
    assert cli.main(["job", job.command, job.notebook, job.executed, job.blob]) == 0
    monkeypatch.setenv(ACCEPT_VARIABLE, "1")  # as `reproduce --accept-failures` sets it
    assert cli.main(["job", job.command, job.notebook, job.executed, job.blob]) == 0
    tasks = ["pope/random", "hr/hr_bench_4k"]
    assert seen == [(tasks, "2of2", False), (tasks, "2of2", True)]
    assert "1 2 pope/random" in (home / job.executed).read_text()
    assert "small: 01_small_model_inference 2of2: done" in capsys.readouterr().out


def test_a_shards_job_that_fails_leaves_its_reason_in_the_log(home, monkeypatch, capsys):
    from speceyes_lib.inference import stages

    def work(params, progress, shard):
        raise StageError("no drafts")

    monkeypatch.setattr(stages, "run_agent_stage", work)
    blob = plan(config(home, SMALL + "workflow: {group_by: run, shards: 2}"))
    job = next(j for j in blob if j.shard and "02_" in j.notebook)
    (home / job.executed).parent.mkdir(parents=True)
    assert cli.main(["job", job.command, job.notebook, job.executed, job.blob]) == 1
    assert "StageError: no drafts" in (home / job.executed).read_text()


def test_the_slurm_profile_uses_options_of_snakemake():
    from snakemake.cli import get_argument_parser

    profile = yaml.safe_load((PACKAGE.parent / "profiles/slurm/config.yaml").read_text())
    known = re.findall(r"--([\w-]+)", get_argument_parser().format_help())
    assert profile.pop("executor") == "slurm"  # a plugin of its own, not among the packages of this suite
    assert {key for key in profile if not key.startswith("slurm-")} <= set(known)
    assert (
        profile["slurm-status-command"] == "squeue"
    )  # with sacct, a cancelled job counts as running for ever


def test_the_snakefile_is_read_without_a_number_of_cores_as_a_cluster_s_executor_has_none(home):
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(PACKAGE.parent / "Snakefile"),
        "--list-rules",
    ]
    listed = subprocess.run(
        [*command, "--config", "run_config=configs/small.yaml"],
        cwd=home,
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert listed.returncode == 0, listed.stderr
    assert {job.name for job in plan(load_config("configs/small.yaml"))} <= set(listed.stdout.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"--profile profile: there is no config\.yaml"),
        (
            "executor: nowhere",
            r"'nowhere' needs a plugin; run: pip install snakemake-executor-plugin-nowhere",
        ),
        ("executor: [", r"profile/config\.yaml: cannot be read"),
    ],
)
def test_a_profile_that_cannot_work_is_refused_before_anything_starts(home, text, message):
    if text is not None:
        (home / "profile").mkdir()
        (home / "profile" / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        reproduce.run_all("configs/small.yaml", profile="profile")
    assert not (home / "data" / "runs").exists()


def test_stopping_a_run_that_does_not_work_says_so(home, capsys):
    assert cli.main(["stop", "configs/small.yaml"]) == 0
    assert "nothing was at work" in capsys.readouterr().out
