"""One question of a benchmark and the order in which its options are shown."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ConfigDict

from ..errors import DataError
from ..texts import storable
from .pictures import ImageRef

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
YES_NO = ("yes", "no")
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Sample:
    """One question about one picture."""

    id: str  # "benchmark/split/key", the same on every machine
    benchmark: str
    split: str
    key: str
    question: str
    options: tuple[str, ...] | None  # the offered answers in file order; None: the answers are yes and no
    answer: str  # the right letter ("A" is options[0]), or "yes"/"no"
    image: ImageRef
    boxes: tuple[
        Box, ...
    ] = ()  # (x, y, w, h) of the targets in pixels of the original picture, where they are known
    # what only this benchmark has, and `group`: samples of one group share picture and question
    meta: dict[str, Any] = field(default_factory=dict)
    options_shown: ShownOptions | None = None  # the order of options and answer, where it is not the file's

    @property
    def task(self) -> str:
        """The unit of every stage: "benchmark/split"."""
        return f"{self.benchmark}/{self.split}"

    @property
    def answer_text(self) -> str:
        """The right answer in words: the text of the right option, or yes/no."""
        return self.answer if self.options is None else self.options[LETTERS.index(self.answer)]

    @property
    def standard(self) -> str:
        """The standard answer as shown to people and judges: "A. red", or yes/no."""
        return self.answer if self.options is None else f"{self.answer}. {self.answer_text}"


def arranged(samples: Sequence[Sample], option_order: str, seed: int = 0) -> list[Sample]:
    """Samples with their options in another order; those without options stay as they are.

    Args:
        samples: as published.
        option_order: "as_published". "rotated_N": each option N places later, the last ones first, so that N = 1 moves
            a right answer from A to B. "shuffled": drawn from `seed` and the sample's id alone.
        seed: of the shuffle.
    """
    if option_order == "as_published":
        return list(samples)
    return [shown_as(sample, _order(sample, option_order, seed)) for sample in samples]


def shown_as(sample: Sample, shown: ShownOptions | None) -> Sample:
    """A sample as published in the order in which its options were shown, the right letter moved with them."""
    if shown is None or sample.options is None:
        return sample
    if sorted(shown.order) != list(range(len(sample.options))):
        raise DataError(
            f"{sample.id}: options shown in the order {list(shown.order)}, but the benchmark has "
            f"{len(sample.options)} options; it is not the benchmark that the answers were given to"
        )
    options = tuple(sample.options[i] for i in shown.order)
    answer = LETTERS[shown.order.index(LETTERS.index(sample.answer))]
    return replace(sample, options=options, answer=answer, options_shown=shown)


def _order(sample: Sample, option_order: str, seed: int) -> ShownOptions | None:
    if sample.options is None:
        return None
    places = list(range(len(sample.options)))
    if option_order == "shuffled":
        random.Random(f"{seed} {sample.id}").shuffle(places)
        return ShownOptions(order=tuple(places), seed=seed)
    shift = int(option_order.removeprefix("rotated_")) % len(places)
    return ShownOptions(order=tuple(places[-shift:] + places[:-shift]))


def _utf8(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: byte {error.start} (0x{raw[error.start]:02x}) is not UTF-8; save the file as UTF-8"
        ) from None


def _json_object(raw: bytes, where: str) -> dict[str, Any]:
    try:
        entry = storable(json.loads(_utf8(raw, where)))
    except (ValueError, RecursionError) as e:
        raise DataError(f"{where}: not valid JSON ({e})") from e
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected one JSON object, found {type(entry).__name__}")
    return entry


def _sample(benchmark: str, split: str, key: str, **fields: Any) -> Sample:
    sample_id = f"{benchmark}/{split}/{key}"
    meta = {"group": sample_id} | fields.pop("meta", {})
    return Sample(id=sample_id, benchmark=benchmark, split=split, key=key, meta=meta, **fields)


def _text(value: Any, where: str, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: field {name!r} is {value!r}, expected a text that is not empty")
    return value.strip()


def _yes_no(value: Any, where: str, name: str) -> str:
    answer = _text(value, where, name).lower()
    if answer not in YES_NO:
        raise DataError(f"{where}: field {name!r} is {value!r}, expected 'yes' or 'no'")
    return answer


def _need(fields: Sequence[str] | dict, wanted: Sequence[str], where: str) -> None:
    missing = [f for f in wanted if f not in fields]
    if missing:
        raise DataError(
            f"{where}: field {', '.join(map(repr, missing))} is missing; "
            f"expected {', '.join(wanted)}, found {', '.join(fields) or 'nothing'}"
        )


class ShownOptions(BaseModel):
    """The order in which options were shown: `order[i]` is the place in the file of the i-th one shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: tuple[int, ...]
    seed: int | None = None  # of a shuffle; null where a rule or another program set the order
