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
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from ..errors import ConfigError, UserError, nearest
from ..paths import resolve, shown
from ..runs.evidence import Evidence
from ..runs.provenance import text_hash
from ..tasks.images import ImageSpec
from .base import BackendType, Generation, GenerationRequest, failed, grey_picture_request
from .endpoint import Client, Endpoint, EndpointError, Reply, is_endpoint, on_loop, parse_endpoints
from .picture_memory import PictureMemory
from .transformers import normalise

# values of the published processors: patch size x merge size, and the pixels of a view
PROCESSORS = {
    "qwen3_vl": ImageSpec(factor=32, min_pixels=65_536, max_pixels=16_777_216),
    "qwen2_5_vl": ImageSpec(factor=28, min_pixels=3_136, max_pixels=12_845_056),
}
END_TOKENS = ("<|im_end|>", "<|endoftext|>")
EXCLUDED = -9999.0  # what vLLM and the embedded server write for -inf, which JSON has not
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
        """Request one short answer from every endpoint. Raises UserError with the reply of one that gives none."""
        for endpoint in self.endpoints:
            try:
                self._ask_one(endpoint, evidence_k=0)
            except EndpointError as error:
                raise _unusable(error) from None

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
        self.vocab_size = available = min(self._probe(e, evidence_k) for e in self.endpoints)
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

    def _probe(self, endpoint: Endpoint, evidence_k: int) -> int:
        """Alternatives returned for evidence_k requested; if that is refused, the number that the refusal allows."""
        wanted = [evidence_k]
        while wanted:
            k = wanted.pop(0)
            try:
                return min(k, _alternatives(self._ask_one(endpoint, k), k))
            except EndpointError as error:
                if error.kind != "refused" or "logprobs" not in str(error):
                    raise _unusable(error) from None
                if k == evidence_k:
                    limit = re.search(r"(?:allowed|at most|maximum|max|<=)\D{0,20}(\d+)", str(error))
                    guesses = {int(limit[1])} if limit else {5, 20, 64}
                    wanted = sorted((n for n in guesses if 0 < n < k), reverse=True)
        return 0

    def _ask_one(self, endpoint: Endpoint, evidence_k: int) -> Reply:
        client = Client([endpoint])
        messages, body = self.body(grey_picture_request(self.image_spec, evidence_k))
        try:
            return client.submit(messages, **body).result()
        finally:
            client.close()

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
        body: dict = {"temperature": 0, "max_tokens": request.max_new_tokens}
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
    """Refuse a text that names no endpoints, an unknown processor, or a key that is not set. Raises ConfigError."""
    for endpoint in parse_endpoints(model):
        image_spec_of(endpoint.processor)
        _ = endpoint.key


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
    """The generation of a server's reply. A reply that lacks what was requested is a failure."""
    if reply.finish_reason not in ("stop", "length"):
        return failed(request, f"bad_reply: the answer ended by {reply.finish_reason!r}", reply.latency_s)
    text, stop = reply.text, reply.choice.get("stop_reason")
    if stop in request.stop and not text.endswith(stop):
        text += stop
    evidence, first_texts = None, ()
    if request.evidence_k:
        try:
            evidence, first_texts = read_evidence(reply.choice, text, request.evidence_k)
        except ValueError as error:
            return failed(request, f"bad_reply: {error}", reply.latency_s)
        n = evidence.n_tokens
    else:
        # servers that send stop_reason count the end token, which is not part of the answer
        ended = reply.finish_reason == "stop" and "stop_reason" in reply.choice and stop is None
        n = max(0, reply.completion_tokens - ended)
    ids = (UNKNOWN,) * n
    return Generation(request.id, text, ids, reply.finish_reason, reply.latency_s, 1, evidence, first_texts)


def read_evidence(choice: dict, text: str, k: int) -> tuple[Evidence, tuple[str, ...]]:
    """Evidence of an answer from the logprobs of a choice, and the texts of its first token's alternatives.

    Servers differ in whether the end token has an entry, and in how many alternatives they send. Entries after the text
    are dropped; alternatives are sorted and cut to k. Token ids are UNKNOWN.

    Raises:
        ValueError: logprobs are missing, unreadable or have fewer than k alternatives.
    """
    content = (choice.get("logprobs") or {}).get("content")
    if content is None:
        raise ValueError("the server returned no logprobs")
    try:
        entries = content[: _length(content, text)]
        rows = [_logprobs(e["top_logprobs"]) for e in entries]
        ranks = [np.argsort(-row, kind="stable")[:k] for row in rows]
        chosen = _logprobs(entries)
        texts = tuple(str(e["token"]) for e in entries)
        first_texts = tuple(str(entries[0]["top_logprobs"][i]["token"]) for i in ranks[0]) if ranks else ()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"logprobs cannot be read ({type(error).__name__}: {error})") from None
    if short := [len(row) for row in rows if len(row) < k]:
        raise ValueError(f"the server returned {min(short)} of {k} alternatives (vLLM: --max-logprobs {k})")
    n = len(entries)
    top = np.array([row[rank] for row, rank in zip(rows, ranks, strict=True)], np.float32).reshape(n, k)
    return Evidence(np.full(n, UNKNOWN), texts, chosen, np.full((n, k), UNKNOWN), top), first_texts


def _length(entries: Sequence[dict], text: str) -> int:
    """Number of entries that make up the text."""
    wanted, read = text.encode(), b""
    for n, entry in enumerate(entries):
        if read.startswith(wanted):
            return n
        encoded = entry.get("bytes")
        read += bytes(encoded) if encoded is not None else str(entry["token"]).encode()
    n = len(entries)
    if not read.startswith(wanted):  # bytes of a character that is split over tokens may be lost
        while n and entries[n - 1]["token"] in END_TOKENS:
            n -= 1
    return n


def _logprobs(entries: Sequence[dict]) -> np.ndarray:
    """The log-probabilities of some entries, float64 [len(entries)]. Raises ValueError for impossible ones."""
    values = np.array([entry["logprob"] for entry in entries], np.float64).reshape(len(entries))
    if not (possible := values <= 1e-3).all():  # nan is not, either
        raise ValueError(f"{values[~possible][0]} is no log-probability")
    return np.where(values > EXCLUDED, values, -np.inf)


def _alternatives(reply: Reply, requested: int) -> int:
    """Number of alternatives that every token has; the requested number for an answer without tokens."""
    content = (reply.choice.get("logprobs") or {}).get("content")
    if content == [] and not reply.text:
        return requested
    return min((len(entry.get("top_logprobs") or ()) for entry in content or []), default=0)


def _unusable(error: EndpointError) -> UserError:
    return UserError(f"{error}. Is it running, with this model? speceyes serve-commands CONFIG")


BACKEND = BackendType(
    takes=is_endpoint,
    check=check,
    fingerprint=fingerprint,
    title=lambda model: parse_endpoints(model)[0].model,
    identity=lambda model: f"served:{parse_endpoints(model)[0].model}",
    open=ServerBackend,
    served=True,
)
