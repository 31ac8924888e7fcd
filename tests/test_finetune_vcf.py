"""A fine-tuned model from its run to a VCF: against torch and strings, token by token."""

from __future__ import annotations

import json
import shutil

import finetune_kit as kit
import numpy as np
import pytest
import torch
from cli_kit import call, write_vcf
from engine import write_fasta
from tokenizers import Tokenizer

from glm_annotate.train import checkpoints
from glm_annotate.train.export import export
from glm_annotate.train.finetune.model import restore
from glm_annotate.train.loop import BEST, train

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTH = 60
TURN = str.maketrans("ACGT", "TGCA")


@pytest.fixture(scope="module")
def genome():
    rng = np.random.default_rng(8)
    bases = "".join(rng.choice(list("ACGT"), 420))
    return bases[:300] + "NNNNN" + bases[305:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, genome):
    made = tmp_path_factory.mktemp("finetune")
    kit.write_dnabert2(made / "dnabert2")
    kit.write_promoters(made / "promoters.tsv")
    write_fasta(made / "g.fa", {"c": genome})
    return made


def other(base):
    return base.translate(str.maketrans("ACGT", "CGTA"))


@pytest.fixture(scope="module")
def alleles(genome):
    """SNVs, MNVs, insertions and deletions: in the open, at both ends and near N."""
    found = []
    for at in (2, 50, 111, 180, 240, 297, 330, 417):
        ref = genome[at]
        found.append((at + 1, ref, other(ref)))
        ref = genome[at : at + 3]
        if "N" not in ref and len(ref) == 3:
            found.append((at + 1, ref, other(ref[0]) + ref[1] + other(ref[2])))
            # Their first and last bases differ from what follows, so that nothing can be moved.
            tail = "".join(x for x in "ACGT" if x not in (genome[at], genome[at + 1]))[0]
            found.append((at + 1, genome[at], genome[at] + tail * 7))
    for at in range(55, 290, 9):
        ref = genome[at : at + 6]
        if ref[0] != ref[-1] and genome[at + 1] != genome[at + 6]:
            found.append((at + 1, ref, ref[0]))
    assert sum(len(ref) > len(alt) for _, ref, alt in found) > 4
    return sorted(set(found))


def windows(genome, pos, ref, alt):
    """Both haplotypes of an allele that cannot be moved: N past the ends, 60 bases each."""
    start, old, new = pos - 1, ref, alt
    while old and new and old[0] == new[0]:
        start, old, new = start + 1, old[1:], new[1:]
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    padded = "N" * 100 + genome + "N" * 100
    left = start + 100 - LENGTH // 2
    before, after = padded[left : start + 100], padded[start + 100 + len(old) :]
    return (before + old + after)[:LENGTH], (before + new + after)[:LENGTH]


def finetuned(folder, mode, source="dnabert2", **changes):
    """Train, export; gives the bundle and the network as it was trained."""
    path = folder / f"{mode}-{changes.get('loss', 'mse').strip(chr(34))}.toml"
    path.write_text(kit.config_text(source, mode, out=f'"run-{path.stem}"', **changes))
    train(path)
    checkpoint = folder / f"run-{path.stem}" / BEST
    export(checkpoint, folder / path.stem)
    return folder / path.stem, restore(checkpoints.load(checkpoint).average)


@pytest.fixture(scope="module")
def low_rank(folder):
    return finetuned(folder, "lora")


def scored(bundle, folder, alleles, *options):
    vcf = write_vcf(
        folder / "in.vcf",
        [f"c {pos} {ref} {alt}" for pos, ref, alt in alleles],
    )
    out = folder / "out.vcf"
    arguments = ("-f", folder / "g.fa", "-m", f"T={bundle}", "-o", out, *options)
    assert call("vcf", vcf, *arguments, "--force") == 0
    lines = [x.split("\t") for x in out.read_text().splitlines() if not x.startswith("#")]
    return [dict(pair.split("=", 1) for pair in line[7].split(";")) for line in lines]


@torch.no_grad()
def test_low_rank_from_a_vcf(folder, low_rank, alleles, genome):
    bundle, network = low_rank
    assert [k for k in network.state_dict() if "lora_" in k]
    tokenizer = Tokenizer.from_file(str(folder / "dnabert2" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def predict(text):
        found = tokenizer.encode(text, add_special_tokens=False)
        rows = network.trunk.embed(torch.tensor([[1, *found.ids, 2]]))[0, 1:-1].double()
        width = torch.tensor([0.0 if x == "[UNK]" else len(x) for x in found.tokens])
        pooled = (rows * width[:, None]).sum(0) / width.sum()
        (layer,) = network.head
        raw = layer.weight.double() @ pooled + layer.bias.double()
        return float(raw * network.scale + network.shift), len(found.ids) + 2

    rows = set()
    for allele, info in zip(alleles, scored(bundle, folder, alleles), strict=True):
        (ref, one), (alt, two) = (predict(text) for text in windows(genome, *allele))
        rows |= {one, two}
        assert info["T_STATUS"] == "SCORED"
        assert float(info["T_SAD_expression"]) == pytest.approx(alt - ref, abs=2e-5), allele
    assert len(rows) > 8  # the windows differ in their number of tokens


def test_alleles_with_too_many_tokens_say_so(folder, low_rank, alleles, genome):
    bundle, _ = low_rank
    short = folder / "short"
    shutil.copytree(bundle, short)
    card = json.loads((short / "card.json").read_text())
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))

    def rows(allele):
        # Of unequal alleles the longer one is also read from further right.
        pos, ref, alt = allele
        texts = [*windows(genome, *allele)]
        if len(ref) != len(alt):
            move = abs(len(ref) - len(alt))
            longer = genome[:pos] + (alt if len(alt) > len(ref) else ref)[1:]
            padded = "N" * 100 + longer + genome[pos - 1 + len(ref) :] + "N" * 100
            left = pos + 100 - LENGTH // 2 + move
            texts.append(padded[left : left + LENGTH])
        return max(len(tokenizer.encode(x, add_special_tokens=False)) + 2 for x in texts)

    # As many as some allele has.
    card["window"]["max_tokens"] = most = sorted(map(rows, alleles))[len(alleles) // 2]
    (short / "card.json").write_text(json.dumps(card))
    wanted = ["SCORED" if rows(allele) <= most else "TOO_LONG" for allele in alleles]
    found = [info["T_STATUS"] for info in scored(short, folder, alleles)]
    assert found == wanted
    assert set(found) == {"SCORED", "TOO_LONG"}
    whole = scored(bundle, folder, alleles)
    for info, before in zip(scored(short, folder, alleles), whole, strict=True):
        if info["T_STATUS"] == "SCORED":
            assert info == before


PRETRAIN = """
name = "small"
family = "gpn"
[model]
vocabulary = 7
dim = 8
kernel = 3
hidden = 8
dilations = [1, 2]
[encoder]
kind = "kmer"
[encoder.vocab]
first_id = 3
single_ids = { N = 2 }
pad_id = 0
mask_id = 1
[data]
context = 60
validation = "held.txt"
valid_stride = 60
[[data.groups]]
name = "all"
fasta = "g2.fa"
[optim]
batch = 4
steps = 3
warmup_steps = 1
[run]
out = "pretrained"
threads = 1
"""


def test_classes_on_a_run_of_ours_on_both_strands(folder, alleles, genome):
    write_fasta(folder / "g2.fa", {"a": genome, "b": genome[::-1]})
    (folder / "held.txt").write_text("b\n")
    (folder / "pretrain.toml").write_text(PRETRAIN)
    train(folder / "pretrain.toml")
    lines = (folder / "promoters.tsv").read_text().splitlines()[1:]
    named = [x.split("\t") for x in lines]
    text = "".join(f"{s}\t{'high' if float(v) > 3.5 else 'low'}\n" for s, v in named)
    (folder / "classes.tsv").write_text("sequence\tkind\n" + text)
    bundle, network = finetuned(
        folder, "frozen", source="pretrained/best.ckpt", loss='"cross_entropy"',
        files='["classes.tsv"]', targets='["kind"]', rc="true", hidden="5", steps="20",
    )  # fmt: skip
    card = json.loads((bundle / "card.json").read_text())
    assert (card["strand"], card["scores"]) == ("both", ["SAD", "LFC"])
    first, _, last = network.head

    @torch.no_grad()
    def predict(text):
        total = 0
        for strand in (text, text[::-1].translate(TURN)):
            ids = torch.tensor([["ACGT".find(x) + 3 for x in strand]])
            rows = network.trunk.embed(ids)[0]
            pooled = rows[[x != "N" for x in strand]].double().mean(0)
            raw = last(torch.nn.functional.gelu(first(pooled.float())))
            total = total + raw.double().softmax(-1) / 2
        return dict(zip(("high", "low"), total.tolist(), strict=True))

    for allele, info in zip(alleles, scored(bundle, folder, alleles), strict=True):
        ref, alt = (predict(text) for text in windows(genome, *allele))
        for name in ("high", "low"):
            sad = float(info[f"T_SAD_{name}"])
            lfc = float(info[f"T_LFC_{name}"])
            assert sad == pytest.approx(alt[name] - ref[name], abs=2e-6)
            ratio = np.log(alt[name] + 1e-3) - np.log(ref[name] + 1e-3)
            assert lfc == pytest.approx(ratio, abs=2e-5)
