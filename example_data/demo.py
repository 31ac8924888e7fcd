"""Annotate the example variants with the shipped model, draw them, and say where the files are."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from glm_annotate.errors import GlmAnnotateError
from glm_annotate.plots import plot_scores

HERE = Path(__file__).resolve().parent
# The first that anyone in the field looks for.
FAMOUS = (
    *("m.1555A>G", "m.3243A>G", "m.3460G>A", "m.8344A>G"),
    *("m.8993T>G", "m.11778G>A", "m.14484T>C"),
)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder for the files")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    vcf, picture = out / "mtdna_variants.mito.vcf", out / "mtdna_variants.mito.png"
    # The very command that a user would type.
    command = [
        *("glm-annotate", "vcf", str(HERE / "mtdna_variants.vcf")),
        *("-f", str(HERE / "chrM.fa"), "-m", "mito", "-o", str(vcf), "--force"),
    ]
    print("$", *command, flush=True)
    done = subprocess.run([sys.executable, "-m", "glm_annotate", *command[1:]], check=False)
    if done.returncode:
        sys.exit(done.returncode)
    try:
        plot_scores(
            vcf,
            picture,
            regions=HERE / "regions.bed",
            highlight=FAMOUS,
            title="Human mtDNA variants scored by the shipped model mito",
        )
    except GlmAnnotateError as error:
        sys.exit(f"error: {error}")
    print(f"\nannotated VCF  {vcf}\npicture        {picture}")


if __name__ == "__main__":
    main()
