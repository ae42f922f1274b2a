"""All wording shown to the models. It is in data files, and only this module builds messages from it.

A prompt set is a YAML file in the folder `prompts` beside this module, or any path the user gives. Placeholders are
filled literally: user text is never evaluated as a format string.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict

from ..errors import ConfigError, build, nearest
from ..paths import possible
from ..tasks.sample import LETTERS

_FOLDER = resources.files(__package__) / "prompts"


def _fill(template: str, **values: str) -> str:
    # one pass over the template: braces inside questions and options are text, never placeholders
    return re.sub(r"\{(\w+)\}", lambda m: values.get(m[1], m[0]), template)


class PromptSet(BaseModel):
    """The texts of one family of models. Field names are the keys of the YAML file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    draft_system: str
    agent_system: str
    multiple_choice: str  # {question}, {options}
    option: str  # {letter}, {text}
    option_separator: str
    yes_no: str  # {question}
    draft: str = "{question_block}"  # the user text of Phase II
    # the user text of Phase IV, first turn; agents with code: {image_path}, {width}, {height}
    agent: str = "{question_block}"
    router: str  # {question_block}
    tool_response_before: str
    tool_response_after: str
    forced_look_prefix: str  # opens the assistant turn of an agent that is forbidden to use its tool
    # SpecReason: what follows the question when a step is proposed, asks for its score, and asks for another one
    step: str = "\nWrite the next step only: a short thought inside <think></think>, a tool call, or the final answer."
    step_score: str = (
        "How useful is this step for answering the question? "
        "Reply with one digit from 0 (useless) to 9 (decisive)."
    )
    step_next: str = "Go on with the next step."
    embedded: bool = False  # for models that know the dialogue of the embedded agent and no other

    def question_block(self, question: str, options: Sequence[str] | None) -> str:
        """The question with its options in the form of this family. `options=None` means yes or no."""
        if options is None:
            return _fill(self.yes_no, question=question)
        shown = self.option_separator.join(
            _fill(self.option, letter=LETTERS[i], text=text) for i, text in enumerate(options)
        )
        return _fill(self.multiple_choice, options=shown, question=question)

    def draft_messages(self, block: str, image: object) -> list[dict]:
        """Messages of Phase II: system, then one user turn with the image first. `image` is passed through."""
        return self._ask(self.draft_system, _fill(self.draft, question_block=block), image)

    def agent_messages(self, block: str, image: object, **values: str) -> list[dict]:
        """Messages of Phase IV, first turn. `values` fill further placeholders of `agent`."""
        return self._ask(self.agent_system, _fill(self.agent, question_block=block, **values), image)

    def router_messages(self, block: str, image: object, by: str = "large") -> list[dict]:
        """Messages of Phase I, "would a tool help?", for the large model (default) or the small one."""
        system = self.agent_system if by == "large" else self.draft_system
        return self._ask(system, self.router_text(block), image)

    def router_text(self, block: str) -> str:
        """The user text of Phase I."""
        return _fill(self.router, question_block=block)

    def tool_response(self, content: object, *, is_image: bool = True) -> dict:
        """The user turn that returns a crop (`is_image`) or a text to the agent."""
        middle = {"type": "image", "image": content} if is_image else {"type": "text", "text": str(content)}
        before = {"type": "text", "text": self.tool_response_before}
        after = {"type": "text", "text": self.tool_response_after}
        return {"role": "user", "content": [before, middle, after]}

    @staticmethod
    def _ask(system: str, text: str, image: object) -> list[dict]:
        user = [{"type": "image", "image": image}, {"type": "text", "text": text}]
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def available() -> list[str]:
    """Names of the prompt sets that ship with the library."""
    return sorted(p.name[:-5] for p in _FOLDER.iterdir() if p.name.endswith(".yaml"))


def load(name_or_path: str) -> PromptSet:
    """The prompt set of a shipped name, or of a YAML file given by path.

    Raises:
        ConfigError: the name is unknown, the file is unreadable, or a key is missing or unknown.
    """
    name = str(name_or_path)
    if name in available():
        file = _FOLDER / f"{name}.yaml"
    elif name.endswith((".yaml", ".yml")):
        file = possible(name)
    else:
        raise ConfigError(
            f"prompts: no prompt set {name!r}{nearest(name, available())}; "
            f"shipped are {', '.join(available())}, or give the path of a .yaml file"
        )
    try:
        values = yaml.safe_load(file.read_text("utf-8"))
    except OSError as e:
        raise ConfigError(
            f"{name}: cannot read the prompt file ({e.strerror}); give a readable YAML file"
        ) from e
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise ConfigError(f"{name}: not valid YAML: {e}") from e
    return build(PromptSet, values, f"prompts {name}")
