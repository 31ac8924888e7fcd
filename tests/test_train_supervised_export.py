"""A config of tracks through the command line: trained, resumed, exported, checked, scored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyBigWig
import pysam
import pytest
import torch

from glm_annotate.genome import reverse_complement, to_codes
from glm_annotate.testing import check_bundle
from glm_annotate.train import checkpoints
from glm_annotate.train.export import export
from glm_annotate.train.families import FAMILIES
from glm_annotate.train.loop import train
from glm_annotate.train.supervised.predicting import open_windows

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = """
name = "toy-atac"
family = "basenji2"
objective = "tracks"
seed = 2
[model]
length = 64
stem = 4
stem_kernel = 5
tower = [4]
narrow = 4
dilations = [1]
crop = 2
wide = 4
tracks = 2
[data]
context = 64
[supervised.tracks]
bin = 4
[[supervised.tracks.species]]
fasta = "g.fa"
split = { valid = ["b"] }
track = [
  { identifier = "s+", file = "p.bw", strand_pair = "s-", sum_stat = "sum_sqrt", scale = 0.5 },
  { identifier = "s-", file = "p.bw", strand_pair = "s+", sum_stat = "sum_sqrt", scale = 0.5 },
]
[optim]
batch = 2
steps = 4
warmup_steps = 1
[run]
out = "OUT"
threads = 1
log_every = 1
valid_every = 2
save_every = 1
select = ["pearson"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    sizes = {"a": 2000, "b": 600}
    texts = {k: "".join(rng.choice(list("ACGT"), size=n)) for k, n in sizes.items()}
    (tmp_path / "g.fa").write_text("".join(f">{k}\n{t}\n" for k, t in texts.items()))
    pysam.faidx(str(tmp_path / "g.fa"))
    with pyBigWig.open(str(tmp_path / "p.bw"), "w") as out:
        out.addHeader(list(sizes.items()))
        for name, text in texts.items():
            values = [float(x == "G") for x in text]
            out.addEntries(name, 0, values=values, span=1, step=1)
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(CONFIG.replace("OUT", name))
    return tmp_path


def test_a_run_from_config_to_scores(folder, run_cli):
    whole = train(folder / "one.toml", data=str(folder))
    train(folder / "two.toml", data=str(folder), stop=2)
    resumed = train(folder / "two.toml", data=str(folder), resume=True)
    one, two = checkpoints.load(whole), checkpoints.load(resumed)
    for name, value in one.weights.items():
        assert torch.equal(value, two.weights[name]), name
    assert one.quality == two.quality
    assert one.quality.keys() == {"loss", "pearson"}
    assert set(one.data) == {"g.fa", "p.bw"}
    bundle = folder / "bundle"
    report = export(whole, bundle, card={"provenance": {"limits": "a toy"}})
    check_bundle(bundle)
    card = json.loads((bundle / "card.json").read_text())
    assert (card["bin_size"], card["crop"], card["context"], card["anchor"]) == (4, 2, 64, 31)
    assert card["tag"] == "TOYATAC"
    assert "species valid: b" in card["provenance"]["held_out"]
    assert max(x.worst for x in report.parity) < 1e-4
    # Both ways to measure agree, and what training squashed is taken back.
    codes = np.random.default_rng(1).integers(4, size=(3, 64)).astype(np.uint8)
    stored, exported = open_windows(whole), open_windows(bundle)
    assert (exported.length, exported.size, exported.crop, exported.bins) == (64, 4, 2, 12)
    squashed = exported.predict(codes, squashed=True)
    np.testing.assert_allclose(stored.predict(codes, squashed=True), squashed, atol=1e-5)
    np.testing.assert_allclose(exported.predict(codes), (squashed + 1) ** 2 - 1, rtol=1e-6)
    np.testing.assert_allclose(
        exported.predict(reverse_complement(codes)), exported.predict(codes)[:, ::-1, ::-1],
        rtol=1e-6,
    )  # fmt: skip
    network = FAMILIES["basenji2"].build(one.settings().model)
    network.load_state_dict(one.average)
    bases = torch.eye(4)[torch.from_numpy(codes).long()]
    with torch.no_grad():
        forward = network.eval()(bases)[0].numpy()
        reverse = network(bases.flip(1, 2))[0].numpy()[:, ::-1, ::-1]
    np.testing.assert_allclose(squashed, (forward + reverse) / 2, atol=1e-5)
    text = pysam.FastaFile(str(folder / "g.fa")).fetch("b")
    ref = text[299]
    alt = "ACGT"[(to_codes(ref)[0] + 1) % 4]
    (folder / "in.vcf").write_text(
        "##fileformat=VCFv4.2\n##contig=<ID=b>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        f"b\t300\t.\t{ref}\t{alt}\t.\t.\t.\n"
    )
    done = run_cli("vcf", folder / "in.vcf", "-f", folder / "g.fa", "-m", bundle, "-s", "SAD",
                   "--device", "cpu", check=True)  # fmt: skip
    record = done.stdout.splitlines()[-1].split("\t")[7]
    found = dict(x.split("=") for x in record.split(";"))
    assert found["TOYATAC_STATUS"] == "SCORED"
    windows = np.stack([to_codes(text[268:332]), to_codes(text[268:299] + alt + text[300:332])])
    before, after = exported.predict(windows).sum((1, 2))
    score = sum(float(v) for k, v in found.items() if k.startswith("TOYATAC_SAD_s_"))
    assert score == pytest.approx(after - before, abs=1e-4)
