"""Real vLLM servers on this machine's CPU, started by the commands that `speceyes serve-commands` prints.

vLLM pins another torch, so it lives in an environment of its own, which SPECEYES_VLLM names (`make vllm-check`).
`python tests/worlds/real_vllm.py ENVIRONMENT` makes torchvision importable there (see `mend`).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from speceyes_lib.workflow.vllm_commands import Server

STARTS_WITHIN_S = 1800
# What a CPU needs beside the printed options: the numbers of the local run, and no compilation
ON_A_CPU = ("--dtype", "float32", "--enforce-eager", "--max-model-len", "2048")
VARIABLES = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    # else the first request for log-probabilities waits for a C++ compiler, and its time-out ends the engine
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "1800",
    "VLLM_ENGINE_READY_TIMEOUT_S": "1800",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
# Declares what torchvision's compiled part would: its CUDA build cannot load that beside a CPU build of torch
OPERATORS = """\
import torch
_library = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def mend(environment: Path) -> bool:
    """Whether torchvision had to be mended: it is of another build than torch, as PyPI alone has it.

    Pictures are resized and normalised without its compiled operators, so their names are enough.
    """
    (packages,) = (environment / "lib").glob("python3*/site-packages")
    builds = [next(packages.glob(f"{name}-*.dist-info")).name for name in ("torch", "torchvision")]
    init = packages / "torchvision" / "__init__.py"
    text = init.read_text("utf-8")
    if len({"+cpu" in build for build in builds}) == 1 or text.startswith(OPERATORS):
        return False
    init.write_text(OPERATORS + text, "utf-8")
    return True


def python() -> Path:
    """The interpreter of vLLM's environment."""
    return Path(os.environ.get("SPECEYES_VLLM", "no-environment")) / "bin" / "python"


def why_not() -> str:
    """Why no vLLM can be started here, "" if one can."""
    if not python().is_file():
        return "SPECEYES_VLLM names no environment: make vllm-check"
    return "" if versions() else f"{python()} cannot import vllm: see its pip's output"


@cache
def versions() -> str:
    """The versions of what computes in vLLM's environment; "" where vLLM cannot be imported."""
    program = (
        "import torch, transformers, vllm;"
        "print('vllm', vllm.__version__, 'torch', torch.__version__, 'transformers', transformers.__version__)"
    )
    ended = subprocess.run(
        [python(), "-c", program], capture_output=True, text=True, env=_environment(), check=False
    )
    return ended.stdout.strip().splitlines()[-1] if ended.returncode == 0 and ended.stdout.strip() else ""


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | VARIABLES


@contextlib.contextmanager
def running(servers: Sequence[Server], logs: Path) -> Iterator[None]:
    """Start the servers, wait until each answers, and end all their processes."""
    processes = []
    try:
        for server in servers:
            model, *options = shlex.split(server.command.replace("\\\n", ""))[2:]
            # not `vllm serve`: the CPU build's entry script looks for a distribution of another name
            module = [str(python()), "-m", "vllm.entrypoints.openai.api_server"]
            with (logs / f"{server.role}.log").open("wb") as log:
                command = [*module, "--model", model, *options, *ON_A_CPU]
                processes.append(
                    subprocess.Popen(
                        command, stdout=log, stderr=log, env=_environment(), start_new_session=True
                    )
                )
        for server, process in zip(servers, processes, strict=True):
            _wait_for(server, process, logs / f"{server.role}.log")
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):  # engine and workers are of the same session
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for(server: Server, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"{server.endpoint.base_url}/models", timeout=5).close()
            return
        time.sleep(1)
    raise RuntimeError(f"the {server.role}'s server did not start:\n{log.read_text(errors='ignore')[-3000:]}")


if __name__ == "__main__":
    if mend(Path(sys.argv[1])):
        print("torchvision is another build than torch: its operators are declared without their code")
