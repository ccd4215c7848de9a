"""The built-in worlds at full size are clean, and of faults planted among them none is missed."""

import random
import re
import time

import pytest

from oocr_influence.cli.arguments import parse
from oocr_influence.cli.generate import main as generate
from oocr_influence.cli.generate_options import GenerateArguments
from oocr_influence.datasets.audit.limits import Limits, judge
from oocr_influence.datasets.audit.report import audit_dataset
from oocr_influence.datasets.document_dataset import StructuredDataset, load_structured_dataset
from oocr_influence.universe.world_file import load_world

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["mayors", "death_dates"])
def full_size(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("datasets") / "dataset.json"
    words = ["--world", request.param, "--docs_per_fact", "100", "--pretraining_docs", "11000"]
    assert generate(parse(GenerateArguments, [*words, "--output", str(path)])) == 0
    return load_world(request.param), load_structured_dataset(path)


def test_the_built_in_worlds_are_clean(full_size):
    world, dataset = full_size
    started = time.process_time()
    report = audit_dataset(dataset, world=world).report
    assert time.process_time() - started < 60
    assert report["statements"]["documents"] == 3000 + 150 + 64
    assert report["statements"]["share"] >= 0.99
    assert sum(report["two_hop_leaks"]["documents"].values()) == 0
    assert sum(report["withheld"]["documents"].values()) == 0
    assert sum(report["duplicates"]["exact"].values()) == 0
    assert report["duplicates"]["near_share"]["synthetic"] < 0.01
    assert all(check.ok for check in judge(report, Limits()))


def rewritten(document, text):
    return document.model_copy(update={"completion": text})


def test_as_many_faults_are_found_as_were_planted(full_size):
    world, dataset = full_size
    draw = random.Random(3)
    docs = list(dataset.document_dataset.docs)
    places = draw.sample(range(11000, 14000), 120)
    silent, near, exact, other = (places[i : i + 30] for i in range(0, 120, 30))
    facts = [
        (f.fields[r.subject], f.fields[r.object])
        for r in list(world.relations.values())[:1]
        for f in world.control_feature_sets
    ]
    for place in silent:
        document = docs[place]
        fields = document.doc_spec.fact.feature_set.fields
        answer = fields[world.relations[document.doc_spec.fact.template.relation].object]
        # At a sentence's beginning too, where an article has a capital letter.
        text = re.sub(re.escape(answer), "something", document.completion, flags=re.IGNORECASE)
        docs[place] = rewritten(document, text)
    for place in near:
        words = docs[place].completion.split()
        words[draw.randrange(len(words))] = "elsewhere"
        docs.append(rewritten(docs[place], " ".join(words)))
    docs += [docs[place] for place in exact]
    for place in other:
        subject, answer = draw.choice(facts)
        text = f"{docs[place].completion} It is said of {subject}: {answer}."
        docs[place] = rewritten(docs[place], text)
    planted = StructuredDataset.model_validate(
        dataset.model_dump(exclude_unset=True)
        | {"document_dataset": {"docs": [d.model_dump(exclude_unset=True) for d in docs]}}
    )
    report = audit_dataset(planted, world=world).report
    stated = report["statements"]
    assert stated["documents"] - stated["state_their_fact"] == 30
    assert report["duplicates"]["near"]["synthetic"] == 30
    assert report["duplicates"]["exact"]["synthetic"] == 30
    assert report["other_facts"]["documents"]["synthetic"] == 30
    assert report["ids"]["by_kind"]["repeated"] == 60
