"""`speceyes tools run`: one task step by step on the console, or a batch whose results go into a folder."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError, UserError, build, nearest
from ..gating.separability import DEFAULT_K
from ..models.text_process import TextProcess
from ..paths import possible, resolve, shown
from ..report.tool_console import batch_line, batch_lines, end_lines, header_lines, step_lines
from ..tasks.gaia import ToolTask, load_gaia
from ..tasks.hub import ITEMS
from ..tool_speculation.local import LocalPolicy
from ..tool_speculation.records import TaskRun
from ..tool_speculation.run import ToolSetup, assignment_of, run_batch, run_task
from ..tool_speculation.served import served_pair, settings_of
from ..tool_speculation.settings import SpeculationSettings, comparison_arms
from ..tools.declared import SAFE, Tool, Toolbox
from ..tools.mcp_servers import UNDECLARED, mcp_tools, read_mcp_config

EMBEDDED = {"actor": "data/demo/models/tools_actor", "speculator": "data/demo/models/tools_speculator"}
# variables that say that models behind servers are meant
SERVED = ("MODEL_PROVIDER", "OPENAI_API_KEY", "ACTOR_OPENAI_API_KEY", "VLLM_ACTOR_URL", "VLLM_BASE_URL")


def run_tools(given: argparse.Namespace) -> int:
    """Carry out `speceyes tools run`; returns the exit code.

    Raises:
        UserError: a mistake of the user's.
    """
    if given.batch and given.example:
        raise ConfigError("EXAMPLE and --batch exclude each other: name one example, or a level with --batch")
    served = given.models == "served" or (given.models is None and any(map(os.environ.get, SERVED)))
    arms = arms_of(given, os.environ)
    tasks = tasks_of(given)
    if len(arms) > 1 and not given.batch:
        raise ConfigError("--arms: one example is run under one arm; give one, or use --batch")
    if given.mcp and not served:
        raise ConfigError("--mcp: the embedded models know their own tools alone; name servers of models")
    servers = read_mcp_config(possible(given.mcp)) if given.mcp else {}

    async def run() -> int:
        async with mcp_tools(servers) as tools:
            setup = _setup(given, served)
            if tools:
                _print([_tool_line(tool) for tool in tools])
                setup = replace(setup, toolbox=_with_tools(setup.toolbox, tools))
            if given.batch:
                return await _batch(given, tasks, setup, arms)
            return await _single(tasks[0], setup, *arms.popitem())

    return asyncio.run(run())


def _with_tools(toolbox: Toolbox, tools: list[Tool]) -> Toolbox:
    try:
        return Toolbox([*toolbox.tools.values(), *tools])
    except ValueError as error:
        raise ConfigError(f"--mcp: {error}; give a server a prefix for its tools") from None


def _tool_line(tool: Tool) -> str:
    return f"MCP tool {tool.name}: {(tool.effect or UNDECLARED).replace('_', ' ')}"


def run_tool_study(given: argparse.Namespace) -> int:
    """Carry out `speceyes tools study` and `speceyes tools lossless`; returns the exit code.

    Raises:
        UserError: a mistake of the user's.
    """
    from ..params import ToolLosslessParams, ToolStudyParams

    lossless = given.action == "lossless"
    kind = ToolLosslessParams if lossless else ToolStudyParams
    unused = ("example", "batch", "end", "max", "output", "tasks", "models", "arms", "allow", "start")
    unused += ("pictures", "mcp")
    if named := [name for name in unused if getattr(given, name)]:
        raise ConfigError(
            f"tools {given.action} has no {', '.join(named)}; its parameters are given by --set, such as "
            f"--set tasks=2: {', '.join(kind.shown or kind.model_fields)}"
        )
    params = build(kind, dict(_setting(text) for text in given.set), f"parameters of tools {given.action}")
    if lossless:
        from .tool_lossless import run_lossless

        counts = run_lossless(params, report=lambda line: _print([line]))
        _print(["", *(count.line() for count in counts)])
        return 0 if all(count.lossless for count in counts) else 1
    from .tool_study import run_study

    folder = run_study(params, report=lambda line: _print([line]))
    _print(
        [
            f"study in {shown(folder)}; show it: speceyes stage study_tool_speculation --set path={shown(folder)}"
        ]
    )
    return 0


def arms_of(given: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, SpeculationSettings]:
    """The arms to run, by name: those named, else the one that the environment variables ask for.

    Raises:
        ConfigError: an arm or a setting is unknown or impossible.
    """
    changes = dict(_setting(text) for text in given.set)
    if given.allow:
        changes["effects"] = SAFE | set(given.allow)
    if not given.arms:
        settings = settings_of(environment, **changes)
        return {"baseline" if settings.policy == "off" else "speculative": settings}
    if unknown := changes.keys() - SpeculationSettings.model_fields:
        name = min(unknown)
        raise ConfigError(
            f"--set {name}: there is no such setting{nearest(name, SpeculationSettings.model_fields)}; valid are "
            f"{', '.join(SpeculationSettings.model_fields)}"
        )
    threshold = changes.pop("threshold", None)
    known = comparison_arms(0.0)
    for name in given.arms:
        if name not in known:
            raise ConfigError(
                f"--arms: {name!r} is unknown{nearest(name, known)}; choose from {', '.join(known)}"
            )
        if known[name].threshold is not None and threshold is None:
            raise ConfigError(f"--arms {name}: a gate needs a threshold; add --set threshold=NUMBER")
    values = {name: known[name].model_dump() for name in given.arms}
    return {
        name: build(
            SpeculationSettings,
            fields | changes | ({"threshold": threshold} if fields["threshold"] is not None else {}),
            f"settings of the arm {name}",
        )
        for name, fields in values.items()
    }


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: write NAME=VALUE, such as --set strategy=jaccard")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


# ------------------------------------------------------------------------------------------------- tasks
def tasks_of(given: argparse.Namespace) -> list[ToolTask]:
    """The tasks to run: the example, or those of a level from --start up to --end, at most --max of them.

    Without --batch it is the first of these.

    Raises:
        DataError: there are none.
    """
    if given.example:
        tasks = load_gaia(given.example)
        if len(tasks) > 1:
            raise DataError(
                f"{shown(given.example)}: holds {len(tasks)} tasks; name the folder of one, or use --batch with --tasks"
            )
        return tasks
    tasks = load_gaia(_task_root(given), level=given.level)
    chosen = tasks[given.start : given.end][: given.max if given.batch else 1]
    if not chosen:
        raise DataError(
            f"level {given.level}: there are {len(tasks)} tasks, and none from --start {given.start} to --end "
            f"{given.end if given.end is not None else len(tasks)}"
        )
    return chosen


def _embedded_tasks(given: argparse.Namespace) -> bool:
    return not given.example and given.tasks is None and not resolve(ITEMS["gaia"].folder).exists()


def _task_root(given: argparse.Namespace) -> Path | None:
    """The folder of tasks: the one named, else GAIA where it was fetched, else the embedded tasks."""
    if given.tasks is not None:
        return possible(given.tasks)
    if not _embedded_tasks(given):
        return None
    from ..demo.tool_tasks import provide_tool_tasks

    return provide_tool_tasks("test")


# ------------------------------------------------------------------------------------------- models, tools
def online_toolbox() -> Toolbox:
    """The tools for tasks of the real world: search over the endpoint of SERPER_API_KEY, and files of the task."""
    from ..tools.calculator import CALCULATE
    from ..tools.files import FILE_READ
    from ..tools.pictures import IMAGE_ZOOM, VISION_ANALYZE, VISION_OCR
    from ..tools.programs import CODE_EXEC, CODE_GENERATE
    from ..tools.search import search_tools

    searching = search_tools(embedded=False)
    return Toolbox(
        [*searching, FILE_READ, CALCULATE, VISION_ANALYZE, VISION_OCR, IMAGE_ZOOM, CODE_EXEC, CODE_GENERATE]
    )


def embedded_pair() -> tuple[LocalPolicy, LocalPolicy]:
    """The embedded actor and speculator, each in a process of its own.

    Raises:
        UserError: their folders hold no models.
    """
    for role, folder in EMBEDDED.items():
        if not (resolve(folder) / "config.json").is_file():
            raise UserError(
                f"{folder}: the embedded {role} is not there; check it out (git checkout -- {folder}), train it "
                f"(speceyes train tools-{role} --out {folder}), or name servers by environment variables "
                "(docs/tool_speculation.md)"
            )
    with ThreadPoolExecutor(2) as pool:  # both load at the same time
        actor, speculator = pool.map(TextProcess, EMBEDDED.values())
    # the turns of the embedded pair have at most 140 and 30 tokens, and its models read 1,024
    return (
        LocalPolicy(actor, max_tokens=320),
        LocalPolicy(speculator, max_tokens=96, alternatives=DEFAULT_K),
    )


def _setup(given: argparse.Namespace, served: bool) -> ToolSetup:
    """Models and tools: those of the environment variables, or the embedded pair."""
    from ..demo.tool_tasks import embedded_resources, embedded_toolbox

    if given.pictures and not served:
        raise ConfigError("--pictures: the embedded models read text alone; leave it out, or name servers")
    actor, speculator = served_pair(form=given.form, pictures=given.pictures) if served else embedded_pair()
    if served and not _embedded_tasks(given):
        return ToolSetup(actor, speculator, online_toolbox())
    return ToolSetup(actor, speculator, embedded_toolbox(), embedded_resources("test"))


# ----------------------------------------------------------------------------------------------- running
async def _single(task: ToolTask, setup: ToolSetup, arm: str, settings: SpeculationSettings) -> int:
    speculator = None if settings.policy == "off" else setup.speculator
    models = {"actor": setup.actor.name, "speculator": speculator and speculator.name}
    _print(header_lines(assignment_of(task), models, arm, settings.max_steps))
    try:
        run = await run_task(task, setup, settings, arm, lambda step: _print(step_lines(step)))
    finally:
        await setup.close()
    _print(end_lines(run))
    return 1 if run.cause in ("model", "task") else 0


async def _batch(
    given: argparse.Namespace,
    tasks: list[ToolTask],
    setup: ToolSetup,
    arms: Mapping[str, SpeculationSettings],
) -> int:
    folder = Path(possible(given.output)).absolute() if given.output else _new_folder(given.level, arms)
    names = {task.task_id: task.name or task.task_id for task in tasks}
    runs: list[TaskRun] = []
    total = len(tasks) * len(arms)
    try:
        async with aclosing(run_batch(tasks, setup, arms, folder)) as results:
            async for run, earlier in results:
                runs.append(run)
                _print([batch_line(len(runs), total, run, names[run.task_id], earlier)])
                _write_original(run, folder / run.arm if len(arms) > 1 else folder, names)
    finally:
        await setup.close()
    _print(["", *batch_lines(runs), f"results in {folder}"])
    return 1 if any(run.cause in ("model", "task") for run in runs) else 0


def _write_original(run: TaskRun, folder: Path, names: Mapping[str, str]) -> None:
    """The result file of the original beside ours. A name that no file can have is no reason to stop."""
    from ..formats.spec_tool_call import write_tool_results

    try:
        write_tool_results([run], folder, names)
    except UserError as error:
        _print([f"  no result file in the original's format: {error}"])


def _new_folder(level: int, arms: Mapping[str, SpeculationSettings]) -> Path:
    kind = "baseline" if all(s.policy == "off" for s in arms.values()) else "spec"
    return Path.cwd() / f"results_level{level}_{kind}_{datetime.now():%Y%m%d_%H%M%S}"


def _print(lines: list[str]) -> None:
    print("\n".join(lines), flush=True)
