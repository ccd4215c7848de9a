"""Near-duplicates by MinHash: never a false one, and as many found as the formula promises."""

import random
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from oocr_influence.documents.minhash import NearTexts


def naive_jaccard(a, b):
    def grams(words):
        return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}

    return len(grams(a) & grams(b)) / len(grams(a) | grams(b))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), max_size=8))
def test_what_is_left_out_is_near_by_the_definition(texts):
    seen, kept = NearTexts(0.5), []
    for words in texts:
        nearest = max((naive_jaccard(words, other) for other in kept), default=0)
        if seen.add(words):
            kept.append(words)
            assert nearest < 1
        else:
            assert nearest >= 0.5


def test_as_many_are_found_as_the_formula_says():
    rng = random.Random(0)
    found = {0.5: [], 0.6: [], 0.8: []}
    for least, hits in found.items():
        for case in range(300):
            words = [f"w{rng.randrange(10**6)}" for _ in range(120)]
            # A common part of the right length gives the index that is wanted.
            shared = round((2 * least / (1 + least)) * 116) + 4
            other = words[:shared] + [f"v{case}-{i}" for i in range(120 - shared)]
            assert abs(naive_jaccard(words, other) - least) < 0.02
            seen = NearTexts(0.45)
            assert seen.add(words)
            hits.append(not seen.add(other))
    rates = {least: sum(hits) / len(hits) for least, hits in found.items()}
    for least, rate in rates.items():
        expected = 1 - (1 - least**4) ** 32
        assert rate > expected - 0.08
    assert rates[0.8] == 1


def test_a_copy_of_the_index_grows_apart():
    words = re.findall(r"\w+", "one two three four five six seven")
    first = NearTexts()
    second = first.copy()
    assert second.add(words)
    assert not second.add(words)
    assert first.add(words)
