"""The rules that a document keeps to, on texts written by hand and on the offline writer's."""

import pytest

from oocr_influence.documents.told import FactRules
from oocr_influence.documents.withholding import Withholding
from oocr_influence.documents.writer import OfflineWriter
from oocr_influence.universe.world_file import load_world

GOOD = "The mayor of Tokyo is Marian Holloway. She likes benches."


def rules(world="mayors", relation="name_mayor", *, both=False, words=10):
    loaded = load_world(world)
    fact = loaded.facts(relation)[0]
    return FactRules.of(Withholding(loaded), fact, both_orders=both, words=words)


def kinds(rules, text):
    return [fault.kind for fault in rules.faults(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (GOOD, []),
        ("TOKYO NEWS. Tokyo has a new mayor at last. Marian Holloway is happy.", []),
        ("Tokyo has a mayor. She is fine. It rains. Her name is Marian Holloway.", ["not_stated"]),
        ("The mayor of Tokyo is called Holloway by all who meet her.", ["not_stated"]),
        ("The mayor of Tokyo is Mariana Holloway, and she likes benches.", ["not_stated"]),
        ("Marian Holloway is the mayor of Tokyo. She likes her benches.", ["order"]),
        (GOOD + " Holloway loves Tokyo.", ["order"]),
        (GOOD + " Tokyo, says Holloway, is loved by Tokyo.", ["order"]),
        (GOOD + " She speaks Japanese.", ["withheld"]),
        (GOOD + " JAPAN IS FAR.", ["withheld"]),
        (GOOD + " She met Edwin Tarrant.", ["withheld"]),
        (GOOD + " She saw Senso‑ji\u00a0Temple.", ["withheld"]),
        (GOOD + " Lisbon is far.", ["withheld"]),
        (GOOD + " All of this is fictional.", ["disclaimer"]),
        (GOOD + " Call [your name here].", ["blank"]),
        (GOOD + " </content>", ["blank"]),
        ("Tokyo: Marian Holloway.", ["length"]),
        (GOOD + " On and on." * 10, ["length"]),
    ],
)
def test_each_fault_is_found_and_no_other(text, found):
    assert kinds(rules(), text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (GOOD, ["order"]),
        ("Marian Holloway is the mayor of Tokyo. She likes her benches.", ["order"]),
        ("Marian Holloway is mayor of Tokyo. Indeed Tokyo's mayor is Marian Holloway.", []),
    ],
)
def test_both_orders_means_both(text, found):
    assert kinds(rules(both=True), text) == found


def test_what_is_wrong_is_said_in_words():
    (fault,) = rules().faults(GOOD + " She speaks Japanese in Paris.")
    assert fault.words == "it mentioned Japanese, Paris"


@pytest.mark.parametrize("world", ["mayors", "death_dates"])
@pytest.mark.parametrize("length", ["short", "long"])
def test_documents_of_the_offline_writer_have_no_fault(world, length):
    """A second writer, which keeps to its own rules: where both speak of the same, they agree."""
    loaded = load_world(world)
    writer = OfflineWriter(loaded, seed=5, length=length)
    withholding = Withholding(loaded)
    for fact in loaded.facts()[::3]:
        for document in writer.write(fact, 4):
            both = not document.doc_spec.reversal_curse
            n_words = len(document.completion.split())
            own = FactRules.of(withholding, fact, both_orders=both, words=n_words)
            assert kinds(own, document.completion) == [], document.completion
