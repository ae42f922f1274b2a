from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from speceyes_lib.tools import search
from speceyes_lib.tools.declared import Effect, Workspace
from speceyes_lib.tools.search import (
    Article,
    Corpus,
    SearchArguments,
    page_text,
    passage,
    search_tools,
    snippet_text,
)
from speceyes_lib.tools.worker import ToolError

CORPUS = Corpus(
    [
        Article("d1", ("Belin maker=Kere", "Belin price=11", "Belin mass=3"), 2),
        Article("d2", ("Korvan maker=Pota", "Korvan price=482", "Korvan height=7"), 2),
        Article("d3", ("Korvan price=1", "Korvan price=1", "Zorax price=2"), 3),
    ]
)


def test_articles_with_all_words_come_first_and_only_they_make_a_result():
    assert [a.id for a in CORPUS.search("korvan PRICE", limit=3)] == ["d2", "d3", "d1"]
    assert (
        snippet_text(CORPUS.search("Belin price"), "Belin price") == "d1: Belin price=11\nd3: Korvan price=1"
    )
    assert CORPUS.search("Korvan height") == []  # not in the lead
    assert page_text(CORPUS.search("Korvan height", whole=True)) == (
        "d2: Korvan maker=Pota, Korvan price=482, Korvan height=7"
    )
    for query in ("Nobody price", "?", "Korvan nothing"):
        assert (
            snippet_text(CORPUS.search(query), query)
            == page_text(CORPUS.search(query, whole=True))
            == "no results"
        )


def test_a_passage_is_the_part_of_the_page_that_resembles_the_snippet():
    filler = "Lorem ipsum dolor sit amet. " * 300
    page = f"{filler}The quick brown fox jumps over the lazy dog. {filler}"
    part = passage(page, "quick brown fox jumps")
    assert "quick brown fox" in part
    assert len(part) <= search.PAGE_CHARS
    assert passage(page, "entirely different words") == page[: search.PAGE_CHARS]


class _Endpoint(BaseHTTPRequestHandler):
    replies: dict = {}  # noqa: RUF012
    seen: list = []  # noqa: RUF012

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((body, self.headers["X-API-KEY"]))
        self._send(*self.replies["search"])

    def do_GET(self):
        self._send(*self.replies.get(self.path, (404, "text/plain", b"")))

    def _send(self, code, kind, data):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint(monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), _Endpoint)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv(search.ADDRESS, f"{address}/search")
    monkeypatch.setenv(search.KEY, "k")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    _Endpoint.seen.clear()
    _Endpoint.replies = {}
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


def results(address):
    found = [
        {"title": "T", "link": f"{address}/page", "date": "today", "snippet": "oil was found"},
        {"title": "gone", "link": f"{address}/gone"},
        {"title": "no link"},
    ]
    return 200, "application/json", json.dumps({"organic": found}).encode()


def test_the_endpoint_is_asked_with_the_key_and_pages_are_read(endpoint, tmp_path):
    _Endpoint.replies = {
        "search": results(endpoint),
        "/page": (200, "text/html", b"<p>First.</p><p>Here oil was found.</p><script>x</script>"),
    }
    web, pages = search_tools(embedded=False)
    arguments, workspace = SearchArguments(query="oil"), Workspace(tmp_path)
    site = endpoint.removeprefix("http://")
    assert web.run(arguments, workspace).startswith(
        f"T\n{endpoint}/page\n{site}\ntoday\noil was found\n\ngone\n"
    )
    assert _Endpoint.seen == [({"q": "oil", "num": 3}, "k")]
    text = pages.run(arguments, workspace)
    assert "Here oil was found." in text
    assert "script" not in text
    assert f"[{site} refused the request: 404" in text
    assert web.effect is pages.effect is Effect.metered


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((403, "text/plain", b""), "403 Forbidden; check SERPER_API_KEY"),
        ((200, "application/json", b"[1"), "something else than results"),
        ((200, "application/json", b"[1]"), "something else than results"),
    ],
)
def test_a_refusing_or_broken_endpoint_is_a_sentence(endpoint, tmp_path, reply, words):
    _Endpoint.replies = {"search": reply}
    with pytest.raises(ToolError, match=words):
        search.search_web(SearchArguments(query="oil"), Workspace(tmp_path))


def test_without_key_or_corpus_the_message_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.delenv(search.KEY, raising=False)
    with pytest.raises(ToolError, match="set SERPER_API_KEY"):
        search.search_web(SearchArguments(query="oil"), Workspace(tmp_path))
    web, pages = search_tools(embedded=True)
    with pytest.raises(ToolError, match="no corpus"):
        web.run(SearchArguments(query="oil"), Workspace(tmp_path))
    workspace = Workspace(tmp_path, {search.CORPUS: CORPUS})
    assert pages.run(SearchArguments(query="Belin mass"), workspace).startswith("d1: Belin maker")
    assert web.effect is pages.effect is Effect.repeatable
