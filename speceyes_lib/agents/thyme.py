"""The Thyme agent: it thinks, may write Python that processes the picture, and answers inside <answer>.

A program runs in the sample's sandbox (tools/sandbox.py). What it prints comes back inside <sandbox_output> in the same
assistant turn: pictures whose paths it prints as pictures, everything else as text. docs/agents.md lists what a turn
may contain, and what follows.

Source: the published behaviour of Thyme, with a real sandbox.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..errors import DataError
from ..runs.records import Failure, Turn
from ..tasks.images import resized_view
from ..tools.sandbox import NAME, PICTURE, ProgramResult, Sandbox, Session
from .tagged import TaggedAgent

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:\n?```|\Z)", re.DOTALL)


@dataclass(eq=False, repr=False, kw_only=True)
class ThymeAgent(TaggedAgent):
    """An agent that writes programs. They get the original picture; pictures they print are resized by `spec`."""

    tag = "code"
    sandbox: Sandbox
    max_turns: int = 5
    max_new_tokens: int = 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        self.session: Session | None = None  # started by the first program

    def _opening(self) -> list[dict]:
        width, height = map(str, self.original.size)
        return self.prompts.agent_messages(
            self.block, self.view, image_path=PICTURE, width=width, height=height
        )

    def _use_tool(self, taken: dict[str, Any], written: str, complete: bool) -> tuple[Turn, ProgramResult]:
        code = program(written)
        taken = taken | {"tool_call": {"name": NAME, "arguments": {"code": code}}}
        error = None
        if not complete and taken["finish_reason"] == "length":
            error = Failure(
                type="cut_off_call", message="The token limit cut the program off; it was not run."
            )
        elif not code:
            error = Failure(type="malformed_call", message="There is no program inside <code></code>.")
        if error is not None:
            return Turn(**taken, action="malformed", error=error), ProgramResult(error=error)
        if self.session is None:
            self.session = self.sandbox.session(self.original)
        result = self.session.run(code)
        images, too_narrow = [], None
        for image in result.images:
            try:
                images.append(resized_view(image, self.spec))
            except DataError as e:
                too_narrow = Failure(type="code_error", message=f"A picture cannot be shown: {e}")
        result = ProgramResult(result.text, tuple(images), result.error or too_narrow)
        sizes = [f"[picture of {i.width} x {i.height} px]" for i in images]
        output = "\n".join(filter(None, [result.text, *sizes]))
        return Turn(**taken, action="tool", tool_output=output, error=result.error), result

    def _continue(self, text: str, result: object | None) -> None:
        """Append the output to the same assistant turn, which the model continues."""
        if self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": []})
        parts = self.messages[-1]["content"] + [{"type": "text", "text": text}]
        if result is not None:
            lines = [result.text, f"Error: {result.error.message}" if result.error else ""]
            parts += [
                {"type": "text", "text": self.prompts.tool_response_before},
                *({"type": "image", "image": image} for image in result.images),
                *({"type": "text", "text": line} for line in lines if line),
                {"type": "text", "text": self.prompts.tool_response_after},
            ]
        self.messages[-1] = {"role": "assistant", "content": parts}

    def _close(self) -> None:
        if self.session is not None:
            self.session.close()


def program(written: str) -> str:
    """The program inside <code></code>: the content of the first fence, or all of it without a fence."""
    fenced = _FENCE.search(written)
    code = fenced[1] if fenced else written
    return code.strip("\n") if code.strip() else ""
