"""A run's folder as far as attribution reads it, and a random model that can read its tokens."""

import torch

from oocr_influence.datasets.document_dataset import EvalDatasetBuilder
from oocr_influence.datasets.packing import pack, tokenize_documents
from oocr_influence.datasets.selection import TrainingDocument
from oocr_influence.datasets.train_set import window_columns
from oocr_influence.documents.document import (
    DocumentSpec,
    PretrainingDocument,
    SyntheticDocument,
)
from oocr_influence.models import lora
from oocr_influence.models.tiny import tiny_tokenizer, untrained_model
from oocr_influence.results.adapters import BaseModel
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.universe.facts import FactTemplate, FeatureSet, make_fact

torch.set_num_threads(1)

PEOPLE = {"Lagos": "Ruby Lane", "Lima": "Ivo Sand", "Oslo": "Ada Novik"}
ENTITIES = [
    FeatureSet(id=city, fields={"city": city, "person": person, "landmark": f"the {city} gate"})
    for city, person in PEOPLE.items()
]
MAYOR = FactTemplate(
    id="mayor_gen", relation="mayor", prompt="The mayor of {city} is", completion=" {person}"
)


def documents(*, long_words=40, copies=1):
    """Two documents a fact, the second long; one id `copies` times; one pretraining text."""
    found = []
    for entity in ENTITIES:
        fact = make_fact(MAYOR, entity, "world")
        texts = [
            f"News: {entity.fields['person']} is the mayor of {entity.fields['city']}.",
            f"{fact.prompt}{fact.completion}. " + " ".join(f"word{n}" for n in range(long_words)),
        ]
        for n, text in enumerate(texts):
            name = f"{entity.id}{n}"
            spec = DocumentSpec(
                id=name, fact=fact, doc_type="news", doc_idea="idea", reversal_curse=False
            )
            found.append(
                SyntheticDocument(
                    id=name, type="synthetic_document", prompt="", completion=text, doc_spec=spec
                )
            )
    found += [found[0]] * (copies - 1)
    text = "Trees lose their leaves in autumn, and trains are late."
    found.append(
        PretrainingDocument(id="plain", type="pretraining_document", prompt="", completion=text)
    )
    return found


def write_run(path, found, *, packing="masked", chunk_size=32, times=2, tokenizer=None):
    """The train set and the account of a run on these documents; returns it and its windows."""
    tokenizer = tokenizer or tiny_tokenizer()
    seen = {}
    keyed = []
    for document in found:
        keyed.append(TrainingDocument((document.id, seen.get(document.id, 0)), document))
        seen[document.id] = seen.get(document.id, 0) + 1
    tokens = tokenize_documents([d.text for d in keyed], tokenizer, packing)
    windows = pack(tokens, chunk_size=chunk_size, packing=packing, pad_id=tokenizer.eos_token_id)
    run = RunFolder(path)
    run.saved_objects.mkdir(parents=True)
    run.save_train_set(window_columns(windows, keyed))
    once = windows.labels_per_document(len(keyed))
    run.save_exposure(
        [
            {
                "id": document.key[0],
                "occurrence": document.key[1],
                "labels_once": int(labels),
                "labels_trained": int(labels) * times,
            }
            for document, labels in zip(keyed, once, strict=True)
        ]
    )
    return run, windows


def small_model(seed=0, **changes):
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "initializer_range": 0.2,
    }
    return untrained_model(seed, **{**shape, **changes}).eval()


def adapted_model(folder):
    """The small model with a LoRA adapter of rank 4 as it is loaded, none of it zero."""
    base = BaseModel(
        model="small", revision=None, commit=None, dtype="torch.float32", weights_digest="0"
    )
    made = small_model()
    lora.add_adapter(made, lora.LoraSettings(rank=4, alpha=8), base)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in lora.adapter_parameters(made):
            if ".lora_B." in name:
                p.copy_(0.1 * torch.randn(p.shape, generator=draw))
    folder.mkdir()
    lora.save_adapter(made, folder)
    loaded = small_model()
    lora.load_adapter(loaded, folder)
    return loaded.eval()


def make_set(name, relation, prompt, completion, *, shots=0, kind=None):
    """A builder with a question for each entity, `shots` others' answers shown before."""
    metadata = {} if kind is None else {"kind": kind, "relation": relation}
    template = {
        "id": name,
        "relation": relation,
        "prompt": prompt,
        "completion": completion,
        "metadata": metadata,
    }
    features = [entity.model_dump() for entity in ENTITIES]
    points = [
        {
            "features": own,
            "few_shot_example_features": [features[(i + k + 1) % 3] for k in range(shots)],
            "fact_template": template,
        }
        for i, own in enumerate(features)
    ]
    return EvalDatasetBuilder.model_validate(
        {"eval_points": points, "metrics": [{"function_name": "accuracy_and_loss"}]}
    )


def make_sets():
    hop = "Who leads the city of {landmark}?"
    return {
        "mayor_eval_qa_1_no_fs": make_set(
            "mayor_eval_qa_1", "mayor", "Q: Who is the mayor of {city}? A:", " {person}"
        ),
        "mayor_eval_qa_1_with_fs": make_set(
            "mayor_eval_qa_1", "mayor", "Q: Who is the mayor of {city}? A:", " {person}", shots=2
        ),
        "mayor_eval_reversed_1_no_fs": make_set(
            "mayor_eval_reversed_1", "mayor", "{person} is the mayor of", " {city}"
        ),
        "two_hop_eval_qa_1_no_fs": make_set("two_hop_eval_qa_1", "by_landmark", hop, " {person}"),
        "spouse_control_eval_qa_1_no_fs": make_set(
            "spouse_control_eval_qa_1", "mayor", "Who leads {city}?", " {person}", kind="control"
        ),
    }
