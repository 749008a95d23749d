"""Whether texts are in English, by their letters and their commonest words: enough for a warning, and no more.

It cannot tell texts of a few words, code, numbers and names; nor languages whose words are not listed here from each
other; nor a text in two languages from one in the commoner of them. What cannot be told counts for nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

ENGLISH = "English"
# Of a text that is looked at.
_LONGEST = 2000
# The last letter of Latin Extended-B; Vietnamese has further ones, see `_is_latin`.
_LAST_LATIN = "\u024f"
_WORD = re.compile(r"[a-z\u00c0-\u024f\u1e00-\u1eff]+")
# Fewer common words than this tell nothing.
_LEAST_WORDS = 2
# The commonest words of each language that are none of English.
_COMMON = {
    ENGLISH: "the of and to that is with are was for this what you how which from have it can be",
    "German": "der das und ist nicht ein eine zu mit auf sich dem wie wird auch f\u00fcr sind",
    "French": "le les des et est une du que dans pour qui pas sur au avec ce sont",
    "Spanish": "el los las y una del que por como su es se lo pero m\u00e1s",
    "Portuguese": "os uma da que para com em por ao dos das mais n\u00e3o",
    "Italian": "il gli che di una della sono nel alla anche pi\u00f9 non",
    "Dutch": "het een en niet dat op zijn voor ook maar wordt",
    "Polish": "nie si\u0119 na jest \u017ce od oraz przez dla w z",
    "Turkish": "ve bir bu i\u00e7in ile \u00e7ok olarak gibi daha",
    "Indonesian": "yang dan dari untuk dengan ini itu pada adalah tidak dalam",
    "Vietnamese": "v\u00e0 c\u1ee7a l\u00e0 c\u00f3 trong cho kh\u00f4ng m\u1ed9t c\u00e1c \u0111\u01b0\u1ee3c v\u1edbi",
}
_LANGUAGE_OF: dict[str, list[str]] = {}
for _name, _words in _COMMON.items():
    for _word in _words.split():
        _LANGUAGE_OF.setdefault(_word, []).append(_name)


def language_of(text: str) -> str | None:
    """`English`, another language, or the script of most letters where it is not Latin; None where it cannot be told.

    >>> language_of("What is the capital of France?"), language_of("Wie hoch ist der Berg, und wie alt?")
    ('English', 'German')
    >>> language_of("\u4eca\u5929\u5929\u6c14\u600e\u4e48\u6837"), language_of("x = f(1)")
    ('CJK', None)
    """
    text = text[:_LONGEST]
    letters = [] if text.isascii() else [letter for letter in text if letter.isalpha()]
    others = [letter for letter in letters if letter > _LAST_LATIN and not _is_latin(letter)]
    if len(others) > len(letters) / 2:
        return Counter(map(_script, others)).most_common(1)[0][0]
    counts = Counter(language for word in _WORD.findall(text.lower()) for language in _LANGUAGE_OF.get(word, ()))
    ranked = counts.most_common(2)
    if not ranked or ranked[0][1] < _LEAST_WORDS or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


def languages_of(texts: Iterable[str]) -> Counter[str]:
    """How many texts are in each language, or script; those that cannot be told are left out."""
    return Counter(language for text in texts if (language := language_of(text)) is not None)


def _script(letter: str) -> str:
    """The first word of a letter's name in Unicode: `CJK`, `Cyrillic`, `Hiragana`."""
    name = unicodedata.name(letter, "other").partition(" ")[0]
    return name if name == "CJK" else name.capitalize()


def _is_latin(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith("LATIN")
