"""The wording that models with tools see: actor, speculator, and the hermes form of tools and results.

Roles of the prompts follow *Speculative Tool Calling*; the wording is ours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

ACTOR = (
    "You answer questions with the help of tools. Before each call, give its reason in one sentence. Call one tool at "
    "a time, read its result, and go on until you are sure. Files are read with tools only. End with a line that "
    "begins FINAL ANSWER: and holds nothing but the answer: a number without thousands separators and without units "
    "unless the question wants them, as few words as possible, or a list separated by commas."
)
SPECULATOR = (
    "Predict the next tool call of an assistant that works on this conversation. Reply with this one call and nothing "
    "else, with the tool's exact name and the arguments that the assistant would write. If it would answer now, reply "
    "with a full stop."
)
_TOOLS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function "
    "signatures within <tools></tools> XML tags:\n<tools>\n{tools}\n</tools>\n\nFor each function call, return a json "
    "object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{{"name": <function-name>, "arguments": <args-json-object>}}\n</tool_call>'
)


def with_tools(system: str, schemas: Sequence[dict]) -> str:
    """A system prompt with tools described in hermes form, as Qwen's models were trained to read them."""
    if not schemas:
        return system
    tools = "\n".join(json.dumps(schema, ensure_ascii=False) for schema in schemas)
    return f"{system}\n\n{_TOOLS.format(tools=tools)}".strip()


def tool_response(content: str) -> str:
    """A tool's result as a message of the user."""
    return f"<tool_response>\n{content}\n</tool_response>"
