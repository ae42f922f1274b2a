"""The `result` objects that the original and DeepEyes write: sample, question and answer.

V* has {image, question, answer, pred_ans}, the answer being the text of the right option; HR-Bench {idx, question,
answer, answer_str, category, pred_ans} with its letter; POPE {pid, idx, question_id, question, answer, image_source,
category, pred_ans}. A benchmark that the original does not know is written like HR-Bench where it has options, else
like POPE.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..runs.records import Failure
from ..tasks.pictures import ImageRef
from ..tasks.registry import BENCHMARKS
from ..tasks.sample import LETTERS, Sample
from .common import Finder, ImportedSample, LineError, field_of, imported_sample, text_of, whole

NO_PICTURE = ImageRef(Path())


def sample_of(task: str, result: Mapping[str, Any], finder: Finder) -> tuple[str, Sample, ImportedSample]:
    """The id and sample of a result, and what is known about the sample.

    Without a benchmark the sample holds what the result describes.

    Raises:
        LineError: no sample is named, the sample disagrees with the benchmark, or the right answer is impossible.
    """
    benchmark = task.split("/")[0]
    if benchmark == "vstar":
        key = PurePosixPath(str(field_of(result, "image")).replace("\\", "/")).stem
    elif BENCHMARKS[benchmark].yes_no:
        key = str(field_of(result, "question_id"))
    else:
        place, keys = whole(field_of(result, "idx")), list(finder.samples(task))
        # the original counts rows from 0; without a benchmark that number names the sample
        key = keys[place] if place is not None and place < len(keys) else str(result["idx"])
    question = str(result.get("question") or "")
    id_, sample = finder.find(task, key, question)
    described = _described(task, key, result, question)
    if sample is not None and described.standard != sample.standard:
        answers = f"{described.standard!r} in the file, {sample.standard!r} in the benchmark"
        raise LineError(f"{id_}: the right answer is {answers}")
    if sample is not None:
        return id_, sample, imported_sample(sample)
    group = f"{benchmark}/{result['image_source']}" if result.get("image_source") else id_
    facts = ImportedSample(question, described.standard, str(result.get("category") or ""), group)
    return id_, described, facts


def _described(task: str, key: str, result: Mapping[str, Any], question: str) -> Sample:
    """A sample as a result describes it: only the right option is known, the others are empty."""
    benchmark, split = task.split("/")
    answer = str(field_of(result, "answer")).strip()
    options: tuple[str, ...] | None = None
    if benchmark == "vstar":
        options, answer = (answer,), LETTERS[0]
    elif not BENCHMARKS[benchmark].yes_no:
        if answer not in LETTERS[:4]:
            raise LineError(f"field 'answer' is {answer!r}, expected one of A, B, C, D")
        options = tuple(str(result.get("answer_str") or "").strip() if c == answer else "" for c in "ABCD")
    elif answer not in ("yes", "no"):
        raise LineError(f"field 'answer' is {answer!r}, expected 'yes' or 'no'")
    return Sample(f"{task}/{key}", benchmark, split, key, question, options, answer, NO_PICTURE)


def result_of(sample: Sample, place: int, answer: str | None) -> dict[str, Any]:
    """The `result` object of a sample and an answer, with its fields in the order of the original.

    Args:
        sample: of the answer.
        place: of the sample in its split, from 0.
        answer: None where there is none.
    """
    question, meta = {"question": sample.question, "answer": sample.answer}, sample.meta
    if sample.benchmark == "vstar":
        result = {"image": sample.image.path.name, **question, "answer": sample.options[0]}
    elif sample.options is not None:
        category = {"answer_str": sample.answer_text, "category": meta.get("category", "")}
        result = {"idx": place, **question, **category}
    else:
        numbers = {"pid": str(meta.get("pid") or place), "idx": place, "question_id": sample.key}
        source, category = meta.get("image_source", ""), meta.get("category", sample.split)
        result = numbers | question | {"image_source": source, "category": category}
    return result | {"pred_ans": answer or ""}


def failure_of(entry: Mapping[str, Any]) -> Failure | None:
    """Why the sample of a line failed; None where its status is "success"."""
    status = field_of(entry, "status")
    if status not in ("success", "error"):
        raise LineError(f"field 'status' is {status!r}, expected 'success' or 'error'")
    message = text_of(entry.get("error")) or "the file gives no reason"
    return Failure(type="imported_error", message=message) if status == "error" else None
