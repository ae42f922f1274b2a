"""`check` reads what a server replies as the run will: as draft, as agent and as judge."""

from __future__ import annotations

import socket

import pytest
from odd_replies import plain_reply
from servers import completion, scripted_server
from workflow_home import make_home

from speceyes_lib.errors import ConfigError
from speceyes_lib.workflow import reproduce
from speceyes_lib.workflow.plan import load_config, plan

USUAL = {"draft": plain_reply(k=8), "agent": completion(), "judge": completion("Judgement: 1")}


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """Function that checks a config whose draft, agent and judge are one server, with replies by role.

    It returns the requests. The jobs are planned once, which is most of the work.
    """
    folder = tmp_path_factory.mktemp("home")
    replies: dict[str, dict | str] = {}
    with (
        pytest.MonkeyPatch.context() as patch,
        scripted_server(lambda n, body: (200, (USUAL | replies)[body["model"]])) as server,
    ):
        patch.setenv("SPECEYES_HOME", str(folder))
        patch.delenv("SPECEYES_RUNS", raising=False)
        home = make_home(folder)
        urls = {role: f"{server.base_url}?model={role}&retries=0&processor=qwen3_vl" for role in USUAL}
        (home / "configs" / "x.yaml").write_text(
            f"models: {{draft: '{urls['draft']}', agent: '{urls['agent']}'}}\n"
            f"judging: {{judge: '{urls['judge']}'}}\n"
            "draft: {k_store: 8}\ngate: {k: 8}\ndata: {tasks: [vstar/direct_attributes]}\n"
        )
        config = load_config("configs/x.yaml")
        jobs = plan(config)
        patch.setattr(reproduce, "plan", lambda config: jobs)

        def check(odd: dict[str, dict | str]) -> list[dict]:
            replies.clear()
            replies.update(odd)
            server.requests.clear()
            reproduce.check_servers(config)
            return server.requests

        yield check


def only_thought(reason: str = "length") -> dict:
    reply = completion(None, finish_reason=reason)
    reply["choices"][0]["message"]["reasoning_content"] = "B because it is blue"
    return reply


def test_servers_that_reply_as_the_run_needs_pass_after_few_requests(checked):
    models = [request["model"] for request in checked({})]
    assert models == ["draft", "draft", "agent", "judge"]


@pytest.mark.parametrize(
    ("role", "reply", "message"),
    [
        (
            "draft",
            only_thought(),
            "models.draft: .*reasoning_content holds 'B because it is blue'.*reasoning parser",
        ),
        ("agent", only_thought("stop"), "models.agent: .*reasoning_content holds .*reasoning parser"),
        ("judge", only_thought(), "judging.judge: .*cut off at 64 tokens.*judge_reply_tokens"),
        ("judge", only_thought("stop"), "judging.judge: .*holds a thought"),
        ("judge", completion("I like it."), "judging.judge: .*states no judgement: 'I like it.'"),
        ("judge", "<html>", "judging.judge: .*no chat completion"),
        *(
            (
                role,
                {"error": {"message": "20 requests per minute", "code": 429}},
                f"{role}: .*20 requests per minute",
            )
            for role in ("draft", "agent", "judge")
        ),
        ("draft", completion("B", logprobs="yes"), "models.draft: .*logprobs cannot be read"),
        ("draft", completion("B"), "models.draft: .*returns no logprobs"),
        ("agent", completion("B", finish_reason="tool_calls"), "models.agent: .*ended by 'tool_calls'"),
    ],
)
def test_a_server_whose_reply_the_run_could_not_use_is_refused_with_its_words(checked, role, reply, message):
    with pytest.raises(ConfigError, match=message):
        checked({role: reply})


def test_half_of_a_character_and_another_word_for_stop_are_no_reason_to_refuse(checked):
    checked(
        {
            "agent": completion("<answer>B \ud835</answer>"),
            "draft": plain_reply(k=8)
            | {"choices": [plain_reply(k=8)["choices"][0] | {"finish_reason": "eos_token"}]},
            "judge": completion("Judgement: 1 \ud835"),
        }
    )


def test_an_absent_server_of_the_embedded_models_leads_to_make_serve(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1?model=draft&retries=0&processor=data/demo/models/draft"
        path = tmp_path / "x.yaml"
        path.write_text(f"name: x\ngate: {{threshold: 0.9}}\nmodels: {{draft: '{url}'}}\n")
        with pytest.raises(ConfigError, match=r"models\.draft: .*make serve"):
            reproduce.check_servers(load_config(path))
