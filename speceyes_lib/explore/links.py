"""A view of the gate as the fragment of a link, and back: `#gate=demo&split=hr&score=min&threshold=0.97`.

A fragment comes from outside: every field is checked before anything is opened. What a run cannot have (a score, a
split) is checked by the explorer that opens it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from ..errors import UserError, nearest
from ..replay.outcomes import OUTCOMES
from ..replay.payoff import DECISIONS
from ..runs.arms import ROUTERS
from .comparing import FLIPS
from .gating import NEAREST, ORDERS
from .state import ALL, Chosen, GateView, Pin

RUN = "gate"  # the field that makes a fragment one of the gate explorer
PIN = "pin"  # the run of the pinned setting, whose fields begin with it
LONGEST = 4000  # characters of a fragment
# names that a list of each kind can have; None: it has none
LISTS: dict[str, tuple[str, ...] | None] = {
    ALL: None,
    "decision": tuple(f"{decision} {verdict}" for decision in DECISIONS for verdict in ("right", "wrong")),
    "outcome": tuple(OUTCOMES),
    "bar": ("right", "wrong"),
    "moved": None,
    "flipped": ("", *FLIPS),
    "disagree": None,
    "borderline": None,
    "random": None,
}


def fragment_of(run: str, view: GateView) -> str:
    """The fragment that opens this view, without the `#`."""
    fields: dict[str, Any] = {RUN: run, **_gate_fields(view), "split": view.task, "sample": view.sample}
    fields |= {"search": view.search, "order": "" if view.order == NEAREST else view.order}
    chosen = view.chosen
    if chosen != Chosen():
        fields |= {"list": chosen.kind, "name": chosen.name}
        if chosen.kind in ("bar", "moved"):
            fields |= {"low": chosen.low, "high": chosen.high}
        if chosen.n:
            fields |= {"n": chosen.n, "seed": chosen.seed}
    if view.pin:
        pin = _gate_fields(view.pin)
        fields |= {PIN: view.pin.run, **{f"{PIN}_{name}": value for name, value in pin.items()}}
    return urlencode({name: _text(value) for name, value in fields.items() if value != ""})


def setting_of(view: GateView) -> dict[str, str]:
    """The fields of a link that the page of `gate_page` cannot change, and their texts."""
    fixed = ("k", "slope", "router", "judging")
    return {name: _text(value) for name, value in _gate_fields(view).items() if name in fixed and value != ""}


def _gate_fields(view: GateView | Pin) -> dict[str, Any]:
    fields = {"score": view.score, "k": view.k, "slope": view.slope, "router": view.router}
    return fields | {"threshold": view.threshold, "judging": view.protocol}


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def view_of(link: str, present: GateView | None = None) -> tuple[str, GateView]:
    """The run and the view of a link, or of its fragment alone; a setting that it does not name is the present one.

    Raises:
        UserError: it names no run, or a field that is unknown or has no such value.
    """
    fragment = link.strip().rsplit("#", 1)[-1]
    if len(fragment) > LONGEST:
        raise UserError(f"the link has {len(fragment)} characters after #, expected at most {LONGEST}")
    given = dict(parse_qsl(fragment, keep_blank_values=True))
    if not given.get(RUN):
        raise UserError(f"the link {link[:80]!r} names no run; expected #{RUN}=RUN and more, as copied")
    for name in given:
        if name not in FIELDS:
            raise UserError(f"the link has a field {name[:40]!r}{nearest(name, FIELDS)}; remove it")
    read = {name: _read(name, text) for name, text in given.items()}
    chosen = _chosen(read)
    view = {FIELDS[name][0]: value for name, value in read.items() if FIELDS[name][0]}
    setting = {
        name: getattr(present or GateView(), name) for name in ("score", "k", "slope", "router", "threshold")
    }
    pin = None
    if PIN in read:
        fields = {n: read[f"{PIN}_{key}"] for key, (n, _) in _GATE.items() if f"{PIN}_{key}" in read}
        pin = Pin(read[PIN], **{"protocol": "", **setting, **fields})
    return read[RUN], GateView(**setting | view, chosen=chosen, pin=pin)


def _read(name: str, text: str) -> Any:
    try:
        return FIELDS[name][1](text)
    except ValueError as error:
        raise UserError(f"the link's {name} is {text[:40]!r}, expected {error}") from None


def _chosen(read: Mapping[str, Any]) -> Chosen:
    values = {name: read[key] for key, name in _OF_LIST.items() if key in read}
    kind, name = values.get("kind", ALL), values.get("name", "")
    names = LISTS[kind]
    if name != "" if names is None else name not in names:
        expected = "none" if names is None else f"one of {', '.join(names)}"
        raise UserError(f"the link's name of the list {kind!r} is {name[:40]!r}, expected {expected}")
    return Chosen(**values)


def _number(low: float, high: float, kind: type = float) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ValueError(f"a {'whole ' * (kind is int)}number from {low:g} to {high:g}")
        return value

    return read


def _one_of(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"one of {', '.join(filter(None, names))}")
        return text

    return read


_GATE: dict[str, tuple[str, Callable[[str], Any]]] = {
    "score": ("score", str),
    "k": ("k", _number(2, 10**6, int)),
    "slope": ("slope", _number(1e-9, 1e9)),
    "router": ("router", _one_of(*ROUTERS)),
    "threshold": ("threshold", _number(-1e9, 1e9)),
    "judging": ("protocol", _one_of("", "strict", "paper")),
}
_OF_LIST = {"list": "kind", "name": "name", "low": "low", "high": "high", "n": "n", "seed": "seed"}
# field of a link -> field of the view ("": of something else), and how its text is read
FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    RUN: ("", str),
    **_GATE,
    "split": ("task", str),
    "sample": ("sample", str),
    "list": ("", _one_of(*LISTS)),
    "name": ("", str),
    "low": ("", _number(-1e9, 1e9)),
    "high": ("", _number(-1e9, 1e9)),
    "n": ("", _number(0, 10**6, int)),
    "seed": ("", _number(0, 2**32 - 1, int)),
    PIN: ("", str),
    "search": ("search", str),
    "order": ("order", _one_of(NEAREST, *ORDERS, *(f"-{key}" for key in ORDERS))),
    **{f"{PIN}_{name}": ("", read) for name, (_, read) in _GATE.items()},
}
