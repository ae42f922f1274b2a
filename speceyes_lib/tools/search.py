"""web_search and enhanced_search: an embedded corpus with its own BM25, or a configured search endpoint.

The endpoint is the one of serper.dev, or another with the same form (SEARCH_URL). It needs a key (SERPER_API_KEY).
enhanced_search also fetches the pages and keeps the part of each that is about the result's snippet.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from pydantic import Field

from .declared import Arguments, Effect, Tool, Workspace
from .files import html_text, text_of
from .waits import waiting
from .worker import ToolError

KEY, ADDRESS, DEFAULT_ADDRESS = "SERPER_API_KEY", "SEARCH_URL", "https://google.serper.dev/search"
TIMEOUT_S = 20.0
RESULTS = 3
MAX_REPLY_BYTES = 5 * 2**20
PAGE_CHARS, AROUND_CHARS, SEARCHED_CHARS, PDF_WORDS = 2000, 2500, 50_000, 600
LEAST_F1 = 0.2  # below it a page's text is not about the snippet
CORPUS = "corpus"  # name of the resource
NO_RESULTS = "no results"
K1, B = 1.5, 0.75
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True)
class Article:
    """An article of an embedded corpus. Its first `lead` sentences are what a short search sees."""

    id: str
    sentences: tuple[str, ...]
    lead: int


class Corpus:
    """An embedded collection of short articles that is searched with BM25."""

    def __init__(self, articles: Sequence[Article]) -> None:
        self.articles = list(articles)

    @cached_property
    def _counts(self) -> dict[bool, list[Counter[str]]]:
        return {
            whole: [
                Counter(words(" ".join(a.sentences if whole else a.sentences[: a.lead])))
                for a in self.articles
            ]
            for whole in (False, True)
        }

    def search(self, query: str, whole: bool = False, limit: int = 2) -> list[Article]:
        """Articles for a query, best first.

        An article with all words of the query must exist; then others with a part of the words may follow. Ties keep
        the order of the corpus.

        Args:
            query: words, in any order.
            whole: search the whole articles and return only those with all words; otherwise their leads.
            limit: most articles to return.
        """
        counts, wanted = self._counts[whole], list(dict.fromkeys(words(query)))
        full = [i for i, c in enumerate(counts) if all(c[w] for w in wanted)]
        if not full or not wanted:
            return []
        length = [c.total() for c in counts]
        mean = sum(length) / len(length)
        weight = {}
        for w in wanted:
            holding = sum(w in c for c in counts)
            weight[w] = math.log(1 + (len(counts) - holding + 0.5) / (holding + 0.5))

        def score(i: int) -> float:
            scale = K1 * (1 - B + B * length[i] / mean)
            return sum(
                weight[w] * counts[i][w] * (K1 + 1) / (counts[i][w] + scale) for w in wanted if counts[i][w]
            )

        partial = (
            []
            if whole
            else [i for i in range(len(counts)) if i not in full and any(counts[i][w] for w in wanted)]
        )
        # all words first, then the rest; round() makes the order independent of the last bit of a logarithm
        order = [
            *sorted(full, key=lambda i: -round(score(i), 9)),
            *sorted(partial, key=lambda i: -round(score(i), 9)),
        ]
        return [self.articles[i] for i in order[:limit]]


def snippet_text(articles: Sequence[Article], query: str) -> str:
    """One line per article with the sentence of its lead that shares most words with the query."""
    wanted = set(words(query))
    lines = [
        f"{a.id}: {max(a.sentences[: a.lead], key=lambda s: len(wanted & set(words(s))))}" for a in articles
    ]
    return "\n".join(lines) or NO_RESULTS


def page_text(articles: Sequence[Article]) -> str:
    """One line per article with all of its text."""
    return "\n".join(f"{a.id}: {', '.join(a.sentences)}" for a in articles) or NO_RESULTS


# ------------------------------------------------------------------------------------------------- tools
class SearchArguments(Arguments):
    """Arguments of the search tools."""

    query: str = Field(min_length=1, max_length=500, description="what to search for")


def search_embedded(arguments: SearchArguments, workspace: Workspace) -> str:
    """Snippets from the workspace's corpus."""
    return snippet_text(_corpus(workspace).search(arguments.query), arguments.query)


def search_pages_embedded(arguments: SearchArguments, workspace: Workspace) -> str:
    """Whole articles from the workspace's corpus."""
    return page_text(_corpus(workspace).search(arguments.query, whole=True))


def _corpus(workspace: Workspace) -> Corpus:
    corpus = workspace.resources.get(CORPUS)
    if corpus is None:
        raise ToolError("There is no corpus to search here.")
    return corpus


def search_web(arguments: SearchArguments, workspace: Workspace) -> str:
    """Title, address, site, date and snippet of the first results of the endpoint."""
    return "\n\n".join(map(_result_text, _results(arguments.query))) or NO_RESULTS


def search_web_pages(arguments: SearchArguments, workspace: Workspace) -> str:
    """The same as `search_web`, each with the part of its page that is about the snippet."""
    texts = []
    for result in _results(arguments.query):
        try:
            page = _page(result["link"], result.get("snippet", ""))
        except ToolError as error:
            page = f"[{error}]"
        texts.append(f"{_result_text(result)}\n{page}")
    return "\n\n".join(texts) or NO_RESULTS


def _results(query: str) -> list[dict]:
    key = os.environ.get(KEY, "").strip()
    if not key:
        raise ToolError(f"Searching needs a key of the search endpoint: set {KEY}.")
    body = json.dumps({"q": query, "num": RESULTS}).encode()
    headers = {"X-API-KEY": key, "Content-Type": "application/json"}
    data, _ = _fetch(Request(os.environ.get(ADDRESS) or DEFAULT_ADDRESS, body, headers))
    try:
        results = json.loads(data).get("organic", [])
        kept = [r for r in results if isinstance(r, dict) and isinstance(r.get("link"), str)]
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise ToolError("The search endpoint returned something else than results.") from None
    return kept[:RESULTS]


def _fetch(request: Request) -> tuple[bytes, str]:
    """What an address returns, at most `MAX_REPLY_BYTES`, and its media type."""
    site = urlsplit(request.full_url)
    if site.scheme not in ("http", "https"):
        raise ToolError(f"{request.full_url[:200]} is no address of the web.")
    try:
        with urlopen(request, timeout=TIMEOUT_S) as reply:
            return reply.read(MAX_REPLY_BYTES), reply.headers.get_content_type()
    except HTTPError as error:
        hint = f"; check {KEY}" if error.code in (401, 403) and "X-api-key" in request.headers else ""
        raise ToolError(f"{site.netloc} refused the request: {error.code} {error.reason}{hint}.") from None
    except (OSError, ValueError) as error:
        raise ToolError(f"{site.netloc} cannot be reached: {error}.") from None


def _result_text(result: dict) -> str:
    link = result["link"]
    fields = [
        result.get("title", ""),
        link,
        urlsplit(link).netloc,
        result.get("date", ""),
        result.get("snippet", ""),
    ]
    return "\n".join(str(field) for field in fields if field)


def _page(link: str, snippet: str) -> str:
    data, kind = _fetch(Request(link, headers={"User-Agent": "Mozilla/5.0 (SpecEyes)"}))
    if kind == "application/pdf":
        return " ".join(text_of("page.pdf", data).split()[:PDF_WORDS])
    text = data.decode("utf-8", "replace")
    return passage(html_text(text) if "html" in kind else text, snippet)


def passage(text: str, snippet: str) -> str:
    """The part of a page that is about a snippet; its beginning where no sentence resembles the snippet."""
    text = text[:SEARCHED_CHARS]
    wanted, best, place = set(words(snippet)), LEAST_F1, None
    for match in re.finditer(r"[^.!?\n]+", text):
        inside = set(words(match[0]))
        if inside and (score := 2 * len(wanted & inside) / (len(wanted) + len(inside))) > best:
            best, place = score, match.start()
    if place is None:
        return text[:PAGE_CHARS]
    part = text[max(0, place - AROUND_CHARS) : place + AROUND_CHARS]
    start = max(0, min(place, AROUND_CHARS) - PAGE_CHARS // 4)
    return part[start : start + PAGE_CHARS]


def search_tools(embedded: bool) -> tuple[Tool, Tool]:
    """web_search and enhanced_search over the workspace's corpus, or over the endpoint, where every call costs."""
    runs = (search_embedded, search_pages_embedded) if embedded else (search_web, search_web_pages)
    described = ("Search the web: short results.", "Search the web and read the pages that are found.")
    return tuple(
        Tool(
            name=name,
            description=description,
            arguments=SearchArguments,
            effect=Effect.repeatable if embedded else Effect.metered,
            run=run,
            wait_s=waiting,
            timeout_s=60.0 if embedded else (1 + RESULTS) * TIMEOUT_S + 10,
            lifetime_s=None if embedded else 600.0,
        )
        for name, description, run in zip(("web_search", "enhanced_search"), described, runs, strict=True)
    )
