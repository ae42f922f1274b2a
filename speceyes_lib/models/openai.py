"""Models behind OpenAI-compatible servers (vLLM, the embedded server, hosted ones), many requests in flight.

Evidence comes from `top_logprobs`: separability does not change when a constant is added to every logit. Pictures are
sent as PNG at the size that the model sees, so that boxes mean the same pixels on both sides. Two extensions of vLLM
are used where a server has them: `stop_reason` (the stop string, which the text lacks) and `continue_final_message`
(for a turn that has begun).
"""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from PIL import Image

from ..errors import ConfigError, UserError, nearest
from ..paths import resolve, shown
from ..runs.evidence import Evidence
from ..runs.provenance import text_hash
from ..tasks.images import ImageSpec
from ..texts import storable
from .base import NO_THOUGHTS, BackendType, Generation, GenerationRequest, failed, grey_picture_request
from .endpoint import Client, Endpoint, EndpointError, Reply, is_endpoint, on_loop, parse_endpoints
from .picture_memory import PictureMemory
from .spelling import LOST, answer_entries
from .transformers import normalise
from .transport import certificates

# values of the published processors: patch size x merge size, and the pixels of a view
PROCESSORS = {
    "qwen3_vl": ImageSpec(factor=32, min_pixels=65_536, max_pixels=16_777_216),
    "qwen2_5_vl": ImageSpec(factor=28, min_pixels=3_136, max_pixels=12_845_056),
}
# fields of a message that hold what the text lacks, and what to do about each
_NO_PARSER = f"start the server without a reasoning parser, or {NO_THOUGHTS}"
ELSEWHERE = {
    **dict.fromkeys(("reasoning_content", "reasoning", "thinking"), _NO_PARSER),
    **dict.fromkeys(
        ("tool_calls", "function_call"),
        "start the server without a tool parser, because agents read the call",
    ),
    "refusal": "use a model that answers",
}
EXCLUDED = -9999.0  # what vLLM and the embedded server write for -inf, which JSON has not
# of the request that tries a server out: room for a short answer that ends by itself, and what agents have and stop at
PROBE_TOKENS, AGENTS_TOKENS = 16, 512
AGENTS_STOP = ("</tool_call>", "</answer>", "<|im_end|>")
FIRST_YEAR = 2025  # a clock that shows less is wrong
UNKNOWN = -1  # token ids: servers name tokens by their text


class ServerBackend:
    """The model of one or more servers (`endpoint` explains the text `model`).

    Args:
        min_pixels, max_pixels: image budget; by default that of the model's processor. The endpoint's `processor` is a
            key of PROCESSORS, or a folder with the model's processor configuration.
        local: settings of local models, such as dtype. The server has decided them.

    Raises:
        ConfigError: the endpoints cannot be right. No request is sent for this check.
    """

    def __init__(
        self,
        model: str,
        role: str = "draft",
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        **local: Any,
    ) -> None:
        self.endpoints, self.role, self.fingerprint = parse_endpoints(model), role, fingerprint(model)
        spec = image_spec_of(self.endpoints[0].processor)
        self.image_spec = ImageSpec(spec.factor, min_pixels or spec.min_pixels, max_pixels or spec.max_pixels)
        self.client = Client(self.endpoints)
        self.max_in_flight = self.client.max_in_flight
        self.vocab_size = 0  # alternatives per token: none before `probe` has run
        self.data_urls = PictureMemory(_data_url)  # an agent sends its first view with every turn

    # ------------------------------------------------------------------------------------ the contract
    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """The generations, in order, with as many requests in flight as the endpoints allow; see `Backend.generate`.

        Each request is charged an equal share of the clock.
        """
        began_s = time.perf_counter()
        waiting = threading.Semaphore(2 * self.max_in_flight)  # limits the number of encoded pictures held
        futures: list[Future[Generation]] = []
        try:
            for request in requests:
                waiting.acquire()
                futures.append(self.submit(request))
                futures[-1].add_done_callback(lambda _: waiting.release())
            generations = [f.result() for f in futures]
        except BaseException:  # Ctrl-C: cancel what is in flight
            for future in futures:
                future.cancel()
            raise
        share_s = (time.perf_counter() - began_s) / max(1, len(generations))
        return [replace(g, generate_s=share_s, batch_size=len(generations)) for g in generations]

    def submit(self, request: GenerationRequest) -> Future[Generation]:
        """The future generation of one request, charged with its own latency."""
        messages, body = self.body(request)

        async def generation() -> Generation:
            began_s = time.perf_counter()
            try:
                reply = await self.client.ask(messages, **body)
                return read_reply(request, reply)
            except EndpointError as error:
                message = f"{error.kind}: {error}"
                return failed(request, message, time.perf_counter() - began_s, error.means)

        return on_loop(generation())

    def warm_up(self) -> None:
        """Request one short answer from every endpoint and read it as the run will.

        Raises:
            UserError: a server gives none, or one that the run could not use; with the server's words.
        """
        for endpoint in self.endpoints:
            try:
                request, reply = self._ask_one(endpoint, evidence_k=0)
            except EndpointError as error:
                raise _unusable(error) from None
            self._usable(endpoint, request, reply)

    def info(self) -> dict:
        """What identifies the model, without a host; see `Backend.info`."""
        return {
            "role": self.role,
            "name": self.endpoints[0].model,
            "architecture": "OpenAI-compatible server",
            "fingerprint": self.fingerprint,
            "endpoints": len(self.endpoints),
            "max_in_flight": self.max_in_flight,
            "processor": shown(p) if "/" in (p := self.endpoints[0].processor) else p,
            "alternatives": self.vocab_size,
            "min_pixels": self.image_spec.min_pixels,
            "max_pixels": self.image_spec.max_pixels,
        }

    # ------------------------------------------------------------------------------------------ probing
    def probe(self, evidence_k: int, required: bool = False) -> int:
        """The number of alternatives per token that every endpoint returns, at most `evidence_k`; kept as `vocab_size`.

        Raises:
            UserError: a server does not answer, or returns fewer although they are required.
        """
        self.vocab_size = available = min(self._probe(e, evidence_k, required) for e in self.endpoints)
        name = self.endpoints[0].model
        if required and available == 0:
            raise UserError(
                f"{name!r}: the server returns no logprobs although the request contains them, so drafts cannot "
                "be scored. Use a server that returns top_logprobs for chat completions with pictures, such as vLLM "
                "or the embedded one (speceyes serve)"
            )
        if required and available < evidence_k:
            raise UserError(
                f"k_store: {evidence_k} alternatives per token are needed, but the server of {name!r} returns "
                f"{available}. Start vLLM with --max-logprobs {evidence_k}, or set k_store (and k) to at most "
                f'{available}, or set if_fewer_alternatives = "lower"'
            )
        return available

    def _probe(self, endpoint: Endpoint, evidence_k: int, required: bool) -> int:
        """Alternatives returned for evidence_k requested; if that is refused, the number that the refusal allows.

        Evidence that cannot be used counts as none, or raises UserError if it is required.
        """
        wanted = [evidence_k]
        while wanted:
            k = wanted.pop(0)
            try:
                request, reply = self._ask_one(endpoint, k)
            except EndpointError as error:
                if error.kind != "refused" or "logprobs" not in str(error):
                    raise _unusable(error) from None
                if k == evidence_k:
                    limit = re.search(r"(?:allowed|at most|maximum|max|<=)\D{0,20}(\d+)", str(error))
                    guesses = {int(limit[1])} if limit else {5, 20, 64}
                    wanted = sorted((n for n in guesses if 0 < n < k), reverse=True)
                continue
            self._usable(endpoint, replace(request, evidence_k=0), reply)
            available = min(k, _alternatives(reply, k))
            try:
                self._usable(endpoint, replace(request, evidence_k=available), reply)
            except UserError:
                if required:
                    raise
                return 0
            return available
        return 0

    def _ask_one(self, endpoint: Endpoint, evidence_k: int) -> tuple[GenerationRequest, Reply]:
        """A request of the kind that the run sends, and its reply."""
        agent = self.role == "agent"
        stop = AGENTS_STOP if agent and not evidence_k else ()
        request = grey_picture_request(self.image_spec, evidence_k, PROBE_TOKENS, stop)
        client = Client([endpoint])
        try:
            reply = self._reply(client, request)
            if agent and not reply.text and reply.finish_reason == "length":  # agents have room for a thought
                request = replace(request, max_new_tokens=AGENTS_TOKENS)
                reply = self._reply(client, request)
            return request, reply
        finally:
            client.close()

    def _reply(self, client: Client, request: GenerationRequest) -> Reply:
        messages, body = self.body(request)
        return client.submit(messages, **body).result()

    def _usable(self, endpoint: Endpoint, request: GenerationRequest, reply: Reply) -> None:
        """Raises UserError for a reply that would be a failure in the run."""
        if error := read_reply(request, reply).error:
            raise UserError(
                f"{endpoint.base_url}: the run could not use the reply to a test: {error.message}"
            )

    # ----------------------------------------------------------------------------------------- requests
    def body(self, request: GenerationRequest) -> tuple[list[dict], dict]:
        """The messages of a request in the OpenAI form, and the other fields of its chat completion."""
        plain, pictures = normalise(request.messages, self.image_spec)
        urls = iter([self.data_urls.of(p) for p in pictures])
        messages = []
        for message in plain:
            content = message["content"]
            if not isinstance(content, str):
                content = [
                    {"type": "image_url", "image_url": {"url": next(urls)}} if p["type"] == "image" else p
                    for p in content
                ]
            messages.append({"role": message["role"], "content": content})
        body: dict = {"temperature": request.temperature or 0, "max_tokens": request.max_new_tokens}
        if request.stop:
            body["stop"] = list(request.stop)
        if request.evidence_k:
            body |= {"logprobs": True, "top_logprobs": request.evidence_k}
        if request.prefill and messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": []})
        if request.prefill:
            parts = messages[-1]["content"]
            parts = [{"type": "text", "text": parts}] if isinstance(parts, str) else parts
            messages[-1] |= {"content": [*parts, {"type": "text", "text": request.prefill}]}
        if messages[-1]["role"] == "assistant":
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        return messages, body


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def check(model: str) -> None:
    """Refuse a text that names no endpoints, an unknown processor, a key that is not set, or unreadable certificates.

    Raises:
        ConfigError: the first of these; or the clock is so wrong that no certificate can be valid.
    """
    for endpoint in parse_endpoints(model):
        image_spec_of(endpoint.processor)
        _ = endpoint.key
        now = datetime.now(UTC)
        if endpoint.base_url.startswith("https://") and now.year < FIRST_YEAR:
            raise ConfigError(
                f"{endpoint.base_url}: this machine's clock shows {now:%Y-%m-%d}, when no certificate is valid; set it"
            )
    certificates()


def fingerprint(model: str) -> str:
    """Hash of what is known about a served model: its name and picture sizes. Its weights cannot be seen."""
    endpoint = parse_endpoints(model)[0]
    return text_hash([endpoint.model, repr(image_spec_of(endpoint.processor))])


def image_spec_of(processor: str) -> ImageSpec:
    """Picture sizes of a served model. Raises ConfigError with the ways to give them."""
    if processor in PROCESSORS:
        return PROCESSORS[processor]
    valid = f"one of {', '.join(PROCESSORS)} or a folder with the model's processor configuration"
    if not processor:
        raise ConfigError(f"processor: the endpoint does not name one; add &processor= to it: {valid}")
    files = [resolve(processor) / name for name in ("preprocessor_config.json", "processor_config.json")]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise ConfigError(
            f"processor: {processor!r} is unknown{nearest(processor, PROCESSORS)}; expected {valid}"
        )
    try:
        image = json.loads(file.read_text("utf-8"))
        image = image.get("image_processor", image)
        size = image.get("size") or {}
        low = image.get("min_pixels", size.get("shortest_edge"))
        high = image.get("max_pixels", size.get("longest_edge"))
        return ImageSpec(image["patch_size"] * image["merge_size"], int(low), int(high))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"processor: {shown(file)} is no processor configuration ({type(error).__name__}: {error})"
        ) from None


# ------------------------------------------------------------------ replies


def read_reply(request: GenerationRequest, reply: Reply) -> Generation:
    """The generation of a server's reply. One that lacks what was requested, or cannot be read, is a failure."""
    try:
        return _read_reply(request, reply)
    except Exception as error:  # a server may send anything; what it sent is a result of this sample
        reason = (
            str(error)
            if type(error) is ValueError
            else f"it cannot be read ({type(error).__name__}: {error})"
        )
        return failed(request, storable(f"bad_reply: {reason}; it begins {reply.excerpt!r}"), reply.latency_s)


def _read_reply(request: GenerationRequest, reply: Reply) -> Generation:
    """Raises ValueError with the reason for a reply that lacks something."""
    text, stop = reply.text, reply.choice.get("stop_reason")
    if not text:
        _check_empty(reply)
    if reply.finish_reason not in ("stop", "length"):
        raise ValueError(
            f"the answer ended by {reply.finish_reason!r}, where 'stop' or 'length' are expected"
        )
    if stop in request.stop and not text.endswith(stop):
        text += stop
    evidence, first_texts = None, ()
    if request.evidence_k:
        is_cut = reply.finish_reason == "length"
        evidence, first_texts = read_evidence(reply.choice, text, request.evidence_k, request.stop, is_cut)
        n = evidence.n_tokens
    else:
        # servers that send stop_reason count the end token, which is not part of the answer
        ended = reply.finish_reason == "stop" and "stop_reason" in reply.choice and stop is None
        n = max(0, reply.completion_tokens - ended)
    ids = (UNKNOWN,) * n
    return Generation(request.id, text, ids, reply.finish_reason, reply.latency_s, 1, evidence, first_texts)


def _check_empty(reply: Reply) -> None:
    """Raises ValueError for a reply whose text went somewhere else, so that it is not taken for an empty answer."""
    message = reply.choice["message"]
    field = next((name for name in ELSEWHERE if message.get(name)), None)
    if field:
        cut = ", which the token limit cut off" if reply.finish_reason == "length" else ""
        raise ValueError(
            f"the answer is empty, and {field} holds {str(message[field])[:80]!r}{cut}; {ELSEWHERE[field]}"
        )


def read_evidence(
    choice: dict, text: str, k: int, stop: Sequence[str] = (), is_cut: bool = False
) -> tuple[Evidence, tuple[str, ...]]:
    """Evidence of an answer from the logprobs of a choice, and the texts of its first token's alternatives.

    Only entries that spell the text are evidence of it: thoughts that the server took out of the text, and what comes
    after it, are dropped. Alternatives are sorted and cut to k. Token ids are UNKNOWN.

    Raises:
        ValueError: logprobs are missing, unreadable, of another text or have fewer than k alternatives.
    """
    entries = _entries(choice)
    if entries is None:
        raise ValueError("the server returned no logprobs")
    span, text_of = answer_entries(entries, text, stop, is_cut)
    entries = [entries[n] for n in span]
    rows = [_logprobs(entry["top_logprobs"]) for entry in entries]
    if short := [len(row) for row in rows if len(row) < k]:
        raise ValueError(f"the server returned {min(short)} of {k} alternatives (vLLM: --max-logprobs {k})")
    ranks = [np.argsort(-row, kind="stable")[:k] for row in rows]
    texts = tuple(_shown(entry, text_of) for entry in entries)
    first_texts = tuple(_shown(entries[0]["top_logprobs"][i], text_of) for i in ranks[0]) if ranks else ()
    n = len(entries)
    top = np.array([row[rank] for row, rank in zip(rows, ranks, strict=True)], np.float32).reshape(n, k)
    evidence = Evidence(np.full(n, UNKNOWN), texts, _logprobs(entries), np.full((n, k), UNKNOWN), top)
    return evidence, first_texts


def _entries(choice: dict) -> list[dict] | None:
    """The entries of the log-probabilities; None without any. Raises ValueError for wrong types."""
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else logprobs
    if content is None:
        return None
    if not isinstance(content, list) or not all(
        isinstance(e, dict) and isinstance(e.get("token"), str) for e in content
    ):
        raise ValueError("logprobs cannot be read: content is no list of tokens")
    return content


def _shown(entry: dict, text_of: Callable[[dict], str]) -> str:
    """The text of a token for records, also where the server names the vocabulary's entry, a number or nothing."""
    text = text_of(entry)
    return text if text and LOST not in text else storable(str(entry["token"])) or LOST


def _logprobs(entries: Sequence[dict]) -> np.ndarray:
    """The log-probabilities of some entries, float64 [len(entries)]. Raises ValueError for impossible ones."""
    numbers = [entry["logprob"] for entry in entries]
    if odd := [number for number in numbers if type(number) not in (int, float) or not number <= 1e-3]:
        raise ValueError(f"logprobs cannot be read: {str(odd[0])[:40]} is no log-probability")
    return np.array([number if number > EXCLUDED else -np.inf for number in numbers], np.float64)


def _alternatives(reply: Reply, requested: int) -> int:
    """Number of alternatives that every token of the answer has, or the requested number without tokens.

    1 where they cannot be read, so that reading them gives the reason.
    """
    try:
        if not (entries := _entries(reply.choice)):
            return requested if entries == [] and not reply.text else 0
        span, _ = answer_entries(entries, reply.text)
        return min((len(entries[n].get("top_logprobs") or ()) for n in span), default=requested)
    except (ValueError, TypeError):
        return 1


def _unusable(error: EndpointError) -> UserError:
    remedy = "Is it running, with this model? speceyes serve-commands CONFIG"
    return UserError(
        f"{error}. {remedy}" if error.kind in ("unreachable", "timeout", "refused") else str(error)
    )


BACKEND = BackendType(
    takes=is_endpoint,
    check=check,
    fingerprint=fingerprint,
    title=lambda model: parse_endpoints(model)[0].model,
    identity=lambda model: f"served:{parse_endpoints(model)[0].model}",
    open=ServerBackend,
    served=True,
)
