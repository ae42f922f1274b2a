from __future__ import annotations

import asyncio

import pytest
import toy_tools as toys
from tool_episodes import answer, search
from toy_text_model import ToyModel

from speceyes_lib.tool_speculation.episode import Assignment, Episode
from speceyes_lib.tool_speculation.local import LocalPolicy
from speceyes_lib.tool_speculation.models import CallComplete, Finished, PolicyError, Token
from speceyes_lib.tool_speculation.settings import SpeculationSettings
from speceyes_lib.tools.declared import Toolbox, Workspace

BOX = Toolbox([toys.SEARCH])


def events(policy, prefix=()):
    async def collect():
        return [
            e async for e in policy.stream([{"role": "user", "content": "?"}], BOX, Workspace(None), prefix)
        ]

    return asyncio.run(collect())


def test_a_turn_is_a_stream_of_tokens_with_alternatives():
    policy = LocalPolicy(ToyModel([search("oil")]), alternatives=2)
    stream = events(policy)
    assert stream[-1] == Finished(search("oil"))
    (complete,) = [e for e in stream if isinstance(e, CallComplete)]
    assert complete.tokens[0].top_logprobs == (-0.1, -2.0)
    assert Token("o", (-0.1, -2.0), ("o", "p"), (111, 112)) in complete.tokens
    assert policy.can_fork
    assert policy.name == "toy"
    assert not LocalPolicy(ToyModel([""])).can_fork


def test_a_fork_goes_on_after_the_runner_up():
    model = ToyModel([search("oil")])
    turn = [Token(c, (-0.1, -2.0), (c, chr(ord(c) + 1)), (ord(c), ord(c) + 1)) for c in search("oil")]
    place = search("oil").index("oil")
    stream = events(LocalPolicy(model, alternatives=2), [*turn[:place], turn[place].runner_up()])
    assert stream[-1] == Finished(search("pil"))
    assert model.prefixes[0] == [*map(ord, search("oil")[:place]), ord("p")]


def test_a_model_that_fails_and_one_that_is_left():
    with pytest.raises(PolicyError, match="RuntimeError: out of memory"):
        events(LocalPolicy(ToyModel([RuntimeError("out of memory")])))
    model = ToyModel(["endless"])

    async def leave():
        stream = LocalPolicy(model).stream([], BOX, Workspace(None))
        assert await anext(stream) == Token("a")
        await stream.aclose()

    asyncio.run(leave())
    assert model.left.wait(1800)


def test_two_local_models_run_a_task():
    turns = ["I look. " + search("oil"), answer("4")]
    actor, speculator = (
        LocalPolicy(ToyModel(turns)),
        LocalPolicy(ToyModel([search("oil"), "."]), alternatives=2),
    )

    async def work():
        task = Assignment("t", 1, "?", "4")
        return await Episode(task, actor, speculator, BOX, Workspace(None), SpeculationSettings(), "x").run()

    result = asyncio.run(work())
    assert (result.answer, result.error) == ("4", None)
    assert result.steps[0].actor_tokens == len(turns[0])
