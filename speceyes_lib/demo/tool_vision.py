"""vision_analyze of the embedded tasks: the suite's own pair behind its gate.

The draft answers first. Where its answer's separability does not pass the threshold, the agent zooms in and answers.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path

from ..inference.stages import preview_agents
from ..judging.option_reader import named_option
from ..params import AgentParams
from ..tasks.pictures import ImageRef
from ..tasks.sample import Sample
from ..tools.worker import ToolError
from .scenes import COLORS, PLACES, SHAPES, SIDES

THRESHOLD = 0.97  # about what 04_threshold chooses on the validation run
# the questions that the pair was trained on, and the lists of answers that it gets. It knows lists of at most four, so
# five colors or shapes make two lists
QUESTIONS: dict[str, tuple[tuple[str, ...] | None, ...]] = {
    r"What is the color of the \w+\?": (COLORS[:4], COLORS[1:]),
    r"What is the shape of the \w+ object\?": (SHAPES[:4], SHAPES[1:]),
    r"Is there an? \w+ in the image\?": (None,),  # yes or no
    r"Is the \w+ on the left or right side of the \w+\?": (SIDES,),
    r"Where is the \w+ relative to the \w+\?": (PLACES,),
}


class GatedVision:
    """Answers of the embedded pair: (path of a picture, question) -> word. Calls from several threads take turns.

    Args:
        gate: False: the agent answers everything, as without SpecEyes.
        threshold: of the gate.
    """

    def __init__(self, gate: bool = True, threshold: float = THRESHOLD) -> None:
        self.arm = "gated" if gate else "baseline"
        self.params = AgentParams(run="tool_vision", router="none", threshold=threshold)
        self.accepted = self.answered = 0
        self._lock = threading.Lock()

    def __call__(self, path: Path, question: str) -> str:
        """The pair's answer.

        Raises:
            ToolError: the question is none that the pair knows, or it gave no answer.
        """
        pattern = next((p for p in QUESTIONS if re.fullmatch(p, question.strip())), None)
        if pattern is None:
            raise ToolError(
                f"The embedded vision models do not know the question {question[:100]!r}; they know questions about "
                "color, shape, presence, side and place, such as 'What is the color of the star?'."
            )
        samples = [
            Sample(
                f"tools/scenes/{path.name}/{n}",
                "tools",
                "scenes",
                path.name,
                question.strip(),
                o,
                "A",
                ImageRef(path),
            )
            for n, o in enumerate(QUESTIONS[pattern])
        ]
        with self._lock:
            records = preview_agents(self.params, samples, self.arm)
            self.answered += len(records)
            self.accepted += sum(record.decision == "accepted" for record in records)
        words = [_word(record.answer, s.options) for record, s in zip(records, samples, strict=True)]
        # where the lists disagree, the right answer is the one that only one of them has
        only = (w for w, s in zip(words, samples, strict=True) if s.options and w in (COLORS + SHAPES)[::4])
        answer = words[0] if len(set(words)) == 1 else next(only, words[0])
        if not answer:
            raise ToolError("The embedded vision models gave no answer.")
        return answer


def _word(answer: str | None, options: tuple[str, ...] | None) -> str:
    """The option that an answer names; "" where it names none for certain."""
    named, _ = named_option(answer or "", options)
    return options[named] if isinstance(named, int) else named or ""
