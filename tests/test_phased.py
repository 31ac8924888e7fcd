"""--phased against the brute way: bcftools makes the background, and plain scores are of that."""

from __future__ import annotations

import random
import subprocess
from itertools import product

import numpy as np
import pytest
from cli_kit import call, header_of, records_of
from engine import write_fasta
from test_haplotypes import random_rows
from toy_tracks import Shape, write_toy

from glm_annotate import Genome, score
from glm_annotate.annotate import Annotator
from glm_annotate.genome import to_codes, to_text
from glm_annotate.haplotypes import Carried, Edit
from glm_annotate.phased import Lineage
from glm_annotate.testing import toy_bundle

HEAD = (
    "##fileformat=VCFv4.2\n##contig=<ID=lin>\n##contig=<ID=ring>\n"
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="G">\n'
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tS\n"
)
CONTEXT = 24


def write(path, rows, ending="\n"):
    lines = [f"{c}\t{p}\t.\t{r}\t{a}\t.\t.\t.\tGT\t{g}\n" for c, p, r, a, g in rows]
    path.write_text(HEAD + "".join(lines))
    return path


def carried(genotype, which):
    """The number of the ALT on a haplotype, or 0: of phased genotypes, and of those of one kind."""
    numbers = genotype.replace("/", "|").split("|")
    if "." in numbers or ("/" in genotype and len(set(numbers)) > 1):
        return 0
    return int(numbers[which])


@pytest.fixture(scope="module")
def rows():
    rng = random.Random(4)
    bases = {"lin": 130, "ring": 75}
    text = {name: "".join(rng.choice("ACGT") for _ in range(n)) for name, n in bases.items()}
    text["lin"] = text["lin"][:50] + "CACACACACACA" + text["lin"][62:]
    found = []
    for name in text:
        made = [(name, *row[1:]) for row in random_rows(rng, text[name])]
        found += [row if i % 6 else (*row[:4], "0/1") for i, row in enumerate(made)]
    # An insertion that moves through the repeat, and one far from all others.
    found = [x for x in found if x[0] != "lin" or not 44 < x[1] < 68]
    found += [("lin", 61, text["lin"][60], text["lin"][60] + "CA", "1|0")]
    found += [("lin", 48, text["lin"][47], {"A": "G"}.get(text["lin"][47], "A"), "1|1")]
    return text, sorted(found, key=lambda x: (x[0], x[1]))


@pytest.fixture(scope="module")
def genome(rows, tmp_path_factory):
    return write_fasta(tmp_path_factory.mktemp("genome") / "a.fa", rows[0])


@pytest.fixture(scope="module")
def backgrounds(rows, genome, bcftools, tmp_path_factory):
    """By row, ALT and haplotype: the FASTA without that allele, and the allele on it."""
    folder, found = tmp_path_factory.mktemp("backgrounds"), {}
    for (i, row), which in product(enumerate(rows[1]), (0, 1)):
        number = carried(row[4], which)
        if not number:
            continue
        others = [x for x in rows[1] if x is not row and carried(x[4], which)]
        single = [(*x[:3], x[3].split(",")[carried(x[4], which) - 1], "1|1") for x in others]
        vcf, packed = write(folder / f"{i}.{which}.vcf", single), folder / f"{i}.{which}.vcf.gz"
        subprocess.run([bcftools, "view", "-Oz", "-o", packed, vcf], check=True)
        subprocess.run([bcftools, "index", "-f", packed], check=True)
        fasta = folder / f"{i}.{which}.fa"
        command = [bcftools, "consensus", "-s", "S", "-H", "1", "-f", genome, "-o", fasta, packed]
        subprocess.run(command, check=True, capture_output=True)
        before = [x for x in single if x[0] == row[0] and x[1] < row[1]]
        shift = sum(len(x[3]) - len(x[2]) for x in before)
        alt = row[3].split(",")[number - 1]
        moved = (row[0], row[1] + shift, row[2], alt), (row[0], row[1], row[2], alt)
        found[i, number, which] = fasta, in_place(fasta, row[0], shift), *moved
    return found


def in_place(fasta, contig, shift):
    """Move a contig so that the allele is where it was: cut or fill its start, turn a circle."""
    texts = {
        x.split("\n", 1)[0]: "".join(x.split("\n")[1:]) for x in fasta.read_text().split(">")[1:]
    }
    text = texts[contig]
    if contig == "ring":
        texts[contig] = text[shift % len(text) :] + text[: shift % len(text)]
    else:
        texts[contig] = text[shift:] if shift > 0 else "N" * -shift + text
    return write_fasta(fasta.with_suffix(".moved.fa"), texts)


def wanted_scores(rows, backgrounds, bundle, scores, keys):
    """Mean over haplotypes of plain scores on the backgrounds, by row and number of the ALT."""
    found: dict = {}
    for (i, number, _), (fasta, moved, allele, there) in backgrounds.items():
        table = score([allele], fasta, bundle, scores, threads=1)
        assert table.filter(like="STATUS").iloc[0, 0] != "REF_MISMATCH"
        if "WTLLR" in scores:  # whose windows lie on a grid
            table["TOY_WTLLR"] = score([there], moved, bundle, "WTLLR", threads=1)["TOY_WTLLR"]
            if allele[0] == "lin" and allele[1] < 70:  # the start of the contig is in its windows
                table["TOY_WTLLR"] = np.nan
        found.setdefault((i, number), []).append(table[keys].to_numpy(dtype=float)[0])
    return {place: np.mean(x, axis=0) for place, x in found.items()}


def annotate(source, genome, bundle, out, *options, code=0):
    command = ["-q", "vcf", source, "-f", genome, "-m", bundle, "-o", out, "--force"]
    assert call(*command, "--phased", "S", "--threads", 1, *options) == code
    return records_of(out.read_text()) if code == 0 else []


def number(text):
    return np.nan if text == "." else float(text)


TOYS = {
    "wide": "LLR,PLLR,WTLLR,ENT,EMB_L2",
    "causal": "LLR,ENT",
    "blocks": "LLR,PLLR",
    "bpe": "PLLR,EMB_L1",
    "tracks": "SAD,D1,LOGSED",
}


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    found = {
        kind: toy_bundle(kind, folder / kind, circular=("ring",), context=CONTEXT)
        for kind in TOYS
        if kind != "tracks"
    }
    shape = Shape(CONTEXT, 11, 4)
    rows = ({"identifier": "a"}, {"identifier": "b"})
    return found | {
        "tracks": write_toy(folder / "tracks", shape, rows, shifts=(0, 2), circular=("ring",))
    }


@pytest.mark.parametrize("kind", TOYS)
def test_scores_are_plain_ones_on_the_haplotype_without_the_allele(
    kind, rows, genome, backgrounds, toys, tmp_path
):
    source = write(tmp_path / "in.vcf", rows[1])
    records = annotate(source, genome, toys[kind], tmp_path / "out.vcf", "-s", TOYS[kind])
    keys = [x.removesuffix("_HAP") for x in records[0].info if x.endswith("_HAP")]
    names = TOYS[kind].split(",")
    if kind == "tracks":
        assert keys == [f"TRK_{name}_{x}" for name in names for x in ("a", "b", "MAX")]
    else:
        assert [x.removeprefix("TOY_").removesuffix("_ALL") for x in keys] == [
            x.split(":")[0] for x in names
        ]
    wanted = wanted_scores(rows, backgrounds, toys[kind], names, keys)
    seen = changed = 0
    for i, record in enumerate(records):
        for which in range(len(record.alts)):
            found = [number(record.per_alt(f"{key}_HAP")[which]) for key in keys]
            expected = wanted.get((i, which + 1), np.full(len(keys), np.nan))
            # Of several tracks the largest mean, which the mean of the largest need not be.
            if kind == "tracks" and np.isfinite(expected).all():
                pairs = expected.reshape(len(names), 3)
                pairs[:, 2] = [max(x[:2], key=abs) for x in pairs]
            if kind == "wide" and record.columns[0] == "lin" and int(record.columns[1]) < 70:
                found[2] = np.nan
            np.testing.assert_allclose(found, expected, rtol=3e-5, atol=3e-6, err_msg=str(record))
            plain = [number(record.per_alt(key)[which]) for key in keys]
            seen += np.isfinite(expected).sum()
            changed += (np.abs(np.array(plain) - found) > 1e-4).sum()
    assert seen > 20
    assert changed > 3


def test_nothing_depends_on_chunks_regions_or_the_container(
    rows, genome, toys, tmp_path, monkeypatch, bcftools
):
    source = write(tmp_path / "in.vcf", rows[1])
    whole = annotate(source, genome, toys["wide"], tmp_path / "out.vcf", "--no-version")
    (tmp_path / "in.bcf").unlink(missing_ok=True)
    subprocess.run([bcftools, "view", "-Ob", "-o", tmp_path / "in.bcf", source], check=True)
    subprocess.run([bcftools, "index", tmp_path / "in.bcf"], check=True)
    where = ["-r", "lin:40-90"]
    few = annotate(tmp_path / "in.bcf", genome, toys["wide"], tmp_path / "few.vcf", *where)
    within = [
        x
        for x in whole
        if x.columns[0] == "lin"
        and int(x.columns[1]) + len(x.columns[3]) - 1 >= 40
        and int(x.columns[1]) <= 90
    ]
    assert [x.columns[:8] for x in few] == [x.columns[:8] for x in within]
    assert len(few) > 3
    monkeypatch.setattr(Annotator, "chunk_size", 1)
    single = annotate(source, genome, toys["wide"], tmp_path / "single.vcf", "--no-version")
    assert [x.columns for x in single] == [x.columns for x in whole]


def test_an_allele_alone_has_its_plain_score_and_one_that_is_not_carried_none(
    genome, rows, toys, tmp_path
):
    text = rows[0]["lin"]
    other = {"A": "C", "C": "G", "G": "T", "T": "A"}
    genotypes = ["1|0", "0/1", "1/1", "0|0", "./.", "1|1"]
    places = [i * 20 + 10 for i in range(len(genotypes))]
    made = [
        ("lin", p, text[p - 1], other[text[p - 1]], g)
        for p, g in zip(places, genotypes, strict=True)
    ]
    # Beside the first one an allele of the other haplotype, and one whose haplotype is not known.
    made += [
        ("lin", 12, text[11], other[text[11]], "0|1"),
        ("lin", 14, text[13], other[text[13]], "0/1"),
    ]
    made.sort(key=lambda x: x[1])
    source = write(tmp_path / "in.vcf", made)
    records = annotate(source, genome, toys["wide"], tmp_path / "out.vcf", "-s", "LLR,ENT")
    for record, row in zip(records, made, strict=True):
        info, counts = record.info, row[4] in ("1|0", "1/1", "1|1", "0|1")
        assert info["TOY_LLR_HAP"] == (info["TOY_LLR"] if counts else ".")
        assert info["TOY_ENT_HAP"] == (info["TOY_ENT"] if counts else ".")
        assert info["TOY_STATUS"] == "SCORED"
    (line,) = [x for x in header_of((tmp_path / "out.vcf").read_text()) if "ID=TOY_LLR_HAP" in x]
    assert "Number=A,Type=Float" in line
    assert "haplotypes of S" in line


def test_what_is_alone_costs_no_pass_and_a_dry_run_tells_the_others(genome, rows, toys, tmp_path):
    import json

    text = rows[0]["lin"]
    other = {"A": "C", "C": "G", "G": "T", "T": "A"}
    summary, passes = tmp_path / "s.json", {}
    for name, places in (("far", (30, 90)), ("near", (30, 33))):
        made = [("lin", p, text[p - 1], other[text[p - 1]], "1|0") for p in places]
        source = write(tmp_path / f"{name}.vcf", made)
        for dry in ([], ["--dry-run"]):
            options = ["-s", "LLR", "--strand", "forward", "--summary", summary, *dry]
            out = tmp_path / f"{name}{len(dry)}.vcf"
            command = ["-q", "vcf", source, "-f", genome, "-m", toys["wide"], "--force"]
            assert call(*command, "-o", out, "--phased", "S", *options) == 0
            passes[name, len(dry)] = json.loads(summary.read_text())["models"]["TOY"][
                "forward_passes"
            ]
    assert passes == {("far", 0): 2, ("far", 1): 2, ("near", 0): 4, ("near", 1): 4}


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--phased", "T"], 1, "no sample T"),
        (["--phased", "S", "--mode", "dense"], 2, "is read in dense passes"),
        (["--phased", "S", "--from", "x.vcf.gz"], 2, "scores of --from are not of haplotypes"),
    ],
)
def test_what_cannot_be_is_refused(options, code, message, rows, genome, tmp_path, capsys):
    bundle = toy_bundle("markov", tmp_path / "toy", dense=8, context=64)
    source = write(tmp_path / "in.vcf", rows[1])
    command = ["vcf", source, "-f", genome, "-m", bundle, "-o", tmp_path / "out.vcf"]
    assert call(*command, *options) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.vcf").exists()


@pytest.mark.parametrize("source", ["lin:41:C:T", "-"])
def test_a_source_without_samples_is_refused(source, rows, genome, toys, run_cli, tmp_path):
    text = write(tmp_path / "in.vcf", rows[1]).read_text()
    command = ["vcf", source, "-f", genome, "-m", toys["wide"], "--phased", "S"]
    done = run_cli(*command, stdin=text)
    assert done.returncode == 2
    assert "is read twice and has to have samples" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_backgrounds_are_laid_out_as_a_string_would_be(circular, seed, tmp_path):
    """By hand: edit the string, and cut; around a circle as often as need be."""
    rng = random.Random(seed)
    text = "".join(rng.choice("ACGT") for _ in range(60))
    fasta = write_fasta(tmp_path / "a.fa", {"c": text})
    edits, at = [], 1
    while at < 55:
        end = at + rng.randint(0, 3)
        edits.append((at, end, "".join(rng.choice("ACGT") for _ in range(rng.randint(0, 4)))))
        at = end + rng.randint(1, 15)
    made = Carried("S", 1, {"c": [Edit(a, b, to_codes(x)) for a, b, x in edits]})
    lineage = Lineage(Genome(fasta), made)
    for which, (start, end, _) in enumerate(edits):
        pieces, last, place = [], 0, 0
        for i, (a, b, x) in enumerate(edits):
            if i == which:
                place = len("".join(pieces)) + a - last
                continue
            pieces += [text[last:a], x]
            last = b
        whole = "".join([*pieces, text[last:]])
        for reach, unit in ((1, 1), (7, 4), (30, 12), (200, 12)):
            codes, offset, begins = lineage.around("c", which, reach, unit, circular=circular)
            left, right = place - offset, place - offset + codes.size
            assert (start - offset) % unit == 0
            assert offset >= reach
            assert begins == (left < 0 and not circular)
            if circular:
                assert right >= place + end - start + reach
                wanted = "".join(whole[x % len(whole)] for x in range(left, right))
            else:
                assert right == min(len(whole), place + end - start + reach)
                wanted = "N" * -left + whole[max(0, left) : right]
            assert to_text(codes) == wanted
