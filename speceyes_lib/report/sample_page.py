"""One sample as a reader sees it: `SampleView`, a value that holds its parts, whose HTML is templates/sample.html.

Notebooks display the value; the explorers' stills and widgets place its parts. Whatever a model, a benchmark or a
person wrote is escaped.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.colors import to_hex
from PIL import Image, ImageOps

from ..analysis.sample_frame import phase_seconds
from ..errors import DataError, StageError
from ..gating.gate import accepts
from ..gating.separability import DEFAULT_K, deciding_token, token_separability
from ..judging.human import Overrides, reviewed
from ..models.token_texts import token_text
from ..runs.arms import DRAFT_STAGE
from ..runs.evidence import Evidence
from ..runs.records import PHASES, AgentRecord, DraftRecord, JudgedRecord, Trajectory, Verdict
from ..tasks.images import iou
from ..tasks.pictures import ImageRef
from ..tasks.registry import task_of
from ..tasks.sample import LETTERS, Sample, shown_as
from .formatting import apart
from .labels import split_label
from .plots.style import PHASE_COLORS, PHASE_LABELS, RIGHT, WRONG
from .rendering import TEMPLATES, environment

if TYPE_CHECKING:
    import jinja2

    from ..runs.recorded_run import RecordedRun

# a picture is sent to the browser as it is stored, unless it is larger than this
LARGEST_BYTES, LARGEST_SIDE_PX = 4 << 20, 2048
PICTURES_KEPT = 24
THUMBNAILS_KEPT, THUMBNAIL_PX = 512, 214
PICTURE_PX, CROP_PX = 460, 200  # longest sides inside a page
BOX_COLORS = {"target": "#009e73", "crop": "#d55e00"}
ALTERNATIVES = 8  # shown per token
SURE = 30.0  # separability at and above which a token has the surest colour
VERDICT_COLORS = {"right": RIGHT, "wrong": WRONG}
VERDICT_SIGNS = {"right": "✓", "wrong": "✗", "unparsed": "?", "undecided": "?", "error": "!"}


def short_id(id_: str) -> str:
    """The split as tables call it, and the key."""
    task = task_of(id_)
    return f"{split_label(task)} · {id_.removeprefix(f'{task}/')}"


# ------------------------------------------------------------------ picture


@dataclass(frozen=True)
class Picture:
    """An encoded picture for the browser. `width` and `height` are the original's, in which boxes are given."""

    data: bytes
    mime: str
    width: int
    height: int


NO_PICTURE = Picture(b"", "", 0, 0)


@lru_cache(maxsize=PICTURES_KEPT)
def picture(image: ImageRef) -> Picture:
    """The picture as it is stored, or a smaller copy where it is very large or no browser can show it.

    Raises:
        DataError: it is missing or cannot be decoded (the next call tries again).
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
    return Picture(_jpeg(decoded, 88), "image/jpeg", width, height)


@lru_cache(maxsize=THUMBNAILS_KEPT)
def thumbnail(image: ImageRef) -> bytes:
    """The picture as a small JPEG; b"" where it is missing or cannot be decoded."""
    try:
        with Image.open(io.BytesIO(image.read())) as stored:
            stored.draft("RGB", (2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX))  # a JPEG is decoded no larger than that
            small = ImageOps.exif_transpose(stored).convert("RGB")
    except (DataError, OSError, ValueError, SyntaxError):
        return b""
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return _jpeg(small, 80)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()


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
            None,
            message="The benchmark is not on this machine, so there is no picture to show. (That of the embedded run: "
            "speceyes stage 00_prepare_data.)",
        )
    try:
        shown = picture(sample.image)
    except DataError as error:
        reason = str(error).replace(f"{sample.image.path.parent}/", "")
        return MarkedPicture(None, message=f"No picture: {reason}")
    targets = [(x, y, x + w, y + h) for x, y, w, h in sample.boxes]
    names = [str(name) for name in sample.meta.get("targets") or []]
    names += ["target"] * (len(targets) - len(names))
    boxes = [
        {"box": list(box), "kind": "target", "label": name, "note": "target"}
        for box, name in zip(targets, names, strict=False)
    ]
    for number, turn in enumerate(trajectory.turns if trajectory else (), start=1):
        if crop := turn.crop_px:
            note = overlap_note(crop, targets)
            boxes.append({"box": list(crop), "kind": "crop", "label": f"turn {number}", "note": note})
    return MarkedPicture(shown, tuple(boxes), label=f"{sample.id}, {shown.width} x {shown.height} px")


def overlap_note(crop: Sequence[float], targets: Sequence[Sequence[float]]) -> str:
    """The overlap of a crop with its nearest target: IoU, and how much of the target it holds."""

    def overlap(target: Sequence[float]) -> tuple[float, float]:
        width = max(0.0, min(crop[2], target[2]) - max(crop[0], target[0]))
        height = max(0.0, min(crop[3], target[3]) - max(crop[1], target[1]))
        area = (target[2] - target[0]) * (target[3] - target[1])
        return iou(crop, target), width * height / area if area else 0.0

    if not targets:
        return ""
    shared, held = max(map(overlap, targets))
    return f"IoU {shared:.2f}, holds {held:.0%} of the target"


def _still(shown: MarkedPicture, crop_px: Sequence[float] | None = None) -> dict[str, Any] | None:
    """The picture small enough for a page, or a crop of it (a box in pixels of the original); None: no picture.

    A data URI (`source`), its `width` and `height`, and its pixels per pixel of the original (`scale`).
    """
    if shown.picture is None:
        return None
    with Image.open(io.BytesIO(shown.picture.data)) as stored:
        image, scale = stored.convert("RGB"), stored.width / shown.picture.width
    if crop_px is None:
        image.thumbnail((PICTURE_PX, PICTURE_PX))
        scale = image.width / shown.picture.width
    else:
        image = image.crop(tuple(round(v * scale) for v in crop_px))
        factor = CROP_PX / max(image.size)
        image = image.resize(tuple(max(1, round(side * factor)) for side in image.size))
        scale *= factor
    source = f"data:image/jpeg;base64,{base64.b64encode(_jpeg(image, 85)).decode()}"
    return {"source": source, "width": image.width, "height": image.height, "scale": scale}


# ------------------------------------------------------------------ tokens


@dataclass(frozen=True)
class Tokens:
    """The tokens of a draft for `tokens.js`; empty with a `message` where there are none to show."""

    tokens: tuple[dict, ...] = ()
    message: str = ""


def token_strip(
    draft: DraftRecord | None, evidence: Evidence | None, text_of: Callable[[int], str], k: int
) -> Tokens:
    """Every token with its separability at `k`, the one that decides `min`, and its most probable alternatives."""
    message = ""
    if draft is None:
        message = "No draft: the router sent this sample to the agent, or it was never drafted."
    elif draft.error is not None:
        message = f"The draft failed ({draft.error.type}): {draft.error.message}"
    elif evidence is None:
        message = f"Draft: {draft.answer or '(empty)'}. No token evidence is stored for it, so nothing can be coloured."
    elif not evidence.n_tokens:
        message = "The draft holds no token: the model ended its answer at once. It has no confidence."
    if message:
        return Tokens(message=message)
    k = min(k, evidence.k)
    decides = deciding_token(evidence.top_logprobs, k)
    tokens = []
    for i, separability in enumerate(token_separability(evidence.top_logprobs, k)):
        color, ink = token_color(separability)
        value = f"{separability:.2f}" if np.isfinite(separability) else "none"
        title = f"token {i + 1} of {evidence.n_tokens}: separability {value} at K = {k}"
        if i == decides:
            title += ", the least of all: it decides the score min"
        tokens.append(
            {
                "text": visible(evidence.token_texts[i]),
                "color": color,
                "ink": ink,
                "separability": value,
                "decides": bool(i == decides),
                "title": title,
                "alternatives": _alternatives(evidence, i, text_of),
            }
        )
    return Tokens(tuple(tokens))


def _alternatives(evidence: Evidence, i: int, text_of: Callable[[int], str]) -> list[dict]:
    """The most probable tokens at place i, and the chosen one."""
    chosen = int(evidence.token_ids[i])
    ids = [int(token) for token in evidence.top_ids[i][:ALTERNATIVES]]
    logprobs = list(evidence.top_logprobs[i][:ALTERNATIVES])
    if chosen not in ids:  # decoded with a penalty or a constraint
        ids, logprobs = [*ids, chosen], [*logprobs, evidence.chosen_logprobs[i]]
    return [
        {
            "text": visible(evidence.token_texts[i] if token == chosen else text_of(token)),
            "probability": float(np.exp(logprob)),
            "shown": f"{np.exp(logprob):.4f}",
            "chosen": token == chosen,
        }
        for token, logprob in zip(ids, logprobs, strict=True)
    ]


def token_color(separability: float) -> tuple[str, str]:
    """Background and ink: from unsure (amber) to sure (blue-green); grey where there is no separability."""
    if not np.isfinite(separability):
        return "#dddddd", "#222222"
    place = min(max(separability, 0.0) / SURE, 1.0)
    red, green, blue, _ = mpl.colormaps["cividis_r"](0.05 + 0.85 * (1 - place))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    # black and white have the same contrast to a luminance of 0.179: 4.6, by WCAG 2
    return to_hex((red, green, blue)), "#ffffff" if luminance < 0.179 else "#000000"


def visible(text: str) -> str:
    """A token's text with its spaces and line ends made visible."""
    return text.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "∅"


# ------------------------------------------------------------------ gate


def gate_lines(record: AgentRecord | None, confidence: float, decision: str, threshold: float) -> list[str]:
    """Sentences on what the gate does with this draft, how near it is to the other side, and why."""
    if decision == "routed":
        lines = ["The router sends this sample to the agent: the gate never sees a draft."]
        if np.isfinite(confidence):
            would = "accept" if accepts(confidence, threshold) else "reject"
            score, limit = apart(confidence, threshold)
            lines.append(
                f"Without a router the gate would {would} the draft: confidence {score}, threshold {limit}."
            )
        return lines
    if not np.isfinite(confidence):
        draft = record.draft if record else None
        reason = (draft.score_reason if draft else None) or "no draft"
        return [f"The draft has no confidence ({reason.replace('_', ' ')}): no threshold accepts it."]
    accepted, distance = accepts(confidence, threshold), abs(confidence - threshold)
    gap = f"{distance:.4f}" if distance >= 1e-3 else f"{distance:.1e}"
    place = f"{gap} {'above' if accepted else 'below'} the threshold"
    flips = f"every threshold above {confidence_text(confidence)} rejects it, every one below accepts it"
    return [
        f"{'Accepted' if accepted else 'Rejected'}: confidence {confidence_text(confidence)} is {place}; {flips}."
    ]


def confidence_text(confidence: float) -> str:
    """A confidence with enough digits to distinguish those near 1; a score on another scale with six digits."""
    gap = 1.0 - confidence
    if not 0.0 <= confidence <= 1.0:
        return f"{confidence:.6g}"
    if gap >= 1e-6:
        return f"{confidence:.{4 if gap > 1e-3 else 7}f}"
    return f"1 - {gap:.1e}" if gap else "1 (to the last digit)"


@dataclass(frozen=True, repr=False)
class SampleView:
    """One sample as notebooks, stills and widgets show it."""

    title: str = ""  # split and key
    question: str = ""  # the recorded one where the benchmark is not on this machine
    options: tuple[
        tuple[str, str, bool], ...
    ] = ()  # letter, text, whether it is right, as shown; empty for yes or no
    standard: str = ""  # the right answer
    yes_no: bool = False  # the question is answered by yes or no
    picture: MarkedPicture = field(default_factory=lambda: MarkedPicture(None))
    tokens: Tokens = field(default_factory=Tokens)  # of the draft
    has_draft: bool = False  # a draft or its evidence was given
    gate: tuple[str, ...] = ()  # sentences on what the gate does with the draft
    verdicts: tuple[Verdict, ...] | None = None  # None: not wanted
    predicted_s: tuple[float, float] | None = None  # under the setting, of the agent alone; None: no setting
    costs: tuple[
        tuple[str, Mapping[str, float] | None], ...
    ] = ()  # stage, phase -> seconds (None: not timed)
    record: AgentRecord | None = None  # of the arm
    mark: str = ""  # text to highlight in what the agent wrote

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

    def __repr__(self) -> str:
        return f"SampleView({self.title!r})"  # notebooks store it beside the page; the fields hold whole pictures

    def _repr_html_(self) -> str:
        return styled_page(self.part("page"))


def no_sample() -> SampleView:
    """The view while no sample is chosen."""
    text = "No sample is chosen."
    return SampleView(question=text, picture=MarkedPicture(None, message=text), tokens=Tokens(message=text))


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
        record: of the arm that is shown.
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
    options = ()
    if sample is not None:
        question, standard = sample.question, sample.standard
        letters = zip(LETTERS, sample.options or (), strict=False)
        options = tuple((letter, text, letter == sample.answer) for letter, text in letters)
    else:
        question = judged.question if judged else "The question is not recorded."
        standard = next((v.standard for v in verdicts), "")
    checked = tuple(reviewed(v, overrides or {}) for v in verdicts)
    seconds = None if decided is None else (float(decided["wall_s"]), float(decided["baseline_wall_s"]))
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
        verdicts=checked if judged or decided is not None else None,
        predicted_s=seconds,
        costs=tuple(costs),
        record=record,
        mark=mark,
    )


def recorded_sample(
    run: RecordedRun, arm: str, id_: str, decided: pd.Series | None = None, *, mark: str = "", **setting: Any
) -> SampleView:
    """`sample_view` of a recorded run; with `decided` also its draft's tokens, verdicts and costs.

    `setting` is the `threshold`, `k` and `overrides` that `decided` was decided by.
    """
    sample, record, judged = run.sample(id_), run.records(arm).get(id_), run.judged(arm).get(id_)
    if decided is None:
        view = sample_view(sample, record, judged=judged, mark=mark)
        return view if view.title else replace(view, title=short_id(id_))
    draft = run.drafts().get(id_) or (record.draft if record else None)
    evidence, fault = None, ""
    try:
        evidence = run.evidence(id_)
    except StageError as error:  # the file was changed after the run was opened
        fault = str(error)
    parts = {"draft": draft, "evidence": evidence, "judged": judged, "costs": recorded_costs(run, id_, draft)}
    text_of = run.config(DRAFT_STAGE).get("draft_model", "")
    view = sample_view(sample, record, **parts, text_of=text_of, decided=decided, mark=mark, **setting)
    return replace(view, tokens=Tokens(message=fault)) if fault else view


@cache
def _template() -> jinja2.Template:
    names = {
        "still": _still,
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


def whole_page(title: str, *parts: str) -> str:
    """A page of its own, to keep or to send, of parts that are HTML already."""
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escape(title)}</title></head>"
        f"<body class='se-standalone'>{styled_page(*parts)}</body></html>"
    )


def styled_page(*parts: str) -> str:
    """Parts that are HTML already, with the style of samples and explorers before them.

    Text of models is no formula: MathJax, which JupyterLab runs over HTML, passes over these classes.
    """
    style = (TEMPLATES / "explore.css").read_text("utf-8")
    return (
        f"<style>{style}</style><div class='se-explorer mathjax_ignore tex2jax_ignore'>{''.join(parts)}</div>"
    )


def recorded_costs(
    run: RecordedRun, id_: str, draft: DraftRecord | None
) -> list[tuple[str, dict[str, float] | None]]:
    """(stage, phase -> seconds) as each stage recorded it."""
    costs = []
    if draft is not None:
        phases = {"decode_s": draft.decode_s, "draft_s": draft.draft_s} if draft.timed else None
        costs.append(("draft", phases))
    return costs + [(arm, phase_seconds(record)) for arm in run.arms if (record := run.records(arm).get(id_))]


def marked(text: str, mark: str) -> Markup:
    """Escaped text with every occurrence of `mark` highlighted, in any case."""
    if not mark:
        return escape(text)
    parts = re.split(f"({re.escape(mark)})", text, flags=re.IGNORECASE)  # every second part is a hit
    highlighted = Markup("<mark>{}</mark>")
    return Markup("").join(
        highlighted.format(part) if i % 2 else escape(part) for i, part in enumerate(parts)
    )
