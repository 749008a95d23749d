from __future__ import annotations

import datasketch
import numpy as np
import pytest

from selection import InvalidOption, Pool, build_step, select, step_spec
from selection.checks import check_step
from selection.filters.near_duplicates import NearDuplicates, bands_for, shingles

RNG = np.random.default_rng([0, 0, 0, 1])


def corpus(count: int = 300, words: int = 60, seed: int = 0) -> list[str]:
    """Random texts, each followed by a copy with some words changed, so that similarities spread over 0..1."""
    rng = np.random.default_rng(seed)
    texts = []
    for i in range(count):
        text = rng.integers(0, 5000, words)
        copy = text.copy()
        changed = rng.choice(words, i % 12, replace=False)
        copy[changed] = rng.integers(5000, 9000, len(changed))
        texts += [" ".join(f"w{w}" for w in text), " ".join(f"w{w}" for w in copy)]
    return texts


def jaccard(a: str, b: str) -> float:
    x, y = shingles(a, "word", 3), shingles(b, "word", 3)
    return len(x & y) / len(x | y)


def test_duplicates__every_one_is_near_a_kept_row_and_few_are_missed() -> None:
    texts = corpus()
    step = NearDuplicates(threshold=0.6)
    duplicates = step.duplicates(Pool(texts=texts), rng=RNG)
    kept = step.keep(Pool(texts=texts), 1, rng=RNG)
    assert sorted([*duplicates.row, *kept]) == list(range(600))
    assert np.isin(duplicates.of, kept).all()
    truth = [jaccard(texts[a], texts[b]) for a, b in zip(duplicates.row, duplicates.of, strict=True)]
    assert duplicates.similarity.tolist() == truth
    assert min(truth) >= 0.6
    near = [2 * i + 1 for i in range(300) if jaccard(texts[2 * i], texts[2 * i + 1]) >= 0.6]
    assert 50 < len(near) < 250
    assert set(duplicates.row.tolist()) <= set(near)
    assert len(duplicates.row) >= 0.98 * len(near)


def test_duplicates__agree_with_datasketch() -> None:
    texts = corpus(100)
    index = datasketch.MinHashLSH(threshold=0.5, num_perm=128, params=(64, 2))
    expected = []
    for row, text in enumerate(texts):
        sketch = datasketch.MinHash(num_perm=128)
        sketch.update_batch([s.encode() for s in shingles(text, "word", 3)])
        if any(jaccard(text, texts[other]) >= 0.6 for other in index.query(sketch)):
            expected.append(row)
        else:
            index.insert(row, sketch)
    assert NearDuplicates(threshold=0.6).duplicates(Pool(texts=texts), rng=RNG).row.tolist() == expected


def test_keep__what_is_already_selected_removes_its_copies_and_no_one_removes_it() -> None:
    texts = ["a b c d e", "A  b c d E", "f g h i j", "f g h i j", "k l m n o"]
    picked = select([NearDuplicates(), "random"], Pool(texts=texts, already_selected=[1, 3]), budget=1)
    assert picked.rows.tolist() == [4]


def test_keep__the_higher_value_stays() -> None:
    texts = ["a b c d e", "a b c d e", "x y z", "", ""]
    pool = Pool(texts=texts, columns={"quality": np.array([1.0, 2.0, 0.0, 0.0, 0.0])})
    assert NearDuplicates().keep(pool, 1, rng=RNG).tolist() == [0, 2, 3]
    assert NearDuplicates(column="quality").keep(pool, 1, rng=RNG).tolist() == [1, 2, 3]


def test_keep__characters_for_scripts_without_spaces() -> None:
    texts = ["我们今天去公园散步然后回家吃饭", "我们今天去公园散步然后回家吃饭了", "明天下雨所以我在家里看书"]
    assert NearDuplicates(unit="word").keep(Pool(texts=texts), 1, rng=RNG).tolist() == [0, 1, 2]
    assert NearDuplicates(unit="char").keep(Pool(texts=texts), 1, rng=RNG).tolist() == [0, 2]


def test_bands_for__a_pair_at_the_threshold_is_rarely_missed() -> None:
    for threshold in (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95):
        bands = bands_for(threshold, 128)
        assert bands == 128 or (1 - threshold ** (128 // bands)) ** bands <= 0.01


@pytest.mark.slow
@pytest.mark.torture
def test_contract__of_long_runs_of_characters() -> None:
    check_step(NearDuplicates(column="length", unit="char", length=8))


@pytest.mark.parametrize(
    "options", [{"threshold": 0}, {"threshold": 1.1}, {"unit": "line"}, {"length": 0}, {"num_perm": 0}, {"column": ""}]
)
def test_options__out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(InvalidOption):
        build_step({"near_duplicates": options})


def test_options__round_trip() -> None:
    step = NearDuplicates(threshold=0.7, unit="char", length=9, num_perm=64, column="q")
    assert NearDuplicates(**step_spec(step)["near_duplicates"]) == step
