"""One sample as people see it: its picture, its question, what each model said and did.

Records in; an `IPython.display.HTML` or a data frame out. Nothing here asks a model or judges an answer.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from ..gating.separability import DEFAULT_K, deciding_token, token_separability
from ..runs.evidence import Evidence
from ..runs.records import AgentRecord, DraftRecord, Trajectory, Turn
from ..tasks.sample import LETTERS, Sample

if TYPE_CHECKING:
    from IPython.display import HTML

TARGET_COLOR = "#009e73"  # where the benchmark says to look
CROP_COLOR = "#d55e00"  # where the agent looked
PICTURE_PX = 480  # longer side of a shown picture
CROP_PX = 200


def sample_view(sample: Sample, trajectory: Trajectory | None = None) -> HTML:
    """The picture beside its question and options, the right one marked.

    Green: the targets' boxes, where the benchmark has them. Orange: what the agent of `trajectory` zoomed
    into, numbered by turn.
    """
    picture = sample.image.open()
    width, height = picture.size
    scale = PICTURE_PX / max(picture.size)
    shown = picture.resize((max(1, round(width * scale)), max(1, round(height * scale))))
    draw = ImageDraw.Draw(shown)
    for x, y, w, h in sample.boxes:
        draw.rectangle([v * scale for v in (x, y, x + w, y + h)], outline=TARGET_COLOR, width=3)
    for number, turn in enumerate(trajectory.turns if trajectory else (), start=1):
        if turn.crop_px:
            corners = [v * scale for v in turn.crop_px]
            draw.rectangle(corners, outline=CROP_COLOR, width=3)
            draw.text((corners[0] + 6, corners[1] + 4), str(number), fill=CROP_COLOR)
    caption = f"{sample.id}, {width} x {height} px"
    asked = f"<p><b>{html.escape(sample.question)}</b></p>{_options(sample)}"
    return _html(f"{_columns(_img(shown, sample.question), asked)}{_small(caption)}")


def _options(sample: Sample) -> str:
    if sample.options is None:
        return f"<p>yes or no? The right answer: <b>{html.escape(sample.answer)}</b></p>"
    items = []
    for letter, option in zip(LETTERS, sample.options, strict=False):
        text = f"{letter}. {html.escape(option)}"
        items.append(f"<li><b>{text}</b> (right)</li>" if letter == sample.answer else f"<li>{text}</li>")
    return f"<ul style='list-style: none; padding-left: 0'>{''.join(items)}</ul>"


def token_table(
    evidence: Evidence, decode: Callable[[list[int]], str], k: int = DEFAULT_K, alternatives: int = 4
) -> pd.DataFrame:
    """A row per generated token: its probability, its separability, and the most probable tokens at its place.

    decode: token ids to text, of the model's tokenizer. The token that decides `min` is marked.
    """
    decides = deciding_token(evidence.top_logprobs, k)
    rows = [
        {
            "token": repr(evidence.token_texts[i]),
            "probability": np.exp(evidence.chosen_logprobs[i]),
            "separability": separability,
            "decides min": "yes" if i == decides else "",
            **{
                f"candidate {rank}": f"{decode([int(token)])!r} {np.exp(logprob):.3f}"
                for rank, (token, logprob) in enumerate(
                    zip(evidence.top_ids[i], evidence.top_logprobs[i], strict=True), start=1
                )
                if rank <= alternatives
            },
        }
        for i, separability in enumerate(token_separability(evidence.top_logprobs, k))
    ]
    return pd.DataFrame(rows).round({"probability": 4, "separability": 2})


def draft_table(samples: Sequence[Sample], drafts: Sequence[DraftRecord]) -> pd.DataFrame:
    """Several drafts at a glance: question, right answer, draft, confidence."""
    rows = [
        {
            **_asked(sample),
            "draft": draft.answer if draft.error is None else f"failed: {draft.error.message}",
            "tokens": draft.n_tokens,
            **(draft.scores or {}),
        }
        for sample, draft in zip(samples, drafts, strict=True)
    ]
    return pd.DataFrame(rows).set_index("sample").round(4)


def agent_table(samples: Sequence[Sample], records: Sequence[AgentRecord]) -> pd.DataFrame:
    """Several samples through one arm at a glance: question, right answer, who answered what, in how many turns."""
    rows = [
        {
            **_asked(sample),
            "decision": record.decision,
            "answered by": record.used,
            "answer": record.answer if record.error is None else f"failed: {record.error.message}",
            "turns": len(record.trajectory.turns) if record.trajectory else 0,
            "ms": round(1000 * record.wall_s),
        }
        for sample, record in zip(samples, records, strict=True)
    ]
    return pd.DataFrame(rows).set_index("sample")


def _asked(sample: Sample) -> dict[str, str]:
    return {"sample": sample.id, "question": sample.question, "right answer": sample.standard}


def trajectory_view(sample: Sample, record: AgentRecord) -> HTML:
    """What happened to one sample, phase by phase: router, draft and gate, then every turn of the agent.

    Crops are cut out of the original picture at the pixels the record holds.
    """
    parts = []
    if record.router:
        said = html.escape(record.router.text.strip())
        parts.append(f"<p>Would a tool help? The router: <b>{said}</b> {_ms(record.router.router_s)}</p>")
    if record.draft and record.draft.error is None:
        answer = html.escape(record.draft.answer or "")
        score = "" if record.confidence is None else f", confidence {record.confidence:.4f}"
        gate = "" if record.threshold is None else f" against {record.threshold:.4f}"
        parts.append(f"<p>Draft: <b>{answer}</b>{score}{gate} ({record.decision})</p>")
    if record.trajectory:
        picture = sample.image.open()
        parts += [_turn(n, turn, picture) for n, turn in enumerate(record.trajectory.turns, start=1)]
    if record.error:
        parts.append(f"<p>Failed ({html.escape(record.error.type)}): {html.escape(record.error.message)}</p>")
    else:
        parts.append(
            f"<p>Answer: <b>{html.escape(record.answer or '')}</b>, right is {html.escape(sample.standard)}</p>"
        )
    return _html("".join(parts))


def _turn(number: int, turn: Turn, picture: Image.Image) -> str:
    head = f"<p style='margin-bottom: 0'>Turn {number}: {turn.n_tokens} tokens {_ms(turn.turn_s)}</p>"
    said = f"<pre style='white-space: pre-wrap; max-width: 40rem'>{html.escape(turn.text)}</pre>"
    if turn.proposal:
        by = "accepted" if turn.proposal.accepted else "rejected, so the large model wrote the turn"
        said = (
            _small(f"The small model proposed: {turn.proposal.text} (score {turn.proposal.score}, {by})")
            + said
        )
    if turn.tool_output:
        said += _small(f"The program printed: {turn.tool_output}")
    if turn.error:
        said += _small(f"{turn.error.type}: {turn.error.message}")
    if turn.notes:
        said += _small(f"Noted: {', '.join(turn.notes)}")
    if not turn.crop_px:
        return head + said
    crop = picture.crop(turn.crop_px)
    crop = crop.resize(tuple(max(1, round(side * CROP_PX / max(crop.size))) for side in crop.size))
    return head + _columns(said, _img(crop, f"what turn {number} zoomed into"))


def _ms(seconds: float) -> str:
    return f"({1000 * seconds:.0f} ms)"


def _img(picture: Image.Image, alt: str) -> str:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    return f'<img src="{source}" alt="{html.escape(alt)}" width="{picture.width}" height="{picture.height}">'


def _columns(*cells: str) -> str:
    inner = "".join(f"<div>{cell}</div>" for cell in cells)
    return f"<div style='display: flex; gap: 1.5rem; flex-wrap: wrap; align-items: flex-start'>{inner}</div>"


def _small(text: str) -> str:
    return f"<p style='color: #555; font-size: 0.85em; margin-top: 0.2em'>{html.escape(text)}</p>"


def _html(text: str) -> HTML:
    from IPython.display import HTML

    return HTML(text)
