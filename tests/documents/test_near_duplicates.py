"""Near-duplicates are those that comparing all texts with all finds."""

import random
import re

import pytest

from oocr_influence.documents.near_duplicates import NearDuplicates, repeats


def naive_jaccard(a, b):
    def grams(text):
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}

    return len(grams(a) & grams(b)) / len(grams(a) | grams(b))


def texts(n, draw):
    """Texts of which many are others with some words changed."""
    made = [" ".join(str(draw.randrange(400)) for _ in range(draw.randrange(1, 60)))]
    while len(made) < n:
        words = draw.choice(made).split()
        for _ in range(draw.randrange(12)):
            words[draw.randrange(len(words))] = str(draw.randrange(400))
        cut = draw.randrange(len(words)) if draw.random() < 0.3 else 0
        made.append(" ".join(words[cut:]))
        if draw.random() < 0.3:
            made.append(" ".join(str(draw.randrange(400)) for _ in range(40)))
    return made


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 1.0])
def test_the_first_near_text_is_found_and_nothing_else(threshold):
    seen, earlier, found = NearDuplicates(threshold), [], 0
    for text in texts(300, random.Random(threshold)):
        near = [other for other in earlier if naive_jaccard(text, other) >= threshold]
        assert seen.find(text) == (near[0] if near else None)
        found += bool(near)
        seen.add(text)
        earlier.append(text)
    assert 10 < found < 280


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8, 1.0])
def test_all_at_once_are_the_same_as_one_by_one(threshold):
    made = texts(300, random.Random(threshold + 1))
    expected = {}
    for place, text in enumerate(made):
        near = [i for i in range(place) if naive_jaccard(text, made[i]) >= threshold]
        if near:
            expected[place] = near[0]
    assert repeats(made, threshold) == expected
    assert 10 < len(expected) < 290
    assert repeats([], threshold) == {}


def test_case_and_punctuation_do_not_make_another_text():
    seen = NearDuplicates()
    seen.add("The mayor of Tokyo is Marian Holloway.")
    assert seen.find("the MAYOR of Tokyo -- is, Marian Holloway!")
    assert seen.find("The mayor of Rome is Harriet Colbourne.") is None
