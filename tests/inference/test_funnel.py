"""The funnel: which model answers what, in which batches, and what is recorded of failures."""

from __future__ import annotations

import random
import threading
import time
import weakref
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from scripted import ScriptedBackend

from speceyes_lib.agents import prompt_sets
from speceyes_lib.agents.deepeyes import DeepEyesAgent
from speceyes_lib.errors import DataError, UserError
from speceyes_lib.inference.funnel import Drafting, Gate, Router, run_drafts, run_funnel
from speceyes_lib.models.base import Generation
from speceyes_lib.runs.evidence import Evidence
from speceyes_lib.runs.records import DraftRecord
from speceyes_lib.tasks.images import ImageSpec

PROMPTS = prompt_sets.load("demo")
SPEC = ImageSpec(factor=16, min_pixels=32 * 32, max_pixels=32 * 32)
DRAFTING = Drafting(max_new_tokens=4, k_store=4, k=4)
ZOOM = '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 16, 16]}}</tool_call>'


class Picture:
    """An image reference that remembers which of its decoded pictures are still held."""

    opened: ClassVar[list[weakref.ref]] = []

    def __init__(self, broken: bool) -> None:
        self.broken = broken

    def open(self) -> Image.Image:
        if self.broken:
            raise DataError("scene.jpg: not a readable picture")
        picture = Image.new("RGB", (64, 64))
        self.opened.append(weakref.ref(picture))
        return picture


@dataclass(frozen=True)
class Asked:
    """As much of a Sample as the funnel needs."""

    id: str
    question: str
    image: Picture
    options: tuple[str, ...] | None = field(default=("red", "blue"))
    options_shown: tuple[int, ...] | None = None


def samples(*names: str) -> list[Asked]:
    return [Asked(name, f"About {name}?", Picture("unreadable" in name)) for name in names]


def evidence(gap: float) -> Evidence:
    """One token whose separability grows with the gap."""
    top = np.array([[0.0, -gap, -gap - 1, -gap - 2]])
    return Evidence([0], ("red",), [0.0], [[0, 1, 2, 3]], top)


def draft_says(request) -> str | Generation:
    """Sure ("sure" in the name), unsure, silent, or broken."""
    if "baddraft" in request.id:
        raise RuntimeError("draft broke")
    if "silent" in request.id:
        nothing = Evidence([], (), [], np.empty((0, 4)), np.empty((0, 4)))
        return Generation(request.id, "", (), "stop", 0.0, 1, nothing)
    if "thinking" in request.id:
        tokens = ("<think>", "Unsure", "</think>", " red")
        doubts = [evidence(0.1).top_logprobs[0]] * 3
        top = np.array([*doubts, evidence(9.0).top_logprobs[0]])
        known = Evidence(range(4), tokens, top[:, 0], np.zeros((4, 4)), top)
        return Generation(request.id, "".join(tokens), tuple(range(4)), "stop", 0.0, 1, known)
    gap = 9.0 if request.id.startswith("sure") else 0.1
    return Generation(request.id, " red ", (0,), "stop", 0.0, 1, evidence(gap))


def agent_says(request) -> str:
    text = request.messages[-1]["content"][-1]["text"]
    if "Would zooming" in text:
        if "badrouter" in request.id:
            raise RuntimeError("router broke")
        return " No, thank you" if "easy" in request.id else "yes"
    if "badagent" in request.id:
        raise RuntimeError("agent broke")
    if request.prefill:
        return " it.</think><answer>green</answer>"
    turn = sum(m["role"] == "assistant" for m in request.messages)
    return ZOOM if turn < request.id.count("zoom") else "<think>x</think><answer>blue</answer>"


def backends() -> tuple[ScriptedBackend, ScriptedBackend]:
    return ScriptedBackend(draft_says, SPEC), ScriptedBackend(agent_says, SPEC)


make_agent = partial(DeepEyesAgent, spec=SPEC, prompts=PROMPTS, max_turns=3)


def begin(names, mode="gated", draft=None, agent=None, **settings):
    """A funnel over samples of these names: what it gives, as it comes."""
    default_draft, default_agent = backends()
    settings = {"router": Router(), "drafting": DRAFTING} | settings
    if mode == "gated":
        settings.setdefault("gate", Gate(0.9))
    return run_funnel(
        samples(*names),
        mode=mode,
        agent_backend=agent or default_agent,
        draft_backend=draft or default_draft,
        make_agent=make_agent,
        prompts=PROMPTS,
        **settings,
    )


def run(names, mode="gated", draft=None, agent=None, **settings):
    """Records by sample, in the order they came."""
    return {record.id: record for record, _ in begin(names, mode, draft, agent, **settings)}


NAMES = ["sure-easy", "unsure-easy", "hard-zoom", "sure-hard", "sure-easy-2"]


def test_each_sample_takes_the_path_its_router_and_its_confidence_choose():
    records = run(NAMES)
    assert {k: r.decision for k, r in records.items()} == {
        "sure-easy": "accepted",
        "sure-easy-2": "accepted",
        "unsure-easy": "rejected",
        "hard-zoom": "routed",
        "sure-hard": "routed",
    }
    assert {k: (r.used, r.answer) for k, r in records.items()} == {
        "sure-easy": ("small", "red"),
        "sure-easy-2": ("small", "red"),
        "unsure-easy": ("large", "blue"),
        "hard-zoom": ("large", "blue"),
        "sure-hard": ("large", "blue"),
    }


def test_a_rejected_draft_is_kept_in_the_record_and_a_routed_sample_has_none():
    records = run(NAMES)
    assert records["unsure-easy"].draft.answer == "red"
    assert records["unsure-easy"].confidence == records["unsure-easy"].draft.scores["min"]
    assert records["hard-zoom"].draft is None
    assert records["hard-zoom"].confidence is None
    assert records["sure-easy"].trajectory is None


def test_the_gate_accepts_strictly_above_its_threshold_only():
    score = run(["sure-easy"])["sure-easy"].confidence
    assert run(["sure-easy"], gate=Gate(score))["sure-easy"].decision == "rejected"
    assert run(["sure-easy"], gate=Gate(score - 1e-9))["sure-easy"].decision == "accepted"


def test_the_gate_goes_by_the_score_it_is_given():
    record = run(["unsure-easy"], gate=Gate(0.9, "log"))["unsure-easy"]
    assert record.confidence == record.draft.scores["log"]
    assert (
        record.decision == "accepted"
    )  # the evidence gives its token all probability: log is blind to the gap


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("no", "no"),
        (" NO.", "no"),
        ("Not needed", "no"),
        ("nothing", "no"),
        ("yes", "yes"),
        ("", "yes"),
        ("I say no", "yes"),
        ("<think>Yes?</think> No.", "no"),
    ],
)
def test_the_router_says_no_when_its_words_start_with_no(reply, verdict):
    agent = ScriptedBackend(lambda r: reply if "Would" in str(r.messages) else "<answer>x</answer>", SPEC)
    record = run(["sure"], agent=agent)["sure"]
    assert (record.router.verdict, record.router.text) == (verdict, reply)
    assert record.decision == ("accepted" if verdict == "no" else "routed")


def test_without_a_router_everything_is_drafted():
    records = run(NAMES, router=None)
    assert {r.decision for r in records.values()} == {"accepted", "rejected"}
    assert all(r.router is None and r.draft is not None for r in records.values())


def test_the_small_model_can_be_the_router():
    draft = ScriptedBackend(lambda r: "no" if "Would" in str(r.messages) else draft_says(r), SPEC)
    records = run(["sure-hard"], draft=draft, router=Router(by="small"))
    assert records["sure-hard"].decision == "accepted"


def router_says(text: str, alternatives: dict[str, float]):
    """Replies of a router, with other openings."""
    top = np.array([sorted(alternatives.values(), reverse=True)])
    texts = tuple(sorted(alternatives, key=alternatives.get, reverse=True))
    first = Evidence([0], (text,), top[:, 0], [range(len(texts))], top)
    return lambda request: Generation(request.id, text, (0,), "stop", 0.0, 1, first, texts)


@pytest.mark.parametrize(
    ("alternatives", "yes", "no"),
    [
        ({" No": -0.1, "yes": -2.5, "no": -4.0, "Yes": -5.0}, -2.5, -0.1),
        ({"no": -0.1, "maybe": -2.5}, None, -0.1),
        ({"nothing": -0.1, "YES ": -2.5, "no": -np.inf}, -2.5, None),
    ],
)
def test_the_router_is_recorded_with_how_likely_yes_and_no_were(alternatives, yes, no):
    says = router_says("no", alternatives)
    agent = ScriptedBackend(lambda r: says(r) if r.evidence_k else "<answer>x</answer>", SPEC)
    router = run(["sure"], agent=agent)["sure"].router
    assert router.yes_logprob == (yes if yes is None else pytest.approx(yes))
    assert router.no_logprob == (no if no is None else pytest.approx(no))


def test_without_evidence_the_chances_of_yes_and_no_are_unknown():
    router = run(["sure-easy"])["sure-easy"].router
    assert (router.verdict, router.yes_logprob, router.no_logprob) == ("no", None, None)


def test_collect_can_hear_both_models_on_whether_a_tool_would_help():
    draft = ScriptedBackend(lambda r: "yes", SPEC)
    drafts = drafts_of(NAMES)
    free = run(NAMES, "collect", drafts=drafts, gate=None)
    both = run(NAMES, "collect", draft, drafts=drafts, gate=None, router_small=True)
    assert {r.router_small.verdict for r in both.values()} == {"yes"}
    assert [r.router.verdict for r in both.values()] == [r.router.verdict for r in free.values()]
    for r in both.values():
        assert r.wall_s == pytest.approx(r.decode_s + r.router.router_s + r.trajectory.agent_s + r.tool_s)
    assert [len(b) for b in draft.batches] == [len(NAMES)]
    small = run(NAMES, "collect", draft, drafts=drafts, gate=None, router=Router("small"), router_small=True)
    assert all(r.router_small == r.router for r in small.values())
    assert len(draft.batches) == 2


def test_baseline_asks_the_agent_alone():
    draft, agent = backends()
    records = run(NAMES, "baseline", draft, agent)
    assert draft.batches == []
    assert all(
        (r.decision, r.used, r.answer, r.router) == ("baseline", "large", "blue", None)
        for r in records.values()
    )


def drafts_of(names) -> dict[str, DraftRecord]:
    draft, _ = backends()
    results = run_drafts(samples(*names), backend=draft, prompts=PROMPTS, drafting=DRAFTING, batch_size=2)
    return {record.id: record for record, _ in results}


def test_collect_routes_and_runs_the_agent_on_all_and_takes_the_drafts_over():
    draft, agent = backends()
    drafts = drafts_of(NAMES)
    records = run(NAMES, "collect", draft, agent, drafts=drafts, without_tool=True, gate=None)
    assert draft.batches == []
    for name, r in records.items():
        assert (r.decision, r.used, r.answer) == ("collected", "large", "blue")
        assert r.draft == drafts[name]
        assert r.confidence == drafts[name].scores["min"]
        assert r.router is not None
        assert r.first_look.answer == "green"
        assert r.wall_s == pytest.approx(r.decode_s + r.router.router_s + r.trajectory.agent_s + r.tool_s)


def test_gated_decisions_follow_from_what_collect_recorded():
    names = [f"{a}-{b}-{i}" for i in range(4) for a in ("sure", "unsure") for b in ("easy", "hard-zoom")]
    collected = run(names, "collect", drafts=drafts_of(names), gate=None)
    for name, r in run(names).items():
        c = collected[name]
        accepted = c.router.verdict == "no" and c.confidence > 0.9
        assert (r.decision == "accepted") == accepted
        assert r.answer == (c.draft.answer if accepted else c.answer)


# ---------------------------------------------------------------------------------------------- failures
def test_an_unreadable_picture_costs_its_own_sample_only():
    for mode, settings in (("gated", {}), ("baseline", {})):
        records = run(["sure-easy", "unreadable", "hard"], mode, **settings)
        assert [records[n].status for n in ("sure-easy", "unreadable", "hard")] == ["ok", "error", "ok"]
        bad = records["unreadable"]
        assert bad.error.type == "image_error"
        assert "scene.jpg" in bad.error.message
        assert bad.answer is None


def test_an_unreadable_picture_is_an_error_record_among_the_drafts():
    records = drafts_of(["sure", "unreadable", "unsure"])
    assert {k: r.status for k, r in records.items()} == {"sure": "ok", "unreadable": "error", "unsure": "ok"}
    assert records["unreadable"].error.type == "image_error"


def test_a_failed_router_leaves_the_sample_to_the_agent_and_stays_on_record():
    records = run(["sure-easy", "badrouter-easy"])
    r = records["badrouter-easy"]
    assert (r.status, r.decision, r.answer, r.error.type) == ("ok", "routed", "blue", "router_error")
    assert "router broke" in r.error.message
    assert records["sure-easy"].decision == "accepted"


def test_a_failed_draft_leaves_the_sample_to_the_agent_and_stays_on_record():
    records = run(["sure-easy", "baddraft-easy"])
    r = records["baddraft-easy"]
    assert (r.status, r.decision, r.answer) == ("ok", "draft_failed", "blue")
    assert (r.draft.status, r.draft.error.type) == ("error", "draft_error")
    assert records["sure-easy"].decision == "accepted"


def test_a_failed_agent_is_an_error_record_with_its_turns():
    records = run(["badagent-hard", "hard"], agent_batch_size=2)
    assert records["badagent-hard"].status == "error"
    assert records["badagent-hard"].error.type == "generation_error"
    assert len(records["badagent-hard"].trajectory.turns) == 1
    assert records["hard"].status == "ok"


def test_an_empty_draft_has_no_score_and_is_never_accepted():
    r = run(["silent-easy"], gate=Gate(0.0))["silent-easy"]
    assert (r.draft.status, r.draft.scores, r.draft.score_reason) == ("ok", None, "empty_answer")
    assert (r.decision, r.confidence, r.answer) == ("rejected", None, "blue")


def test_a_drafts_thought_is_neither_in_its_answer_nor_in_its_confidence():
    draft = ScriptedBackend(draft_says, SPEC)
    results = run_drafts(samples("sure", "thinking"), backend=draft, prompts=PROMPTS, drafting=DRAFTING)
    (plain, plain_evidence), (thinking, its_evidence) = results
    assert (plain.answer, thinking.answer) == ("red", "red")
    assert plain.scores == thinking.scores
    assert its_evidence.n_tokens == plain_evidence.n_tokens == 1
    assert (plain.n_tokens, thinking.n_tokens) == (1, 4)  # what it cost


def test_an_agent_that_never_answers_keeps_the_rest_going():
    records = run(["zoom-zoom-zoom-hard", "hard"])
    assert records["zoom-zoom-zoom-hard"].error.type == "turn_limit"
    assert records["hard"].answer == "blue"


def test_modes_that_lack_what_they_need_are_refused():
    with pytest.raises(ValueError, match="gate"):
        run(["a"], gate=None)
    with pytest.raises(ValueError, match="drafts"):
        run(["a"], "collect", gate=None)


# ----------------------------------------------------------------------------- batches, memory, time, order
def test_router_and_draft_run_in_batches_and_the_agent_one_by_one():
    draft, agent = backends()
    names = [f"sure-easy-{i}" for i in range(5)] + [f"unsure-easy-{i}" for i in range(3)]
    run(names, draft=draft, agent=agent, batch_size=4)
    assert [len(b) for b in draft.batches] == [4, 4]
    assert [len(b) for b in agent.batches] == [4, 4, 1, 1, 1]


def test_agents_advance_together_turn_by_turn_where_set():
    _, agent = backends()
    run([f"hard-zoom-{i}" for i in range(8)], "baseline", agent=agent, agent_batch_size=4)
    assert [len(b) for b in agent.batches] == [4, 4, 4, 4]  # first turns, second turns, twice


def test_batches_of_agents_stay_full_when_some_need_more_turns_than_others():
    _, agent = backends()
    names = [f"hard-{'zoom' if i % 3 else 'look'}-{i}" for i in range(24)]
    run(names, "baseline", agent=agent, agent_batch_size=4)
    turns = sum(len(b) for b in agent.batches)
    assert turns == 24 + 16
    assert len(agent.batches) <= turns / 4 + 2


@pytest.mark.parametrize("agent_batch_size", [1, 3, 8])
def test_answers_do_not_depend_on_how_agents_are_batched(agent_batch_size):
    names = [f"{a}-{b}-{i}" for i in range(5) for a in ("sure", "unsure") for b in ("easy", "hard-zoom")]
    free = {"router", "draft", "trajectory", "decode_s", "tool_s"}
    one, many = run(names), run(names, agent_batch_size=agent_batch_size, batch_size=3)
    assert sorted(one) == sorted(many)
    for name in one:
        assert one[name].model_dump(exclude=free) == many[name].model_dump(exclude=free)


def test_the_order_of_records_is_the_same_every_time():
    names = [f"{a}-{b}-{i}" for i in range(5) for a in ("sure", "unsure") for b in ("easy", "hard-zoom")]
    assert list(run(names, agent_batch_size=3)) == list(run(names, agent_batch_size=3))


def test_decoded_pictures_are_let_go_of_when_their_record_is_written():
    Picture.opened.clear()
    names = [f"{a}-{b}-{i}" for i in range(20) for a in ("sure", "unsure") for b in ("easy", "hard-zoom")]
    draft, agent = backends()
    held = []
    for _ in begin(names, draft=draft, agent=agent, batch_size=4, agent_batch_size=3):
        agent.batches.clear()
        draft.batches.clear()  # the scripted backend keeps its requests
        held.append(sum(ref() is not None for ref in Picture.opened))
    assert max(held) <= 4 + 3
    assert held[-1] == 0


@pytest.mark.parametrize("agent_batch_size", [1, 4])
def test_every_second_of_the_loop_is_charged_to_a_sample(agent_batch_size):
    slept_s = []

    def slowly(says, seconds):
        def script(request):
            time.sleep(seconds)
            slept_s.append(seconds)
            return says(request)

        return ScriptedBackend(script, SPEC)

    names = [f"{a}-{b}-{i}" for i in range(3) for a in ("sure", "unsure") for b in ("easy", "hard-zoom")]
    start = time.perf_counter()
    records = run(
        names,
        "gated",
        slowly(draft_says, 0.003),
        slowly(agent_says, 0.006),
        agent_batch_size=agent_batch_size,
    )
    spent_s = time.perf_counter() - start
    assert sum(slept_s) <= sum(r.wall_s for r in records.values()) <= spent_s


def test_agents_under_way_finish_before_others_begin():
    _, backend = backends()
    finished = list(run(["hard-zoom-1", "hard-zoom-2"], "baseline", agent=backend, agent_batch_size=1))
    assert finished == ["hard-zoom-1", "hard-zoom-2"]
    assert [b[0].id for b in backend.batches] == ["hard-zoom-1", "hard-zoom-1", "hard-zoom-2", "hard-zoom-2"]


# --------------------------------------------------------------------------------------- both models at once
MANY = [f"{a}-{b}-{i}" for i in range(6) for a in ("sure", "unsure") for b in ("easy", "hard-zoom", "hard")]
COSTS = {"decode_s", "tool_s", "draft_s", "router_s", "turn_s", "batch_size", "generate_s"}


def without_costs(value):
    """A record's content, whatever it took and in whatever company."""
    if isinstance(value, dict):
        return {k: without_costs(v) for k, v in value.items() if k not in COSTS}
    return [without_costs(v) for v in value] if isinstance(value, list | tuple) else value


def result(records) -> dict:
    return {name: without_costs(record.model_dump()) for name, record in records.items()}


def at_random(says, rng):
    """The same answers after a while that differs every time."""

    def script(request):
        time.sleep(rng.uniform(0, 0.002))
        return says(request)

    return ScriptedBackend(script, SPEC)


MODES_RUN = {
    "gated": {},
    "ungated-router": {"router": None},
    "baseline": {"mode": "baseline"},
    "collect": {"mode": "collect", "gate": None, "without_tool": True, "router_small": True},
}


@pytest.mark.parametrize("in_flight", [0, 5])
@pytest.mark.parametrize("way", MODES_RUN)
def test_records_are_the_same_whatever_runs_at_once(way, in_flight):
    names = [*MANY, "unreadable", "badrouter-easy", "baddraft-easy", "silent-easy", "badagent-hard"]
    how = dict(MODES_RUN[way])
    if way == "collect":
        how["drafts"] = drafts_of(names)
    expected = result(run(names, **how))
    rng = random.Random(1)
    for _ in range(3):
        pair = [at_random(says, rng) for says in (draft_says, agent_says)]
        for backend in pair:
            backend.max_in_flight = in_flight
        records = run(
            names, draft=pair[0], agent=pair[1], concurrent=True, batch_size=4, agent_batch_size=3, **how
        )
        assert result(records) == expected


def test_the_small_model_drafts_the_next_batch_while_the_large_one_works_on_fallbacks():
    second_batch = threading.Event()

    def drafting(request):
        if request.id.endswith("late"):
            second_batch.set()
        return draft_says(request)

    def falling_back(request):
        if "Would zooming" not in str(request.messages) and request.id.endswith("early"):
            assert second_batch.wait(1800), "no draft was written meanwhile"
        return agent_says(request)

    names = [f"unsure-easy-{i}-{when}" for when in ("early", "late") for i in range(4)]
    draft, agent = ScriptedBackend(drafting, SPEC), ScriptedBackend(falling_back, SPEC)
    records = run(names, draft=draft, agent=agent, concurrent=True, batch_size=4, agent_batch_size=4)
    assert {r.answer for r in records.values()} == {"blue"}


def test_a_server_is_sent_as_many_requests_as_it_takes_and_no_more():
    together = threading.Barrier(5)
    now, most = [], []

    def says(request):
        now.append(request)
        most.append(len(now))
        if request.id.startswith("first"):
            together.wait(1800)  # only five at once get through
        now.remove(request)
        return "<answer>blue</answer>"

    agent = ScriptedBackend(says, SPEC)
    agent.max_in_flight = 5
    names = [f"first-{i}" for i in range(5)] + [f"then-{i}" for i in range(20)]
    records = run(names, "baseline", agent=agent, concurrent=True)
    assert {r.status for r in records.values()} == {"ok"}
    assert max(most) == 5
    assert all(len(batch) == 1 for batch in agent.batches)


def reused(backend) -> list[set[str]]:
    """By kind of request (router and draft, turn), what the backend may reuse."""
    kinds = [set(), set()]
    for batch in backend.batches:
        for request in batch:
            kinds["Would" not in str(request.messages) and request.max_new_tokens > 10].add(request.reuse)
    return kinds


def test_the_papers_setting_reuses_nothing_and_the_instrumented_pass_only_within_an_agents_run():
    drafts = drafts_of(MANY)
    for settings, first, turns in (
        ({}, "nothing", "nothing"),
        ({"reuse": True}, "conversation", "conversation"),
        ({"reuse": True, "mode": "collect", "gate": None, "drafts": drafts}, "nothing", "conversation"),
    ):
        draft, agent = backends()
        run(MANY, draft=draft, agent=agent, **settings)
        assert reused(agent) == [{first}, {turns}]
        if draft.batches:
            assert reused(draft)[0] == {"pictures" if settings else "nothing"}


def test_in_the_papers_setting_even_a_server_gets_its_batches():
    draft, agent = backends()
    agent.max_in_flight = draft.max_in_flight = 5
    run([f"sure-easy-{i}" for i in range(5)], draft=draft, agent=agent, batch_size=4)
    assert [len(b) for b in agent.batches] == [4, 1]


@pytest.mark.parametrize("in_flight", [0, 4])
def test_costs_sum_to_the_clock_also_when_much_runs_at_once(in_flight):
    worked_s = []  # begin and end of every request

    def slowly(says, seconds):
        def script(request):
            began_s = time.perf_counter()
            time.sleep(seconds)
            worked_s.append((began_s, time.perf_counter()))
            return says(request)

        backend = ScriptedBackend(script, SPEC)
        backend.max_in_flight = in_flight
        return backend

    start = time.perf_counter()
    pair = slowly(draft_says, 0.004), slowly(agent_says, 0.006)
    records = run(MANY, "gated", *pair, concurrent=True, batch_size=4, agent_batch_size=4)
    clock_s = time.perf_counter() - start
    busy_s, until_s = 0.0, start  # seconds in which at least one request was answered
    for began_s, ended_s in sorted(worked_s):
        busy_s += max(0.0, ended_s - max(began_s, until_s))
        until_s = max(until_s, ended_s)
    assert busy_s <= sum(r.wall_s for r in records.values()) <= clock_s


def test_few_pictures_are_held_also_when_much_runs_at_once():
    Picture.opened.clear()
    held = []

    def looking(request):
        held.append(sum(ref() is not None for ref in Picture.opened))
        return agent_says(request)

    draft, agent = ScriptedBackend(draft_says, SPEC), ScriptedBackend(looking, SPEC)
    for backend in (draft, agent):
        backend.batches = type("Forgetful", (list,), {"append": lambda self, batch: None})()
    run(MANY, draft=draft, agent=agent, concurrent=True, batch_size=3, agent_batch_size=2)
    assert max(held) <= 2 * 3 + 2
    assert sum(ref() is not None for ref in Picture.opened) == 0


def test_a_server_can_answer_drafts_alone():
    draft, _ = backends()
    draft.max_in_flight = 4
    names = ["sure", "unreadable", "unsure", "silent"]
    observed = run_drafts(samples(*names), backend=draft, prompts=PROMPTS, drafting=DRAFTING, concurrent=True)
    assert result({r.id: r for r, _ in observed}) == result(drafts_of(names))


def test_what_the_user_must_mend_stops_the_run_wherever_it_happens():
    def says(request):
        raise UserError("k_store is too large")

    with pytest.raises(UserError, match="k_store"):
        run(MANY, draft=ScriptedBackend(says, SPEC), concurrent=True)
