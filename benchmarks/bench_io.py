"""Read a VCF, add constant text to every INFO and write it: `glm-annotate vcf` without a model.

Usage: bench_io.py IN OUT
"""

from __future__ import annotations

import sys

from glm_annotate.records import open_input
from glm_annotate.vcf import VcfWriter, splice

ADDITION = b"FREE_LLR=-1.23456;FREE_PLLR=-1.23456;FREE_STATUS=SCORED"
CHUNK = 4096


def main(source: str, target: str) -> int:
    """Copy `source` to `target` with `ADDITION` in every record; returns the number of records."""
    records = 0
    with (
        open_input(source) as found,
        VcfWriter(target, "v", found.header, newline=found.newline, force=True) as out,
    ):
        for chunk in found.chunks(CHUNK):
            out.write(splice(chunk, [ADDITION] * len(chunk)))
            records += len(chunk)
    return records


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
