"""The `vllm serve` commands that a config's endpoints expect, one per server.

vLLM needs an environment of its own, because it pins another torch. With data parallelism one endpoint serves many
GPUs. The commands pin what the scores depend on: as many log-probabilities as the run stores, raw ones, no sampling
settings from the model's files, and pictures as they are sent.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..inference.funnel import ROUTER_EVIDENCE_K
from ..models.endpoint import Endpoint, is_endpoint, parse_endpoints
from ..paths import resolve
from ..tasks.hub import ITEMS
from .config import RunConfig

VLLM_MAX_LOGPROBS = 20  # what vLLM allows by default


@dataclass(frozen=True)
class Server:
    """One server of a run: whose role it plays, and how it is started."""

    role: str
    endpoint: Endpoint
    command: str


def servers(config: RunConfig) -> list[Server]:
    """The servers a config names, with their commands; none where every model is a folder."""
    pictures = {"draft": 1, "agent": 1 + config.agent.max_turns}  # the view, and one per turn with a tool
    logprobs = {"draft": config.draft.k_store, "agent": ROUTER_EVIDENCE_K}
    listed = [
        Server(role, endpoint, _command(endpoint, pictures[role], logprobs[role]))
        for role in ("draft", "agent")
        if is_endpoint(getattr(config.models, role))
        for endpoint in parse_endpoints(getattr(config.models, role))
    ]
    if config.judging.judge:
        judges = parse_endpoints(config.judging.judge)
        listed += [Server("judge", endpoint, _command(endpoint, 0, 0)) for endpoint in judges]
    return listed


def _command(endpoint: Endpoint, pictures: int, logprobs: int) -> str:
    url = urlsplit(endpoint.base_url)
    # a server for this machine alone listens to this machine alone
    host = url.hostname if url.hostname in ("127.0.0.1", "localhost") else "0.0.0.0"
    config_file = resolve(endpoint.processor or ".") / "config.json"
    model = endpoint.processor if config_file.is_file() else endpoint.model
    pinned = [i.revision for i in ITEMS.values() if i.repo == endpoint.model and i.revision]
    options = {"--revision": pinned[0]} if pinned else {}
    options |= {"--host": host, "--port": str(url.port or {"http": 80, "https": 443}[url.scheme])}
    options["--served-model-name"] = endpoint.model
    options["--generation-config"] = "vllm"  # otherwise the model's own penalties and temperature apply
    options["--max-num-seqs"] = str(endpoint.concurrency)
    if logprobs:
        options["--logprobs-mode"] = "raw_logprobs"
    if logprobs > VLLM_MAX_LOGPROBS:
        options["--max-logprobs"] = str(logprobs)
    if pictures:
        options["--limit-mm-per-prompt"] = json.dumps({"image": pictures, "video": 0})
        # pictures are sent as views. Under a tight budget the server would give a view another size, and boxes would
        # mean other pixels; with this it refuses any other size
        options["--mm-processor-kwargs"] = json.dumps({"do_resize": False})
    quoted = [f"{name} {shlex.quote(value)}" for name, value in options.items()]
    if endpoint.key_env:
        quoted.append(f"--api-key ${endpoint.key_env}")
    return " \\\n  ".join([f"vllm serve {shlex.quote(model)}", *quoted])


def text(config: RunConfig) -> str:
    """All commands, each with what it is for, ready for a shell."""
    listed = servers(config)
    if not listed:
        return f"# run {config.name} names no server: its models are folders, loaded where it runs\n"
    head = "# vLLM in an environment of its own; more GPUs: add --data-parallel-size N, larger models:\n"
    head += "# --tensor-parallel-size N. No --reasoning-parser and no --tool-call-parser: the agents read the text.\n"
    return head + "".join(f"\n# {s.role} at {s.endpoint.base_url}\n{s.command}\n" for s in listed)
