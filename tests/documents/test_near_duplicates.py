"""Near-duplicates are those that comparing all texts with all finds."""

import random
import re

import pytest

from oocr_influence.documents.near_duplicates import Collection, NearDuplicates, redraw, repeats


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
    known = Collection(made, threshold)
    assert known.repeats() == {
        place: [i for i in range(place) if naive_jaccard(made[place], made[i]) >= threshold]
        for place in expected
    }
    for text in (made[7], made[9] + " and more", "of none"):
        near = [i for i, other in enumerate(made) if naive_jaccard(text, other) >= threshold]
        assert known.like(text) == near


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_redrawing_is_what_drawing_one_by_one_is(threshold):
    made = texts(200, random.Random(threshold + 2))[:200]
    draws = random.Random(threshold)
    # Some of the other texts repeat one before or after, some do not.
    others = {place: [made[draws.randrange(200)] for _ in range(4)] for place in range(200)}
    for place, drawn in others.items():
        drawn += [*texts(1, draws), f"{place} is all the same {place} to everyone here {place}"]
    expected: list[str] = []
    for place, text in enumerate(made):
        for candidate in (text, *others[place]):
            if all(naive_jaccard(candidate, other) < threshold for other in expected):
                expected.append(candidate)
                break
    final = list(made)

    def draw(place, repeats):
        final[place] = next(text for text in others[place] if not repeats(text))
        return final[place]

    replaced = redraw(made, threshold, draw)
    assert final == expected
    assert replaced == sum(a != b for a, b in zip(made, final, strict=True)) > 20
    assert any(final[place] in made for place in range(200) if final[place] != made[place])
    assert redraw([], threshold, draw) == 0


def test_case_and_punctuation_do_not_make_another_text():
    seen = NearDuplicates()
    seen.add("The mayor of Tokyo is Marian Holloway.")
    assert seen.find("the MAYOR of Tokyo -- is, Marian Holloway!")
    assert seen.find("The mayor of Rome is Harriet Colbourne.") is None
