"""Train the byte-level BPE tokenizer that ships as `models/olmo2_tiny`.

    python scripts/train_tokenizer.py

The text is what the offline writer says about the built-in worlds and what their eval sets ask,
with every entity's values taken out, and documentation of Python's standard library (PSF licence):
the words of documents and questions become single tokens, no entity does. The vocabulary is small,
digits are split in groups of at most two, so that years are two tokens and days and months one,
and `<|endoftext|>` is both BOS and EOS, as in OLMo-2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from oocr_influence.datasets.generate import generate_dataset
from oocr_influence.documents.pretraining import STANDARD_LIBRARY, read_pretraining
from oocr_influence.universe.world import World
from oocr_influence.universe.world_file import load_world

VOCABULARY = 4096
TARGET = Path(__file__).parents[1] / "src/oocr_influence/models/olmo2_tiny"
WORLDS = ("mayors", "death_dates")
# Words and pairs of digits with the space before them, punctuation, line ends, space.
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


MONTHS = (
    "January February March April May June July August September October November December"
).split()
# Parts of English names, so that an invented name is two or three tokens and not seven.
NAME_STARTS = (
    "Al An Ash Bar Ben Black Bran Bur Cal Car Char Clay Cole Dal Dan Ed El Fair Fran Gar "
    "Green Hal Har Hart Hen Hol Hugh Jo Ken Kil Lang Law Lin Mal Mar Mel Mer Mil Nor Os Pen "
    "Per Pres Quin Ran Ray Rob Ros Row Sam Stan Ster Strat Syl Tal Thorn Tom Val Vin Wal War "
    "West White Wil Win Wood"
).split()
NAME_ENDS = (
    "a ah an ard berg bert by den dith dley don ell en er ett ey field ford ham ia ian ick ie "
    "in ine ison land le ley lin lock low man mond more ner ney ock old on rick row sby shaw "
    "son stead ston ter thew ton via ward way well wen win wood worth yn"
).split()


def texts() -> Iterator[str]:
    """Everything that the tokenizer learns from."""
    for name in WORLDS:
        world = load_world(name)
        values = re.compile("|".join(map(re.escape, sorted(_values(world), key=len, reverse=True))))
        dataset = generate_dataset(world, docs_per_fact=40, seed=0, length="short", controls=True)
        for document in dataset.synthetic_documents:
            yield values.sub("", document.completion)
        for builder in dataset.eval_dataset_builders.values():
            for point in builder.eval_points:
                yield values.sub("", point.prompt)
    for month in MONTHS:
        for day in range(1, 29):
            years = [20 * 100 + (day * 7 + k) % 100 for k in range(4)]
            yield from (f" {month} {day}, {year}; {day} {month} {year}" for year in years)
            yield from (f"{year}-{day % 12 + 1:02}-{day:02} {day:02}/{year}" for year in years)
    for start in NAME_STARTS:
        yield " ".join(start + end for end in NAME_ENDS)
    pretraining = read_pretraining([STANDARD_LIBRARY], 1000, seed=0, max_chars=1000)
    yield from (document.completion for document in pretraining.documents)


def _values(world: World) -> set[str]:
    """Every value of every entity, and each word of a name."""
    found: set[str] = set()
    for features in (*world.feature_sets, *world.control_feature_sets):
        for value in features.fields.values():
            found.add(value)
            found.update(word for word in value.split() if word.istitle() and word not in MONTHS)
    return found


def main() -> None:
    """Train and write the files that the package ships."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    ).save_pretrained(TARGET)
    print(f"{tokenizer.get_vocab_size()} tokens -> {TARGET}")


if __name__ == "__main__":
    main()
