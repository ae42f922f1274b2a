"""Which option a reply names: cases as they are written in the wild, and three laws over generated replies."""

from __future__ import annotations

import random
import re

import pytest

from speceyes_lib.judging import named_option
from speceyes_lib.tasks.sample import LETTERS

COLOURS = ("red", "blue", "green", "yellow")

# {x} is the letter of an option
LETTER = [
    "{x}",
    "({x})",
    "**{x}**",
    "__{x}__",
    "`{x}`",
    "${x}$",
    "<answer>{x}</answer>",
    "<b>{x}</b>",
    r"\boxed{{{x}}}",
    "{x}.",
    "{x}) as the picture shows",
    "{x} because the glove looks smooth.",
    "{x} is the correct answer.",
    "{x} is right",
    "{x}, since it is in the picture",
    "{x} according to the picture",
    "{x} seems to be the best choice.",
    "The answer is {x}",
    "The answer is {x} because the glove looks smooth.",
    "The answer is: {x}",
    "The correct answer is option {x}.",
    "Answer: {x}",
    "Answer: **{x}**",
    "Final answer: ({x})",
    "Answer {x}",
    "My answer would be {x}.",
    "I think {x} is right",
    "I think it is {x}",
    "I choose {x} from the list",
    "I would go with {x} here",
    "Option {x}",
    "option {x} fits best",
    "There is no doubt that it is {x}.",
    "Without a doubt, {x}.",
    "Beyond all reasonable doubt it is {x}",
    "Looking at the picture, the glove is smooth.\n\nTherefore the answer is {x}.",
    "The answer is {x}. Note that the picture is dark.",
    "Die Antwort ist {x}.",
    "{x} ist richtig",
    "La réponse est {x}.",
    "La respuesta es {x} porque es lisa.",
    "A resposta é {x}.",
    "答案是{x}",
    "答案：{x}。",
    "正解は{x}です",
    "Ответ: {x}",
]
# in other languages: the letter, {x} rejected or doubted, and {x} beside another option {y}
OTHER_LETTER = """
Die richtige Antwort ist {x}.|Antwort: {x}|Richtig ist {x}.|{x} ist die richtige Antwort.|{x} stimmt.|Ich wähle {x}.
La bonne réponse est {x}.|Réponse : {x}|{x} est la bonne réponse.|C'est {x}.|L’option {x} convient.
La respuesta correcta es {x}.|{x} es correcta.|La opción {x} es la correcta.|{x} porque es lisa
A resposta correta é {x}.|A alternativa {x} está correta.|Letra {x}|La risposta è: {x}|{x} è corretta|Antwoord: {x}
Odpowiedź: {x}|Poprawna odpowiedź to {x}.|Správná odpověď je {x}.|Rätt svar är {x}.|Doğru cevap {x}|Đáp án là {x}.
Правильный ответ: {x}|Ответ — {x}.|Відповідь: {x}|Jawabannya adalah {x}.|الجواب: {x}|सही उत्तर {x} है।
答案是{x}。|正确答案：{x}|我选{x}。|应该选{x}，因为手套很光滑。|{x}选项正确|答案为{x}
答えは{x}です。|{x}が正しい|정답은 {x}입니다.|{x}입니다
"""
OTHER_NOTHING = """
{x} ist falsch.|Nicht {x}|{x} stimmt nicht.|Option {x} scheidet aus|Vielleicht {x}|Es könnte {x} sein
Ce n'est pas {x}.|{x} est incorrecte|Peut-être {x}|No es {x}.|{x} es incorrecta.|Quizás {x}|Não é {x}.|{x} está errada.
Non è {x}.|{x} è sbagliata|Forse {x}|{x} is niet juist|Misschien {x}|Nie {x}|{x} jest błędna|Może {x}|Není to {x}
{x} yanlış|{x} değil|Belki {x}|Không phải {x}|Bukan {x}|Ответ не {x}.|{x} — неправильный ответ|Возможно, {x}
{x}不正确|{x}错误|可能是{x}|不选{x}|排除{x}
答えは{x}ではない|{x}は間違い|たぶん{x}|{x}가 아닙니다|{x}는 틀렸습니다|아마 {x}
"""
OTHER_TWO = """
{x} oder {y}|{x} ou {y}|{x} o {y}|{x} of {y}|{x} или {y}|{x} lub {y}|{x} ve {y}
{x} 또는 {y}|{x}或{y}|{x}か{y}|{x}和{y}|{x}、{y}
Entweder {x} oder {y}|Ответ: {x} или {y}|答案是{x}或{y}|答えは{x}か{y}です|{x} | {y}|{x} & {y}
"""
# how a letter is written
FORMS = [
    *(
        "{x}",
        "**{x}**",
        "*{x}*",
        "_{x}_",
        "`{x}`",
        "({x})",
        "[{x}]",
        "“{x}”",
        "「{x}」",
        "'{x}'",
        "${x}$",
        "<b>{x}</b>",
    ),
    *("<font color=red>{x}</font>", r"\text{{{x}}}", r"\(\mathrm{{{x}}}\)"),
]
# {t} is the text of an option
TEXT = [
    "{t}",
    "It is {t}.",
    "A {t} one",
    "The answer is {t}",
    "The answer is {t}, because of the light.",
    "**{t}**",
    "I see {t} in the picture",
    "{x}. {t}",
    "({x}) {t}",
    "{x}: {t}",
    "Option {x}: {t}",
    "The answer is {x}. {t}",
]
NOTHING = [
    "Option {x} is incorrect.",
    "{x} is wrong.",
    "I would rule out ({x})",
    "It is not {x}.",
    "It isn't {t}",
    "I can't say {x}.",
    "I don't think the answer is {x}.",
    "I doubt that the answer is {x}.",
    "There is a doubt about {x}",
    "I have doubts, but any doubt aside, I have a doubt that it is {x}",
    "If the answer is {x}, the glove is smooth.",
    "Is the answer {x}? I do not know.",
    "The answer is {x}? Hard to tell.",
    "The answer cannot be {x}",
    "Maybe {x}",
    "It might be {t}.",
    "Possibly ({x}).",
    "Everything except {x}",
    "Anything other than {t}",
    "Die Antwort ist nicht {x}.",
    "La réponse n'est pas {x}.",
    "La respuesta no es {x}.",
    "答案不是{x}",
]
# {x} and {y} are the letters of two options, {t} and {u} their texts
TWO = [
    "{x} or {y}",
    "The answer is {x} or {y}.",
    "Either {x} or {y}",
    "{x} and {y}",
    "{x}/{y}",
    "Both {x} and {y} are right",
    "It is {t} or {u}",
    "{t}, {u}",
    "{x}. {u}",
    "Between {x} and {y} I cannot choose",
    "Answer: {x}. No wait, answer: {y}.",
    "{x} is more likely than {y}",
    "{x} oder {y}",
]
THOUGHTS = [
    "<think>\nIt could be {u} ({y}).\n</think>\n\n",
    "<think>Is it {y}? No.</think>",
    "The answer is {y}, I guess.</think>",
    "<thinking>The answer is {y}.</thinking>\n",
    "[THINK]{y}[/THINK]",
    "◁think▷{u}◁/think▷",
    "<|begin_of_thought|>not {u}<|end_of_thought|>",
]


def split(templates: str) -> list[str]:
    return [part for line in templates.strip().splitlines() for part in re.split(r"(?<! )\|(?! )", line)]


def full_width(letter: str) -> str:
    return chr(ord(letter) + 0xFEE0)


def fill(template: str, options: tuple[str, ...], first: str, second: str) -> str:
    x, y = (LETTERS[options.index(text)] for text in (first, second))
    return template.format(x=x, y=y, t=first, u=second)


@pytest.mark.parametrize("letter", "ABCD")
@pytest.mark.parametrize("template", LETTER + TEXT)
def test_every_letter_is_read_in_the_same_way(template, letter):
    target = LETTERS.index(letter)
    reply = fill(template, COLOURS, COLOURS[target], COLOURS[(target + 1) % 4])
    assert named_option(reply, COLOURS)[0] == target, reply


@pytest.mark.parametrize("letter", "ABCD")
@pytest.mark.parametrize("template", NOTHING)
def test_a_hedge_or_a_rejection_names_nothing(template, letter):
    target = LETTERS.index(letter)
    reply = fill(template, COLOURS, COLOURS[target], COLOURS[(target + 1) % 4])
    assert named_option(reply, COLOURS)[0] is None, reply


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        ("A glove is on the table.", None),
        ("A CAR IS ON THE TABLE", None),
        ("A red star", "red"),
        ("B red", None),
        ("It could be B or C, but the answer is A.", "red"),
        ("The answer is B. Note that A is a common distractor.", "blue"),
        ("the answer is b because of the light", "blue"),
        ("the answer is a because of the light", "red"),
        ("A la izquierda", None),
        ("There are at least two; B.", "blue"),
        ("<think>A", None),
        ("B <think>or A?</think>", "blue"),
    ],
)
def test_english_words_are_no_letters(reply, name):
    named = named_option(reply, COLOURS)[0]
    assert (None if named is None else COLOURS[named]) == name


def test_a_letter_inside_an_option_is_part_of_the_option():
    assert named_option("It shows Vitamin C there", ("Vitamin C", "Vitamin B", "salt"))[0] == 0


@pytest.mark.parametrize(
    ("options", "reply", "name"),
    [
        (("-5", "5", "50", "0.5"), "5", "5"),
        (("-5", "5", "50", "0.5"), "-5", "-5"),
        (("-5", "5", "50", "0.5"), "The answer is -5.", "-5"),
        (("-5", "5", "50", "0.5"), "It is 5, I think", "5"),
        (("-5", "5", "50", "0.5"), "It is +5", None),  # one of two
        (("$5", "5%", "6", "7"), "B. 5%", "5%"),
        (("$5", "$6", "$7", "$8"), "5", "$5"),
        (("C++", "C#", "Java", "Go"), "C#", "C#"),
        (("C++", "C#", "Java", "Go"), "C. Java", "Java"),
        (("C++", "C#", "Java", "Go"), "C", "Java"),
        (("K", "A", "B", "M"), "A", None),  # the letter of an option, or the text of another
        (("K", "A", "B", "M"), "It is K.", "K"),
        (("A", "B", "C", "D"), "B", None),
    ],
)
def test_options_that_differ_in_signs_or_are_letters(options, reply, name):
    named = named_option(reply, options)[0]
    assert (None if named is None else options[named]) == name


SHARP = (
    *(
        "red",
        "dark red",
        "not red",
        "no",
        "none of the above",
        "yes",
        "left",
        "on the left",
        "1",
        "10",
        "10.5",
        "0.5",
    ),
    *(
        "The bin is left of the truck.",
        "The truck is left of the bin.",
        "$5",
        "5%",
        "-5",
        "红色",
        "深红色",
        "maybe blue",
    ),
    *(
        "cannot be determined",
        "It is a red car",
        "red car",
        "U.S.",
        "C++",
        "c",
        "b",
        "5 cm",
        "half-open",
        "don't walk",
    ),
)


def test_the_order_of_sharp_options_does_not_change_what_is_named():
    rng = random.Random(1)
    for _ in range(4_000):
        options = tuple(rng.sample(SHARP, 4))
        shown = tuple(rng.sample(options, 4))
        first, second = rng.sample(options, 2)
        template = rng.choice(
            ["{x}", "It must be {x} because {t}", "{t} ({x})", "Not {t}", "{t} or {u}", *TEXT[:2], *TEXT[3:]]
        )
        names = [(fill(template, order, first, second), order) for order in (options, shown)]
        read = [named_option(reply, order)[0] for reply, order in names]
        texts = [None if i is None else order[i] for i, (_, order) in zip(read, names, strict=True)]
        assert texts[0] == texts[1], names


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        ("Yes, there is no doubt a dog.", "yes"),
        ("There is no doubt: yes", "yes"),
        ("Yes, I can see it", "yes"),
        ("I would say no.", "no"),
        ("I see no dog, so no.", "no"),
        ("I don't see a dog, no.", "no"),
        ("The answer is no because it is empty.", "no"),
        ("<think>yes? no.</think>Yes.", "yes"),
        ("**No**", "no"),
        ("I can't say yes.", None),
        ("I see no reason to say yes", None),
        ("I would not say no.", None),
        ("I don't think the answer is yes.", None),
        ("Maybe yes.", None),
        ("yes or no", None),
        ("It is unlikely that the answer is yes", None),
    ],
)
def test_yes_and_no(reply, name):
    assert named_option(reply, None)[0] == name


@pytest.mark.parametrize("form", FORMS)
def test_letters_are_read_in_every_language_and_form(form):
    for number, template in enumerate([*split(OTHER_LETTER), *split(OTHER_NOTHING), *split(OTHER_TWO)]):
        for i, letter in enumerate("ABCD"):
            x, y = letter, "BCDA"[i]
            if number % 2:
                x, y = full_width(x), full_width(y)
            reply = template.format(x=form.format(x=x), y=form.format(x=y))
            expected = i if template in split(OTHER_LETTER) else None
            assert named_option(reply, COLOURS)[0] == expected, reply


def test_laws_of_ten_thousand_replies():
    rng = random.Random(0)
    others = [*split(OTHER_LETTER), *split(OTHER_NOTHING)]
    both = [*TWO, *split(OTHER_TWO)]
    for _ in range(10_000):
        options, shown = (tuple(rng.sample(COLOURS, 4)) for _ in range(2))
        first, second = rng.sample(COLOURS, 2)
        template = rng.choice(LETTER + TEXT + NOTHING + others + both)
        if template in others:
            template = template.replace("{x}", rng.choice(FORMS))
        reply = fill(template, options, first, second)
        name = named_option(reply, options)[0]
        if template in both:
            assert name is None, reply

        permuted = named_option(fill(template, shown, first, second), shown)[0]
        assert (None if name is None else options[name]) == (None if permuted is None else shown[permuted]), (
            reply
        )

        with_thought = fill(rng.choice(THOUGHTS), options, first, second) + reply
        assert named_option(with_thought, options)[0] == name, with_thought
