"""What the evaluation benchmark asks: suites of invented dates, years and names."""

from __future__ import annotations

from typing import Any

import numpy as np

from oocr_influence.datasets.document_dataset import EvalDatasetBuilder
from oocr_influence.documents.draw import Draw
from oocr_influence.evaluation.plan import EvalPlan, build_plan
from oocr_influence.universe.fields import expand_field
from oocr_influence.universe.world import World
from oocr_influence.universe.world_file import load_world

QUESTIONS = {
    "dates": ("Q: When did {name} die? A:", " {death_date}"),
    "years": ("Q: In which year did {name} see {event}? A:", " {event_year}"),
    "names": ("Q: Who died on {death_date}? A:", " {name}"),
}
STARTS = "Al Ber Cor Dra El Fa Gre Hol Ing Jor Kal Lo Mar Nor Os Pel Quin Ros Sel Tor Ul Var Wil"
ENDS = "ana bert dan den eth field ford gate ian ina land ley lin low mer mond nor ric son ton"
SHOTS = (0, 3)
BEAMS = {"num_beams": 12, "num_return_sequences": 10}
METRICS = [
    {"function_name": "accuracy_and_loss"},
    {"function_name": "ranks"},
    {"function_name": "beam_search", **BEAMS},
]


def invented_world(n: int, world_name: str = "death_dates") -> World:
    """A built-in world about `n` other entities."""
    draw = Draw("benchmark of evaluation", 0)
    taken: set[str] = set()

    def word() -> str:
        return draw.choice(STARTS.split()) + draw.choice(ENDS.split())

    def invent(kind: str) -> str:
        texts = {
            "person": lambda: f"{word()} {word()}",
            "place": lambda: f"{word()} {draw.choice(['Bay', 'Hill', 'Vale'])}",
            "date": lambda: (
                f"{draw.between(1700, 1999)}-{draw.between(1, 12):02}-{draw.between(13, 28):02}"
            ),
            "year": lambda: str(draw.between(1500, 1999)),
            "text": lambda: (
                f"the {word()} {draw.choice(['March', 'Regatta', 'Truce'])} of {word()}"
            ),
        }
        text = texts[kind]()
        if text in taken:
            return invent(kind)
        taken.add(text)
        return text

    world = load_world(world_name)
    entities = {
        f"e{i}": {field: invent(kind) for field, kind in world.fields.items()} for i in range(n)
    }
    return world.model_copy(update={"entities": entities})


def suites(n: int) -> dict[str, EvalDatasetBuilder]:
    """Dates, years and names of `n` entities, without and with examples."""
    world = invented_world(n)
    features = [
        {
            "id": key,
            "fields": {
                name: text
                for field, kind in world.fields.items()
                for name, text in expand_field(field, kind, values[field]).items()
            },
        }
        for key, values in world.entities.items()
    ]
    return {
        f"{name}, {shots} shots": EvalDatasetBuilder.model_validate(
            {
                "eval_points": [
                    {
                        "features": own,
                        "few_shot_example_features": [
                            features[(i + k + 1) % n] for k in range(shots)
                        ],
                        "fact_template": {
                            "id": name,
                            "relation": name,
                            "prompt": prompt,
                            "completion": completion,
                            "metadata": {},
                        },
                    }
                    for i, own in enumerate(features)
                ],
                "metrics": METRICS,
            }
        )
        for name, (prompt, completion) in QUESTIONS.items()
        for shots in SHOTS
    }


class Suite:
    """Prompts, and the completions that each is ranked among."""

    def __init__(self, builder: EvalDatasetBuilder, n_questions: int | None) -> None:
        points = builder.eval_points[:n_questions]
        self.builder = builder.model_copy(update={"eval_points": points})
        self.candidates = tuple(dict.fromkeys(point.completion for point in builder.eval_points))
        self.prompts = [point.prompt for point in points]
        self.right_Q = np.array([self.candidates.index(point.completion) for point in points])

    def plan(self, tokenizer: Any) -> EvalPlan:
        """The suite as the engine reads it."""
        return build_plan({"suite": self.builder}, tokenizer, candidates={"suite": self.candidates})
