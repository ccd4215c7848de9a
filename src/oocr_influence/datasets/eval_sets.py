"""Sets of questions from a world: relation × answer format × style × phrasing × shots, by rule.

    builders = build_eval_sets(load_world("mayors"), seed=42)        # 190 sets
    describe_set("name_mayor_eval_qa_1_no_fs", builder).kind         # "trained"

A template `<relation>_eval[_<format>]_<style>_<phrasing>` gives two sets, `…_no_fs` and, with the
answers of up to three other entities before the question, `…_with_fs`. A two-hop relation is asked
like any other, and what joins its two facts as `<two hop>_first_hop_eval_…`. Control sets show
what a trained set would show had nothing been learned, in the first wordings of each trained kind:

    <relation>_control_eval_…          `unmentioned`: entities that no document mentions
    <relation>_control_untold_eval_…   `untold`: documents tell another relation of these entities
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from oocr_influence.datasets.document_dataset import (
    AccuracyAndLoss,
    BeamSearch,
    EvalDatasetBuilder,
    EvalPoint,
    Metric,
    Ranks,
)
from oocr_influence.datasets.set_names import (
    NO_FEW_SHOT,
    WITH_FEW_SHOT,
    SetDescription,
    describe_by_name,
)
from oocr_influence.universe.facts import FactTemplate, FeatureSet
from oocr_influence.universe.world import World
from oocr_influence.universe.world_parts import Questions

FEW_SHOT_EXAMPLES = 3
# Wordings of each relation, format and style: a null level needs no more.
CONTROL_WORDINGS = {"unmentioned": 2, "untold": 1}


def build_eval_sets(
    world: World, *, seed: int, controls: bool = False, untold: bool = False
) -> dict[str, EvalDatasetBuilder]:
    """Every set of `world` by name, in the order of its file.

    Last, if asked for, the sets about entities that no document mentions (`controls`) and about
    those that documents mention without this fact (`untold`).
    """
    entities = world.feature_sets
    asked = [(template, entities) for template in eval_templates(world)]
    if controls:
        unmentioned = world.control_feature_sets
        asked += [(template, unmentioned) for template in control_templates(world, "unmentioned")]
    if untold and world.untold:
        withheld = {name: world.untold_feature_sets(name) for name in world.asked_relations}
        asked += [(t, withheld[t.relation]) for t in control_templates(world, "untold")]
    builders: dict[str, EvalDatasetBuilder] = {}
    # All wordings of a relation show the same examples: drawn once for each group of entities.
    drawn: dict[tuple[str, str | None], list[list[FeatureSet]]] = {}
    for template, group in asked:
        # A world with few controls may have none that a relation was withheld from.
        if not group:
            continue
        key = (template.relation, template.metadata.get("control"))
        if template.allow_few_shot and key not in drawn:
            drawn[key] = [few_shot_examples(seed, template.relation, e, group) for e in group]
        builders |= _sets(world, template, group, drawn.get(key, []))
    return builders


def eval_templates(world: World) -> list[FactTemplate]:
    """One template a relation, format, style and phrasing."""
    templates = []
    for name, relation in world.relations.items():
        for block in relation.questions:
            reverse = block.style == "reversed"
            asked = relation.subject if reverse else relation.object
            kind = "reversed" if reverse else "trained"
            templates += list(_templates(world, name, block, asked, kind))
    for name, hop in world.two_hops.items():
        joined = world.relations[hop.relation]
        for block in hop.first_hop:
            templates += list(
                _templates(world, f"{name}_first_hop", block, joined.subject, "first_hop")
            )
        for block in hop.questions:
            templates += list(_templates(world, name, block, joined.object, "two_hop"))
    return templates


def control_templates(world: World, control: str) -> list[FactTemplate]:
    """The first trained templates of each kind, for the control `unmentioned` or `untold`."""
    named = "_control_eval_" if control == "unmentioned" else f"_control_{control}_eval_"
    return [
        template.model_copy(
            update={
                "id": template.id.replace("_eval_", named, 1),
                "metadata": {**template.metadata, "kind": "control", "control": control},
            }
        )
        for template in eval_templates(world)
        if template.metadata["kind"] == "trained"
        and template.metadata["phrasing"] <= CONTROL_WORDINGS[control]
    ]


def few_shot_examples(
    seed: int, relation: str, entity: FeatureSet, entities: list[FeatureSet]
) -> list[FeatureSet]:
    """The other entities whose answers are shown before a question about `entity`.

    They depend on (seed, relation, entity) alone: every phrasing shows the same examples, so that
    phrasings can be compared.
    """
    others = [other for other in entities if other.id != entity.id]
    draw = random.Random(f"few_shot:{seed}:{relation}:{entity.id}")
    # Sorting by random() rather than sample(): only random() is promised to stay the same.
    keyed = sorted((draw.random(), place) for place in range(len(others)))
    return [others[place] for _, place in keyed[:FEW_SHOT_EXAMPLES]]


def describe_set(name: str, builder: EvalDatasetBuilder) -> SetDescription:
    """What the set asks: from its template's metadata, or from its name in older files."""
    template = builder.eval_points[0].fact_template if builder.eval_points else None
    shots = max((len(p.few_shot_example_features) for p in builder.eval_points), default=0)
    relation = template.relation if template else None
    guessed = describe_by_name(name, relation=relation, shots=shots)
    metadata: Mapping[str, Any] = (template.metadata if template else None) or {}
    if not isinstance(metadata.get("kind"), str):
        return guessed
    phrasing = metadata.get("phrasing")
    return SetDescription(
        world=str(metadata["world"]) if "world" in metadata else None,
        relation=str(metadata.get("relation", guessed.relation)),
        answer_format=str(metadata.get("answer_format", guessed.answer_format)),
        style=str(metadata.get("style", guessed.style)),
        phrasing=phrasing if isinstance(phrasing, int) else guessed.phrasing,
        shots=shots,
        kind=metadata["kind"],
        control=str(metadata["control"]) if "control" in metadata else guessed.control,
    )


def eval_set_table(builders: Mapping[str, EvalDatasetBuilder]) -> str:
    """What each set asks, with one example each, as Markdown: a section a relation."""
    lines = [
        "# What each set asks",
        "",
        f"{len(builders)} sets. The example is the question about the first entity; → leads to the "
        "right answer, and ⏎ ends a line of the prompt.",
    ]
    section = None
    for name, builder in builders.items():
        described = describe_set(name, builder)
        if (described.relation, described.kind == "control") != section:
            section = (described.relation, described.kind == "control")
            lines += ["", f"## {described.relation}{', controls' if section[1] else ''}", ""]
            lines.append("| set | kind | style | format | shots | questions | example |")
            lines.append("|---|---|---|---|---|---|---|")
        cells = [
            name,
            described.kind,
            described.style,
            described.answer_format,
            str(described.shots),
            str(len(builder.eval_points)),
            _example(builder),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _example(builder: EvalDatasetBuilder) -> str:
    if not builder.eval_points:
        return "(none)"
    first = builder.eval_points[0]
    text = f"{first.prompt} →{first.completion}"
    return text.replace("|", "\\|").replace("\n", " ⏎ ")


def eval_metrics() -> list[Metric]:
    """What is computed for every built-in set; every key stated, so that it is in the file."""
    return [
        AccuracyAndLoss(function_name="accuracy_and_loss"),
        Ranks(function_name="ranks"),
        BeamSearch(function_name="beam_search", num_beams=12, num_return_sequences=10),
    ]


def _templates(
    world: World, relation: str, block: Questions, asked: str, kind: str
) -> Iterator[FactTemplate]:
    plain = world.plain_format(asked)
    for answer_format, prompts in block.by_format(world.fields[asked]).items():
        named_format = "" if answer_format == plain else f"_{answer_format}"
        for phrasing, prompt in enumerate(prompts, start=1):
            yield FactTemplate(
                id=f"{relation}_eval{named_format}_{block.style}_{phrasing}",
                relation=relation,
                prompt=prompt,
                completion=f" {{{world.hole(asked, answer_format)}}}",
                metadata={
                    "world": world.id,
                    "relation": relation,
                    "answer_format": answer_format,
                    "style": block.style,
                    "phrasing": phrasing,
                    "kind": kind,
                },
                allow_few_shot=block.few_shot,
            )


def _sets(
    world: World,
    template: FactTemplate,
    entities: list[FeatureSet],
    examples: list[list[FeatureSet]],
) -> Iterator[tuple[str, EvalDatasetBuilder]]:
    none: list[list[FeatureSet]] = [[] for _ in entities]
    yield template.id + NO_FEW_SHOT, _builder(world, template, entities, none)
    if template.allow_few_shot:
        yield template.id + WITH_FEW_SHOT, _builder(world, template, entities, examples)


def _builder(
    world: World,
    template: FactTemplate,
    entities: list[FeatureSet],
    examples: list[list[FeatureSet]],
) -> EvalDatasetBuilder:
    points = [
        EvalPoint(
            features=entity,
            few_shot_example_features=shown,
            fact_template=template,
            constant_fields=world.constants,
        )
        for entity, shown in zip(entities, examples, strict=True)
    ]
    return EvalDatasetBuilder(eval_points=points, metrics=eval_metrics())
