"""Checks before GPU hours are spent: is everything there that the launch script names, and does the judge judge.

The script is read as it stands, so that later edits are checked too. Nothing is started and nothing is written.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from ..errors import DataError
from ..judging.rewards import read_verdict
from ..paths import shown
from .verl_config import SCRIPT, TOOL
from .verl_data import COLUMNS, SMALLEST_SIDE_PX, row_fault

State = Literal["ok", "warning", "fault"]
ROWS_LOOKED_AT = 32
JUDGE_TIMEOUT_S = 60
# bytes of a weight: sharded over all GPUs in training (float32 weight, gradient, two moments), and whole in sampling
TRAINED_BYTES, SAMPLED_BYTES = 16, 2
QUESTION = ("What colour is the small boat?", "The boat is green.")
RIGHT, WRONG = "green", "It is a red boat."


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, and what to do about it."""

    name: str
    state: State
    text: str


def preflight(folder: Path, gpus: Callable[[], list[int] | None] | None = None) -> list[Check]:
    """The checks of a folder that `write_verl_config` wrote, worst first.

    Args:
        folder: with the launch script.
        gpus: returns the free bytes of each GPU here, None where that is not known; by default from nvidia-smi.

    Raises:
        DataError: there is no launch script, or none that can be read.
    """
    script = folder / SCRIPT
    if not script.is_file():
        raise DataError(f"{shown(script)} is missing; write it by speceyes verl-config")
    variables, settings = read_script(script.read_text("utf-8"), script)
    checks = [
        *_logging(settings),
        *_batch(settings),
        *_files(settings),
        *_data(settings),
        *_judge(variables.get("LLM_AS_A_JUDGE_BASE", "")),
        *_memory(settings, (gpus or free_gpu_bytes)()),
    ]
    return sorted(checks, key=lambda check: ("fault", "warning", "ok").index(check.state))


def read_script(text: str, file: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The exported variables of a launch script, and the settings that it gives to verl.

    Raises:
        DataError: the script does not start verl, or its quotes do not close.
    """
    lines = text.replace("\\\n", " ").splitlines()
    words: list[list[str]] = []
    for line in lines:
        try:
            words.append(shlex.split(line, comments=True))
        except ValueError as error:
            raise DataError(f"{shown(file)}: {error} in {line.strip()[:80]!r}; mend the quotes") from None
    exports = [line[1] for line in words if line[:1] == ["export"] and len(line) > 1]
    command = next((line for line in words if "verl.trainer.main_ppo" in line), None)
    if command is None:
        raise DataError(f"{shown(file)}: no command starts verl.trainer.main_ppo; write the script again")
    pairs = [
        word.lstrip("+") if word.startswith("+") else word for word in command if re.match(r"[+\w.]+=", word)
    ]
    settings = dict(pair.split("=", 1) for pair in pairs)
    return dict(e.split("=", 1) for e in exports if "=" in e), {key: _plain(v) for key, v in settings.items()}


def _plain(value: str) -> str:
    """A value without hydra's quotes."""
    if len(value) < 2 or value[0] != value[-1] or value[0] not in "\"'":
        return value
    inner = value[1:-1].replace("\\${", "${")
    return re.sub(r"(\\+)(\"|$)", lambda m: m[1][: len(m[1]) // 2] + m[2], inner)


def _logging(settings: Mapping[str, str]) -> Iterator[Check]:
    loggers = re.findall(r"\w+", settings.get("trainer.logger", ""))
    if "file" in loggers:
        yield Check("loggers", "ok", f"trainer.logger writes to {', '.join(loggers)}")
    else:
        yield Check("loggers", "fault", "trainer.logger has no 'file'; add it, or nothing keeps all digits")
    for key, what in (("rollout_data_dir", "rollouts"), ("validation_data_dir", "validation")):
        if folder := settings.get(f"trainer.{key}"):
            yield Check(f"dumps of {what}", "ok", folder)
        else:
            yield Check(f"dumps of {what}", "fault", f"set trainer.{key}; without it single answers are lost")
    for key in ("trainer.tensorboard_dir", "trainer.rl_logging_board_dir"):
        if key in settings:
            yield Check(key, "warning", "verl does not read it; TensorBoard's folder is TENSORBOARD_DIR")


def _batch(settings: Mapping[str, str]) -> Iterator[Check]:
    names = ("data.train_batch_size", "actor_rollout_ref.actor.ppo_mini_batch_size")
    batch, mini = (int(settings.get(name) or 0) for name in names)
    if mini > batch:
        yield Check("batch", "fault", f"{names[1]} = {mini} is more than {names[0]} = {batch}; lower it")
    elif mini < batch:
        updates = batch / max(1, mini)
        yield Check("batch", "warning", f"{updates:g} updates a step; the recipe makes one, on-policy")
    else:
        yield Check("batch", "ok", f"{batch} prompts a step, one update")


def _files(settings: Mapping[str, str]) -> Iterator[Check]:
    model = settings.get("actor_rollout_ref.model.path", "")
    if Path(model).is_dir():
        there = (Path(model) / "config.json").is_file()
        yield Check("model", "ok" if there else "fault", model if there else f"{model} has no config.json")
    elif Path(model).is_absolute() or model.startswith("."):
        yield Check("model", "fault", f"{model}: there is no such folder; fetch the model there")
    else:
        yield Check(
            "model", "warning", f"{model or 'none'} is no folder here, so verl will fetch it from the hub"
        )
    code = Path(settings.get("custom_reward_function.path", ""))
    for path in (code, code.parent / "configs" / "deepeyes_multiturn_grpo.yaml"):
        how = "check out verl at its tag with --recurse-submodules"
        yield Check(
            "recipe",
            "ok" if path.is_file() else "fault",
            str(path) + ("" if path.is_file() else f" is missing; {how}"),
        )
    tools = Path(settings.get("actor_rollout_ref.rollout.multi_turn.tool_config_path", ""))
    try:
        listed = [
            t["tool_schema"]["function"]["name"] for t in yaml.safe_load(tools.read_text("utf-8"))["tools"]
        ]
    except (OSError, yaml.YAMLError, TypeError, KeyError, UnicodeDecodeError) as error:
        yield Check(
            "tool", "fault", f"{tools}: no tool configuration ({type(error).__name__}); write it again"
        )
        return
    state: State = "ok" if listed == [TOOL] else "fault"
    yield Check(
        "tool", state, f"{tools} lists {', '.join(listed)}" + ("" if state == "ok" else f", expected {TOOL}")
    )


def _data(settings: Mapping[str, str]) -> Iterator[Check]:
    for key in ("data.train_files", "data.val_files"):
        path = Path(settings.get(key, ""))
        if not path.is_file():
            yield Check(key, "fault", f"{path} is missing; write it by speceyes verl-data")
            continue
        try:
            opened = pq.ParquetFile(path)
            missing = [name for name in COLUMNS if name not in opened.schema_arrow.names]
            rows = (
                []
                if missing
                else next(opened.iter_batches(ROWS_LOOKED_AT), pa.RecordBatch.from_pylist([])).to_pylist()
            )
        except (pa.ArrowInvalid, OSError) as error:
            yield Check(key, "fault", f"{path} is no readable Parquet file ({error}); write it again")
            continue
        faults = [
            f"row {i}: {fault}" for i, row in enumerate(rows) if (fault := row_fault(row) or _narrow(row))
        ]
        if missing or faults or not rows:
            what = (
                f"column {missing[0]!r} is missing" if missing else faults[0] if faults else "it has no row"
            )
            yield Check(key, "fault", f"{path}: {what}; write it by speceyes verl-data")
        else:
            n = opened.metadata.num_rows
            yield Check(key, "ok", f"{path}: {n} rows, the first {len(rows)} are as the recipe needs them")


def _narrow(row: Mapping[str, Any]) -> str:
    for image in row["images"]:
        with Image.open(io.BytesIO(image["bytes"])) as opened:
            if min(opened.size) < SMALLEST_SIDE_PX:
                return f"a picture of {opened.width} x {opened.height} px, less than {SMALLEST_SIDE_PX} px"
    return ""


# ------------------------------------------------------------------------------------------------ the judge


def _judge(address: str) -> Iterator[Check]:
    """If the judge is down when verl starts, every score of the whole run is 0.0, and only warnings say so."""
    if not address.endswith("/v1"):
        yield Check(
            "judge", "fault", f"LLM_AS_A_JUDGE_BASE is {address!r}; export an address that ends in /v1"
        )
        return
    try:
        listed = _fetched(f"{address}/models")
        models = [model["id"] for model in listed["data"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield Check(
            "judge",
            "fault",
            f"{address}/models cannot be read ({_reason(error)}); start judge.sh and wait for it",
        )
        return
    if not models:
        yield Check("judge", "fault", f"{address}/models lists no model; start the server with one")
        return
    if len(models) > 1:
        yield Check("judge", "warning", f"the recipe takes the first of {', '.join(map(str, models))}")
    for answer, right in ((RIGHT, True), (WRONG, False)):
        name = f"judge, a {'right' if right else 'wrong'} answer"
        try:
            reply = _asked(address, models[0], answer)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            yield Check(name, "fault", f"no reply ({_reason(error)}); every such answer would score 0.0")
            continue
        yield _judged(name, reply, right)


def _judged(name: str, reply: str, right: bool) -> Check:
    """How the recipe reads a reply, and whether it is the one word that was wanted."""
    as_read, meant = read_verdict(reply, "recipe"), read_verdict(reply)
    quoted = f"{' '.join(reply.split())[:120]!r}"
    if as_read != right:
        read = "CORRECT" if as_read else "INCORRECT"
        text = f"the judge replied {quoted}, which the recipe reads as {read}; take another judging model"
        return Check(name, "fault", text)
    if meant is None:
        text = (
            f"the judge replied {quoted} instead of one word: prose is misread ('not correct' counts as right); switch "
            "thinking off, or take another judging model"
        )
        return Check(name, "fault", text)
    return Check(name, "ok", f"replied {quoted}")


def _asked(address: str, model: str, answer: str) -> str:
    question, standard = QUESTION
    rules = (
        "You examine answers strictly. Reply with one word only: CORRECT if the answer means the same as the standard "
        "answer, INCORRECT if not."
    )
    body = {
        "model": model,
        "messages": [
            {"role": "system", "content": rules},
            {
                "role": "user",
                "content": f"Question: {question}\nStandard answer: {standard}\nAnswer: {answer}",
            },
        ],
        "temperature": 0.1,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    reply = _fetched(f"{address}/chat/completions", body)["choices"][0]["message"]["content"]
    if not isinstance(reply, str):
        raise ValueError("the reply has no text")
    return reply


def _fetched(url: str, body: Mapping | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer EMPTY"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=JUDGE_TIMEOUT_S) as reply:
        return json.loads(reply.read())


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    reason = getattr(error, "reason", None) or error
    return f"{type(reason).__name__}: {reason}" if str(reason) else type(reason).__name__


# ------------------------------------------------------------------------------------------------ memory


def _memory(settings: Mapping[str, str], free: list[int] | None) -> Iterator[Check]:
    """An estimate from the size of the model's files: weights and optimiser, and the share that sampling takes."""
    files = list(Path(settings.get("actor_rollout_ref.model.path", "")).glob("*.safetensors"))
    if not files:
        yield Check("memory", "warning", "the model's weights are not here, so memory was not estimated")
        return
    weights = sum(file.stat().st_size for file in files) / 2  # stored as bfloat16
    gpus = int(settings.get("trainer.n_gpus_per_node") or 1)
    total = gpus * int(settings.get("trainer.nnodes") or 1)
    trained = TRAINED_BYTES * weights
    offloaded = settings.get("actor_rollout_ref.actor.fsdp_config.optimizer_offload") == "True"
    host = (
        f"{trained * gpus / total / 2**30:.0f} GiB of main memory a node while it samples"
        if offloaded
        else "no offloading"
    )
    share = float(settings.get("actor_rollout_ref.rollout.gpu_memory_utilization") or 0.8)
    need = trained / total + SAMPLED_BYTES * weights
    text = f"{weights / 1e9:.1f} billion weights: about {need / 2**30:.0f} GiB a GPU beside pictures and cache, {host}"
    if free is None:
        yield Check("memory", "warning", f"{text}; no GPU was seen here, so nothing was compared")
    elif len(free) < gpus:
        yield Check(
            "memory",
            "fault",
            f"{len(free)} GPUs here, the script wants {gpus}; lower trainer.n_gpus_per_node",
        )
    elif min(free) * share < need:
        yield Check(
            "memory",
            "fault",
            f"{text}; {min(free) / 2**30:.0f} GiB are free on one; end what runs there, or take more GPUs",
        )
    else:
        yield Check("memory", "ok", f"{text}; {min(free) / 2**30:.0f} GiB are free on each")
    out = Path(settings.get("trainer.default_local_dir", "."))
    while not out.exists() and out != out.parent:
        out = out.parent
    left = shutil.disk_usage(out).free
    state: State = "ok" if left > 2 * trained else "warning"
    each = f"a checkpoint takes about {trained / 2**30:.0f} GiB, {left / 2**30:.0f} GiB are free at {out}"
    yield Check("disk", state, each + ("" if state == "ok" else "; set trainer.max_actor_ckpt_to_keep"))


def free_gpu_bytes() -> list[int] | None:
    """The free memory of each GPU of this machine in bytes, by nvidia-smi; None where there is none."""
    query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout
        return [int(line) << 20 for line in listed.split("\n") if line.strip()] or None
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
