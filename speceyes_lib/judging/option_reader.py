"""Which option a reply names for certain, by rule.

The rule is the same for every letter. `A` is also an English word, so a capital at the start of a sentence is a letter
only when punctuation or a word such as "is" or "because" follows. A reply that hedges, rejects an option or names two
names none: a judging model or a person decides it.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import lru_cache

from ..models.thoughts import without_thoughts
from ..tasks.sample import LETTERS

Named = tuple[int | str | None, str]  # what a reply names (None: nothing for certain), and the rule
Reader = Callable[[str], Named]

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # written without blanks between words
_WORD = re.compile(r"\w+(?:['’]\w+)*(?:\.\d+)?")
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}")
_MARKUP = re.compile(
    r"</?(?:answer|final|choice|option|output|response|strong|span|font|mark|code|pre|div|h\d|li|em|br|b|i|u|s|p)\b[^<>]*>"
    rf"|[*`~$]+|(?<![^\W_{_CJK}])_+|_+(?![^\W_{_CJK}])",
    re.IGNORECASE,
)

# what follows "the answer is" or "Answer:" up to the end of the sentence is the conclusion of the reply
_STATED = re.compile(
    r"\b(?:answer|choice)\s*(?P<link>is\b\s*:?|:|=)\s*(?P<conclusion>[^\n;]*?)(?P<end>[.!?](?=\s|$)|\n|;|$)",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"[.!?;:,\n]|\b(?:but|so|then|therefore|thus|hence|because|since|yet|although|though)\b", re.IGNORECASE
)
_RETRACTED = re.compile(
    r"\b(?:wait|actually|correction|scratch\W+that|on\W+second\W+thought|on\W+reflection|i\W+mean|let\W+me\W+re\w+)\b",
    re.IGNORECASE,
)
# phrases that contain a negation and assert all the same
_CERTAIN = re.compile(
    r"\b(?:(?:there is |there's )?no (?:reasonable )?doubts?(?: about it)?"
    r"|(?:without|beyond) (?:a |any |all )?(?:reasonable )?(?:doubts?|question)"
    r"|no question|not only|cannot be denied)\b",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"\b(?:no|not|never|neither|nor|none|cannot|cant|dont|isnt|arent|except|without|\w+n['’]t"
    r"|nicht|kein\w*|weder|pas|ni|aucune?|jamais|non|nunca|ningun\w*|niet|geen|nem|ne|não|нет|не|ни"
    r"|nie|není|inte|inget|ikke|değil|không|bukan|tidak|ні|ليس\w*|لا|नहीं)\b"
    r"|不|没|沒|非(?!常)|ない|ません|아니|아닙|아닌|않"
)
_REJECTION = re.compile(
    r"\b(?:incorrect(?:ly)?|wrong(?:ly)?|false|untrue|inaccurate|invalid|mistaken|unlikely|implausible|impossible|hardly"
    r"|rul(?:e|es|ed|ing) (?:\w+ )?out|rules? against|exclud\w+|eliminat\w+|reject\w*|discard\w*|dismiss\w*|refut\w+"
    r"|contradict\w*|disagree\w*|doubt\w*|deny|denies|denied|refuse\w*|avoid\w*|instead of|rather than|other than"
    r"|apart from|besides|unless|anything but|far from|opposite of|fails? to|least likely"
    r"|falsch\w*|scheidet|scheiden|faux|fausse|incorrecte?|falso|falsa|sbagliat\w+|errad\w+|incorrect[oa]|fout|onjuist"
    r"|неверн\w+|неправильн\w+|ошибочн\w+|błędn\w+|špatn\w+|fel|forkert|yanlış|sai|salah|невірн\w+|неправильн\w+|خطأ|गलत)\b"
    r"|错|錯|誤|間違|排除|틀[린렸]"
)
_HEDGE = re.compile(
    r"\b(?:maybe|perhaps|possibly|(?:might|may|could)(?: \w+)? be|might|unsure|uncertain|unclear|undecided|unknown"
    r"|depends|vielleicht|möglicherweise|könnte\w*|peut être|pourrait|quizás?|tal vez|podría|forse|potrebbe|talvez"
    r"|poderia|misschien|возможно|может быть|może|możliwe|možná|kanske|måske|belki|có thể|mungkin|можливо|ربما|शायद)\b"
    r"|可能|也许|也許|或许|大概|たぶん|おそらく|かもしれ|아마|수도"
)
_CONDITION = re.compile(r"\b(?:if|whether|suppose|assuming|unless)\b")

# a word of an option's language that shows that the capital before it is a letter and no article
_AFTER_LETTER = re.compile(
    r"\s+(?:is|isn['’]t|was|were|seems|looks|appears|fits|matches|describes|shows|would|wouldn['’]t|should|could|has|because"
    r"|since|as|and|or|nor|but|for|from|based|according|which|where|when|that|this|the|it|it['’]s|i|we|you|they|he|she|there"
    r"|these|those|its|my|both|in|on|by|with|if|than|vs|rather|therefore|thus|hence|however|in|to|of|does|doesn['’]t|cannot"
    r"|ist|stimmt|trifft|passt|wäre|scheidet|weil|oder|und|est|convient|parce|ou|et|es|porque|o|y|è|perché|é|está"
    r"|e|omdat|of|en|to|jest|lub|nebo|je|är|eller|och|ve|veya|yanlış|doğru|değil|là|hoặc|adalah|atau)(?![\w'’\-])",
    re.IGNORECASE,
)
_NO_WORD_BEFORE = rf"(?<![^\W{_CJK}])(?<![^\W{_CJK}]['’\-])"
_NO_WORD_AFTER = rf"(?![^\W{_CJK}]|['’\-][^\W{_CJK}])"
_CAPITAL = re.compile(rf"{_NO_WORD_BEFORE}([A-Z]){_NO_WORD_AFTER}")
_BRACKETED = re.compile(r"[(\[{]\s*([A-Za-z])\s*[)\]}]")
_KEYED = re.compile(rf"\b(?:option|choice|answer|letter)\s+([a-z]){_NO_WORD_AFTER}", re.IGNORECASE)
_LETTER_ALONE = re.compile(r"\W*([A-Za-z])\W*")
_SENTENCE_START = re.compile(r"(?:^|[.!?:;\n\"“«‘•>)\]\-–—])\s*")
# an article stands before a word of its line in Latin letters, or a number
_NEXT_WORD = re.compile(r"[^\S\n]+(?=[$£€+\-]?[0-9A-Za-zÀ-ɏ])")

# "no" is a verdict when nothing or a clause follows, and a mere determiner before a noun ("no doubt")
_YES_NO_WORD = re.compile(
    r"\b(yes\b|no\b(?=\s*(?:$|[^\w\s])|\s+(?:because|since|there|it|i|the|this|that|we|they|he|she)\b))",
    re.IGNORECASE,
)


@lru_cache(maxsize=16384)
def words(text: str) -> tuple[str, ...]:
    """The words of a text, with compatibility forms, case and punctuation folded."""
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def distinct(options: tuple[str, ...]) -> tuple[int, ...]:
    """For each option the index of the first with the same text. "5" and "-5" have the same words, but are two."""
    exact = [_exact_text(option) if words(option) else str(i) for i, option in enumerate(options)]
    return tuple(map(exact.index, exact))


def _exact_text(text: str) -> str:
    """A text with form, case, blanks, quotes and the punctuation behind it folded, but not its signs ("-5", "C++")."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.strip("\"'“”‘’«»「」()[]*_` ").rstrip(".,;:!?。 ")


def named_option(text: str, options: tuple[str, ...] | None) -> Named:
    r"""The option that a reply names for certain, as (index or "yes"/"no"; None: none, the rule that decided).

    Options of equal text are one option (the first of them). Where an option is itself a letter of the range ("B" on a
    sign), no letter alone names one. Thoughts and markup do not count, and where a reply has
    text inside `\boxed{}`, only that text is read. The first rule that applies decides:

    - `empty`: the reply has no words.
    - `letter`, `option_text`, `yes_no`: the reply is nothing else.
    - `stated`: "the answer is …": what follows decides, unless the reply takes it back.
    - `mention`: the letters and option texts in the reply are of one option. A shorter option inside a longer one
      ("red" in "dark red") is not a mention of its own.
    - `part_of_option`: the reply is a run of words of exactly one option ("red" for "The bin is red.").
    - `contradictory`, `negated` (also: rejected), `hedged`, `nothing_named`: no option is certain.

    Args:
        text: the reply.
        options: their texts in the order shown; None where the answer is yes or no.
    """
    text = without_thoughts(unicodedata.normalize("NFKC", text))
    if boxed := _BOXED.findall(text):
        text = " ; ".join(boxed)
    text = _MARKUP.sub(" ", _LATEX_TEXT.sub(r"\1", text)).strip()
    if not words(text):
        return None, "empty"
    exact, mentioned = _YES_NO if options is None else _choice(tuple(options))
    named, rule = exact(text)
    if rule != "nothing_named":
        return named, rule
    text = _CERTAIN.sub(" ", text)
    readings = list(_conclusions(text, exact, mentioned))
    for doubt in ("negated", "hedged", "contradictory"):
        if doubt in (rule for _, rule in readings):
            return None, doubt
    named, rule = _exactly_one({name for name, _ in readings if name is not None}, "stated")
    return (named, rule) if rule != "nothing_named" else mentioned(text)


def _conclusions(text: str, exact: Reader, mentioned: Reader) -> Iterator[Named]:
    """What each "the answer is …" of the reply names."""
    clause_before = _clauses(text)
    retracted_at = max((m.start() for m in _RETRACTED.finditer(text)), default=-1)
    for stated in _STATED.finditer(text):
        conclusion = stated["conclusion"]
        if not words(conclusion):
            continue
        clause = clause_before(stated.start())
        if doubt := _doubt(clause):
            yield None, doubt
        elif stated["end"] == "?" or _CONDITION.search(clause):
            yield None, "hedged"
        elif retracted_at >= stated.end():
            yield None, "contradictory"
        else:
            yield _concluded(conclusion, stated["link"], exact, mentioned)


def _concluded(conclusion: str, link: str, exact: Reader, mentioned: Reader) -> Named:
    named, rule = exact(conclusion)
    if rule != "nothing_named":
        return named, rule
    if (small := re.match(r"[a-h]\b", conclusion)) and _stands_alone(conclusion, 1):
        conclusion = small[0].upper() + conclusion[1:]
    # after "is" a capital does not begin a sentence
    return mentioned(f"is {conclusion}" if link.casefold().startswith("is") else conclusion)


def _clauses(text: str) -> Callable[[int], str]:
    """For a place in the text, the words of its clause that stand before it, at most the last 300 characters."""
    starts = [0, *(boundary.end() for boundary in _CLAUSE.finditer(text))]

    def before(at: int) -> str:
        start = max(starts[bisect_right(starts, at) - 1], at - 300)
        return " ".join(words(text[start:at]))

    return before


def _doubt(words_left: str) -> str:
    """`negated` or `hedged` where the words reject or hedge, else nothing."""
    if _NEGATION.search(words_left) or _REJECTION.search(words_left):
        return "negated"
    return "hedged" if _HEDGE.search(words_left) else ""


# ---------------------------------------------------------------------------------------------- yes or no


def _yes_no_alone(text: str) -> Named:
    named = set(words(text))
    return _exactly_one(named if named <= {"yes", "no"} else set(), "yes_no", several="nothing_named")


def _yes_no_mentioned(text: str) -> Named:
    named: set[str] = set()
    clause_before = _clauses(text)
    for mention in _YES_NO_WORD.finditer(text):
        name = mention[1].casefold()
        before = clause_before(mention.start())
        if name == "no":
            before = re.sub(r"\bno\b", " ", before)
        if doubt := _doubt(before):
            return None, doubt
        named.add(name)
    if named and _HEDGE.search(" ".join(words(text))):
        return None, "hedged"
    return _exactly_one(named, "mention")


_YES_NO = (_yes_no_alone, _yes_no_mentioned)


# ---------------------------------------------------------------------------------------------- options


@lru_cache(maxsize=4096)
def _choice(options: tuple[str, ...]) -> tuple[Reader, Reader]:
    """(exact, mentioned): the two readers of replies to one set of options, built once per set."""
    first, exact_texts = distinct(options), [_exact_text(option) for option in options]
    letters = LETTERS[: len(options)]
    # where an option is a letter itself ("A" on a sign), a letter in a reply may be meant either way
    clash = any(text.upper() in letters for text in exact_texts if len(text) == 1)
    texts = [() if text.upper() in letters else words(text) for text in exact_texts]
    by_letter = {} if clash else {letter: first[i] for i, letter in enumerate(letters)}

    def named_by(spelled: str, at: int) -> set[int]:
        """The options with the words of option `at`; only the one that is spelled like this, if there is one."""
        alike = {first[i] for i, t in enumerate(texts) if t == texts[at]}
        same = {i for i in alike if exact_texts[i] == _exact_text(spelled)}
        only_spelled = texts[at][0].upper() in letters and len(texts[at]) == 1  # "C" is not "C++"
        return same if same or only_spelled else alike

    def exact(text: str) -> Named:
        reply = words(text)
        by_text = next((named_by(text, i) for i, t in enumerate(texts) if t and t == reply), set())
        alone = _LETTER_ALONE.fullmatch(text)
        if clash and alone and alone[1].upper() in letters:
            return None, "contradictory"
        letter = {by_letter[alone[1].upper()]} if alone and alone[1].upper() in by_letter else set()
        return _exactly_one(by_text or letter, "option_text" if by_text else "letter")

    def mentioned(text: str) -> Named:
        tokens = list(_WORD.finditer(text))
        reply = [token[0].casefold() for token in tokens]
        named: set[int] = set()
        inside_option: dict[int, bool] = {}  # start of a character span -> it begins an option's text
        # the longest option first, and its words are used up, so that a shorter one inside it is not found again
        for i in sorted(range(len(texts)), key=lambda i: -len(texts[i])):
            width = len(texts[i])
            for start in range(len(reply) - width + 1 if width else 0):
                if tuple(reply[start : start + width]) != texts[i]:
                    continue
                spelled = _spelled(text, tokens[start].start(), tokens[start + width - 1].end())
                if by_text := named_by(spelled, i):
                    named |= by_text
                    for j in range(start, start + width):
                        inside_option[tokens[j].start()] = j == start
                        reply[j] = ""
        for letter, at in _letters(text, inside_option):
            if letter in by_letter and at not in inside_option:
                named.add(by_letter[letter])
        doubt = _doubt(" ".join(reply))  # outside option texts: "not red" may be an option
        if doubt == "negated" or (doubt and len(named) == 1):
            return None, doubt
        if not named:
            inside = {first[i] for i, t in enumerate(texts) if _is_run(words(text), t)}
            return _exactly_one(inside, "part_of_option", several="nothing_named")
        return _exactly_one(named, "mention")

    return exact, mentioned


def _spelled(text: str, start: int, end: int) -> str:
    """A part of a text with the signs that touch it."""
    signs = re.search(r"[^\w\s]*$", text[max(0, start - 8) : start])[0], re.match(r"[^\w\s]*", text[end:])[0]
    return text[start:end].join(signs)


def _letters(text: str, inside_option: dict[int, bool]) -> Iterator[tuple[str, int]]:
    """The letters of a text that stand for options, each with the place where it stands."""
    shouted = text.isupper() and len(words(text)) > 1
    sentence_starts = {start.end() for start in _SENTENCE_START.finditer(text)}
    for match in _CAPITAL.finditer(text):
        letter, next_word = match[1], _NEXT_WORD.match(text, match.end())
        within_sentence = letter != "I" and not shouted and match.start() not in sentence_starts
        # "B red" may name two options; "A red" has an article
        before_option = letter != "A" and next_word and inside_option.get(next_word.end())
        if within_sentence or before_option or _stands_alone(text, match.end()):
            yield letter, match.start()
    for match in _BRACKETED.finditer(text):
        yield match[1].upper(), match.start(1)
    for match in _KEYED.finditer(text):
        if _stands_alone(text, match.end()) or (match[1].isupper() and not shouted):
            yield match[1].upper(), match.start(1)


def _stands_alone(text: str, end: int) -> bool:
    """Whether what follows a letter shows that it is no article: punctuation, the end, or "is", "because" ..."""
    return _NEXT_WORD.match(text, end) is None or _AFTER_LETTER.match(text, end) is not None


def _is_run(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))


def _exactly_one(named: set, rule: str, several: str = "contradictory") -> Named:
    if len(named) == 1:
        return next(iter(named)), rule
    return None, several if named else "nothing_named"
