"""What `oocr generate` says of the dataset that it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oocr_influence.datasets.document_dataset import StructuredDataset
from oocr_influence.datasets.eval_sets import describe_set


def summary(dataset: StructuredDataset, output: Path, table: Path) -> str:
    """What was written, for a person: counts, how much documents differ, files."""
    counts = dataset.metadata["counts"]
    pretraining = dataset.metadata["pretraining"]
    lines = [
        f"{counts['synthetic_documents']:,} documents state {counts['facts']} facts, "
        f"{counts['reversal_curse_documents']:,} of them in one order alone",
        f"{counts['pretraining_documents']:,} pretraining documents",
        f"{counts['control_documents']:,} documents mention control entities",
        f"{counts['held_out_documents']:,} documents held out",
        f"{counts['eval_sets']} eval sets, and {counts['control_sets']} control sets beside them",
    ]
    if "distractor_documents" in counts:
        lines.insert(3, f"{counts['distractor_documents']:,} documents of distractors")
    if counts["pretraining_documents"]:
        mean = pretraining["characters"] / counts["pretraining_documents"]
        sources = "; ".join(f"{s['source']}, {s['licence']}" for s in pretraining["sources"])
        lines[1] += f" of {mean:,.0f} characters on average ({sources})"
        if left_out := pretraining.get("left_out"):
            named = ", ".join(f"{n:,} {reason}" for reason, n in left_out.items())
            lines[1] += f"; left out: {named.replace('_', ' ')}"
    lines += [*_missing_controls(dataset), *_diversity(dataset.metadata)]
    lines += [f"{output} ({output.stat().st_size:,} bytes)", f"{table}: what each set asks"]
    return "\n".join(lines)


def _missing_controls(dataset: StructuredDataset) -> list[str]:
    """Which control sets were asked for and cannot be made of this world."""
    asked = dataset.metadata["arguments"]
    if not asked["controls"]:
        return []
    builders = dataset.eval_dataset_builders.items()
    made = {describe_set(name, builder).control for name, builder in builders}
    lines = []
    if "unmentioned" not in made:
        lines.append(
            "no set asks about entities that no document mentions: the world has none under "
            "'controls', and what its sets would show had nothing been learned stays unknown"
        )
    if "untold" not in made and asked["untold_docs"] != 0:
        lines.append(
            "no set asks what documents withhold of an entity that they mention: the world has "
            "none under 'untold'"
        )
    return lines


def _diversity(metadata: dict[str, Any]) -> list[str]:
    found = metadata["diversity"]
    if not found["documents"]:
        return []
    words, kinds = found["words"], found["kinds_a_fact"]
    distinct = ", ".join(
        f"{found[f'distinct_{n}']['number']:,.0f} {n}-grams ({found[f'distinct_{n}']['share']:.0%})"
        for n in (1, 2, 3)
    )
    near = found["near_duplicates"]
    lines = [
        f"documents of {words['least']} to {words['most']} words, {words['mean']:.0f} on average, "
        f"in {found['kinds']} kinds ({kinds['mean']:.0f} a fact), "
        f"{found['first_person']:.0%} in the first person",
        f"distinct in a fact's documents: {distinct}",
    ]
    overlaps = found["jaccard_5"]
    if overlaps["same_fact"] is not None:
        same, nearest = overlaps["same_fact"], overlaps["nearest"]
        lines.append(
            f"5-gram Jaccard index: {same['median']:.3f} in the median and {same['most']:.3f} at "
            f"most between documents of a fact, {nearest['median']:.3f} with the nearest of all"
        )
    redrawn = metadata["generator"].get("near_duplicates_redrawn")
    lines.append(
        f"near-duplicates (≥ {near['threshold']}): {near['documents']:,}"
        + ("" if redrawn is None else f", {redrawn:,} drawn anew")
    )
    return lines
