"""Everything that a real run of the DeepEyes recipe needs to start: launch script, judge server and tool of verl.

The script takes the recipe's hyperparameters and mends what its own one leaves open: dumps of rollouts and the file
logger are switched on, folders exist before anything is written into them, every value is given explicitly, and each
start logs into a folder of its own, so that a restart keeps its past. `read_training` reads the folder.

Source: the recipe `deepeyes` of verl 0.7.1.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import yaml

from ..errors import UserError
from ..paths import shown
from ..runs.files import write_atomically

VERL = "0.7.1"
CONTEXT_TOKENS = 32_768  # of the judge
TOOL = "image_zoom_in_tool"
PLAN, SCRIPT, JUDGE, TOOLS = "plan.json", "run.sh", "judge.sh", "zoom_tool.yaml"
# beginning of a version -> what breaks there; the longest that fits counts
BREAKS: dict[str, tuple[str, ...]] = {
    "0.7": (),
    "0.6": ("pictures reach the agent in another way: use the recipe that is bundled with this release",),
    "0.8": (
        "the class of the zoom tool was removed (May 2026)",
        "the dataset hook has one more required argument, so the recipe's dataset raises TypeError",
    ),
    "0.9": (
        "the class of the zoom tool was removed (May 2026)",
        "the dataset hook has one more required argument, so the recipe's dataset raises TypeError",
        "main_ppo does not pass the recipe's reward function on, and the default one does not know the data",
        "turns are logged as training/num_turns (the reader maps them)",
    ),
}


@dataclass(frozen=True)
class VerlPlan:
    """What a run is made of.

    Attributes:
        model: folder or hub name of the model to train.
        data: folder with train.parquet and val.parquet (`verl_data.prepare`).
        verl: checkout of verl at its tag, with its submodule `recipe`.
        judge: address of the judging server, ending in /v1.
        judge_model: the model that judges, and judge_server: the program that serves it.
        version: of verl.
        gpus, nodes: GPUs of each node, and nodes.
        prompts: per step, and group_size: trajectories of each.
        name: of the experiment.
    """

    model: str
    data: str
    verl: str
    judge: str = "http://127.0.0.1:18901/v1"
    judge_model: str = "Qwen/Qwen2.5-72B-Instruct"
    judge_server: Literal["sglang", "vllm"] = "vllm"
    version: str = VERL
    gpus: int = 8
    nodes: int = 1
    prompts: int = 128
    group_size: int = 8
    name: str = "deepeyes"


def write_verl_config(plan: VerlPlan, out: Path) -> list[Path]:
    """Write launch script, judge command, tool configuration and plan into a folder; returns the files.

    Raises:
        UserError: the plan cannot run, or the folder holds another plan.
    """
    _check(plan)
    file = out / PLAN
    if file.is_file() and json.loads(file.read_text("utf-8")) != asdict(plan):
        raise UserError(f"{shown(file)} is of another plan; name another folder, or remove this one")
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        PLAN: json.dumps(asdict(plan), indent=1) + "\n",
        SCRIPT: launch_script(plan, out),
        JUDGE: judge_script(plan),
        TOOLS: yaml.safe_dump(tool_config(), sort_keys=False),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode("utf-8"))
    for name in (SCRIPT, JUDGE):
        (out / name).chmod(0o755)
    return [out / name for name in texts]


def version_warnings(version: str) -> list[str]:
    """What breaks in a version of verl; empty for those that the recipe was made for."""
    known = [begin for begin in BREAKS if version == begin or version.startswith(f"{begin}.")]
    if not known:
        return [f"verl {version} is not known here; the recipe is known to run with {VERL}"]
    return [f"verl {version}: {what}" for what in BREAKS[known[0]]]


def _check(plan: VerlPlan) -> None:
    for field in ("gpus", "nodes", "prompts", "group_size"):
        if getattr(plan, field) < 1:
            raise UserError(f"{field} = {getattr(plan, field)}: must be at least 1")
    if plan.group_size == 1:
        raise UserError("group_size = 1: a group of one has no advantage; the recipe takes 8")
    if not plan.judge.startswith(("http://", "https://")) or not plan.judge.endswith("/v1"):
        raise UserError(
            f"judge = {plan.judge!r}: must be an address that ends in /v1; the recipe adds /models to it"
        )
    if not re.fullmatch(r"[\w.-]+", plan.name):
        raise UserError(f"name = {plan.name!r}: must be a plain folder name, such as deepeyes")
    for field, value in asdict(plan).items():
        if isinstance(value, str) and not value.isprintable():
            raise UserError(f"{field} = {value!r}: holds characters that no script can hold")
    total = plan.gpus * plan.nodes
    if plan.prompts * plan.group_size % total:
        raise UserError(
            f"prompts x group_size = {plan.prompts * plan.group_size} must be divisible by the {total} GPUs"
        )


def overrides(plan: VerlPlan, out: Path) -> dict[str, str | float | bool | list[str]]:
    """The settings of verl that the script gives, by their names."""
    recipe, folder = f"{plan.verl}/recipe/deepeyes", out.resolve()
    return {
        "data.train_files": f"{plan.data}/train.parquet",
        "data.val_files": f"{plan.data}/val.parquet",
        "data.train_batch_size": plan.prompts,
        "data.max_prompt_length": 8192,
        "data.max_response_length": 16384,
        "data.return_raw_chat": True,
        "data.filter_overlong_prompts": True,
        "data.custom_cls.path": f"{recipe}/deepeyes.py",
        "data.custom_cls.name": "CustomRLHFDataset",
        "custom_reward_function.path": f"{recipe}/deepeyes.py",
        "custom_reward_function.name": "compute_score",
        "algorithm.adv_estimator": "grpo",
        "algorithm.kl_ctrl.kl_coef": 0.0,
        "actor_rollout_ref.model.path": plan.model,
        "actor_rollout_ref.model.use_remove_padding": True,
        "actor_rollout_ref.model.use_fused_kernels": True,
        "actor_rollout_ref.actor.optim.lr": 1e-6,
        "actor_rollout_ref.actor.ppo_mini_batch_size": plan.prompts,  # one update a step: on-policy
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 1,
        "actor_rollout_ref.actor.use_kl_loss": False,
        "actor_rollout_ref.actor.kl_loss_coef": 0.0,
        "actor_rollout_ref.actor.entropy_coeff": 0.0,
        "actor_rollout_ref.actor.checkpoint.save_contents": ["model", "hf_model", "optimizer", "extra"],
        "actor_rollout_ref.actor.fsdp_config.param_offload": True,
        "actor_rollout_ref.actor.fsdp_config.optimizer_offload": True,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": 1,
        "actor_rollout_ref.ref.fsdp_config.param_offload": True,
        "actor_rollout_ref.rollout.name": "sglang",
        "actor_rollout_ref.rollout.mode": "async",
        "actor_rollout_ref.rollout.n": plan.group_size,
        "actor_rollout_ref.rollout.temperature": 1.0,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 1,
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
        "actor_rollout_ref.rollout.max_num_batched_tokens": 32768,
        "actor_rollout_ref.rollout.gpu_memory_utilization": 0.8,
        "actor_rollout_ref.rollout.enforce_eager": True,
        "actor_rollout_ref.rollout.free_cache_engine": True,
        "actor_rollout_ref.rollout.enable_chunked_prefill": True,
        "actor_rollout_ref.rollout.multi_turn.enable": True,
        "actor_rollout_ref.rollout.multi_turn.max_assistant_turns": 5,
        "actor_rollout_ref.rollout.multi_turn.max_user_turns": 5,
        "actor_rollout_ref.rollout.multi_turn.max_parallel_calls": 1,
        "actor_rollout_ref.rollout.multi_turn.tool_config_path": str(folder / TOOLS),
        "trainer.critic_warmup": 0,
        "trainer.logger": ["console", "file", "tensorboard"],
        "trainer.val_before_train": False,
        "trainer.n_gpus_per_node": plan.gpus,
        "trainer.nnodes": plan.nodes,
        "trainer.save_freq": 8,
        "trainer.test_freq": 80,
        "trainer.project_name": "deepeyes",
        "trainer.experiment_name": plan.name,
        "trainer.default_local_dir": str(folder / "checkpoints"),
        "trainer.rollout_data_dir": str(folder / "rollouts"),
        "trainer.validation_data_dir": str(folder / "validation"),
        "trainer.total_epochs": 1,
    }


def launch_script(plan: VerlPlan, out: Path) -> str:
    """The bash script that trains. Further overrides can be given to it."""
    folder = shlex.quote(str(out.resolve()))
    given = overrides(plan, out).items()
    settings = " \\\n    ".join(shlex.quote(f"{key}={hydra_value(value)}") for key, value in given)
    configs = shlex.quote(f"{plan.verl}/recipe/deepeyes/configs")
    warnings = "".join(f"# warning: {warning}\n" for warning in version_warnings(plan.version))
    return f"""#!/usr/bin/env bash
# DeepEyes' recipe with verl {plan.version} (numpy below 2). Start judge.sh first, then check this folder by speceyes
# verl-check.
{warnings}set -euo pipefail

OUT={folder}
LOGS="$OUT/logs/$(date -u +%Y%m%dT%H%M%SZ)"  # a folder per start: the file logger overwrites its file
mkdir -p "$LOGS" "$OUT/rollouts" "$OUT/validation" "$OUT/checkpoints"

export LLM_AS_A_JUDGE_BASE={shlex.quote(plan.judge)}
export VERL_FILE_LOGGER_PATH="$LOGS/metrics.jsonl"
export TENSORBOARD_DIR="$LOGS/tensorboard"
export PYTHONUNBUFFERED=1

cd {shlex.quote(plan.verl)}  # the recipe finds verl's own configuration from here
python3 -m verl.trainer.main_ppo \\
    --config-path={configs} \\
    --config-name=deepeyes_multiturn_grpo \\
    {settings} \\
    "$@" 2>&1 | tee "$LOGS/console.log"
"""


def hydra_value(value: str | float | bool | list[str]) -> str:
    """A value as hydra reads it: texts with signs of its grammar stand in quotes."""
    if isinstance(value, list):
        return f"[{','.join(map(hydra_value, value))}]"
    if not isinstance(value, str):
        return str(value)
    if re.fullmatch(r"[A-Za-z0-9_./-]+", value) and value.lower() not in (
        "true",
        "false",
        "null",
        "nan",
        "inf",
    ):
        return value
    # within hydra's quotes a backslash counts only before a quote, and ${ begins an interpolation
    quoted = re.sub(r"(\\*)(\"|$)", lambda m: m[1] * 2 + (f"\\{m[2]}" if m[2] else ""), value)
    return '"' + quoted.replace("${", "\\${") + '"'


def judge_script(plan: VerlPlan) -> str:
    """The bash script that serves the judging model, for the address of the plan."""
    url = urlsplit(plan.judge)
    host = url.hostname if url.hostname in ("127.0.0.1", "localhost") else "0.0.0.0"
    port, model = url.port or {"http": 80, "https": 443}[url.scheme], shlex.quote(plan.judge_model)
    if plan.judge_server == "vllm":
        command = (
            f"vllm serve {model} --host {host} --port {port} --tensor-parallel-size {plan.gpus} "
            f"--max-model-len {CONTEXT_TOKENS} --served-model-name judge"
        )
    else:  # its flag for logging requests takes no value, and is left out
        command = (
            f"python3 -m sglang.launch_server --model-path {model} --host {host} --port {port} --tp-size {plan.gpus} "
            f"--context-length {CONTEXT_TOKENS} --served-model-name judge"
        )
    return (
        f"#!/usr/bin/env bash\n# the judge at {plan.judge}, on GPUs of its own; with a small one (7B) tool use may "
        f'vanish\nset -euo pipefail\nexec {command} "$@"\n'
    )


def tool_config() -> Mapping:
    """The zoom tool, as verl reads it."""
    box = "left, top, right and bottom of the region, in pixels of the picture"
    parameters = {
        "bbox_2d": {
            "type": "array",
            "items": {"type": "number"},
            "minItems": 4,
            "maxItems": 4,
            "description": box,
        },
        "label": {"type": "string", "description": "what the region shows"},
    }
    function = {
        "name": TOOL,
        "description": "Returns a region of the picture, enlarged.",
        "parameters": {"type": "object", "properties": parameters, "required": ["bbox_2d"]},
    }
    config = {"type": "native", "num_workers": 256, "rate_limit": 256, "timeout": 60}
    tool = {
        "class_name": "verl.tools.image_zoom_in_tool.ImageZoomInTool",
        "config": config,
        "tool_schema": {"type": "function", "function": function},
    }
    return {"tools": [tool]}
