"""The promises of every backend: one generation per request, and a failure affects no other request."""

from __future__ import annotations

import time

import pytest
from scripted import ScriptedBackend

from speceyes_lib.errors import UserError
from speceyes_lib.models.base import Backend, GenerationRequest


def requests(*ids: str) -> list[GenerationRequest]:
    return [GenerationRequest(i, [{"role": "user", "content": i}], max_new_tokens=5) for i in ids]


def test_a_scripted_backend_is_a_backend():
    assert isinstance(ScriptedBackend(lambda r: "x"), Backend)


def test_answers_come_in_the_order_of_the_requests():
    answers = ScriptedBackend(lambda r: f"answer {r.id}").generate(requests("c", "a", "b"))
    assert [(g.id, g.text) for g in answers] == [(i, f"answer {i}") for i in "cab"]


def test_only_the_failing_request_of_a_batch_fails():
    def script(request):
        if request.id == "b":
            raise RuntimeError("CUDA out of memory")
        return "fine"

    good, bad, also_good = ScriptedBackend(script).generate(requests("a", "b", "c"))
    assert [g.text for g in (good, also_good)] == ["fine", "fine"]
    assert good.error is None
    assert (bad.finish_reason, bad.error.type) == ("error", "generation_error")
    assert "out of memory" in bad.error.message


@pytest.mark.parametrize(("failing", "calls"), [("", 3), ("b", 5)])
def test_shares_sum_to_the_clock_also_when_a_batch_was_retried(failing, calls):
    called = []

    def script(request):
        called.append(request.id)
        time.sleep(0.02)
        if request.id == failing:
            raise RuntimeError("no")
        return "fine"

    backend = ScriptedBackend(script)
    start = time.perf_counter()
    answers = backend.generate(requests("a", "b", "c"))
    spent_s = time.perf_counter() - start
    assert len(called) == calls  # a, b and c together; after b's failure each once more
    assert 0.02 * calls <= sum(g.generate_s for g in answers) <= spent_s


def test_a_user_error_is_raised_and_not_recorded():
    def script(request):
        raise UserError("k_store is larger than the vocabulary")

    with pytest.raises(UserError):
        ScriptedBackend(script).generate(requests("a", "b"))


def test_without_requests_there_are_no_generations():
    assert ScriptedBackend(lambda r: "x").generate([]) == []
