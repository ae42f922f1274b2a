"""The gate of a run as one HTML file that works without a server, a kernel or a network, and can be sent by mail.

The file holds the arrays that replay decides with, and `static/gate_page.js` does with them what `gating.gate_summary`
does: a browser test compares both. Everything is compressed as one JSON text. A browser that follows the page's
content security policy runs no other script than that one and fetches nothing.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UserError
from ..gating.gate import EQUAL_PASSES, accepts
from ..gating.scores import SCORES
from ..replay import outcomes, replay_data, settings
from ..replay.payoff import DECISIONS
from ..report.rendering import render
from ..report.sample_page import SampleView, sample_view, short_id
from ..runs import recorded_run
from ..runs.arms import DRAFT_STAGE, ROUTERS
from ..stats.intervals import LEVEL, z_value
from . import links
from .browser_parts import STATIC
from .explain import MEANS, answers_of, commit_of, origin
from .gating import Gating
from .state import ALL, GateView, in_task
from .widgets import task_options

LARGEST_BYTES = 9_500_000  # of a file: mail programs refuse larger ones
PICTURE_PX, QUALITY = 320, 60  # longest side of a picture in the file, and its quality as WebP
PICTURES_KEPT = 64  # while the file is made: questions share pictures
ALTERNATIVES = 5  # of a token in the file


def export_gate_page(
    run: str, path: Path, thresholds: Sequence[float] = (), report: Callable[[str], None] = print
) -> None:
    """Write the page of a run at its own setting; `report` takes sentences on what the file lacks, and its size.

    Args:
        run: a finished run, or one in progress as far as it has come.
        path: the file to write.
        thresholds: the one to open at, and another one to compare it with; none: the run's own.
        report: is called with each sentence.

    Raises:
        UserError: more than two thresholds, one that is no finite number, or the file cannot be written.
        StageError: the run holds nothing that can be shown.
    """
    if len(thresholds) > 2:
        raise UserError(f"{len(thresholds)} thresholds given; a page compares two at most")
    if odd := [value for value in thresholds if not math.isfinite(value)]:
        raise UserError(f"threshold {odd[0]}: give a number, 1 to accept nothing")
    recorded_run.open(run)  # a run that does not exist is named, before its parts are
    gating = Gating(recorded_run.open(run, strict=False))
    view = own_view(gating)
    if thresholds:
        view = replace(view, threshold=float(thresholds[0]))
    other = float(thresholds[1]) if len(thresholds) > 1 else None
    for note in write_gate_page(gating, view, path, other):
        report(note)


def own_view(gating: Gating) -> GateView:
    """The setting of the run where it names one, otherwise the first that it can have."""
    data, config = gating.data(""), gating.run.config(f"02_{gating.instrumented}")
    scores = data.score_names
    if not scores:
        raise UserError(f"run {gating.run.name} has no score, so there is no gate to show")
    usual = GateView()
    score = config.get("score", usual.score)
    routers = [r for r in ROUTERS if r in data.routed or r == "none"]
    router = config.get("router", usual.router)
    score = score if score in scores else scores[0]
    stored = data.k_stored or data.recorded_k or usual.k
    view = GateView(
        score=score,
        k=min(config.get("k") or usual.k, stored) if data.k_stored else stored,
        slope=config.get("slope") or (usual.slope if data.k_stored else data.recorded_slope or usual.slope),
        router=router if router in routers else routers[0],
    )
    return replace(view, threshold=gating.own_threshold(usual.threshold, view))


def write_gate_page(gating: Gating, view: GateView, path: Path, other: float | None = None) -> list[str]:
    """Write the page of a run; returns sentences on what it lacks, its size last.

    Args:
        gating: the run.
        view: K, slope, router and judging of the page; task, score, threshold and sample to open at.
        path: the file to write; an existing one is replaced.
        other: a second threshold to compare with.

    Raises:
        UserError: the file cannot be written.
        NotRecorded: the run cannot have the view's K, slope or router.
    """
    data = page_data(gating, view, other)
    html = page_html(data)
    try:
        path.write_bytes(html)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); name a file in a folder that exists"
        ) from None
    n = sum(details is not None for details in data["details"])
    written = f"{len(html) / 1e6:.1f} MB, {len(data['ids'])} samples, {n} of them in full"
    return [*data["notes"], written]


def page_html(data: Mapping[str, Any]) -> bytes:
    """The page around data of `page_data`; its policy names the only script and the only style by their hashes."""
    script, style = ((STATIC / f"gate_page.{end}").read_text("utf-8") for end in ("js", "css"))
    packed = gzip.compress(json.dumps(data, ensure_ascii=False, allow_nan=False).encode(), 9, mtime=0)
    hashes = {
        name: "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in (("script_hash", script), ("style_hash", style))
    }
    parts = {
        "script": script,
        "style": style,
        "data": base64.b64encode(packed).decode(),
        "title": f"Gate of run {data['run']}",
    }
    return render("gate_page.html", **parts, **hashes).encode()


def page_data(gating: Gating, view: GateView, other: float | None = None) -> dict[str, Any]:
    """What the page holds, ready for JSON; arrays are in the order of the samples, null where nothing is known."""
    part, setting = gating.part(ALL, view.protocol), gating.setting(view)
    seconds = outcomes.seconds_of_samples(part, setting)
    scores, refused = _scores(part, view)
    if view.score not in scores:
        raise replay_data.NotRecorded(refused[view.score])
    details, pictures, notes = _details(gating, view, part)
    pooled = outcomes.replay(part, settings.Setting(**vars(setting) | {"score": view.score})).iloc[-2]
    options = task_options(part.task_names)
    routed = part.routed.get(view.router, np.zeros(part.n, np.int8))
    return {
        "run": gating.run.name,
        "commit": commit_of(gating),
        "origin": origin(gating, view)[:-1],
        "protocol": part.protocol,
        "z": z_value(LEVEL),
        "equalPasses": EQUAL_PASSES,
        "start": {
            "task": view.task if view.task in [value for _, value in options] else ALL,
            "score": view.score,
            "threshold": view.threshold,
            "other": other,
            "sample": view.sample,
        },
        "operatingPoint": view.threshold,
        "setting": links.setting_of(view),
        "tasks": [
            {"label": label, "value": value, "members": [in_task(t, value) for t in part.task_names]}
            for label, value in options
        ],
        "ids": part.ids.tolist(),
        "names": [short_id(id_) for id_ in part.ids],
        "task": part.task_codes.tolist(),
        "group": part.group_codes.tolist(),
        "readable": part.readable.astype(int).tolist(),
        "routed": routed.tolist() if view.router != "none" else [0] * part.n,
        "router": view.router,
        "draft": part.draft.tolist(),
        "agent": part.agent.tolist(),
        "codes": {name: getattr(replay_data, name) for name in ("ABSENT", "WRONG", "RIGHT", "FAILED")},
        "scores": {name: _known(values) for name, values in scores.items()},
        "scoreLabels": {name: SCORES[name].label if name in SCORES else name for name in scores},
        **{name: _known(seconds[f"{key}_s"]) for name, key in _SECONDS.items()},
        "timed": part.cost is not None,
        "costNote": str(pooled["cost_note"]),
        "decisions": list(DECISIONS),
        "outcomes": outcomes.OUTCOMES,
        "means": MEANS,
        "details": details,
        "pictures": pictures,
        "notes": [
            *gating.notes(),
            *gating.gaps(),
            *(f"Score {name} is left out: {reason}." for name, reason in refused.items()),
            *notes,
        ],
    }


_SECONDS = {"beforeSeconds": "before", "agentSeconds": "agent", "aloneSeconds": "baseline"}


def _known(values: Any) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in np.asarray(values, dtype=float).tolist()]


def _scores(part: replay_data.ReplayData, view: GateView) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Every score of the run at the view's K and slope, and the reason for those that it cannot have there."""
    scores, refused = {}, {}
    for name in dict.fromkeys((view.score, *part.score_names)):
        try:
            scores[name] = part.score(name, view.k, view.slope)
        except replay_data.NotRecorded as error:
            refused[name] = str(error)
    return scores, refused


# ------------------------------------------------------------------ samples in full


def _details(
    gating: Gating, view: GateView, part: replay_data.ReplayData
) -> tuple[list[dict | None], list[str], list[str]]:
    """Samples in full, their pictures as data URIs, and what is left out so that the file does not grow too large.

    What a reader looks for comes first: samples on which draft and agent disagree, then those near the threshold.
    """
    run, arm = gating.run, gating.instrumented
    records, judged, drafts, evidence = run.records(arm), run.judged(arm), run.drafts(), run.all_evidence()
    text_of = run.config(DRAFT_STAGE).get("draft_model", "")
    confidence = part.score(view.score, view.k, view.slope)
    distance = np.nan_to_num(np.abs(confidence - view.threshold), nan=np.inf)
    agrees = (part.draft == replay_data.RIGHT) == (part.agent == replay_data.RIGHT)
    accepted_wrong = accepts(confidence, view.threshold) & (part.draft != replay_data.RIGHT)
    details: list[dict | None] = [None] * part.n
    pictures: dict[str, int] = {}
    room, no_room, no_picture = LARGEST_BYTES * 3 // 4, 0, 0  # three bytes are four characters of base64
    room -= part.n * (9 * len(part.score_names) + 40)  # of the arrays
    for i in np.lexsort((distance, agrees, ~accepted_wrong)):
        id_ = part.ids[i]
        if room < 0:
            no_room += 1
            continue
        sample = sample_view(
            run.sample(id_),
            record := records.get(id_),
            draft=drafts.get(id_) or (record.draft if record else None),
            evidence=evidence.get(id_),
            text_of=text_of,
            judged=judged.get(id_),
            k=view.k,
            overrides=gating.overrides,
        )
        details[i] = of_sample(sample) | {"answers": answers_of(gating, id_)}
        room -= len(zlib.compress(json.dumps(details[i]).encode(), 1))
        picture = sample.picture.picture
        if source := _picture_uri(picture.data) if picture else "":
            room -= 0 if source in pictures else len(source) * 3 // 4
            details[i]["picture"] = pictures.setdefault(source, len(pictures))
        if not source:
            no_picture, why = no_picture + 1, sample.picture.message
    notes = [f"{no_picture} of {part.n} samples have no picture: {why}"] if no_picture else []
    if no_room:
        notes.append(
            f"{no_room} of {part.n} samples are listed only, to keep this file below {LARGEST_BYTES / 1e6:g} MB; those "
            "on which draft and agent agree, far from the threshold."
        )
    return details, list(pictures), notes


def of_sample(view: SampleView) -> dict[str, Any]:
    """The texts of a sample, ready for JSON; the page sets each of them as text."""
    record = view.record
    path = record.trajectory if record else None
    failure = (record.error if record else None) or (path.error if path else None)
    routers = [("router", record.router), ("router (small model)", record.router_small)] if record else []
    picture = view.picture.picture
    size = [picture.width, picture.height] if picture else [1, 1]
    return {
        "question": view.question,
        "options": view.options,
        "standard": view.standard,
        "picture": None,
        "pictureNote": view.picture.label if picture else view.picture.message,
        "boxes": [
            {
                "kind": box["kind"],
                "label": f"{box['label']} {box['note']}".strip(),
                "box": [round(v / size[at % 2], 4) for at, v in enumerate(box["box"])],
            }
            for box in view.picture.boxes
        ],
        "tokens": [
            {
                **{
                    name: token[name] for name in ("text", "color", "ink", "separability", "decides", "title")
                },
                "others": [[other["text"], other["shown"]] for other in token["alternatives"][:ALTERNATIVES]],
            }
            for token in view.tokens.tokens
        ],
        "tokenNote": view.tokens.message,
        "verdicts": [_verdict(verdict) for verdict in view.verdicts or ()],
        "routers": [[name, reply.text.strip()] for name, reply in routers if reply],
        "turns": [
            _turn(turn, f"turn {number}" if len(path.turns) > 1 else "one turn")
            for number, turn in enumerate(path.turns if path else (), start=1)
        ],
        "agentNote": "" if path else "The agent did not run." if record else "This sample has no record.",
        "failure": f"{failure.type}: {failure.message}" if failure else "",
    }


def _verdict(verdict: Any) -> dict[str, str]:
    judge, human = verdict.judge, verdict.human
    return {
        "source": verdict.source.replace("_", " "),
        "answer": verdict.answer or "",
        "verdict": verdict.verdict,
        "by": ", ".join(
            [
                f"rule {verdict.rule}: {verdict.by_rule}",
                *([f"model {judge.model}: {judge.verdict} ({(judge.reply or '')[:120]})"] if judge else []),
                *([f"{human.author}: {human.verdict} ({human.reason[:120]})"] if human else []),
            ]
        ),
    }


def _turn(turn: Any, name: str) -> dict[str, str]:
    tokens = "" if turn.n_tokens is None else f", {turn.n_tokens} tokens"
    call = json.dumps(turn.tool_call, ensure_ascii=False) if turn.tool_call else ""
    return {
        "head": f"{name}: {turn.action}, {1000 * turn.turn_s:.1f} ms{tokens}",
        "text": turn.text,
        "call": "" if call in turn.text else call,
        "result": turn.tool_output or ("a crop, framed in the picture" if turn.crop_px else ""),
        "error": f"{turn.error.type}: {turn.error.message}" if turn.error else "",
    }


@lru_cache(maxsize=PICTURES_KEPT)
def _picture_uri(stored: bytes) -> str:
    """A picture in a data URI, small enough for a page."""
    with Image.open(io.BytesIO(stored)) as picture:
        picture.draft("RGB", (PICTURE_PX, PICTURE_PX))
        image = picture.convert("RGB")
    image.thumbnail((PICTURE_PX, PICTURE_PX))
    small = io.BytesIO()
    image.save(small, "WEBP", quality=QUALITY, method=2)
    return f"data:image/webp;base64,{base64.b64encode(small.getvalue()).decode()}"
