"""An OpenAI-compatible server over local models: the offline stand-in for vLLM.

    speceyes serve                                     the embedded pair, on 127.0.0.1:8765
    speceyes serve --model draft=FOLDER --port 8001    any model the transformers backend loads

Text models are served by `text_server.py` instead, with tools and streams.

/v1/models and /v1/chat/completions with pictures (data URLs), stop strings and up to `--max-logprobs` alternatives
per token, computed from the real logits. Requests that wait at the same time are answered as one batch; `engine.py`
decides which. It decodes greedily, and refuses what it does not support instead of ignoring it. Its replies are like
those of vLLM: `stop_reason`, an entry for the end token in the log-probabilities, the chosen token first, no text for
parts of a character, and on request the thoughts in a field of their own. It supports `add_generation_prompt` and
`continue_final_message`. It needs no key and listens on this machine only. Bodies, pictures and prompts have limits,
and an answer that nobody waits for any more is not computed to its end.

The models are in this process. Another one, `front.py`, speaks HTTP, so that requests of strangers take no time from
the models. It ends with this process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from ..errors import UserError
from ..models.base import Generation, GenerationRequest
from ..models.spelling import LOST, vocabulary_bytes
from ..models.transformers import TransformersBackend
from ..paths import PACKAGE, resolve
from .completions import ApiError, ModelFacts, Setup
from .engine import MAX_BATCH, Engine
from .front import HOST, listen
from .text_server import are_text_models, serve_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PORT = 8765
EMBEDDED = {"draft": "data/demo/models/draft", "agent": "data/demo/models/agent"}
MAX_LOGPROBS = 128


class ServedModel:
    """A model, and its engine."""

    def __init__(self, backend: TransformersBackend, max_batch: int = MAX_BATCH) -> None:
        self.backend, tokenizer = backend, backend.tokenizer
        max_tokens = backend.model.config.get_text_config().max_position_embeddings
        self.facts = ModelFacts(
            backend.image_spec,
            max_tokens,
            max_tokens * max(map(len, tokenizer.get_vocab())),
            [_piece(tokenizer, token) for token in range(backend.vocab_size)],
        )
        self.engine = Engine(backend, self._measure, max_batch, max_tokens)

    def _measure(self, request: GenerationRequest) -> int:
        try:
            tokens = len(self.backend.prepared_row(request).ids)
        except Exception as error:  # a template may raise anything
            raise ApiError(400, f"messages: {error}", "messages") from None
        if tokens >= self.facts.max_tokens:
            raise self.facts.too_long(f"{tokens} tokens")
        return tokens


def _piece(tokenizer: PreTrainedTokenizerBase, token: int) -> bytes:
    """The bytes of a token, also of one that is a part of a character."""
    text = tokenizer.decode([token])
    return vocabulary_bytes(tokenizer.convert_ids_to_tokens(token)) if LOST in text else text.encode()


def _outcome(future: Future[tuple[int, Generation]]) -> tuple[int, Generation] | ApiError:
    """What the front gets. The status says whose fault a failure is: 400 the request's, 503 the machine's."""
    error = future.exception()
    if error is None:
        failure, means = future.result()[1].error, future.result()[1].means
        if failure is None:
            return future.result()
        if means:
            return ApiError(503, failure.message, code=means, again=True)
        return ApiError(400, failure.message, code=failure.type)
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UserError):
        return ApiError(400, str(error))
    return ApiError(500, f"{type(error).__name__}: {error}"[:500])


def _answer(pipe: Connection, models: Mapping[str, ServedModel]) -> None:
    """Answer the front's questions until it ends."""
    waiting: dict[int, Future] = {}
    sending = threading.Lock()

    def reply(number: int, future: Future) -> None:
        waiting.pop(number, None)
        if not future.cancelled():
            with sending, contextlib.suppress(OSError):
                pipe.send((number, _outcome(future)))

    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            break
        if isinstance(message, int):
            if message in waiting:
                waiting[message].cancel()
            continue
        number, question = message
        future = models[question.chat.model].engine.submit(question.request, question.cost)
        waiting[number] = future
        future.add_done_callback(partial(reply, number))
    for future in list(waiting.values()):
        future.cancel()


@contextlib.contextmanager
def serving(
    models: Mapping[str, TransformersBackend],
    *,
    port: int = 0,
    max_logprobs: int = MAX_LOGPROBS,
    max_batch: int = MAX_BATCH,
    thoughts_in: str = "",
) -> Iterator[str]:
    """Serve models by name in the background (a notebook cell, a test); yields the base URL.

    port: 0 takes a free one. thoughts_in: see `Setup`. Raises UserError when the port is taken, or a limit is below 1.
    """
    with _front(models, port, max_logprobs, max_batch, thoughts_in) as (base_url, _):
        yield base_url


@contextlib.contextmanager
def _front(
    models: Mapping[str, TransformersBackend], port: int, max_logprobs: int, max_batch: int, thoughts_in: str
) -> Iterator[tuple[str, subprocess.Popen]]:
    for name, limit in {"max_logprobs": max_logprobs, "max_batch": max_batch}.items():
        if limit < 1:
            raise UserError(f"{name}: {limit} is less than 1")
    listening = listen(port)  # clients wait until the front has started
    base_url = f"http://{HOST}:{listening.getsockname()[1]}/v1"
    served = {name: ServedModel(backend, max_batch) for name, backend in models.items()}
    pipe, far_end = Pipe()
    descriptors = (listening.fileno(), far_end.fileno())
    python_path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-c", f"from speceyes_lib.demo.front import main; main{descriptors}"],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": python_path},
        start_new_session=True,  # Ctrl-C is for this process, which then stops it
    )
    listening.close()
    far_end.close()
    thread = threading.Thread(target=_answer, args=(pipe, served), name="server", daemon=True)
    try:
        pipe.send(Setup({name: model.facts for name, model in served.items()}, max_logprobs, thoughts_in))
        thread.start()
        yield base_url, process
    finally:
        with contextlib.suppress(OSError):
            pipe.send(None)
        process.wait()
        thread.join()
        pipe.close()
        for model in served.values():
            model.engine.close()


def serve(
    model_folders: Sequence[str] = (),
    port: int = PORT,
    *,
    max_logprobs: int = MAX_LOGPROBS,
    max_batch: int = MAX_BATCH,
    thoughts_in: str = "",
    dtype: str = "float32",
    device: str = "auto",
) -> None:
    """Load models and serve them until Ctrl-C; prints the endpoint of each as a config names it.

    Args:
        model_folders: texts NAME=FOLDER; empty for the embedded pair.
        port: port on 127.0.0.1; 0 for any free one.
        max_logprobs: alternatives per token at most.
        max_batch: requests per batch at most.
        thoughts_in: field of a message that gets the thoughts; empty: they stay in the text.
        dtype: dtype of the weights, as torch names it.
        device: "auto", "cpu" or a CUDA device.

    Raises:
        UserError: a text is not NAME=FOLDER, a model cannot be loaded, a limit is below 1, or the front ended.
    """
    if wrong := [text for text in model_folders if not all(text.partition("="))]:
        raise UserError(f"--model {wrong[0]}: write NAME=FOLDER")
    folders = dict(text.split("=", 1) for text in model_folders) or dict(EMBEDDED)
    if are_text_models(list(folders.values())):
        serve_text(folders, port, device)
        return
    models = {
        name: TransformersBackend(resolve(folder), name, dtype, device) for name, folder in folders.items()
    }
    for model in models.values():
        model.warm_up()
    with _front(models, port, max_logprobs, max_batch, thoughts_in) as (base_url, process):
        print("serving, Ctrl-C ends it; as a config names the models:")
        for name, folder in folders.items():
            print(f"  {base_url}?model={name}&processor={folder}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            process.wait()
            raise UserError(f"the server's front ended ({process.returncode}); start the server again")
