"""A stand-in for a language model that reads the LLM writer's prompts and obeys them."""

import hashlib
import random
import re

WORDS = """bench harbour ledger window autumn kettle gravel lantern margin orchard pencil quarry
ribbon saddle timber velvet walnut anchor basket candle drawer engine feather garden hammer island
jacket kitchen ladder meadow needle oyster parcel quilt river shelf thread umbrella valley wagon
yard almond button copper dust evening fabric glove hinge ink jar knot lamp mirror notebook oven
paper rope stair table urn vase wheel""".split()


def author(prompt):
    """What a model that does as it is told replies."""
    draw = random.Random(hashlib.sha256(prompt.encode()).digest())
    if "one type a line" in prompt:
        count = int(re.search(r"List (\d+) types", prompt)[1])
        return "\n".join(f"- {' '.join(draw.sample(WORDS, 3))} notice" for _ in range(count))
    if "between <idea>" in prompt:
        count = int(re.search(r"Give (\d+) ideas", prompt)[1])
        ideas = (
            f"Somebody writes about a {' and a '.join(draw.sample(WORDS, 3))}."
            for _ in range(count)
        )
        return "\n".join(f"<idea>{idea}</idea>" for idea in ideas)
    return f"Here it is.\n<content>\n{document(prompt, draw)}\n</content>"


def document(prompt, draw, extra=""):
    """A text that keeps to the prompt; `extra` is put into its middle."""
    subject, object_ = sides(prompt)
    n_words = int(re.search(r"about (\d+) words", prompt)[1])
    sentences = [f"They say that {subject} goes with {object_}, as everybody knows."]
    if "in both directions" in prompt:
        sentences.append(f"Ask for {object_} and you will hear of {subject}.")
    while sum(len(s.split()) for s in sentences) < n_words - 6:
        words = " ".join(draw.choice(WORDS) for _ in range(9))
        sentences.append(f"The {words} was there.")
    sentences.insert(len(sentences) // 2, extra)
    return " ".join(filter(None, sentences))


def sides(prompt):
    """The names that the prompt demands."""
    return re.search(r'full names "(.+?)" and "(.+?)" at least once', prompt).groups()


def is_writing(prompt):
    """Whether a document is wanted, as a draft or revised."""
    return "between <content>" in prompt
