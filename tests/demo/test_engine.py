"""The order of the embedded server: the scheduler decides it, so no test here depends on a clock."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.demo.engine import ALONE_TOKENS, LEAD, MAX_BATCH_TOKENS, Engine, Line
from speceyes_lib.models.base import Generation, GenerationRequest


class Script:
    """A model whose answers take as many steps as `max_new_tokens` says, and that notes what happens."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.ended: list[str] = []
        self.during = {}  # (id, step) -> function that is called then

    def generate(self, requests, unwanted):
        self.batches.append([r.id for r in requests])
        going = {r.id: 0 for r in requests}
        for step in range(1, requests[0].max_new_tokens):
            self.during.get((requests[0].id, step), lambda: None)()
            gone = unwanted()
            going = {id: step for id in going if id not in gone}
            if not going:
                break
        if requests[0].id == "broken":
            raise RuntimeError("broken")
        self.ended += [r.id for r in requests]
        return [Generation(r.id, "", (0,) * step, "stop", 0.0, 1) for r in requests]


def measure(request: GenerationRequest) -> int:
    """The tokens of a prompt that consists of a number."""
    return int(request.messages[0]["content"])


def request(id: str, tokens: int, steps: int = 3) -> GenerationRequest:
    return GenerationRequest(id, [{"role": "user", "content": str(tokens)}], steps)


def submit(engine: Engine, id: str, tokens: int, steps: int = 3) -> Future:
    return engine.submit(request(id, tokens, steps), tokens)


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=20))
def test_work_of_a_cost_is_overtaken_by_at_most_as_many_later_ones(costs):
    line = Line()
    for i, cost in enumerate(costs):
        line.put(i, cost)
    order = [line.take(lambda taken, job: False)[0].work for _ in costs]
    assert sorted(order) == list(range(len(costs)))
    for n, i in enumerate(order):
        assert sum(j > i for j in order[:n]) <= costs[i]
        assert all(costs[j] <= costs[i] for j in order[:n] if j > i)


def test_a_short_request_is_answered_while_a_long_one_is_generated():
    script = Script()
    engine = Engine(script, measure)
    short: list[Future] = []
    # both come when the long one is at work; the second is hardly shorter
    script.during["long", 5] = lambda: short.extend(
        (submit(engine, "short", 10), submit(engine, "similar", 3 * LEAD - 5, 4))
    )
    long = submit(engine, "long", 3 * LEAD, 20)
    assert long.result(60)[1].token_ids == (0,) * 19
    assert [future.result(60)[1].id for future in short] == ["short", "similar"]
    engine.close()
    assert script.ended == ["short", "long", "similar"]


def test_a_batch_that_goes_on_and_on_lets_others_go_first():
    script = Script()
    engine = Engine(script, measure)
    late: list[Future] = []
    script.during["endless", LEAD + 50] = lambda: late.append(submit(engine, "late", 10))
    endless = submit(engine, "endless", 10, 3 * LEAD)
    endless.result(60)
    engine.close()
    assert script.ended == ["late", "endless"]


def test_a_request_that_nobody_waits_for_is_not_computed_to_its_end():
    script = Script()
    engine = Engine(script, measure)
    waiting: list[Future] = []
    script.during["running", 3] = lambda: waiting.append(submit(engine, "never", 10))
    script.during["running", 5] = lambda: (waiting[0].cancel(), running.cancel())
    running = submit(engine, "running", 10, 10**6)
    engine.close()
    assert running.cancelled()
    assert script.batches == [["running"]]


def test_equal_requests_that_wait_together_are_computed_once():
    script, measured = Script(), []
    engine = Engine(script, lambda r: measured.append(r.id) or measure(r), max_batch=2)
    futures: list[Future] = []
    script.during["first", 1] = lambda: futures.extend(
        submit(engine, id, 10) for id in ("same", "other", "same", "third", "same")
    )
    script.during["same", 1] = lambda: futures[0].cancel()  # the others wait still
    submit(engine, "first", 0).result(60)
    engine.close()
    assert script.batches == [["first"], ["same", "other"], ["third"]]
    assert measured == ["first", "same", "other", "third"]
    assert futures[0].cancelled()
    assert [f.result(60)[1].id for f in futures[1:]] == ["other", "same", "third", "same"]
    assert futures[2].result(60)[1].token_ids == (0, 0)  # all of its steps


def test_an_answer_ends_where_the_model_s_memory_of_the_text_ends():
    script = Script()
    engine = Engine(script, measure, max_tokens=30)
    assert len(submit(engine, "a", 20, 100).result(60)[1].token_ids) == 10
    engine.close()


@pytest.mark.parametrize("estimated", [lambda tokens: tokens, lambda tokens: tokens // 4])
def test_a_batch_holds_requests_with_equal_settings_and_so_many_tokens(estimated):
    script = Script()
    engine = Engine(script, measure, max_batch=9)
    begin = {"a": (1, 3), "b": (1, 4), "c": (1, 3)}
    begin |= {f"d{i}": (ALONE_TOKENS - 1, 3) for i in range(9)}
    begin |= {"e": (ALONE_TOKENS, 3), "f": (ALONE_TOKENS, 3)}
    script.during["first", 1] = lambda: futures.extend(
        engine.submit(request(id, tokens, steps), estimated(tokens)) for id, (tokens, steps) in begin.items()
    )
    futures = [submit(engine, "first", 0)]
    futures[0].result(60)
    engine.close()
    assert all(future.result(60)[0] == begin[id][0] for id, future in zip(begin, futures[1:], strict=True))
    if estimated(4) == 4:
        with_short = ["a", "c", *(f"d{i}" for i in range(6))]
        assert script.batches == [["first"], with_short, ["b"], ["d6", "d7", "d8"], ["e"], ["f"]]
    for batch in script.batches[1:]:
        tokens, steps = zip(*(begin[id] for id in batch), strict=True)
        assert len(set(steps)) == 1
        assert max(tokens) * len(batch) <= MAX_BATCH_TOKENS


def test_a_batch_that_fails_ends_nothing_else():
    script = Script()
    engine = Engine(script, measure)
    with pytest.raises(RuntimeError, match="broken"):
        submit(engine, "broken", 1).result(60)
    assert submit(engine, "next", 1).result(60)[1].id == "next"
    engine.close()


def test_a_prompt_that_cannot_be_measured_fails_alone():
    script = Script()
    engine = Engine(script, measure)
    script.during["first", 1] = lambda: futures.extend(
        engine.submit(GenerationRequest(id, [{"role": "user", "content": text}], 3), 1)
        for id, text in {"good": "5", "bad": "five", "fine": "6"}.items()
    )
    futures = [submit(engine, "first", 0)]
    futures[0].result(60)
    engine.close()
    with pytest.raises(ValueError, match="five"):
        futures[2].result(60)
    assert script.batches == [["first"], ["good", "fine"]]
