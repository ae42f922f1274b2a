"""The Thyme agent: it thinks, may write Python that processes the picture, and answers inside <answer>.

What a turn may contain, and what follows (source: the published behaviour of Thyme, with a real sandbox):

    <answer>text</answer>             final answer, also beside a program
    <code>```python ...```</code>     the program runs in the sample's sandbox (tools/sandbox.py), where the picture
                                      lies as image.bmp. What it prints comes back inside <sandbox_output>, in the
                                      same assistant turn: pictures whose paths it prints as pictures, the rest as
                                      text. Variables are kept. The first of several programs in a turn counts
    an error, or no output            comes back as text and counts as a step; the same failing program twice in a
                                      row ends the run (`repeated_call`)
    a program cut off by the token    does not run; the model reads so as text (`cut_off_call`)
      limit

Everything else is as with DeepEyes (agents/deepeyes.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..errors import DataError
from ..runs.records import Failure, Turn
from ..tasks.images import resized_view
from ..tools.sandbox import NAME, PICTURE, Outcome, Sandbox, Session
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

    def opening(self) -> list[dict]:
        width, height = map(str, self.original.size)
        return self.prompts.agent_messages(
            self.block, self.view, image_path=PICTURE, width=width, height=height
        )

    def use_tool(self, taken: dict[str, Any], written: str, complete: bool) -> tuple[Turn, Outcome]:
        code = program(written)
        taken = taken | {"tool_call": {"name": NAME, "arguments": {"code": code}}}
        if not complete and taken["finish_reason"] == "length":
            return self._refused_program(
                taken, "cut_off_call", "The token limit cut the program off; it was not run."
            )
        if not code:
            return self._refused_program(taken, "malformed_call", "There is no program inside <code></code>.")
        if self.session is None:
            self.session = self.sandbox.session(self.original)
        outcome = self.session.run(code)
        images, too_narrow = [], None
        for image in outcome.images:
            try:
                images.append(resized_view(image, self.spec))
            except DataError as e:
                too_narrow = Failure(type="code_error", message=f"A picture cannot be shown: {e}")
        outcome = Outcome(outcome.text, tuple(images), outcome.error or too_narrow)
        sizes = [f"[picture of {i.width} x {i.height} px]" for i in images]
        shown = "\n".join(filter(None, [outcome.text, *sizes]))
        return Turn(**taken, action="tool", tool_output=shown, error=outcome.error), outcome

    def go_on(self, text: str, result: object | None) -> None:
        """Append the output to the same assistant turn, which the model continues."""
        if self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": []})
        parts = self.messages[-1]["content"] + [{"type": "text", "text": text}]
        if result is not None:
            told = [result.text, f"Error: {result.error.message}" if result.error else ""]
            parts += [
                {"type": "text", "text": self.prompts.tool_response_before},
                *({"type": "image", "image": image} for image in result.images),
                *({"type": "text", "text": line} for line in told if line),
                {"type": "text", "text": self.prompts.tool_response_after},
            ]
        self.messages[-1] = {"role": "assistant", "content": parts}

    def close(self) -> None:
        if self.session is not None:
            self.session.close()

    def _refused_program(self, taken: dict[str, Any], type: str, message: str) -> tuple[Turn, Outcome]:
        error = Failure(type=type, message=message)
        return Turn(**taken, action="malformed", error=error), Outcome(error=error)


def program(written: str) -> str:
    """The program inside <code></code>: the content of the first fence, or all of it without a fence."""
    fenced = _FENCE.search(written)
    code = fenced[1] if fenced else written
    return code.strip("\n") if code.strip() else ""
