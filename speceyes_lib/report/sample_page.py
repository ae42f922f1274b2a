"""One sample as a reader sees it: a value that holds its parts, and their HTML by templates/sample.html.

Notebooks display the value, the explorers' stills and widgets place its parts. Records in, no file of a run is read
but through `RecordedRun`, and everything that a model, a benchmark or a person wrote is escaped. The file is not split:
all of it is one value and what its parts are made from.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.colors import to_hex
from PIL import Image

from ..errors import DataError, StageError
from ..gating.gate import accepts
from ..gating.separability import DEFAULT_K, deciding_token, token_separability
from ..judging.human import Overrides, reviewed
from ..models.token_texts import token_text
from ..runs.arms import DRAFT_STAGE
from ..runs.evidence import Evidence
from ..runs.records import (
    PHASES,
    AgentRecord,
    DraftRecord,
    JudgedRecord,
    RouterRecord,
    Trajectory,
    Verdict,
)
from ..tasks.images import iou
from ..tasks.pictures import ImageRef
from ..tasks.sample import LETTERS, Sample, shown_as
from .labels import split_label
from .plots.style import PHASE_COLORS, PHASE_LABELS, RIGHT, WRONG
from .rendering import TEMPLATES, environment

if TYPE_CHECKING:
    import jinja2

    from ..runs.recorded_run import RecordedRun

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


PICTURE_PX, CROP_PX = 460, 200
BOX_COLORS = {"target": "#009e73", "crop": "#d55e00"}


@dataclass(frozen=True)
class Still:
    """A picture inside a page: a JPEG as a data URI, its size, and its pixels per pixel of the original."""

    source: str
    width: int
    height: int
    scale: float


def still_picture(marked: MarkedPicture) -> Still | None:
    """The picture small enough for a page; None where there is none."""
    if marked.picture is None:
        return None
    with Image.open(io.BytesIO(marked.picture.data)) as stored:
        small = stored.convert("RGB")
    small.thumbnail((PICTURE_PX, PICTURE_PX))
    return _as_still(small, small.width / marked.picture.width)


def crop_of(marked: MarkedPicture, crop_px: Sequence[float]) -> Still | None:
    """What the agent saw when it zoomed: the pixels of a box, in those of the original; None without a picture."""
    if marked.picture is None:
        return None
    with Image.open(io.BytesIO(marked.picture.data)) as stored:
        scale = stored.width / marked.picture.width
        crop = stored.convert("RGB").crop(tuple(round(v * scale) for v in crop_px))
    factor = CROP_PX / max(crop.size)
    crop = crop.resize(tuple(max(1, round(side * factor)) for side in crop.size))
    return _as_still(crop, factor * scale)


def _as_still(image: Image.Image, scale: float) -> Still:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    return Still(source, image.width, image.height, scale)


ALTERNATIVES = 8  # shown per token
SURE = 30.0  # separability at and above which a token has the surest colour
VERDICT_COLORS = {"right": RIGHT, "wrong": WRONG}
VERDICT_SIGNS = {"right": "✓", "wrong": "✗", "unparsed": "?", "undecided": "?", "error": "!"}


def short_id(id_: str) -> str:
    """The split as tables call it, and the key."""
    task, key = id_.rsplit("/", 1)
    return f"{split_label(task)} · {key}"


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


# ------------------------------------------------------------------ all of it


@dataclass(frozen=True)
class SampleView:
    """One sample as notebooks, stills and widgets show it.

    Attributes:
        title: split and key.
        question: as asked; the recorded one where the benchmark is not on this machine.
        options: letter, text and whether it is right, in the order shown; empty for yes or no.
        standard: the right answer.
        yes_no: the question is answered by yes or no.
        picture: with the boxes of benchmark and agent.
        tokens: those of the draft.
        has_draft: a draft or its evidence was given.
        gate: sentences on what the gate does with the draft.
        verdicts: on its answers; None: not asked for.
        predicted_s: seconds under the setting and of the agent alone; None: no setting was given.
        costs: stage, and phase -> seconds (None: not timed).
        record: of the arm.
        mark: text to highlight in what the agent wrote.
    """

    title: str
    question: str
    options: tuple[tuple[str, str, bool], ...]
    standard: str
    yes_no: bool
    picture: MarkedPicture
    tokens: Tokens
    has_draft: bool = False
    gate: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] | None = None
    predicted_s: tuple[float, float] | None = None
    costs: tuple[tuple[str, Mapping[str, float] | None], ...] = ()
    record: AgentRecord | None = None
    mark: str = ""

    @property
    def routers(self) -> list[tuple[str, RouterRecord]]:
        """Name and answer of each router that was asked."""
        record = self.record
        asked = (record.router, record.router_small) if record else (None, None)
        names = ("Router", "Router (small model)")
        return [(name, answer) for name, answer in zip(names, asked, strict=True) if answer]

    @property
    def longest_s(self) -> float:
        """Seconds of the slowest stage: the scale of the bars."""
        return max((sum(seconds.values()) for _, seconds in self.costs if seconds), default=0.0)

    @property
    def final_verdict(self) -> str | None:
        """The verdict on the final answer; None where it is not judged."""
        return next((v.verdict for v in self.verdicts or () if v.source == "final"), None)

    def part(self, name: str, *values: Any) -> str:
        """One part as HTML: a macro of templates/sample.html, called with this view and further values."""
        return str(getattr(_template().module, name)(self, *values))

    def _repr_html_(self) -> str:
        return styled_page(self.part("page"))


NOTHING = MarkedPicture(None, message="No sample is chosen.")


def no_sample() -> SampleView:
    """The view while no sample is chosen."""
    message = NOTHING.message
    return SampleView("", message, (), "", False, NOTHING, Tokens(message=message))


def sample_view(
    sample: Sample | None,
    record: AgentRecord | None = None,
    *,
    draft: DraftRecord | None = None,
    evidence: Evidence | None = None,
    text_of: Callable[[int], str] | str = "#{}".format,
    judged: JudgedRecord | None = None,
    decided: pd.Series | None = None,
    threshold: float | None = None,
    k: int = DEFAULT_K,
    overrides: Overrides | None = None,
    costs: Iterable[tuple[str, Mapping[str, float] | None]] = (),
    mark: str = "",
) -> SampleView:
    """One sample in full, as far as its parts are given.

    Args:
        sample: as the benchmark has it; None: not on this machine.
        record: of the arm that is looked at.
        draft: of stage 01; None: the record's own.
        evidence: of the draft's tokens.
        text_of: token id -> text, or the draft model's folder, whose tokenizer does it.
        judged: verdicts on the record's answers.
        decided: row of `outcomes.decisions`; None: as the record was decided.
        threshold: of the gate; None: the record's own.
        k: alternatives in the separability.
        overrides: people's verdicts (`human.overrides_of`).
        costs: stage, and phase -> seconds (None: not timed).
        mark: text to highlight in what the agent wrote.
    """
    if sample is not None and record is not None:
        sample = shown_as(sample, record.options_shown)
    text_of = token_text(text_of) if isinstance(text_of, str) else text_of
    draft = draft or (record.draft if record else None)
    verdicts = judged.verdicts if judged else ()
    threshold = record.threshold if threshold is None and record else threshold
    gate: list[str] = []
    if decided is not None and threshold is not None:
        gate = gate_lines(record, float(decided["confidence"]), decided["decision"], threshold)
    elif record is not None and draft is not None and threshold is not None:
        confidence = float("nan") if record.confidence is None else record.confidence
        gate = gate_lines(record, confidence, record.decision, threshold)
    if sample is not None:
        letters = zip(LETTERS, sample.options or (), strict=False)
        question, standard = sample.question, sample.standard
        options = tuple((letter, text, letter == sample.answer) for letter, text in letters)
    else:
        question = judged.question if judged else "The question is not recorded."
        standard, options = next((v.standard for v in verdicts), ""), ()
    id_ = sample.id if sample else record.id if record else judged.id if judged else ""
    return SampleView(
        title=short_id(id_) if id_ else "",
        question=question,
        options=options,
        standard=standard,
        yes_no=sample is not None and sample.options is None,
        picture=marked_picture(sample, record.trajectory if record else None),
        tokens=token_strip(draft, evidence, text_of, k),
        has_draft=draft is not None or evidence is not None or decided is not None,
        gate=tuple(gate),
        verdicts=tuple(reviewed(v, overrides or {}) for v in verdicts)
        if judged or decided is not None
        else None,
        predicted_s=None
        if decided is None
        else (float(decided["wall_s"]), float(decided["baseline_wall_s"])),
        costs=tuple(costs),
        record=record,
        mark=mark,
    )


def recorded_sample(
    run: RecordedRun,
    arm: str,
    id_: str,
    decided: pd.Series | None = None,
    *,
    threshold: float | None = None,
    k: int = DEFAULT_K,
    overrides: Overrides | None = None,
    mark: str = "",
) -> SampleView:
    """`sample_view` of a recorded run; with `decided` also its draft's tokens, verdicts and costs, under a setting."""
    record, judged = run.records(arm).get(id_), run.judged(arm).get(id_)
    if decided is None:
        view = sample_view(run.sample(id_), record, judged=judged, mark=mark)
        return view if view.title else replace(view, title=short_id(id_))
    draft = run.drafts().get(id_) or (record.draft if record else None)
    evidence, fault = None, ""
    try:
        evidence = run.evidence(id_)
    except StageError as error:  # the file was changed while the run is looked at
        fault = str(error)
    view = sample_view(
        run.sample(id_),
        record,
        draft=draft,
        evidence=evidence,
        text_of=token_text(run.config(DRAFT_STAGE).get("draft_model", "")),
        judged=judged,
        decided=decided,
        threshold=threshold,
        k=k,
        overrides=overrides,
        costs=recorded_costs(run, id_, draft),
        mark=mark,
    )
    return replace(view, tokens=Tokens(message=fault)) if fault else view


@cache
def _template() -> jinja2.Template:
    names = {
        "still": still_picture,
        "cut": crop_of,
        "marked": marked,
        "as_json": lambda value: json.dumps(value, ensure_ascii=False),
        "box_colors": BOX_COLORS,
        "verdict_colors": VERDICT_COLORS,
        "verdict_signs": VERDICT_SIGNS,
        "phases": PHASES,
        "phase_labels": PHASE_LABELS,
        "phase_colors": PHASE_COLORS,
    }
    return environment().get_template("sample.html", globals=names)


def styled_page(*parts: str) -> str:
    """Parts that are HTML already, with the style of samples and explorers before them."""
    style = (TEMPLATES / "explore.css").read_text("utf-8")
    return f"<style>{style}</style><div class='se-explorer'>{''.join(parts)}</div>"


def recorded_costs(
    run: RecordedRun, id_: str, draft: DraftRecord | None
) -> list[tuple[str, dict[str, float] | None]]:
    """(stage, phase -> seconds) as each stage recorded it."""
    costs = []
    if draft is not None:
        phases = {"decode_s": draft.decode_s, "draft_s": draft.draft_s} if draft.timed else None
        costs.append(("draft", phases))
    return costs + [(arm, record_costs(record)) for arm in run.arms if (record := run.records(arm).get(id_))]


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


def marked(text: str, mark: str) -> Markup:
    """Escaped text with every occurrence of `mark` highlighted, in any case."""
    low, wanted, parts, at = text.lower(), mark.lower(), [], 0
    if not mark or len(low) != len(text):  # a letter whose lower case is longer: positions would not fit
        return escape(text)
    while (begin := low.find(wanted, at)) >= 0:
        end = begin + len(mark)
        parts += [escape(text[at:begin]), Markup("<mark>{}</mark>").format(text[begin:end])]
        at = end
    return Markup("").join([*parts, escape(text[at:])])
