from __future__ import annotations

import pytest
from pydantic import ValidationError

from speceyes_lib.tools.declared import SAFE, Toolbox, Workspace
from speceyes_lib.tools.programs import (
    CODE_EXEC,
    CODE_GENERATE,
    CODE_MODEL,
    ExecuteArguments,
    GenerateArguments,
    execute,
    generate,
)
from speceyes_lib.tools.worker import ToolError


def test_a_program_prints_its_result_and_a_failing_one_says_why(tmp_path):
    workspace = Workspace(tmp_path)
    assert execute(ExecuteArguments(code="print(sum([1, 2]))"), workspace) == "3"
    with pytest.raises(ToolError, match="ZeroDivisionError"):
        execute(ExecuteArguments(code="1/0"), workspace)
    with pytest.raises(ToolError, match="printed nothing"):
        execute(ExecuteArguments(code="x = 1"), workspace)
    with pytest.raises(ToolError, match=r"KeyError"):
        execute(ExecuteArguments(code="import os; print(os.environ['PATH'])"), workspace)
    for wrong in ({"code": ""}, {"code": "1", "timeout": 0}, {"code": "1", "timeout": 1e9}):
        with pytest.raises(ValidationError):
            ExecuteArguments(**wrong)


def test_a_program_is_never_run_in_advance():
    box = Toolbox([CODE_EXEC, CODE_GENERATE])
    assert "writes" in box.refusal(box.call("code_exec", {"code": "print(1)"}), SAFE)
    assert "metered" in box.refusal(box.call("code_generate", {"task_description": "add"}), SAFE)


def test_programs_are_written_by_the_configured_model(tmp_path):
    arguments = GenerateArguments(task_description="add two numbers", context="they are 1 and 2")
    with pytest.raises(ToolError, match="needs a model"):
        generate(arguments, Workspace(tmp_path))
    prompts = []
    workspace = Workspace(tmp_path, {CODE_MODEL: lambda prompt: prompts.append(prompt) or "print(3)"})
    assert generate(arguments, workspace) == "print(3)"
    assert "Task: add two numbers" in prompts[0]
    assert "Context: they are 1 and 2" in prompts[0]
