"""Read a VCF that glm-annotate has scored into Hail, and keep alleles by a score.

    python glm_filter.py SCORED.vcf.bgz --field MITO_LLR --below -3 -o OUT.ht [--tsv OUT.tsv]

Writes a Hail Table keyed by locus and alleles, one row an allele, with one column for each INFO
field of glm-annotate. `read_scores` is what a notebook wants: it joins any table with that key.
"""

from __future__ import annotations

import argparse
import gzip
import re

import hail as hl


def score_fields(path: str) -> list[str]:
    """INFO fields, one value an ALT, that the header says are from glm-annotate."""
    found = []
    with gzip.open(path, "rt") if path.endswith(("gz", "bgz")) else open(path) as lines:
        for line in lines:
            if not line.startswith("#"):
                break
            match = re.match("##INFO=<ID=([^,]+),Number=A,", line)
            if match and 'Source="glm_annotate"' in line:
                found.append(match[1])
    return found


def read_scores(path: str, reference_genome: str = "GRCh38") -> hl.Table:
    """A Table keyed by locus and alleles, as `hl.split_multi` spells them, one row an ALT."""
    fields = score_fields(path)
    contigs = hl.get_reference(reference_genome).contigs
    # Hail's GRCh38 says chr1 and chrM, its GRCh37 says 1 and MT; a VCF may say either.
    bare = {f"chr{x}": x for x in [*map(str, range(1, 23)), "X", "Y"]} | {"chrM": "MT"}
    other = bare if "MT" in contigs else {v: k for k, v in bare.items()}
    data = hl.import_vcf(
        path,
        reference_genome=reference_genome,
        # bgzip, whatever the name: plain gzip cannot be read in parts.
        force_bgz=path.endswith(".gz"),
        # `.` among the values of an allele field is a missing number, not a fault.
        array_elements_required=False,
        contig_recoding={old: new for old, new in other.items() if new in contigs},
    ).rows()
    # Trims each allele, and sorts anew those that then begin at another locus.
    split = hl.split_multi(data)
    return split.select(**{x: split.info[x][split.a_index - 1] for x in fields})


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("scored", metavar="SCORED.vcf.bgz")
    parser.add_argument("--field", required=True, help="INFO field, such as MITO_LLR")
    parser.add_argument("--below", type=float, required=True, help="keep alleles below this")
    parser.add_argument("-o", "--output", metavar="OUT.ht", required=True)
    parser.add_argument("--tsv", metavar="OUT.tsv", help="also as text")
    parser.add_argument("--reference-genome", default="GRCh38", choices=["GRCh37", "GRCh38"])
    given = parser.parse_args()
    fields = score_fields(given.scored)
    if given.field not in fields:
        parser.error(f"{given.scored} has no field {given.field}; it has {', '.join(fields)}")
    scores = read_scores(given.scored, given.reference_genome)
    # A missing score compares as missing, and filter drops it.
    kept = scores.filter(scores[given.field] < given.below)
    kept = kept.checkpoint(given.output, overwrite=True)
    if given.tsv:
        kept.export(given.tsv)
    print(f"{kept.count()} of {scores.count()} alleles have {given.field} below {given.below}")


if __name__ == "__main__":
    main()
