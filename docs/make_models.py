"""Write docs/models.md from the families and the last table of `make parity`.

Run from the root of the checkout: `make docs`. The parity figures come from docs/parity.tsv, which
is a copy of what `make parity` left in build/parity.tsv.
"""

from __future__ import annotations

import csv
from pathlib import Path

from glm_annotate.train.families import FAMILIES, Family
from glm_annotate.train.families.family import Official, Release

FOLDER = Path(__file__).parent
PARITY, PAGE = FOLDER / "parity.tsv", FOLDER / "models.md"
SCORES = {
    "masked": "LLR, PLLR, WTLLR, ENT, EMB_*",
    "causal": "LLR, ENT, EMB_*",
}
LANGUAGE = frozenset(SCORES)
HEAD = """\
# Models

<!-- Made by docs/make_models.py from glm_annotate/train/families: do not edit. -->

`mito` ships with the package. The systems below are read from their authors' checkpoints by
[`glm-annotate export`](training.md#export-an-official-checkpoint): one command each, on a machine
with internet, with the extras `train` and `hub` (and `bpe` for byte-pair tokens). None of their
weights is part of this package; mind the licence of each.

## Systems

"Longest window" is what the authors trained on; the default window of an export may be shorter,
`--context` changes it. For byte-pair tokens LLR has a number only where both alleles differ in one
token, PLLR for indels too, up to the card's `pllr_max` rows.

"""
PREDICTORS_TEXT = """
## Predictors of assays, contacts and splice sites

Read in the same way, from checkpoints, Keras files (`.h5`) or packages (`glm-annotate models
import`). The table of tracks comes from the `targets.txt` beside the weights where there is one;
`--tracks-file`, `--track-regex`, `--assay` and `--biosample` cut a bundle to some of them. See
[scores.md](scores.md) for what is scored.

"""
PARITY_TEXT = """
## Parity

Largest difference, as a part of max(1, largest value), on random weights that leave nothing at
zero. *torch*: our network against the public implementation, which also saved the checkpoint.
*ONNX*: the exported graph against the public implementation. *vcf*: scores of `glm-annotate vcf` on
real variants of human chr20 (1000 Genomes, indels among them), against a brute-force oracle that
makes its forward passes with the public implementation; *values* counts them. `make parity` makes
the table anew.

"""
RELEASES_TEXT = """
## Official checkpoints

"""


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def bases(number: int) -> str:
    return f"{number:,}"


def system(family: Family, official: Official) -> tuple[str, ...]:
    longest = max((x.context for x in official.releases), default=0)
    return (
        family.title,
        official.variant,
        bases(longest) if longest else "",
        official.tokenizer,
        family.objective,
        SCORES[family.objective],
        official.code_licence,
        official.weights_licence,
        family.citation,
    )


def predictor(family: Family, official: Official) -> tuple[str, ...]:
    longest = max((x.context for x in official.releases), default=0)
    return (
        family.title,
        official.variant,
        bases(longest) if longest else "",
        family.objective,
        official.code_licence,
        official.weights_licence,
        family.citation,
    )


def release(family: Family, entry: Release) -> tuple[str, ...]:
    options = f" {entry.options}" if entry.options else ""
    command = f"`glm-annotate export hf://{entry.repository} -o {entry.name}{options}`"
    return family.title, entry.name, bases(entry.context), command, entry.note


def page() -> str:
    """Give the text of docs/models.md."""
    readable = [family for family in FAMILIES.values() if family.official]
    entries = [(family, official) for family in readable for official in family.official]
    systems = table(
        ("system", "variant", "longest window (bp)", "tokens", "objective", "scores",
         "licence of code", "licence of weights", "paper"),
        [system(*entry) for entry in entries if entry[0].objective in LANGUAGE],
    )  # fmt: skip
    predictors = table(
        ("system", "variant", "longest window (bp)", "predicts", "licence of code",
         "licence of weights", "paper"),
        [predictor(*entry) for entry in entries if entry[0].objective not in LANGUAGE],
    )  # fmt: skip
    with PARITY.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file, delimiter="\t")
    parity = table(tuple(head), [tuple(row) for row in rows])
    releases = table(
        ("system", "bundle", "trained on (bp)", "command", "note"),
        [release(family, x) for family, official in entries for x in official.releases],
    )
    return (
        HEAD
        + systems
        + PREDICTORS_TEXT
        + predictors
        + PARITY_TEXT
        + parity
        + RELEASES_TEXT
        + releases
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
