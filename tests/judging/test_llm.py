"""The judging model: its questions, how its replies are read, and that no reply is lost or paid for twice."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from types import SimpleNamespace

import pytest
from judge_server import serving
from odd_replies import ODD_JSON
from synthetic_run import make_samples, write_answers, write_vstar

from speceyes_lib.errors import ConfigError, StageError, UserError, build
from speceyes_lib.judging import llm
from speceyes_lib.judging.llm import JudgingModel, judge_messages, read_judgement, states_judgement
from speceyes_lib.judging.reply_cache import CachedReply, ReplyCache, reply_key
from speceyes_lib.judging.stage import run_judging
from speceyes_lib.models.endpoint import Client, parse_endpoints
from speceyes_lib.params import JudgingParams
from speceyes_lib.runs.reading import read_stage
from speceyes_lib.runs.records import AgentRecord, JudgedRecord

TASK = "vstar/direct_attributes"
VSTAR, HR, POPE = (
    SimpleNamespace(
        benchmark=benchmark, question="What color?", options=options, answer=answer, standard=standard
    )
    for benchmark, options, answer, standard in (
        ("vstar", ("red", "blue"), "A", "A. red"),
        ("hr", ("red", "blue"), "B", "B. blue"),
        ("pope", None, "yes", "yes"),
    )
)

# ------------------------------------------------------------------ questions, and how replies are read


def text_of(messages: list[dict]) -> str:
    return messages[-1]["content"]


def test_strict_shows_question_options_standard_answer_and_prediction():
    text = text_of(judge_messages(VSTAR, "scarlet", "strict"))
    for part in ("What color?", "A. red", "B. blue", "Standard answer: A. red", "<answer>scarlet</answer>"):
        assert part in text
    assert "Options" not in text_of(judge_messages(POPE, "it is there", "strict"))


def test_strict_shows_no_thoughts():
    text = text_of(judge_messages(VSTAR, "<think>blue?</think> scarlet", "strict"))
    assert "<answer>scarlet</answer>" in text
    assert "blue?" in text_of(judge_messages(VSTAR, "<think>blue?</think> scarlet", "paper"))


def test_paper_shows_no_options_and_of_hr_bench_only_the_letter():
    assert "B. blue" not in text_of(judge_messages(VSTAR, "scarlet", "paper"))
    assert "Standard answer: A. red" in text_of(judge_messages(VSTAR, "scarlet", "paper"))
    hr = text_of(judge_messages(HR, "azure", "paper"))
    assert "Standard answer: B\n" in hr
    assert "blue" not in hr
    boxed = judge_messages(VSTAR, r"So it is \boxed{scarlet}.", "paper")
    assert "<answer>scarlet</answer>" in text_of(boxed)


REPLIES = [  # reply, strict, paper on V* and POPE, paper on HR-Bench
    ("Judgement: 1", "right", "right", "right"),
    ("Judgement: 0", "wrong", "wrong", "wrong"),
    ("Judgement:1", "right", "right", "right"),
    ("**Judgement: 1**", "right", "right", "right"),
    ("Judgement: 1.", "right", "right", "right"),
    ("They agree.\nJudgement: 1", "right", "right", "right"),
    ("Judgement: 1\nBecause they agree.", "right", "right", "right"),
    ("Judgement: 1 because", "unparsed", "right", "right"),
    ("Judgement: 10", "unparsed", "right", "right"),
    ("Judgement: 0 or 1", "unparsed", "right", "right"),
    ("Judgement: yes", "unparsed", "wrong", "wrong"),
    ("Judgement:", "unparsed", "wrong", "wrong"),
    ("Judgement: 1. No: Judgement: 0", "unparsed", "wrong", "wrong"),
    ("Judgement: 0. No: Judgement: 1", "unparsed", "right", "right"),
    ("Judgement: 1\nJudgement: 1", "right", "right", "right"),
    ("Judgement: 1\nJudgement: 0", "unparsed", "wrong", "wrong"),
    ("1", "right", "right", "right"),
    ("0", "wrong", "wrong", "wrong"),
    ("1.", "right", "wrong", "right"),
    (" 1", "right", "wrong", "right"),
    ("10", "unparsed", "wrong", "right"),
    ("1\nJudged.", "unparsed", "wrong", "right"),
    ("", "unparsed", "wrong", "wrong"),
    ("I cannot help with that.", "unparsed", "wrong", "wrong"),
    ("correct", "unparsed", "wrong", "wrong"),
    ("judgement: 1", "right", "wrong", "right"),  # `paper` knows one spelling
    ("Judgment: 1", "right", "wrong", "right"),
    ("JUDGEMENT : 0", "wrong", "wrong", "wrong"),
    ("**Judgement**: 1", "right", "wrong", "right"),
    ("**Judgement:** 0", "wrong", "wrong", "wrong"),
    ("Judgement：１", "right", "wrong", "wrong"),  # full width
    ("Judgment：0。", "wrong", "wrong", "wrong"),
    (r"Judgement: \boxed{1}", "right", "right", "right"),
    ("<think>Judgement: 0?</think>\nJudgement: 1", "right", "right", "right"),
    ("<think>Judgement: 1", "unparsed", "wrong", "wrong"),
    ("It is 0.</think>1", "right", "right", "right"),
]


@pytest.mark.parametrize(("reply", "strict", "paper", "paper_hr"), REPLIES, ids=lambda v: repr(v)[:30])
def test_a_reply_is_read_as_its_protocol_reads_it(reply, strict, paper, paper_hr):
    assert {read_judgement(reply, "strict", b) for b in ("vstar", "hr", "pope")} == {strict}
    assert {read_judgement(reply, "paper", b) for b in ("vstar", "pope")} == {paper}
    assert read_judgement(reply, "paper", "hr") == paper_hr


@pytest.mark.parametrize(
    ("reply", "strict", "paper"),
    [
        ("Judgement: 1", True, True),
        ("Judgment: 1", True, False),
        ("0", True, True),
        ("Judgement: 1 because", False, True),
        ("Judgement: yes", False, False),
        ("I am 100% sure", False, False),
        ("<think>Judgement: 1", False, False),
        ("", False, False),
    ],
)
def test_only_a_reply_with_a_judgement_is_a_verdict(reply, strict, paper):
    for benchmark in ("vstar", "hr", "pope"):
        assert states_judgement(reply, "strict", benchmark) is strict
        assert states_judgement(reply, "paper", benchmark) is paper


# ------------------------------------------------------------------ the cache


def test_a_reply_is_kept_under_model_protocol_and_every_word(tmp_path):
    messages = judge_messages(VSTAR, "scarlet", "strict")
    key = reply_key("judge", "strict", messages, temperature=0)
    others = [
        reply_key("other", "strict", messages, temperature=0),
        reply_key("judge", "paper", messages, temperature=0),
        reply_key("judge", "strict", judge_messages(VSTAR, "scarlet!", "strict"), temperature=0),
        reply_key("judge", "strict", messages, temperature=1),
    ]
    assert len({key, *others}) == 5
    with closing(ReplyCache(tmp_path / "r.sqlite")) as cache:
        cache.put(key, "judge", "strict", CachedReply("Judgement: 1", 10, 5))
        cache.put(key, "judge", "strict", CachedReply("another", 1, 1))  # the first one stays
    with closing(ReplyCache(tmp_path / "r.sqlite")) as cache:
        assert cache.get([key, *others]) == {key: CachedReply("Judgement: 1", 10, 5)}
        cache.forget([key])
        assert cache.get([key]) == {}


def test_a_cache_that_is_no_database_is_reported_with_its_name(tmp_path):
    (tmp_path / "r.sqlite").write_text("not a database, and long enough to be read as one" * 99)
    with pytest.raises(UserError, match=r"r\.sqlite.*judge_cache"):
        ReplyCache(tmp_path / "r.sqlite")


# ------------------------------------------------------------------ asking


def judge_of(
    server, tmp_path, max_requests: int = 0, max_tokens: int = 0, reply_tokens: int = 64, **options
) -> JudgingModel:
    options = {"timeout_s": 60, "retries": 1, "concurrency": 8} | options
    endpoints = parse_endpoints(server.url(**options))
    cache = ReplyCache(tmp_path / "r.sqlite")
    return JudgingModel("judge", lambda: Client(endpoints), cache, max_requests, max_tokens, reply_tokens)


def ask(model: JudgingModel, answers: list[str], protocol: str = "strict") -> dict:
    questions = {a: model.question(VSTAR, a, protocol) for a in answers}
    calls = model.judge(list(questions.values()))
    return {a: calls[q.key] for a, q in questions.items()}


BEHAVIOUR = {  # answer to be judged -> (what the server does about it, verdict, kind of failure)
    "right": ("Judgement: 1", "right", None),
    "wrong": ("Judgement: 0", "wrong", None),
    "one": ("1.", "right", None),
    "ten": ("10", "unparsed", None),
    "empty": ("", "unparsed", None),
    "refusal": ("I'm sorry, but I can't.", "unparsed", None),
    "always 429": ("<429>", "undecided", "rate_limited"),
    "always 500": ("<500>", "undecided", "server_error"),
    "closes": ("<close>", "undecided", "unreachable"),
    "garbage": ("<garbage>", "undecided", "bad_reply"),
    "no choices": ("<no choices>", "undecided", "bad_reply"),
}


def test_a_misbehaving_server_loses_nothing_and_everything_is_counted_where_it_belongs(tmp_path):
    def behave(answer: str, attempt: int) -> str:
        if answer in ("429 once", "500 once", "close once"):
            return f"<{answer.split()[0]}>" if attempt == 1 else "Judgement: 1"
        return BEHAVIOUR[answer][0]

    again = {f"{what} once": (None, "right", None) for what in ("429", "500", "close")}
    expected = BEHAVIOUR | again
    with serving(behave) as server, judge_of(server, tmp_path) as model:
        calls = ask(model, list(expected))
        assert {a: c.verdict for a, c in calls.items()} == {a: e[1] for a, e in expected.items()}
        failures = {a: c.failure.type if c.failure else None for a, c in calls.items()}
        assert failures == {a: e[2] for a, e in expected.items()}
        assert all("127.0.0.1" not in c.failure.message for c in calls.values() if c.failure)
        assert calls["ten"].reply == "10"  # as it came
        assert model.failed == sum(kind is not None for _, _, kind in expected.values())
        assert server.attempts["always 500"] == 2  # one retry, as configured
        # a verdict is kept, and no request for it is sent again; everything else is sent again
        before = Counter(server.attempts)
        server.behave = lambda answer, attempt: "Judgement: 0"
        calls = ask(model, list(expected))
        asked_again = {a for a in expected if server.attempts[a] > before[a]}
        assert asked_again == {
            a for a, (_, verdict, _) in expected.items() if verdict in ("unparsed", "undecided")
        }
        assert all(calls[a].verdict == "wrong" for a in asked_again)
        assert calls["right"].verdict == "right"


def test_a_request_that_hangs_is_given_up_and_sent_again_in_the_next_session(tmp_path):
    with serving(lambda answer, attempt: "<hang>") as server:
        with judge_of(server, tmp_path, timeout_s=0.5, retries=0) as model:
            (call,) = ask(model, ["red"]).values()
        assert (call.verdict, call.failure.type) == ("undecided", "timeout")
        server.behave = lambda answer, attempt: "Judgement: 1"
        with judge_of(server, tmp_path) as model:
            assert ask(model, ["red"])["red"].verdict == "right"


def test_the_model_is_asked_at_temperature_0_with_the_concurrency_given(tmp_path):
    gate = threading.Barrier(8, timeout=1800)

    def behave(answer: str, attempt: int) -> str:
        gate.wait()  # passes only when eight requests are in flight at once
        return "Judgement: 1"

    with serving(behave) as server, judge_of(server, tmp_path) as model:
        ask(model, [f"answer {i}" for i in range(16)])
        assert server.most_in_flight == 8
        assert {body["temperature"] for body in server.bodies} == {0}
        assert {body["model"] for body in server.bodies} == {"judge"}


def test_equal_questions_are_asked_once_and_a_second_session_asks_nothing(tmp_path):
    seen = []
    with serving(lambda answer, attempt: "Judgement: 1") as server:
        with judge_of(server, tmp_path) as model:
            question = model.question(VSTAR, "scarlet", "strict")
            model.judge([question, question], lambda done, total: seen.append((done, total)))
            assert server.attempts["scarlet"] == 1
            assert model.cost() == {
                "judge_requests": 1, "judge_failed": 0, "judge_cut_off": 0, "judge_tokens": 105, "judge_from_cache": 0,
            }  # fmt: skip
        assert seen[-1] == (1, 1)
    with judge_of(server, tmp_path) as model:  # the server is gone and is not needed
        call = ask(model, ["scarlet"])["scarlet"]
        assert (call.verdict, call.reply, model.requests) == ("right", "Judgement: 1", 0)


@pytest.mark.parametrize(
    ("limit", "requests", "reason"),
    [({"max_requests": 5}, 5, "budget of 5 requests"), ({"max_tokens": 300}, 3, "budget of 300 tokens")],
)
def test_a_budget_stops_cleanly_and_the_next_session_resumes(tmp_path, limit, requests, reason):
    answers = [f"answer {i}" for i in range(12)]
    with serving(lambda answer, attempt: "Judgement: 1") as server:
        with judge_of(server, tmp_path, concurrency=1, **limit) as model:
            calls = ask(model, answers)
            assert server.attempts.total() == model.requests == requests
            done = [a for a in answers if calls[a].verdict == "right"]
            left = [calls[a] for a in answers if calls[a].verdict == "undecided"]
            assert (len(done), len(left)) == (requests, 12 - requests)
            assert {c.failure.type for c in left} == {"budget"}
            assert reason in left[0].failure.message
        with judge_of(server, tmp_path) as model:
            assert {c.verdict for c in ask(model, answers).values()} == {"right"}
            assert set(server.attempts.values()) == {1}


def completion(message: dict, finish_reason: str = "stop") -> dict:
    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish_reason}
    return {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 64}}


CUT = {  # answer to be judged -> (body, kind of failure)
    "cut off": (completion({"content": "The answer says blue, so"}, "length"), "cut_off"),
    "cut off in thought": (completion({"content": "<think>\nThe answer 1 ..."}, "length"), "cut_off"),
    "cut off by a reasoning parser": (
        completion({"content": None, "reasoning_content": "B"}, "length"),
        "cut_off",
    ),
    "thought only": (completion({"content": None, "reasoning_content": "Judgement: 1"}), "thought_only"),
    "thought in the text only": (completion({"content": "<think>Judgement: 1"}), "thought_only"),
}


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_a_reply_that_ends_before_its_judgement_is_counted_apart_and_asked_again(tmp_path, protocol):
    with serving(lambda answer, attempt: CUT[answer][0]) as server:
        with judge_of(server, tmp_path) as model:
            calls = ask(model, list(CUT), protocol)
            assert {a: (c.verdict, c.failure.type) for a, c in calls.items()} == {
                a: ("undecided", kind) for a, (_, kind) in CUT.items()
            }
            assert all("judge_reply_tokens" in c.failure.message for c in calls.values())
            assert calls["cut off"].reply == "The answer says blue, so"
            assert (model.cut_off, model.failed, model.tokens) == (5, 0, 5 * 164)
        server.behave = lambda answer, attempt: "<think>Is it? 0?</think>Judgement: 1"
        with judge_of(server, tmp_path, reply_tokens=4096) as model:
            assert {c.verdict for c in ask(model, list(CUT), protocol).values()} == {"right"}
        assert [b["max_tokens"] for b in server.bodies] == [64] * 5 + [4096] * 5
        with judge_of(server, tmp_path, reply_tokens=64) as model:  # a verdict is kept under any limit
            assert {c.verdict for c in ask(model, list(CUT), protocol).values()} == {"right"}
            assert model.requests == 0


def test_a_judgement_before_the_cut_is_a_verdict(tmp_path):
    with serving(lambda *_: completion({"content": "Judgement: 0\nBecause the"}, "length")) as server:
        with judge_of(server, tmp_path) as model:
            assert ask(model, ["scarlet"])["scarlet"].verdict == "wrong"
        assert count(tmp_path / "r.sqlite") == 1


def test_replies_without_a_judgement_that_an_earlier_version_kept_are_asked_again(tmp_path):
    with serving(lambda answer, attempt: "Judgement: 1") as server, judge_of(server, tmp_path) as model:
        question = model.question(VSTAR, "scarlet", "strict")
        model.cache.put(question.key, "judge", "strict", CachedReply("<think>cut off", 10, 64))
        assert model.judge([question])[question.key].verdict == "right"
    with judge_of(server, tmp_path) as model:
        assert model.judge([question])[question.key].verdict == "right"


def odd_bodies() -> list[bytes]:
    """A few hundred replies that a server should not send, each different from the others."""
    rng = random.Random(0)
    good = json.dumps(completion({"content": "Judgement: 1"}))
    values = (*ODD_JSON, '{"a":' * 3_000 + "1" + "}" * 3_000, "[[]]", '["Judgement: 1"]')
    texts = [*values, "", "\ufeff" + good, good + good, good[:-9], "data: " + good, "<html></html>", "\0"]
    for part in (
        '"Judgement: 1"',
        '"stop"',
        "100",
        "64",
        '"assistant"',
        '{"prompt_tokens": 100, "completion_tokens": 64}',
    ):
        texts += [good.replace(part, value) for value in values]
    for part in ('"choices"', '"message"', '"content"', '"usage"', '"finish_reason"'):
        texts += [good.replace(part, '"other"'), good.replace(part, f'"reply": 1, {part}')]
    texts.append(good.replace("Judgement: 1", "blah " * 30_000 + "Judgement: 1"))
    bodies = [text.encode() for text in texts]
    bodies += [good.encode(codec) for codec in ("utf-16", "utf-32", "utf-7", "cp037")]
    for _ in range(120):  # damaged bytes
        body = bytearray(good.encode())
        for _ in range(rng.randint(1, 4)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        bodies.append(bytes(body))
    return bodies


def test_whatever_a_server_replies_is_one_answers_verdict_or_failure(runs):
    bodies = odd_bodies()
    assert len(bodies) > 250
    params = make_run(runs, [f"thing number {i}" for i in range(len(bodies))])
    with serving(lambda answer, attempt: bodies[int(answer.split()[-1])]) as server:
        url = server.url(retries=0, concurrency=4)
        for _ in range(2):
            run_judging(JudgingParams(**params, judge=url))
            judged = [v for v in stored() if v.judge]
            assert len(judged) == len(bodies)
            assert all(v.judge.failure or v.judge.reply is not None for v in judged)
            kinds = Counter(v.judge.failure.type for v in judged if v.judge.failure)
            assert set(kinds) <= {"bad_reply", "cut_off", "thought_only"}
            assert kinds["bad_reply"] > 50
            assert all(len(v.judge.reply or "") <= 100_000 for v in judged)
            assert sum(v.verdict == "right" for v in judged) > 50
        # a verdict was asked once, everything else twice
        for v in judged:
            assert server.attempts[v.answer] == (1 if v.verdict in ("right", "wrong") else 2)


def test_half_a_surrogate_pair_behind_a_judgement_is_kept_as_a_mark(runs):
    body = completion({"content": "Judgement: 1 \ud835"})
    params = make_run(runs, ["scarlet"])
    with serving(lambda *_: body) as server:
        for _ in range(2):
            run_judging(JudgingParams(**params, judge=server.url()))
            assert [(v.verdict, v.judge.reply) for v in stored()] == [("right", "Judgement: 1 \ufffd")]
        assert server.attempts.total() == 1


@pytest.mark.parametrize("trick", ["<429>", "<500>", "<close>"])
def test_a_fault_of_the_server_is_no_result_and_is_held_back(runs, trick):
    params = make_run(runs, ["red", "scarlet", "azure"])
    with serving(lambda answer, attempt: trick if answer == "azure" else "Judgement: 1") as server:
        judging = JudgingParams(**params, judge=server.url(retries=0))
        for _ in range(2):
            with pytest.raises(StageError, match=r"run r: .* 1 answers of .*run 03_judging again"):
                run_judging(judging)
            with pytest.raises(StageError):
                stored()
        server.behave = lambda answer, attempt: "Judgement: 1"
        run_judging(judging)
        assert [v.verdict for v in stored()] == ["right"] * 3
        assert server.attempts == {"scarlet": 1, "azure": 3}


def test_a_server_that_is_gone_is_given_up_on_before_every_question_has_timed_out(tmp_path):
    with serving(lambda answer, attempt: "<500>") as server:
        with judge_of(server, tmp_path, retries=0, concurrency=4) as model:
            calls = ask(model, [f"answer {i}" for i in range(200)])
        assert llm.GIVE_UP_AFTER <= server.attempts.total() < llm.GIVE_UP_AFTER + 4
        kinds = Counter(c.failure.type for c in calls.values())
        assert kinds["given_up"] == 200 - server.attempts.total()
        assert {c.verdict for c in calls.values()} == {"undecided"}


def test_an_interrupt_keeps_the_replies_under_way_and_asks_nothing_more(tmp_path):
    pressed = threading.Event()

    def interrupted(done: int, total: int) -> None:
        pressed.set()
        raise KeyboardInterrupt

    def behave(answer: str, attempt: int) -> str:
        pressed.wait(1800)  # replies come after the interrupt
        return "Judgement: 1"

    with serving(behave) as server:
        with judge_of(server, tmp_path, concurrency=4) as model:
            questions = [model.question(VSTAR, f"answer {i}", "strict") for i in range(40)]
            with pytest.raises(KeyboardInterrupt):
                model.judge(questions, interrupted)
        attempts = server.attempts.total()
        assert 4 <= attempts < 40
        assert count(tmp_path / "r.sqlite") == attempts
        with judge_of(server, tmp_path) as model:
            model.judge(questions)
        assert set(server.attempts.values()) == {1}


# ------------------------------------------------------------------ the stage


def make_run(tmp_path, answers: list[str]) -> dict:
    """A baseline run `r` of V* samples with these answers; the parameters to judge it."""
    samples = make_samples(len(answers), (TASK,))
    records = {
        s.id: AgentRecord(
            id=s.id, run_mode="baseline", status="ok", decision="baseline", used="large", answer=answer
        )
        for s, answer in zip(samples, answers, strict=True)
    }
    write_answers("r", {"baseline": records})
    write_vstar(tmp_path / "bench", samples)
    return {"run": "r", "tasks": [TASK], "arms": ["baseline"], "data_root": str(tmp_path / "bench")}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    return tmp_path


def stored() -> list:
    return [
        r.verdicts[0] for r in read_stage("r", "03_judging/baseline", TASK, JudgedRecord).records.values()
    ]


def test_the_model_decides_what_no_rule_can_and_everyone_who_was_asked_is_kept(runs):
    params = make_run(runs, ["red", "scarlet", "azure", ""])
    replies = {"scarlet": "Judgement: 1", "azure": "Judgement: 0"}
    with serving(lambda answer, attempt: replies[answer]) as server:
        run_judging(JudgingParams(**params, judge=server.url()))
        by_rule, right, wrong, empty = stored()
        assert (by_rule.verdict, by_rule.decided_by, by_rule.judge) == ("right", "rule", None)
        assert (right.verdict, right.decided_by, right.rule) == ("right", "llm", "nothing_named")
        assert (right.rule_verdict, right.judge.model, right.judge.reply) == (
            "undecided",
            "judge",
            "Judgement: 1",
        )
        assert (right.judge.prompt_tokens, right.judge.completion_tokens) == (100, 5)
        assert wrong.verdict == "wrong"
        assert (empty.verdict, empty.judge) == ("unparsed", None)  # there is nothing to judge
        manifest = read_stage("r", "03_judging/baseline", TASK, JudgedRecord).manifest
        assert manifest.timing["judge_requests"] == 2
        assert manifest.timing["judge_tokens"] == 210
        assert manifest.config["judge"] == "judge"
        assert "127.0.0.1" not in manifest.model_dump_json()
        # again, and under other rules' eyes: nothing is paid for twice
        run_judging(JudgingParams(**params, judge=server.url()))
        assert set(server.attempts.values()) == {1}


def test_asked_about_everything_the_model_still_decides_only_what_is_open(runs):
    params = make_run(runs, ["red", "scarlet"])
    with serving(lambda answer, attempt: "Judgement: 0") as server:
        run_judging(JudgingParams(**params, judge=server.url(), judge_all=True))
    by_rule, by_model = stored()
    assert (by_rule.verdict, by_rule.decided_by, by_rule.judge.verdict) == ("right", "rule", "wrong")
    assert (by_model.verdict, by_model.decided_by) == ("wrong", "llm")


def test_what_the_model_could_not_be_asked_is_undecided_and_asked_when_the_stage_runs_again(runs):
    params = make_run(runs, ["red", "scarlet", "azure"])
    with serving(lambda answer, attempt: "Judgement: 1") as server:
        run_judging(JudgingParams(**params, judge=server.url(), judge_max_requests=1))
        assert [v.verdict for v in stored()] == ["right", "right", "undecided"]
        open_ = stored()[2]
        assert (open_.decided_by, open_.judge.failure.type) == ("none", "budget")
        # more is known now: no need to ask for a restart
        run_judging(JudgingParams(**params, judge=server.url()))
        assert [v.verdict for v in stored()] == ["right"] * 3
        assert set(server.attempts.values()) == {1}


def test_a_killed_session_loses_no_reply_and_pays_for_none_twice(runs):
    answers = [f"thing number {i}" for i in range(60)]
    params = make_run(runs, answers)
    hold, held = threading.Event(), threading.Semaphore(0)
    cache = runs / "runs" / llm.CACHE_FILE

    def behave(answer: str, attempt: int) -> str:
        if int(answer.split()[-1]) % 3 == 2 and not hold.is_set():
            held.release()
            hold.wait(600)
            return "<close>"  # the process that sent the request is dead
        return "Judgement: 1"

    with serving(behave) as server:
        code = (
            "from speceyes_lib.judging.stage import run_judging as judge\n"
            "from speceyes_lib.params import JudgingParams\n"
            f"judge(JudgingParams(**{params!r}, judge={server.url(concurrency=6)!r}))"
        )
        child = subprocess.Popen([sys.executable, "-c", code], env=os.environ)
        for _ in range(6):  # until all six places are taken by requests that get no reply
            assert held.acquire(timeout=1800)
        answered = server.replied.total()
        deadline_s = time.monotonic() + 1800
        while count(cache) < answered and time.monotonic() < deadline_s:
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        hold.set()
        assert 0 < answered < 60
        assert count(cache) == answered  # every reply that came is kept
        run_judging(JudgingParams(**params, judge=server.url(concurrency=6)))
        assert [v.verdict for v in stored()] == ["right"] * 60
        assert server.replied == dict.fromkeys(answers, 1)  # nothing was paid for twice
        assert server.attempts.total() == 60 + 6  # only requests in flight were sent again


def count(cache) -> int:
    with sqlite3.connect(cache, timeout=1800) as db:
        return db.execute("SELECT count(*) FROM replies").fetchone()[0]


def test_an_endpoint_that_cannot_be_one_is_refused_before_anything_runs():
    with pytest.raises(ConfigError, match=r"judge.*option 'model' is missing"):
        build(JudgingParams, {"judge": "http://127.0.0.1:8000/v1"}, "03_judging")
