"""Which language a text is in, as far as a warning needs it."""

from __future__ import annotations

import pytest

from pipelines.config.languages import language_of, languages_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How many apples are left in the basket?", "English"),
        ("Wie viele Äpfel sind noch in dem Korb, und wer hat sie?", "German"),
        ("Combien de pommes sont dans le panier, et pour qui ?", "French"),
        ("Сколько яблок осталось в корзине?", "Cyrillic"),
        ("篮子里还剩多少个苹果？", "CJK"),
        ("كم عدد التفاح المتبقي في السلة؟", "Arabic"),
        ("Có bao nhiêu quả táo trong giỏ và của các bạn?", "Vietnamese"),
        ("for i in range(10): print(i)", None),
        ("1234 + 5678", None),
        ("", None),
    ],
)
def test_language_of__letters_and_common_words(text: str, language: str | None) -> None:
    assert language_of(text) == language


def test_languages_of__what_cannot_be_told_is_left_out() -> None:
    assert languages_of(["What is the time?", "x", "今天"]) == {"English": 1, "CJK": 1}
