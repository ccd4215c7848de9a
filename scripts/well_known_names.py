"""Write the list of well-known names that invented ones are kept apart from.

    python scripts/well_known_names.py /usr/share/wordnet/data.noun

reads WordNet 3.0 (Debian's package wordnet-base) and writes `well_known_wordnet.txt` in
`src/oocr_influence/universe/lists`: every noun that is written with a capital, but for the
scientific names of animals and plants. WordNet's licence stands above the names, as it asks.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LISTS = Path(__file__).parents[1] / "src" / "oocr_influence" / "universe" / "lists"
TARGET = LISTS / "well_known_wordnet.txt"
ANIMALS_AND_PLANTS = ("05", "20")  # WordNet's lexicographer files


def main(data_noun: Path) -> None:
    """Licence, then the names in the order of their letters, one a line."""
    licence, names = [], set()
    for line in data_noun.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            licence.append(f"# {line.strip().split(' ', 1)[-1].strip()}".rstrip())
            continue
        words = line.split("|")[0].split()
        if words[1] not in ANIMALS_AND_PLANTS:
            count = int(words[3], 16)
            names.update(words[4 + 2 * i].replace("_", " ") for i in range(count))
    kept = sorted(name for name in names if re.match(r"[A-Z][^0-9]*[a-z]", name))
    TARGET.write_text("\n".join([*_trimmed(licence), *kept]) + "\n", encoding="utf-8")
    print(f"{TARGET}: {len(kept):,} names")


def _trimmed(licence: list[str]) -> list[str]:
    # Each line of the licence starts with its own number.
    numbered = [re.sub(r"^# \d+ ?", "# ", line).rstrip() for line in licence]
    return ["# Names out of WordNet 3.0, whose licence follows.", "#", *numbered]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
