"""Interpreters for the embedded models, which were trained on one dialogue: the zoom calls of DeepEyes.

The tiny model still makes every decision; only the form changes. Drafts, router requests and turns of DeepEyes pass
through unchanged. Thyme's programs and the steps of SpecReason are translated, as docs/agents.md describes. A zoom call
becomes a program with the call itself as its first comment; a call that is not JSON becomes a program that fails.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..models.base import Backend, Generation, GenerationRequest
from ..tools.zoom import CallError, parse_call
from .prompt_sets import PromptSet

_PICTURE_LINE = re.compile(r"\nPicture: (\S+), (\d+) x (\d+) px\Z")  # ends the agent text of demo_thyme
_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
PROGRAM = re.compile(r"<code>\s*```python\n(.*?)```\s*</code>", re.DOTALL)
_STOP = ("</tool_call>", "</answer>", "<|im_end|>")
_FIRST_LOOK_TOKENS = 48
_CROP = """\
import math
from PIL import Image
image = Image.open("{path}")
x, y = image.width / {view_w}, image.height / {view_h}  # the view is {view_w} x {view_h} px
x1, y1, x2, y2 = {box}
box = math.floor(x1 * x), math.floor(y1 * y), math.ceil(x2 * x), math.ceil(y2 * y)
image.crop((max(0, box[0]), max(0, box[1]), min(image.width, box[2]), min(image.height, box[3]))).save("crop.png")
print("crop.png")
"""


def adapt(backend: Backend, prompts: PromptSet) -> Backend:
    """The backend itself, or the backend behind an interpreter for the embedded dialogue."""
    return EmbeddedDialogue(backend, prompts) if prompts.embedded else backend


class EmbeddedDialogue:
    """A backend over an embedded model that understands the requests of all agents."""

    def __init__(self, backend: Backend, prompts: PromptSet) -> None:
        self.backend, self.prompts = backend, prompts
        self.image_spec, self.vocab_size = backend.image_spec, backend.vocab_size
        self.max_in_flight: int = getattr(backend, "max_in_flight", 0)
        self.warm_up = backend.warm_up

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """The generations, translated for the agents; see `Backend.generate`."""
        generations = self.backend.generate([self._for_model(r) for r in requests])
        return [self._for_agent(r, g) for r, g in zip(requests, generations, strict=True)]

    def info(self) -> dict:
        """What identifies the model, and the interpreter in front of it."""
        return self.backend.info() | {"adapter": type(self).__name__}

    # ------------------------------------------------------------------------------------------ to the model
    def _for_model(self, request: GenerationRequest) -> GenerationRequest:
        if request.role == "small":
            pictures = [p["image"] for m in request.messages for p in _parts(m) if p["type"] == "image"]
            block = _PICTURE_LINE.sub("", _question(request))
            return replace(request, messages=self.prompts.draft_messages(block, pictures[-1]), stop=())
        if self._is_score(request):
            messages, _ = _without_step(request.messages)
            return replace(
                request,
                messages=list(self._as_zoom_calls(messages)),
                max_new_tokens=_FIRST_LOOK_TOKENS,
                stop=_STOP,
                prefill=self.prompts.forced_look_prefix,
                evidence_k=2,
            )
        if _PICTURE_LINE.search(_question(request)):
            return replace(request, messages=list(self._as_zoom_calls(request.messages)), stop=_STOP)
        return request

    def _is_score(self, request: GenerationRequest) -> bool:
        return request.messages[-1] == {"role": "user", "content": self.prompts.step_score}

    def _as_zoom_calls(self, messages: Sequence[dict]) -> Iterator[dict]:
        """Thyme's single long assistant turn as turns of DeepEyes. A DeepEyes conversation is returned unchanged."""
        for message in messages:
            content = message["content"]
            if message["role"] == "user" and not isinstance(content, str):
                parts = [
                    p | {"text": _PICTURE_LINE.sub("", p["text"])} if "text" in p else p for p in content
                ]
                yield message | {"content": parts}
            elif message["role"] == "assistant" and not isinstance(content, str):
                yield from self._split(content)
            else:
                yield message

    def _split(self, parts: Sequence[dict]) -> Iterator[dict]:
        output: list[dict] | None = None  # the parts of a tool's output, while one is read
        for part in parts:
            if part.get("text") == self.prompts.tool_response_before:
                output = []
            elif part.get("text") == self.prompts.tool_response_after:
                yield {"role": "user", "content": _response(output)}
                output = None
            elif output is not None:
                output.append(part)
            else:
                yield {"role": "assistant", "content": PROGRAM.sub(as_call, part["text"])}

    # ---------------------------------------------------------------------------------------- from the model
    def _for_agent(self, request: GenerationRequest, generation: Generation) -> Generation:
        if generation.error is not None or request.role == "small":
            return generation
        if self._is_score(request):
            _, step = _without_step(request.messages)
            score = str(_utility(step, generation))
            return replace(generation, text=score, finish_reason="stop", evidence=None)
        picture = _PICTURE_LINE.search(_question(request))
        if picture is None:
            return generation
        view = next(p["image"] for p in _parts(request.messages[1]) if p["type"] == "image")
        text = _CALL.sub(lambda call: as_program(call[1], picture[1], view.size), generation.text, count=1)
        return replace(generation, text=text)


# --------------------------------------------------------------------------------------- calls and programs
def as_program(call: str, path: str, view_px: tuple[int, int]) -> str:
    """The program, inside its tags, that crops the box of a zoom call out of the picture file."""
    written = call.strip()
    comment = "".join(f"# {line}\n" for line in written.splitlines())
    try:
        box = ", ".join(f"{v:g}" for v in parse_call(written).box_px)
        code = _CROP.format(path=path, box=box, view_w=view_px[0], view_h=view_px[1])
    except CallError:
        code = written + "\n"
    return f"<code>\n```python\n{comment}{code}```\n</code>"


def as_call(program: re.Match) -> str:
    """The zoom call behind a program: it stands in the first lines of comment."""
    comment = itertools.takewhile(lambda line: line.startswith("# "), program[1].splitlines())
    lines = [line.removeprefix("# ") for line in comment]
    return "<tool_call>\n" + "\n".join(lines) + "\n</tool_call>"


def _response(output: Sequence[dict]) -> list[dict]:
    """A tool's output in the form that the embedded agent knows: its picture, else its text."""
    pictures = [part for part in output if part["type"] == "image"][:1]
    text = "\n".join(part["text"] for part in output if part["type"] == "text")
    return [
        {"type": "text", "text": "<tool_response>"},
        *(pictures or [{"type": "text", "text": text}]),
        {"type": "text", "text": "</tool_response>"},
    ]


# -------------------------------------------------------------------------------------------------- steps
def _without_step(messages: Sequence[dict]) -> tuple[list[dict], str]:
    """The conversation before the step to score, and the step."""
    *before, with_step, _ = messages
    if isinstance(with_step["content"], str):
        return before, with_step["content"]
    *earlier, step = with_step["content"]
    return [*before, with_step | {"content": earlier}], step["text"]


def _utility(step: str, generation: Generation) -> int:
    """0 to 9: ten times the probability that the large model gives the same answer as the step."""
    evidence, answer = generation.evidence, re.search(r"<answer>(.*?)(</answer>|\Z)", generation.text, re.S)
    if evidence is None or answer is None or answer[1].strip().lower() != step.strip().lower():
        return 0
    texts = list(evidence.token_texts)
    start = texts.index("<answer>") + 1 if "<answer>" in texts else len(texts)
    end = texts.index("</answer>", start) if "</answer>" in texts[start:] else len(texts)
    logprob = math.fsum(evidence.chosen_logprobs[start:end]) if start < end else -math.inf
    return min(9, int(10 * math.exp(logprob)))


# ------------------------------------------------------------------------------------------------ messages
def _parts(message: dict) -> list[dict]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _question(request: GenerationRequest) -> str:
    """The text of the first user turn, without what a proposal adds to it."""
    first = next((m for m in request.messages if m["role"] == "user"), None)
    return next((p["text"] for p in _parts(first) if p["type"] == "text"), "") if first else ""
