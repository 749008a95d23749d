"""The search against a literal one, written from docs/decontamination.md."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.contamination import ContaminationRules, Match
from selection.kernels import contamination
from selection.kernels.contamination import COMMON, Contamination
from selection.kernels.words import PlacedWords, words
from tests.quick import quick_first

# ---- the literal reference


def is_part(letter: str) -> bool:
    return unicodedata.category(letter)[0] in "LNM"


def stands_alone(letter: str) -> bool:
    code = ord(letter)
    scripts = [
        (0xE00, 0xEFF),
        (0x1000, 0x109F),
        (0x1780, 0x17FF),
        (0x2E80, 0xA4CF),
        (0xF900, 0xFAFF),
        (0x20000, 0x3FFFF),
    ]
    return is_part(letter) and any(a <= code <= b for a, b in scripts)


def literal_words(text: str) -> list[tuple[str, int, int]]:
    """Each word with the number of the line that it begins in, and that it ends in."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    plain = "".join(
        "'" if letter in "\u2018\u2019\u201b\u02bc" else letter
        for letter in plain
        if unicodedata.category(letter) != "Cf"
    )
    result: list[tuple[str, int, int]] = []
    line, word = 0, ""

    def end() -> None:
        nonlocal word
        if word:
            result.append((word, line, line))
        word = ""

    for i, letter in enumerate(plain):
        following = plain[i + 1 : i + 5]
        if stands_alone(letter):
            end()
            word = letter
            end()
        elif is_part(letter):
            word += letter
        elif (letter == "'" and word and following and is_part(following[0]) and not stands_alone(following[0])) or (
            letter == ","
            and word
            and word[-1] in "0123456789"
            and len(following) >= 3
            and all(digit in "0123456789" for digit in following[:3])
            and not following[3:].isdigit()
        ):
            continue
        else:
            end()
            line += letter in "\n\r"
    end()
    return result


def ngrams(of: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(of[i : i + n]) for i in range(len(of) - n + 1)]


def literal_matches(
    targets: list[str], texts: list[str], rules: ContaminationRules
) -> list[tuple[int, int, str, float]]:
    own = [[word for word, *_ in literal_words(target)] for target in targets]
    size = [rules.n if len(w) >= 2 * rules.n else min(rules.short_n, len(w)) for w in own]
    grams = [set(ngrams(w, n)) if n else set() for w, n in zip(own, size, strict=True)]
    shared = {gram: sum(gram in each for each in grams) for each in grams for gram in each}
    counted = [{gram for gram in each if shared[gram] <= COMMON} or each for each in grams]
    matches = []
    for row, text in enumerate(texts):
        placed = literal_words(text)
        held = [word for word, *_ in placed]
        for target, w in enumerate(own):
            if not w:
                continue
            runs = [i for i in range(len(held) - len(w) + 1) if held[i : i + len(w)] == w]
            if len(w) < rules.short_n:
                runs = [
                    i
                    for i in runs
                    if (i == 0 or placed[i - 1][2] < placed[i][1])
                    and (i + len(w) == len(held) or placed[i + len(w) - 1][2] < placed[i + len(w)][1])
                ]
            share = len(counted[target] & set(ngrams(held, size[target]))) / len(counted[target])
            if runs:
                matches.append((row, target, "exact", 1.0))
            elif len(w) >= rules.short_n and share >= rules.threshold - 1e-12:
                matches.append((row, target, "ngrams", share))
    return matches


# ---- cases

VOCABULARY = [
    "cat",
    "Dog",
    "don't",
    "1,000",
    "3.5",
    "\u00e9tude",
    "e\u0301tude",
    "\u6f22\u5b57",
    "x_y",
    "\uff21b",
    "\u0e44\u0e17\u0e22",
    "STRASSE",
    "stra\u00dfe",
    "5,8,9",
]
GAPS = [" ", "  ", "\n", ", ", ". ", "\u00a0", "\u200b ", "\r\n", " \u2014 ", "\u2028", "'", "\u2019 ", "", "-"]


def random_text(rng: random.Random, count: int) -> str:
    return "".join(rng.choice(VOCABULARY) + rng.choice(GAPS) for _ in range(count))


def edited(rng: random.Random, text: str) -> str:
    """The text with some parts left out, put elsewhere or in another case."""
    parts = text.split(" ")
    for _ in range(rng.randint(0, 3)):
        i = rng.randrange(len(parts))
        parts[i : i + 1] = rng.choice([[], [parts[i].upper()], ["new"], [parts[i], "\n"]])
        parts = parts or ["x"]
    return " ".join(parts)


@pytest.mark.parametrize("seed", quick_first(24, range(64)))
def test_matches__are_those_of_the_literal_search(seed: int) -> None:
    rng = random.Random(seed)
    n = rng.randint(1, 6)
    rules = ContaminationRules(n=n, short_n=rng.randint(1, n), threshold=rng.choice([0.2, 0.5, 0.6, 2 / 3, 1.0]))
    targets = [random_text(rng, rng.randint(0, 14)) for _ in range(12)]
    template = random_text(rng, 6)
    targets += [f"{template} {random_text(rng, rng.randint(0, 4))}" for _ in range(COMMON + 2)]
    texts = [random_text(rng, rng.randint(0, 30)) for _ in range(10)]
    texts += [f"{random_text(rng, 3)} {edited(rng, rng.choice(targets))} {random_text(rng, 3)}" for _ in range(15)]
    texts += [f"{random_text(rng, 3)}\n{edited(rng, rng.choice(targets))}\n{random_text(rng, 3)}" for _ in range(15)]
    search = Contamination(targets, rules)
    matches = list(search.matches(texts))
    expected = literal_matches(targets, texts, rules)
    assert [(m.row, m.target, m.rule) for m in matches] == [each[:3] for each in expected]
    assert search.pairs(texts) == [each[:2] for each in expected]
    assert [m.score for m in matches] == pytest.approx([each[3] for each in expected])
    for match in matches:
        check_span(match, texts[match.row], targets[match.target])


def check_span(match: Match, text: str, target: str) -> None:
    part = text[match.start : match.stop]
    assert part == part.strip()
    if match.rule == "exact":
        assert words(part) == words(target)
    else:
        held = f" {' '.join(words(target))} "
        assert any(f" {word} " in held for word in words(part))


@given(st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_words__are_those_of_the_literal_rule(text: str) -> None:
    assert words(text) == [word for word, *_ in literal_words(text)]


@given(
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.text("a\u0301\u0328\u0338\u3099\uff9e=\u30ab\uff76\u1100\u1161\u11a8\ufb01 ", max_size=9),
)
@settings(max_examples=80, deadline=None)
def test_placed_words__the_part_of_each_word_folds_to_it(text: str, marks: str) -> None:
    placed = PlacedWords(text + marks)
    assert placed.words == words(text + marks)
    for i, word in enumerate(placed.words):
        start, stop = placed.span(i, i)
        assert word in words((text + marks)[start:stop])


@given(st.text(min_size=1, max_size=60))
@settings(max_examples=40, deadline=None)
def test_matches__every_text_with_a_word_holds_itself(text: str) -> None:
    matches = list(Contamination([text]).matches([text, f"before {text} after"]))
    assert ([m.row for m in matches][:1] == [0]) == bool(words(text))


@pytest.mark.parametrize(
    ("text", "first", "last", "part"),
    [
        ("One two, three.", 1, 1, "two"),
        ("\u201cNa\u00efve\u201d  cafe\u0301 (x)", 0, 1, "Na\u00efve\u201d  cafe\u0301"),
        ("\ufb01rst, \uff21\uff22 \u6f22\u5b57!", 2, 3, "\u6f22\u5b57"),
        ("5,000 \u00a31,000 and \u00bd cup", 1, 1, "1,000"),
        ("5,000 \u00a31,000 and \u00bd cup", 3, 4, "\u00bd"),
        ("a\u200bb c\u2019d e", 0, 1, "a\u200bb c\u2019d"),
    ],
)
def test_span__is_of_the_text_as_it_is(text: str, first: int, last: int, part: str) -> None:
    start, stop = PlacedWords(text).span(first, last)
    assert text[start:stop] == part


def test_matches__the_span_of_ngrams_is_the_longest_run() -> None:
    target = " ".join(f"w{i}" for i in range(40))
    rows = target.split()
    text = " ".join([*rows[:14], "x", *rows[14:36], "y", *rows[36:]]).replace("w20", "\u201cW20\u201d")
    (match,) = Contamination([target], ContaminationRules(threshold=0.3)).matches([text])
    assert (match.rule, match.score) == ("ngrams", (2 + 10) / 28)
    assert text[match.start : match.stop].split()[0] == "w14"
    assert text[match.start : match.stop].split()[-1] == "w35"


def test_matches__long_texts_and_many_targets() -> None:
    rng = np.random.default_rng(0)
    targets = [" ".join(f"t{i}w{k}" for k in rng.integers(0, 30, 20)) for i in range(700)]
    texts = [f"{target} {'filler ' * 3000}" for target in targets[:30]] + [" ".join(targets)] + [""] * 1200
    matches = list(Contamination(targets).matches(iter(texts)))
    assert [(m.row, m.target) for m in matches] == [(i, i) for i in range(30)] + [(30, i) for i in range(700)]


def test_matches__blocks_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    targets = [random_text(rng, 9) for _ in range(5)]
    texts = [f"{random_text(rng, 3)} {edited(rng, rng.choice(targets))}" for _ in range(40)]
    expected = list(Contamination(targets).matches(texts))
    assert expected
    monkeypatch.setattr(contamination, "BLOCK_TEXTS", 3)
    monkeypatch.setattr(contamination, "BLOCK_CHARACTERS", 10)
    assert list(Contamination(targets).matches(iter(texts))) == expected


@pytest.mark.parametrize("targets", [[], ["", "!?"]])
def test_matches__no_target_has_a_word(targets: list[str]) -> None:
    assert list(Contamination(targets).matches(["", "a text", "!?"])) == []
