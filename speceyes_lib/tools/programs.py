"""code_exec runs a program in the sandbox; code_generate has a model write one."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from PIL import Image
from pydantic import Field

from .declared import Arguments, Effect, Tool, Workspace
from .sandbox import Limits, Sandbox, Session
from .worker import ToolError, prepare

CODE_MODEL = "code_model"  # resource: (prompt) -> reply of a model
PROMPT = """Write a Python program for this task. Reply with the program alone.

Task: {task}
{context}"""


class ExecuteArguments(Arguments):
    """Arguments of code_exec."""

    code: str = Field(min_length=1, description="a Python program that prints its result")
    timeout: float = Field(30, gt=0, le=120, description="seconds it may take")


class GenerateArguments(Arguments):
    """Arguments of code_generate."""

    task_description: str = Field(min_length=1, description="what the program shall do")
    context: str | None = Field(None, description="what else is known")


def execute(arguments: ExecuteArguments, workspace: Workspace) -> str:
    """What a program prints. It runs confined, without files of the task and without network.

    Raises:
        ToolError: it failed, took too long or printed nothing.
    """
    limits = replace(_sandbox().limits, wall_s=arguments.timeout)
    with Session(Image.new("RGB", (8, 8)), limits) as session:
        result = session.run(arguments.code)
    if result.error is not None:
        raise ToolError(f"{result.text}\n{result.error.message}".strip())
    return result.text


@cache
def _sandbox() -> Sandbox:
    """The sandbox, whose confinement is tested once per process."""
    return Sandbox(limits=Limits())


def generate(arguments: GenerateArguments, workspace: Workspace) -> str:
    """A program that a model writes.

    Raises:
        ToolError: no model is configured for it.
    """
    model = workspace.resources.get(CODE_MODEL)
    if model is None:
        raise ToolError("code_generate needs a model that writes programs, and none is configured here.")
    context = f"Context: {arguments.context}" if arguments.context else ""
    return str(model(PROMPT.format(task=arguments.task_description, context=context)))


# A program may use the clock and chance, so a result in advance may differ from the one at its time. It can change
# nothing that another tool sees.
CODE_EXEC = Tool(
    name="code_exec",
    description="Run a Python program and return what it prints.",
    arguments=ExecuteArguments,
    effect=Effect.writes,
    run=execute,
    where="process",
    warm_up=lambda workspace, arguments: prepare(),
    timeout_s=150.0,
    touches=frozenset(),
)
CODE_GENERATE = Tool(
    name="code_generate",
    description="Have a model write a Python program.",
    arguments=GenerateArguments,
    effect=Effect.metered,
    run=generate,
    timeout_s=180.0,
)
