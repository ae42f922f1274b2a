"""Replay of a shadow pass against the engine itself, which runs the same scripted task on a virtual clock."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import toy_tools as toys
from hypothesis import given, settings
from hypothesis import strategies as st
from tool_episodes import answer, call, model, run, search

from speceyes_lib.replay.tool_playing import SOURCES, ToolSetting, play
from speceyes_lib.replay.tool_steps import flatten_runs

WORDS = ("mass of Oru", "mass of the Oru", "price of Oru", "Belin")


class Script:
    """A task of chance: what actor and speculator write, and what every call takes."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        n = rng.randint(1, 4)
        calls = [[self.call(rng) for _ in range(rng.choice((1, 1, 2)))] for _ in range(n)]
        guesses = []
        for own in [*calls, []]:
            turn = [
                rng.choice(own) if own and rng.random() < 0.6 else self.call(rng)
                for _ in range(rng.randint(0, 3))
            ]
            guesses.append(" ".join(turn) or "I do not know.")
        self.actor = [f"I think. {' '.join(own)}" for own in calls] + [answer("4")]
        self.speculator = guesses
        self.actor_s = [rng.uniform(0.5, 4) for _ in self.actor]  # no two events at the same moment
        self.guess_s = [rng.uniform(0.1, 2.5) for _ in guesses]
        self.tool_s = {word: rng.uniform(0.1, 4) for word in WORDS}

    @staticmethod
    def call(rng: random.Random) -> str:
        word = rng.choice(WORDS)
        return call("look", query=word) if rng.random() < 0.3 else search(word)

    def run(self, **options):
        def wait(tool):
            return replace(tool, wait_s=lambda made, workspace: self.tool_s[made.arguments["query"]])

        actor, speculator = model(self.actor, self.actor_s), model(self.speculator, self.guess_s, "spec")
        return run(actor, speculator, [wait(toys.SEARCH), wait(toys.LOOK)], **options)


options = st.fixed_dictionaries(
    {
        "policy": st.sampled_from(["concurrent", "concurrent", "original", "off"]),
        "strategy": st.sampled_from(["exact", "normalised", "jaccard", "tool_name_only", "none"]),
        "guess_slots": st.integers(1, 3),
    }
)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), options)
def test_a_shadow_pass_replays_what_the_engine_does(seed, chosen):
    script = Script(seed)
    steps = flatten_runs([script.run(policy="shadow", guess_slots=8)])
    real = script.run(**chosen)
    played = play(steps, ToolSetting.of(real.settings))
    sources = [SOURCES[s] for s in played.source.ravel() if s]
    assert sources == [made.source for step in real.steps for made in step.calls]
    assert played.duration_s.sum() + steps.rest_s[0] == pytest.approx(real.seconds, abs=1e-6)
    executed = sum(g.tool_start_s is not None for step in real.steps for g in step.guesses)
    assert played.started.sum() == executed


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000))
def test_a_real_run_replays_itself(seed):
    real = Script(seed).run()
    steps = flatten_runs([real])
    played = play(steps, ToolSetting.of(real.settings))
    assert played.duration_s.sum() + steps.rest_s[0] == pytest.approx(real.seconds, abs=1e-6)
    assert np.array_equal(
        [SOURCES[s] for s in played.source.ravel() if s],
        [made.source for s in real.steps for made in s.calls],
    )
