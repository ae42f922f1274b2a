"""One sample as a reader sees it: picture, tokens, gate, verdicts, costs and trajectory."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from PIL import Image

from ..errors import DataError, StageError
from ..gating.gate import accepts
from ..gating.separability import deciding_token, token_separability
from ..judging.human import Overrides, reviewed
from ..models.loading import token_text
from ..runs.arms import DRAFT_STAGE
from ..runs.evidence import Evidence
from ..runs.records import (
    PHASES,
    AgentRecord,
    DraftRecord,
    JudgedRecord,
    RouterRecord,
    Trajectory,
    Turn,
    Verdict,
)
from ..tasks.images import iou
from ..tasks.pictures import ImageRef
from ..tasks.sample import LETTERS, Sample, shown_as
from .labels import split_label
from .plots.style import PHASE_COLORS, PHASE_LABELS, RIGHT, WRONG

# a picture travels to the browser as it is stored, unless it is larger than this
LARGEST_BYTES, LARGEST_SIDE_PX = 4 << 20, 2048
PICTURES_KEPT = 24


# ------------------------------------------------------------------ pictures


@dataclass(frozen=True)
class Picture:
    """An encoded picture for the browser. `width` and `height` are the original's, in which boxes are given."""

    data: bytes
    mime: str
    width: int
    height: int


@lru_cache(maxsize=PICTURES_KEPT)
def picture(image: ImageRef) -> Picture:
    """The picture as it is stored, or a smaller copy where it is very large or no browser can show it.

    Raises DataError when it is missing or cannot be decoded (and tries again the next time).
    """
    data = image.read()
    try:
        with Image.open(io.BytesIO(data)) as head:
            kind, mode = head.format, head.mode
    except (OSError, ValueError) as e:
        raise DataError(f"{image.path.name}: not a readable picture ({e})") from e
    decoded = image.open()
    width, height = decoded.size
    if kind in ("JPEG", "PNG", "WEBP") and mode in ("RGB", "L", "P", "RGBA") and len(data) <= LARGEST_BYTES:
        return Picture(data, f"image/{kind.lower()}", width, height)
    decoded.thumbnail((LARGEST_SIDE_PX, LARGEST_SIDE_PX), reducing_gap=2.0)
    small = io.BytesIO()
    decoded.save(small, "JPEG", quality=88)
    return Picture(small.getvalue(), "image/jpeg", width, height)


PICTURE_PX = 460
BOX_COLORS = {"target": "#009e73", "crop": "#d55e00"}
ALTERNATIVES = 5


def picture_html(marked: MarkedPicture) -> str:
    """The picture with its boxes, small enough for a page; the reason where there is none."""
    if marked.picture is None:
        return f"<p class='se-missing'>{html.escape(marked.message)}</p>"
    with Image.open(io.BytesIO(marked.picture.data)) as stored:
        small = stored.convert("RGB")
    small.thumbnail((PICTURE_PX, PICTURE_PX))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=85)
    scale = small.width / marked.picture.width
    shapes = []
    for box in marked.boxes:
        x1, y1, x2, y2 = (v * scale for v in box["box"])
        color, note = BOX_COLORS[box["kind"]], html.escape(f"{box['label']} {box['note']}".strip())
        shapes.append(
            f"<rect x='{x1:.1f}' y='{y1:.1f}' width='{x2 - x1:.1f}' height='{y2 - y1:.1f}' fill='none' "
            f"stroke='{color}' stroke-width='2'><title>{note}</title></rect>"
        )
    notes = "; ".join(
        f"{html.escape(box['label'])}: {html.escape(box['note'])}"
        for box in marked.boxes
        if box["kind"] == "crop"
    )
    source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    return (
        f"<svg width='{small.width}' height='{small.height}' viewBox='0 0 {small.width} {small.height}' role='img' "
        f"aria-label='{html.escape(marked.label, quote=True)}'><image href='{source}' width='{small.width}' "
        f"height='{small.height}'/>{''.join(shapes)}</svg><p class='se-note'>{html.escape(marked.label)}; green: where "
        f"the benchmark says to look, orange: where the agent looked{f' ({notes})' if notes else ''}</p>"
    )


def tokens_html(strip: Tokens) -> str:
    """The coloured tokens, and the alternatives of the one that decides `min`."""
    if not strip.tokens:
        return f"<p class='se-missing'>{html.escape(strip.message)}</p>"
    tokens = "".join(
        f"<span class='se-token{' se-decides' if token['decides'] else ''}' style='display: inline-block; "
        f"background: {token['color']}; color: {token['ink']}'><span class='se-token-text'>"
        f"{html.escape(token['text'])}</span><span class='se-token-value'>{token['separability']}</span></span>"
        for token in strip.tokens
    )
    first = next((token for token in strip.tokens if token["decides"]), strip.tokens[0])
    others = ", ".join(f"{html.escape(a['text'])} {a['shown']}" for a in first["alternatives"][:ALTERNATIVES])
    return (
        f"<div class='se-tokens'>{tokens}</div><p class='se-note'>{html.escape(first['title'])}: {others}</p>"
    )


ALTERNATIVES = 8  # shown per token
SURE = 30.0  # separability at and above which a token has the surest colour
VERDICT_COLORS = {"right": RIGHT, "wrong": WRONG}
VERDICT_SIGNS = {"right": "✓", "wrong": "✗", "unparsed": "?", "undecided": "?", "error": "!"}


def short_id(id_: str) -> str:
    """The split as tables call it, and the key."""
    task, key = id_.rsplit("/", 1)
    return f"{split_label(task)} · {key}"


# ------------------------------------------------------------------ all of it


@dataclass(frozen=True)
class Told:
    """Everything the microscope shows of a sample: HTML, and values for `picture.js` and `tokens.js`."""

    picture: MarkedPicture
    tokens: Tokens
    asked: str = ""
    gate: str = ""
    verdicts: str = ""
    costs: str = ""
    agent: str = ""


def nothing() -> Told:
    """No sample is chosen."""
    return Told(MarkedPicture(None, message="No sample is chosen."), Tokens(message="No sample is chosen."))


def asked(run: Any, arm: str, id_: str) -> Told:
    """Only what was asked: the picture with what the agent looked at, the question and its options."""
    record = run.records(arm).get(id_)
    sample = run.sample(id_)
    if sample is not None and record is not None:
        sample = shown_as(sample, record.options_shown)
    picture = marked_picture(sample, record.trajectory if record else None)
    text = f"<h4>{html.escape(short_id(id_))}</h4>{question_html(sample, run.judged(arm).get(id_))}"
    return Told(picture, Tokens(), asked=text)


def tell(
    run: Any,
    arm: str,
    id_: str,
    threshold: float,
    k: int,
    decided: pd.Series,
    overrides: Overrides = MappingProxyType({}),
) -> Told:
    """A sample under a gate setting: `decided` is its row of `replay.decisions`.

    `overrides` are people's verdicts (`human.overrides_of`).
    """
    record, judged = run.records(arm).get(id_), run.judged(arm).get(id_)
    draft = run.drafts().get(id_) or (record.draft if record else None)
    verdicts = [reviewed(v, overrides) for v in (judged.verdicts if judged else ())]
    try:
        text = token_text(run.config(DRAFT_STAGE).get("draft_model", ""))
        strip = token_strip(draft, run.evidence(id_), text, k)
    except StageError as error:  # the file was changed while the run is looked at
        strip = Tokens(message=str(error))
    gate = gate_lines(record, float(decided["confidence"]), decided["decision"], threshold)
    return replace(
        asked(run, arm, id_),
        tokens=strip,
        gate="".join(f"<p>{html.escape(line)}</p>" for line in gate),
        verdicts=verdicts_html(verdicts),
        costs=predicted_html(decided) + costs_html(recorded_costs(run, id_, draft)),
        agent=router_html(record) + trajectory_html(record),
    )


def predicted_html(decided: pd.Series) -> str:
    """What the sample is predicted to cost under the setting, beside the agent alone."""
    mine, alone = 1000 * decided["wall_s"], 1000 * decided["baseline_wall_s"]
    if not np.isfinite(mine):
        return "<p>Nothing was timed, so no cost is predicted.</p>"
    told = f"{abs(alone - mine):.1f} ms {'less' if mine <= alone else 'more'}"
    return (
        f"<p>Under this setting: predicted {mine:.1f} ms, {told} than the agent alone ({alone:.1f} ms).</p>"
    )


def recorded_costs(
    run: Any, id_: str, draft: DraftRecord | None
) -> list[tuple[str, dict[str, float] | None]]:
    """(what, phase -> seconds) as each stage recorded it."""
    costs = []
    if draft is not None:
        phases = {"decode_s": draft.decode_s, "draft_s": draft.draft_s} if draft.timed else None
        costs.append(("draft", phases))
    return costs + [(arm, record_costs(record)) for arm in run.arms if (record := run.records(arm).get(id_))]


# ------------------------------------------------------------------ picture

NO_PICTURE = Picture(b"", "", 0, 0)


@dataclass(frozen=True)
class MarkedPicture:
    """A picture with boxes in pixels of the original, or None and the reason in `message`."""

    picture: Picture | None
    boxes: tuple[dict, ...] = ()
    message: str = ""
    label: str = ""


def marked_picture(sample: Sample | None, trajectory: Trajectory | None) -> MarkedPicture:
    """The picture with the benchmark's boxes and the agent's, each crop's overlap with the target beside it."""
    if sample is None:
        return MarkedPicture(
            None, message="The benchmark is not on this machine, so there is no picture to show."
        )
    try:
        shown = picture(sample.image)
    except DataError as error:
        return MarkedPicture(None, message=f"No picture: {_without_folder(str(error), sample)}")
    targets = [(x, y, x + w, y + h) for x, y, w, h in sample.boxes]
    names = sample.meta.get("targets") or []
    boxes = [
        {
            "box": list(box),
            "kind": "target",
            "label": str(names[i]) if i < len(names) else "target",
            "note": "target",
        }
        for i, box in enumerate(targets)
    ]
    for number, turn in enumerate(trajectory.turns if trajectory else (), start=1):
        if turn.crop_px:
            boxes.append(
                {
                    "box": list(turn.crop_px),
                    "kind": "crop",
                    "label": f"turn {number}",
                    "note": overlap_note(turn.crop_px, targets),
                }
            )
    return MarkedPicture(shown, tuple(boxes), label=f"{sample.id}, {shown.width} x {shown.height} px")


def overlap_note(crop: Sequence[float], targets: Sequence[Sequence[float]]) -> str:
    """How a crop lies to its nearest target: IoU, and how much of the target it holds."""
    if not targets:
        return ""
    best = max(targets, key=lambda target: (iou(crop, target), _held(crop, target)))
    return f"IoU {iou(crop, best):.2f}, holds {_held(crop, best):.0%} of the target"


def _held(crop: Sequence[float], target: Sequence[float]) -> float:
    width = min(crop[2], target[2]) - max(crop[0], target[0])
    height = min(crop[3], target[3]) - max(crop[1], target[1])
    area = (target[2] - target[0]) * (target[3] - target[1])
    return max(0.0, width) * max(0.0, height) / area if area else 0.0


def _without_folder(message: str, sample: Sample) -> str:
    return message.replace(f"{sample.image.path.parent}/", "")


# ------------------------------------------------------------------ tokens


@dataclass(frozen=True)
class Tokens:
    """The words of a draft for `tokens.js`; empty with a `message` where there are none to show."""

    tokens: tuple[dict, ...] = ()
    message: str = ""


def token_strip(
    draft: DraftRecord | None, evidence: Evidence | None, text_of: Callable[[int], str], k: int
) -> Tokens:
    """Every token with its separability at `k`, the one that decides `min`, and its most probable alternatives."""
    if draft is None:
        return Tokens(message="No draft: the router sent this sample to the agent, or it was never drafted.")
    if draft.error is not None:
        return Tokens(message=f"The draft failed ({draft.error.type}): {draft.error.message}")
    if evidence is None:
        answer = draft.answer or "(empty)"
        return Tokens(
            message=f"Draft: {answer}. No token evidence is stored for it, so there is nothing to colour."
        )
    if not evidence.n_tokens:
        return Tokens(
            message="The draft holds no token: the model ended its answer at once. It has no confidence."
        )
    used = min(k, evidence.k)
    separability = token_separability(evidence.top_logprobs, used)
    decides = deciding_token(evidence.top_logprobs, used)
    return Tokens(
        tuple(_token(evidence, i, s, i == decides, text_of, used) for i, s in enumerate(separability))
    )


def _token(
    evidence: Evidence, i: int, separability: float, decides: bool, text: Callable[[int], str], k: int
) -> dict:
    color, ink = token_color(separability)
    chosen = int(evidence.token_ids[i])
    shown = list(
        zip(evidence.top_ids[i][:ALTERNATIVES], evidence.top_logprobs[i][:ALTERNATIVES], strict=True)
    )
    if chosen not in [int(token) for token, _ in shown]:  # decoded with a penalty or a constraint
        shown.append((chosen, evidence.chosen_logprobs[i]))
    alternatives = [
        {
            "text": visible(evidence.token_texts[i] if int(token) == chosen else text(int(token))),
            "probability": float(np.exp(logprob)),
            "shown": f"{np.exp(logprob):.4f}",
            "chosen": int(token) == chosen,
        }
        for token, logprob in shown
    ]
    value = f"{separability:.2f}" if np.isfinite(separability) else "none"
    told = f"token {i + 1} of {evidence.n_tokens}: separability {value} at K = {k}"
    return {
        "text": visible(evidence.token_texts[i]),
        "color": color,
        "ink": ink,
        "separability": value,
        "decides": bool(decides),
        "title": told + (", the least of all: it decides the score min" if decides else ""),
        "alternatives": alternatives,
    }


def token_color(separability: float) -> tuple[str, str]:
    """Background and ink: from unsure (amber) to sure (blue-green); grey where there is no separability."""
    if not np.isfinite(separability):
        return "#dddddd", "#222222"
    place = min(max(separability, 0.0) / SURE, 1.0)
    red, green, blue, _ = mpl.colormaps["cividis_r"](0.05 + 0.85 * (1 - place))
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
    return to_hex((red, green, blue)), "#ffffff" if dark else "#222222"


def visible(text: str) -> str:
    """A token's text with its spaces and line ends made visible."""
    return text.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "∅"


# ------------------------------------------------------------------ gate


def gate_lines(record: AgentRecord | None, confidence: float, decision: str, threshold: float) -> list[str]:
    """What the gate does with this draft at the view's setting, how near it is to the other side, and why."""
    if decision == "routed":
        told = ["The router sends this sample to the agent: the gate never sees a draft."]
        if np.isfinite(confidence):
            would = "accept" if accepts(confidence, threshold) else "reject"
            told.append(
                f"Without a router the gate would {would} the draft: {confidence:.4f} against {threshold:.4f}."
            )
        return told
    if not np.isfinite(confidence):
        draft = record.draft if record else None
        reason = (draft.score_reason if draft else None) or "no draft"
        return [f"The draft has no confidence ({reason.replace('_', ' ')}): no threshold accepts it."]
    distance = confidence - threshold
    flips = f"every threshold above {_digits(confidence)} rejects it, every one below accepts it"
    if accepts(confidence, threshold):
        return [
            f"Accepted: confidence {_digits(confidence)} is {_gap(distance)} above the threshold; {flips}."
        ]
    return [f"Rejected: confidence {_digits(confidence)} is {_gap(-distance)} below the threshold; {flips}."]


def _gap(distance: float) -> str:
    return f"{distance:.4f}" if distance >= 1e-3 else f"{distance:.1e}"


def _digits(confidence: float) -> str:
    """Enough digits to tell confidences near 1 apart."""
    gap = 1.0 - confidence
    if gap >= 1e-6:
        return f"{confidence:.{4 if gap > 1e-3 else 7}f}"
    return f"1 - {gap:.1e}" if gap else "1 (to the last digit)"


# ------------------------------------------------------------------ HTML


def question_html(sample: Sample | None, judged: JudgedRecord | None) -> str:
    """Question and options, the right one marked; the recorded question where the benchmark is not there."""
    if sample is None:
        asked = html.escape(judged.question) if judged else "The question is not recorded."
        standard = next((v.standard for v in judged.verdicts), "") if judged else ""
        return f"<p class='se-question'>{asked}</p><p>Right: <b>{html.escape(standard)}</b></p>"
    asked = f"<p class='se-question'>{html.escape(sample.question)}</p>"
    if sample.options is None:
        return f"{asked}<p>yes or no? Right: <b>{html.escape(sample.answer)}</b></p>"
    items = []
    for letter, option in zip(LETTERS, sample.options, strict=False):
        right = " class='se-right'" if letter == sample.answer else ""
        items.append(f"<li{right}>{letter}. {html.escape(option)}{' ✓' if right else ''}</li>")
    return f"{asked}<ul class='se-options'>{''.join(items)}</ul>"


def router_html(record: AgentRecord | None) -> str:
    """What each router said, word for word."""
    said = [("Router", record.router if record else None)]
    said.append(("Router (small model)", record.router_small if record else None))
    lines = []
    for name, word in said:
        if word is None:
            continue
        goes = "to the agent" if word.verdict == "yes" else "to the draft"
        margin = _margin(word)
        lines.append(
            f"<p>{name}: would a tool help? <q>{html.escape(word.text.strip())}</q>, {goes}{margin} "
            f"<span class='se-ms'>{1000 * word.router_s:.1f} ms</span></p>"
        )
    return "".join(lines) or "<p>No router's word is recorded.</p>"


def _margin(word: RouterRecord) -> str:
    yes, no = word.yes_logprob, word.no_logprob
    return "" if yes is None or no is None else f" (log-probability of yes less that of no: {yes - no:+.2f})"


def verdicts_html(verdicts: Iterable[Verdict]) -> str:
    """Who says what of which answer: a row per answer, with rule, judging model and person."""
    rows = []
    for v in verdicts:
        rule = html.escape(f"{v.by_rule} ({v.rule})")
        model = _asked(v.judge.verdict, v.judge.model, v.judge.reply or "") if v.judge else "no request"
        person = _asked(v.human.verdict, v.human.author, v.human.reason) if v.human else "no check"
        answer = html.escape(v.answer) if v.answer else "<i>none</i>"
        rows.append(
            f"<tr><td>{v.source.replace('_', ' ')}</td><td>{answer}</td><td>{verdict_html(v.verdict)}</td>"
            f"<td>{rule}</td><td>{model}</td><td>{person}</td></tr>"
        )
    if not rows:
        return "<p>Not judged yet.</p>"
    return table_html(("answer of", "answer", "verdict", "by rule", "by model", "by person"), rows)


def _asked(verdict: str, who: str, why: str) -> str:
    return html.escape(f"{verdict} ({who}: {why[:120]})")


def verdict_html(verdict: str | None) -> str:
    """A verdict with its sign and colour."""
    if verdict is None:
        return "not judged"
    color = VERDICT_COLORS.get(verdict, "#8a5a00")
    return f"<b style='color: {color}'>{VERDICT_SIGNS.get(verdict, '')} {html.escape(verdict)}</b>"


def costs_html(costs: Sequence[tuple[str, dict[str, float] | None]]) -> str:
    """Rows of phase times drawn to one scale: (name, phase -> seconds, or None where it was not timed)."""
    totals = [sum(phases.values()) for _, phases in costs if phases]
    longest = max(totals, default=0.0)
    rows = []
    for name, phases in costs:
        if phases is None:
            rows.append(f"<tr><td>{name}</td><td colspan='2'>not timed</td></tr>")
            continue
        parts = "".join(
            f"<span title='{PHASE_LABELS[p]} {1000 * phases[p]:.1f} ms' style='display: inline-block; height: 12px; "
            f"width: {100 * phases[p] / longest:.2f}%; background: {PHASE_COLORS[p]}'></span>"
            for p in PHASES
            if longest and phases.get(p)
        )
        told = ", ".join(f"{PHASE_LABELS[p]} {1000 * phases[p]:.1f}" for p in PHASES if phases.get(p))
        total = f"{1000 * sum(phases.values()):.1f} ms"
        rows.append(
            f"<tr><td>{name}</td><td>{total}</td><td class='se-cost'>{parts}<br><small>{told}</small></td></tr>"
        )
    return table_html(("cost of", "total", "by phase, ms"), rows)


def record_costs(record: AgentRecord | None) -> dict[str, float] | None:
    """Phase -> seconds that an arm's record was charged; None where nothing was timed."""
    if record is None or not record.timed:
        return None
    draft = record.draft if record.run_mode == "gated" else None  # elsewhere stage 01 paid for it
    return {
        "decode_s": record.decode_s,
        "router_s": record.router.router_s if record.router else 0.0,
        "draft_s": draft.draft_s if draft else 0.0,
        "agent_s": record.trajectory.agent_s if record.trajectory else 0.0,
        "tool_s": record.tool_s,
    }


def trajectory_html(record: AgentRecord | None, mark: str = "") -> str:
    """The agent turn by turn: what it said, what it asked of its tool, what came back, how long it took.

    `mark` is a text to highlight wherever it occurs.
    """
    if record is None:
        return "<p>This sample has no record in this arm.</p>"
    parts = []
    if record.trajectory:
        parts += [_turn_html(n, turn, mark) for n, turn in enumerate(record.trajectory.turns, start=1)]
        if not record.trajectory.turns:
            parts.append("<p>No turn is recorded.</p>")
    else:
        parts.append("<p>The agent did not run.</p>")
    failure = record.error or (record.trajectory.error if record.trajectory else None)
    if failure:
        parts.append(
            f"<p class='se-failure'>Failed ({html.escape(failure.type)}): {marked(failure.message, mark)}</p>"
        )
    return "".join(parts)


def _turn_html(number: int, turn: Turn, mark: str) -> str:
    tokens = "tokens not recorded" if turn.n_tokens is None else f"{turn.n_tokens} tokens"
    head = f"Turn {number}: {turn.action} <span class='se-ms'>{1000 * turn.turn_s:.1f} ms, {tokens}"
    head += f", ended by {turn.finish_reason}</span>" if turn.finish_reason != "stop" else "</span>"
    parts = [f"<div class='se-turn'><div class='se-turn-head'>{head}</div>"]
    if turn.proposal:
        score = "no score" if turn.proposal.score is None else f"score {turn.proposal.score}"
        taken = "taken" if turn.proposal.accepted else "not taken"
        parts.append(
            f"<p>Proposed by the small model ({score}, {taken}):</p>{_pre(turn.proposal.text, mark)}"
        )
    parts.append(_pre(turn.text, mark))
    call = json.dumps(turn.tool_call, ensure_ascii=False) if turn.tool_call else ""
    if call not in turn.text:  # a call that is not there word for word: repaired, or a program
        parts.append(f"<p class='se-tool'>tool call: <code>{marked(call, mark)}</code></p>")
    if turn.crop_px:
        x1, y1, x2, y2 = turn.crop_px
        parts.append(
            f"<p class='se-tool'>tool result: a crop of {x2 - x1} x {y2 - y1} px at ({x1}, {y1}) to ({x2}, {y2})</p>"
        )
    if turn.tool_output:
        parts.append(f"<p class='se-tool'>tool result:</p>{_pre(turn.tool_output, mark)}")
    if turn.error:
        parts.append(
            f"<p class='se-failure'>{html.escape(turn.error.type)}: {marked(turn.error.message, mark)}</p>"
        )
    if turn.notes:
        parts.append(f"<p class='se-tool'>noted: {html.escape(', '.join(turn.notes))}</p>")
    return "".join(parts) + "</div>"


def _pre(text: str, mark: str) -> str:
    return f"<pre class='se-said'>{marked(text, mark) or '<i>nothing</i>'}</pre>"


def marked(text: str, mark: str) -> str:
    """Escaped text with every occurrence of `mark` highlighted, in any case."""
    if not mark:
        return html.escape(text)
    low, parts, at = text.lower(), [], 0
    wanted = mark.lower()
    if len(low) != len(text):  # a letter whose lower case is longer: positions would not fit
        return html.escape(text)
    while (found := low.find(wanted, at)) >= 0:
        parts.append(html.escape(text[at:found]))
        parts.append(f"<mark>{html.escape(text[found : found + len(mark)])}</mark>")
        at = found + len(mark)
    return "".join(parts) + html.escape(text[at:])


def table_html(columns: Sequence[str], rows: Sequence[str]) -> str:
    """A table of ready-made rows."""
    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    return f"<table class='se-table'><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
