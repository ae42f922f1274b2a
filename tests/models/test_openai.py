"""A served model gives the answers, scores and decisions of the local one; a probe finds a server that cannot."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from servers import completion, scripted_server

from speceyes_lib.agents import prompt_sets
from speceyes_lib.demo.server import serving
from speceyes_lib.errors import ConfigError, UserError
from speceyes_lib.gating.separability import PAPER_SCORES, score_answer
from speceyes_lib.models.base import Backend, GenerationRequest
from speceyes_lib.models.endpoint import Reply
from speceyes_lib.models.openai import PROCESSORS, ServerBackend, image_spec_of, read_evidence
from speceyes_lib.tasks.images import ImageSpec, resized_view
from tests.conftest import MODELS
from tests.models.test_transformers import requests_for

PROMPTS = prompt_sets.load("demo")
OPTIONS = "retries=0&processor=qwen3_vl"


@pytest.fixture(scope="module")
def base_url(tiny_draft, tiny_agent):
    with serving({"draft": tiny_draft, "agent": tiny_agent}) as url:
        yield url


@pytest.fixture(scope="module")
def draft(base_url) -> ServerBackend:
    return ServerBackend(f"{base_url}?model=draft&processor={MODELS / 'draft'}", "draft")


@pytest.fixture(scope="module")
def agent(base_url) -> ServerBackend:
    return ServerBackend(f"{base_url}?model=agent&processor={MODELS / 'agent'}", "agent")


def request(**settings) -> GenerationRequest:
    content = [{"type": "image", "image": Image.new("RGB", (64, 64), "red")}, {"type": "text", "text": "?"}]
    return GenerationRequest(
        "x", [{"role": "user", "content": content}], **({"max_new_tokens": 5} | settings)
    )


def entry(token: str, *alternatives: float, **more) -> dict:
    """A token's entry in logprobs: the first alternative is the token itself."""
    top = [{"token": f"t{i}", "logprob": p, "bytes": None} for i, p in enumerate(alternatives)]
    return {
        "token": token,
        "logprob": alternatives[0],
        "bytes": list(token.encode()),
        "top_logprobs": top,
    } | more


# ------------------------------------------------------------------ the same as the local model


def test_it_is_a_backend(draft):
    assert isinstance(draft, Backend)


def test_drafts_of_a_served_model_are_those_of_the_local_one(draft, tiny_draft, scene_samples):
    requests = requests_for(scene_samples, tiny_draft, max_new_tokens=20, evidence_k=128)
    for served, local in zip(draft.generate(requests), tiny_draft.generate(requests), strict=True):
        assert served.error is None
        assert (served.id, served.text, served.finish_reason) == (local.id, local.text, local.finish_reason)
        assert served.evidence.token_texts == local.evidence.token_texts
        assert served.first_texts == local.first_texts
        assert len(served.token_ids) == len(local.token_ids)
        for mode in PAPER_SCORES:
            a, b = (score_answer(g.evidence.top_logprobs, mode) for g in (served, local))
            assert a == pytest.approx(b, abs=1e-4)


def test_an_agents_turns_are_the_same_with_crops_and_begun_turns(agent, tiny_agent, scene_samples):
    settings = {"max_new_tokens": 200, "stop": ("</tool_call>", "</answer>")}
    requests = requests_for(scene_samples[::6], tiny_agent, **settings)
    first = tiny_agent.generate(requests[:1])[0]
    crop = resized_view(scene_samples[0].image.open(), tiny_agent.image_spec)
    history = [{"role": "assistant", "content": first.text}, PROMPTS.tool_response(crop)]
    more = requests[0].messages + history
    requests.append(GenerationRequest("second", more, **settings))
    requests.append(
        GenerationRequest("look", requests[1].messages, prefill=PROMPTS.forced_look_prefix, **settings)
    )
    begun = [*more, {"role": "assistant", "content": [{"type": "text", "text": "<think>I check"}]}]
    requests.append(GenerationRequest("begun", begun, **settings))
    for served, local in zip(agent.generate(requests), tiny_agent.generate(requests), strict=True):
        assert served.error is None, served.id
        assert (served.text, served.finish_reason) == (local.text, local.finish_reason), served.id
        assert len(served.token_ids) == len(local.token_ids), served.id


def test_concurrent_requests_are_answered_in_batches_that_are_not_too_large(tiny_draft, scene_samples):
    requests = requests_for(scene_samples[:8], tiny_draft, max_new_tokens=2)
    sizes = []

    def counting(batch, unwanted, generate=tiny_draft.generate):
        sizes.append(len(batch))
        return generate(batch, unwanted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_draft, "generate", counting)
        with serving({"draft": tiny_draft}, max_batch=4) as url:
            ServerBackend(f"{url}?model=draft&processor={MODELS / 'draft'}").generate(requests)
    assert sum(sizes) == 8
    assert max(sizes) <= 4


def test_shares_sum_to_the_clock_of_the_call(draft, tiny_draft, scene_samples):
    import time

    requests = requests_for(scene_samples[:4], tiny_draft, max_new_tokens=2)
    start = time.perf_counter()
    answers = draft.generate(requests)
    spent_s = time.perf_counter() - start
    assert {a.batch_size for a in answers} == {4}
    assert 0.5 * spent_s < sum(a.generate_s for a in answers) <= spent_s


# ------------------------------------------------------------------ pictures


def test_pictures_travel_without_loss_at_the_size_of_the_view(draft):
    rng = np.random.default_rng(0)
    view = Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8))
    messages, _ = draft.body(
        GenerationRequest("x", [{"role": "user", "content": [{"type": "image", "image": view}]}], 1)
    )
    (part,) = messages[0]["content"]
    data = part["image_url"]["url"].removeprefix("data:image/png;base64,")
    received = Image.open(io.BytesIO(base64.b64decode(data)))
    np.testing.assert_array_equal(np.asarray(received), np.asarray(view))


def test_a_view_is_encoded_once_and_freed_with_its_picture(draft):
    view = Image.new("RGB", (96, 96), "red")
    first = draft.data_urls.of(view)
    assert draft.data_urls.of(view) is first
    del view, first
    assert len(draft.data_urls) == 0


def test_a_processor_is_a_known_name_or_the_models_folder(tiny_draft):
    assert image_spec_of("qwen3_vl").factor == 32
    assert image_spec_of("qwen2_5_vl") is PROCESSORS["qwen2_5_vl"]
    assert image_spec_of(str(MODELS / "draft")) == tiny_draft.image_spec
    narrowed = ServerBackend("http://h/v1?model=m&processor=qwen3_vl", max_pixels=10**6)
    assert narrowed.image_spec == ImageSpec(32, 65_536, 10**6)


@pytest.mark.parametrize(
    ("processor", "message"), [("", "&processor="), ("qwen3_v1", "did you mean 'qwen3_vl'")]
)
def test_a_served_model_without_a_known_processor_is_refused(processor, message):
    with pytest.raises(ConfigError, match=message):
        ServerBackend(f"http://h/v1?model=m&processor={processor}")


# ------------------------------------------------------------------ probing


def test_a_server_that_returns_the_requested_alternatives_passes(draft):
    assert draft.probe(128) == 128
    draft.probe(64, required=True)
    assert draft.info()["alternatives"] == draft.vocab_size == 64


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_an_answer_whose_text_went_to_its_thoughts_is_refused(tiny_draft, scene_samples, field):
    with serving({"draft": tiny_draft}, thoughts_in=field) as url:
        backend = ServerBackend(f"{url}?model=draft&processor={MODELS / 'draft'}")
        (got,) = backend.generate(requests_for(scene_samples[:1], tiny_draft, max_new_tokens=20))
    assert f"{field} holds" in got.error.message


def test_too_few_alternatives_are_refused_with_the_remedies(tiny_draft):
    with serving({"draft": tiny_draft}, max_logprobs=20) as url:
        backend = ServerBackend(f"{url}?model=draft&processor={MODELS / 'draft'}")
        with pytest.raises(UserError, match=r"returns 20.*--max-logprobs 64.*if_fewer_alternatives"):
            backend.probe(64, required=True)


@pytest.mark.parametrize(
    "message",
    [
        "Requested sample logprobs of 64, which is greater than max allowed: 20",
        "top_logprobs: must be <= 20",
        "logprobs!",
    ],
)
def test_the_limit_is_read_from_any_wording_of_the_refusal(message):
    def script(n, body):
        if body.get("top_logprobs", 0) > 20:
            return 400, {"error": {"message": message}}
        return 200, completion(
            logprobs={"content": [entry("red", *[-float(i) for i in range(body["top_logprobs"])])]}
        )

    with scripted_server(script) as server:
        assert ServerBackend(f"{server.base_url}?model=m&{OPTIONS}").probe(64) == 20


def test_a_server_that_silently_returns_fewer_is_detected():
    answer = completion(logprobs={"content": [entry("red", 0.0, -1.0, -2.0)]})
    with scripted_server(lambda n, body: (200, answer)) as server:
        assert ServerBackend(f"{server.base_url}?model=m&{OPTIONS}").probe(64) == 3


@pytest.mark.parametrize("logprobs", [{}, {"logprobs": None}, {"logprobs": {"content": []}}])
def test_a_server_that_silently_omits_logprobs_is_detected(logprobs):
    with scripted_server(lambda n, body: (200, completion(**logprobs))) as server:
        backend = ServerBackend(f"{server.base_url}?model=m&{OPTIONS}")
        with pytest.raises(UserError, match="returns no logprobs although the request contains them"):
            backend.probe(64, required=True)


def test_an_empty_answer_to_the_probe_is_no_missing_evidence():
    with scripted_server(lambda n, body: (200, completion("", logprobs={"content": []}))) as server:
        assert ServerBackend(f"{server.base_url}?model=m&{OPTIONS}").probe(64) == 64


def test_a_server_that_refuses_logprobs_returns_no_alternatives():
    def script(n, body):
        if "logprobs" in body:
            return 400, {"error": {"message": "logprobs is not supported for this model"}}
        return 200, completion()

    with scripted_server(script) as server:
        assert ServerBackend(f"{server.base_url}?model=m&{OPTIONS}").probe(64) == 0


def test_every_replica_is_probed(tiny_draft):
    with serving({"draft": tiny_draft}) as good, serving({"draft": tiny_draft}, max_logprobs=5) as poor:
        options = f"model=draft&processor={MODELS / 'draft'}"
        assert ServerBackend(f"{good}?{options}\n{poor}?{options}").probe(64) == 5


def test_an_unreachable_server_and_one_without_the_model_are_user_errors(base_url):
    for model, message in (
        (f"http://127.0.0.1:9/v1?model=m&{OPTIONS}", "cannot be reached"),
        (f"{base_url}?model=m&{OPTIONS}", "no model 'm'"),
    ):
        with pytest.raises(UserError, match=message):
            ServerBackend(model).warm_up()
        with pytest.raises(UserError, match=message):
            ServerBackend(model).probe(64)


# ------------------------------------------------------------------ replies


def test_a_request_that_finally_fails_is_a_failure_of_its_sample_alone():
    def script(n, body):
        broken = "broken" in str(body["messages"])
        return (
            (500, {"error": {"message": "out of memory"}}, {"x-should-retry": "false"})
            if broken
            else (200, completion())
        )

    with scripted_server(script) as server:
        backend = ServerBackend(f"{server.base_url}?model=m&{OPTIONS}")
        bad = GenerationRequest("bad", [{"role": "user", "content": "broken"}], 5)
        good, failed = backend.generate([request(), bad])
    assert (good.text, good.error) == ("red", None)
    assert (failed.id, failed.finish_reason, failed.error.type) == ("bad", "error", "generation_error")
    assert "server_error" in failed.error.message
    assert "out of memory" in failed.error.message


def test_faults_of_the_server_are_told_apart_from_those_of_a_request():
    statuses = {"busy": 429, "down": 503, "key": 401, "too long": 400}

    def script(n, body):
        return (
            statuses[body["messages"][0]["content"]],
            {"error": {"message": "no"}},
            {"x-should-retry": "false"},
        )

    with scripted_server(script) as server:
        backend = ServerBackend(f"{server.base_url}?model=m&{OPTIONS}")
        requests = [GenerationRequest(name, [{"role": "user", "content": name}], 5) for name in statuses]
        means = {g.id: g.means for g in backend.generate(requests)}
    assert means == {"busy": "rate_limited", "down": "server_error", "key": "refused", "too long": ""}
    (unreachable,) = ServerBackend(f"http://127.0.0.1:9/v1?model=m&{OPTIONS}").generate([request()])
    assert (unreachable.means, unreachable.error.type) == ("unreachable", "generation_error")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"logprobs": None}, "no logprobs"),
        ({"logprobs": {"content": [entry("red", 0.0, -1.0)]}}, "2 of 3 alternatives"),
        ({"logprobs": {"content": [{"token": "red"}]}}, "cannot be read"),
        ({"logprobs": {"content": [entry("red", 0.0, float("nan"), -1.0)]}}, "no log-probability"),
        ({"finish_reason": "content_filter"}, "content_filter"),
        ({"finish_reason": None}, "None"),
    ],
)
def test_a_reply_without_the_requested_evidence_is_a_failure(choice, message):
    answer = completion(**({"logprobs": {"content": [entry("red", 0.0, -1.0, -2.0)]}} | choice))
    with scripted_server(lambda n, body: (200, answer)) as server:
        (got,) = ServerBackend(f"{server.base_url}?model=m&{OPTIONS}").generate([request(evidence_k=3)])
    assert message in got.error.message


def test_a_request_is_sent_greedy_with_stop_strings_and_alternatives():
    with scripted_server(lambda n, body: (200, completion())) as server:
        ServerBackend(f"{server.base_url}?model=m&{OPTIONS}").generate(
            [request(stop=("</a>",), evidence_k=7)]
        )
    (body,) = server.requests
    del body["messages"]
    assert body == {
        "model": "m",
        "temperature": 0,
        "max_tokens": 5,
        "stop": ["</a>"],
        "logprobs": True,
        "top_logprobs": 7,
    }


def generation_of(text: str, sent: GenerationRequest, **choice):
    from speceyes_lib.models.openai import read_reply

    body = completion(text, **choice)
    return read_reply(sent, Reply(text, body["choices"][0]["finish_reason"], 7, 9, body["choices"][0], 0.1))


def test_a_stop_string_that_a_server_reports_belongs_to_the_text():
    with_stop = request(stop=("</a>",))
    assert generation_of("red", with_stop, stop_reason="</a>").text == "red</a>"
    assert generation_of("red</a>", with_stop, stop_reason="</a>").text == "red</a>"
    assert generation_of("red", with_stop, stop_reason=None).text == "red"
    assert generation_of("red", with_stop, stop_reason=151645).text == "red"


def test_the_end_token_is_not_counted_where_the_server_counts_it():
    with_stop = request(stop=("</a>",))
    assert len(generation_of("red", with_stop, stop_reason=None).token_ids) == 8
    assert len(generation_of("red", with_stop, stop_reason="</a>").token_ids) == 9
    assert len(generation_of("red", with_stop).token_ids) == 9  # OpenAI itself does not report stop_reason


def test_the_end_token_is_no_evidence():
    content = [entry("re", 0.0, -1.0), entry("d", 0.0, -2.0), entry("<|im_end|>", 0.0, -3.0)]
    evidence, _ = read_evidence({"logprobs": {"content": content}}, "red", 2)
    assert evidence.token_texts == ("re", "d")
    assert evidence.top_logprobs.tolist() == [[0, -1], [0, -2]]


def test_an_empty_answer_has_evidence_of_no_token():
    evidence, _ = read_evidence({"logprobs": {"content": [entry("<|im_end|>", 0.0, -1.0)]}}, "", 2)
    assert evidence.top_logprobs.shape == (0, 2)


def test_tokens_that_complete_a_stop_string_count_up_to_its_end():
    content = [
        entry("red", 0.0, -1.0),
        entry("</", 0.0, -1.0),
        entry("a>\n", 0.0, -1.0),
        entry("x", 0.0, -1.0),
    ]
    evidence, _ = read_evidence({"logprobs": {"content": content}}, "red</a>", 2, ("</a>",))
    assert evidence.token_texts == ("red", "</", "a>\n")


def test_a_character_split_over_tokens_loses_no_token():
    halves = [entry("�", 0.0, -1.0), entry("�", 0.0, -1.0), entry("<|im_end|>", 0.0, -1.0)]
    assert read_evidence({"logprobs": {"content": halves}}, "é", 2)[0].n_tokens == 2
    with_bytes = [h | {"bytes": [b]} for h, b in zip(halves, "é".encode(), strict=False)] + [halves[2]]
    assert read_evidence({"logprobs": {"content": with_bytes}}, "é", 2)[0].n_tokens == 2


@given(st.lists(st.floats(-50, 0, width=32), min_size=3, max_size=9), st.booleans())
def test_alternatives_of_any_order_are_sorted_and_cut(logprobs, excluded):
    sent = logprobs + [-9999.0] * excluded
    evidence, _ = read_evidence({"logprobs": {"content": [entry("x", *sent)]}}, "x", len(sent))
    expected = sorted(logprobs, reverse=True) + [-np.inf] * excluded
    assert evidence.top_logprobs[0].tolist() == expected
    fewer, texts = read_evidence({"logprobs": {"content": [entry("x", *sent)]}}, "x", 3)
    assert fewer.top_logprobs[0].tolist() == expected[:3]
    assert [sent[int(t[1:])] for t in texts] == sorted(sent, reverse=True)[:3]


def test_the_manifest_learns_the_model_and_no_host_or_key(monkeypatch):
    monkeypatch.setenv("TEST_SERVER_KEY", "sk-very-secret")
    backend = ServerBackend(f"http://gpu7.cluster/v1?model=Qwen/X&key_env=TEST_SERVER_KEY&{OPTIONS}")
    assert backend.info()["name"] == "Qwen/X"
    assert not any(word in str(backend.info()) for word in ("gpu7", "secret", "TEST_SERVER_KEY"))


def test_a_long_batch_is_encoded_as_it_goes_and_not_all_at_once():
    """Thousands of pictures as base64 text would not fit into memory."""
    begun: list[int] = []

    class Counting(ServerBackend):
        def body(self, sent):
            begun.append(int(sent.id))
            return super().body(sent)

    held = []
    with scripted_server(lambda n, body: (held.append(len(begun) - n), (200, completion()))[1]) as server:
        backend = Counting(f"{server.base_url}?model=m&{OPTIONS}&concurrency=3")
        answers = backend.generate([replace(request(), id=str(i)) for i in range(40)])
    assert [a.id for a in answers] == [str(i) for i in range(40)]
    assert begun == list(range(40))
    assert max(held) <= 7  # those in flight, as many that wait, and the one that is being encoded
