"""The order of the embedded server: the scheduler decides it, so no test here depends on a clock."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.demo.engine import LEAD, MAX_BATCH_TOKENS, Engine, Line
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


def request(id: str, steps: int = 3) -> GenerationRequest:
    return GenerationRequest(id, [], steps)


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
    engine = Engine(script)
    short: list[Future] = []
    # both come when the long one is at work; the second is hardly shorter
    script.during["long", 5] = lambda: short.extend(
        (engine.submit(request("short"), 10), engine.submit(request("similar", 4), 3 * LEAD - 5))
    )
    long = engine.submit(request("long", 20), 3 * LEAD)
    assert long.result(60).token_ids == (0,) * 19
    assert [future.result(60).id for future in short] == ["short", "similar"]
    engine.close()
    assert script.ended == ["short", "long", "similar"]


def test_a_batch_that_goes_on_and_on_lets_others_go_first():
    script = Script()
    engine = Engine(script)
    late: list[Future] = []
    script.during["endless", LEAD + 50] = lambda: late.append(engine.submit(request("late"), 10))
    endless = engine.submit(request("endless", 3 * LEAD), 10)
    endless.result(60)
    engine.close()
    assert script.ended == ["late", "endless"]


def test_a_request_that_nobody_waits_for_is_not_computed_to_its_end():
    script = Script()
    engine = Engine(script)
    waiting: list[Future] = []
    script.during["running", 3] = lambda: waiting.append(engine.submit(request("never"), 10))
    script.during["running", 5] = lambda: (waiting[0].cancel(), running.cancel())
    running = engine.submit(request("running", 10**6), 10)
    engine.close()
    assert running.cancelled()
    assert script.batches == [["running"]]


def test_an_answer_ends_where_the_model_s_memory_of_the_text_ends():
    script = Script()
    engine = Engine(script, max_tokens=30)
    assert len(engine.submit(request("a", 100), 20).result(60).token_ids) == 10
    engine.close()


def test_a_batch_holds_requests_with_equal_settings_and_so_many_tokens():
    script = Script()
    engine = Engine(script, max_batch=4)
    half = MAX_BATCH_TOKENS // 2
    begin = {"a": (3, 1), "b": (4, 1), "c": (3, 1), "d": (3, half), "e": (3, half), "f": (3, half + 1)}
    script.during["first", 1] = lambda: futures.extend(
        engine.submit(request(id, steps), tokens) for id, (steps, tokens) in begin.items()
    )
    futures = [engine.submit(request("first"), 0)]
    futures[0].result(60)
    engine.close()
    assert script.batches == [["first"], ["a", "c"], ["b"], ["d", "e"], ["f"]]


def test_a_batch_that_fails_ends_nothing_else():
    script = Script()
    engine = Engine(script)
    with pytest.raises(RuntimeError, match="broken"):
        engine.submit(request("broken"), 1).result(60)
    assert engine.submit(request("next"), 1).result(60).id == "next"
    engine.close()
