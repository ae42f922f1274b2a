"""The commands that start the servers of a config, one per address.

vLLM needs an environment of its own, because it pins another torch. With data parallelism one endpoint serves many
GPUs. The commands pin what the scores depend on: as many log-probabilities as the run stores, raw ones, no sampling
settings from the model's files, and pictures as they are sent.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..inference.funnel import ROUTER_EVIDENCE_K
from ..models.endpoint import Endpoint, is_endpoint, parse_endpoints
from ..paths import resolve
from ..tasks.hub import ITEMS
from .config import RunConfig

VLLM_MAX_LOGPROBS = 20  # what vLLM allows by default


@dataclass(frozen=True)
class Server:
    """One server of a run: the roles that it plays, and how it is started."""

    role: str
    endpoint: Endpoint
    command: str


@dataclass(frozen=True)
class _Need:
    """What one role needs of a server."""

    role: str
    endpoint: Endpoint
    pictures: int = 0
    logprobs: int = 0


def servers(config: RunConfig) -> list[Server]:
    """The servers a config names, with their commands; none where every model is a folder.

    Roles that share an address share a server. vLLM serves one model; the suite's own server serves several.

    Raises:
        ConfigError: an address has several models that are not all folders.
    """
    pictures = {"draft": 1, "agent": 1 + config.agent.max_turns}  # the view, and one per turn with a tool
    logprobs = {"draft": config.draft.k_store, "agent": ROUTER_EVIDENCE_K}
    needs = [
        _Need(role, endpoint, pictures[role], logprobs[role])
        for role in ("draft", "agent")
        if is_endpoint(getattr(config.models, role))
        for endpoint in parse_endpoints(getattr(config.models, role))
    ]
    if config.judging.judge:
        needs += [_Need("judge", endpoint) for endpoint in parse_endpoints(config.judging.judge)]
    by_address: dict[str, list[_Need]] = {}
    for need in needs:
        by_address.setdefault(urlsplit(need.endpoint.base_url).netloc, []).append(need)
    return [_server(shared) for shared in by_address.values()]


def _server(shared: list[_Need]) -> Server:
    """The server at one address, for all who need it."""
    first = shared[0].endpoint
    roles = ", ".join(dict.fromkeys(need.role for need in shared))
    folders = {need.endpoint.model: need.endpoint.processor or "" for need in shared}
    if len(folders) == 1:
        busiest = max((need.endpoint for need in shared), key=lambda endpoint: endpoint.concurrency)
        return Server(
            roles, first, _command(busiest, max(n.pictures for n in shared), max(n.logprobs for n in shared))
        )
    if not all((resolve(folder) / "config.json").is_file() for folder in folders.values()):
        raise ConfigError(
            f"{first.base_url}: {roles} name the models {', '.join(folders)} at one address, and vLLM serves one; "
            "give each a port of its own"
        )
    models = [f"--model {shlex.quote(f'{name}={folder}')}" for name, folder in folders.items()]
    port = f"--port {urlsplit(first.base_url).port or 80}"
    return Server(roles, first, " \\\n  ".join(["speceyes serve", port, *models]))


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
    head = [
        "# vLLM in an environment of its own; more GPUs: add --data-parallel-size N, larger models:\n",
        "# --tensor-parallel-size N. No --reasoning-parser and no --tool-call-parser: the agents read the text.\n",
    ]
    is_vllm = any(server.command.startswith("vllm ") for server in listed)
    commands = [f"# {s.role} at {s.endpoint.base_url}\n{s.command}\n" for s in listed]
    return "\n".join(["".join(head), *commands] if is_vllm else commands)
