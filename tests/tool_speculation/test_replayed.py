from __future__ import annotations

import pytest
from tool_episodes import answer, model, run, search, slow

from speceyes_lib.tool_speculation.replayed import replayed_pair

TURNS = ["I look. " + search("oil"), "So. " + search("gas"), answer("4")]


def recorded(**settings):
    guesses = [search("oil"), search("coal"), "nothing"]
    return run(model(TURNS, [1.0, 2.0, 0.5]), model(guesses, 0.25, "spec"), [slow(seconds=0.5)], **settings)


@pytest.mark.parametrize("policy", ["concurrent", "original", "shadow"])
def test_a_recorded_run_runs_again_without_its_models(policy):
    first = recorded(policy=policy)
    again = run(*replayed_pair(first), [slow(seconds=0.5)], policy=policy)
    assert again.messages == first.messages
    assert again.seconds == pytest.approx(first.seconds)
    for before, after in zip(first.steps, again.steps, strict=True):
        assert [c.source for c in after.calls] == [c.source for c in before.calls]
        assert [(g.canonical, g.outcome) for g in after.guesses] == [
            (g.canonical, g.outcome) for g in before.guesses
        ]
    assert again.models == {"actor": "actor (recorded)", "speculator": "spec (recorded)"}


def test_a_shadow_pass_gives_the_actor_of_every_arm():
    shadow = recorded(policy="shadow")
    assert run(*replayed_pair(shadow), [slow(seconds=0.5)]).seconds == pytest.approx(recorded().seconds)


def test_a_conversation_that_goes_on_after_the_record_ends_the_task():
    first = recorded()
    cut = first.model_copy(update={"messages": first.messages[:4]})
    assert "record ends after 2 turns" in run(*replayed_pair(cut), [slow()]).error
