"""SpliceAI's own weights against the two variants whose scores its authors publish as a test.

Needs the wheel of spliceai (its weights are CC BY-NC 4.0) and the authors' repository for the bases
around TUBB8: GLM_ANNOTATE_REFERENCES names a folder with spliceai-1.3.1-*.whl and SpliceAI/.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cli_kit import call, records_of, write_vcf

pytestmark = [pytest.mark.parity, pytest.mark.timeout(300)]

NAMES = [f"{kind}_{what}" for kind in ("DS", "DP") for what in ("AG", "AL", "DG", "DL")]
# tests/test_delta_score.py of the repository: 500 bases to each side, not masked.
PUBLISHED = {
    "10 94077 A C": "TUBB8|0.15|0.27|0.00|0.05|89|-23|-267|193",
    "10 94555 C T": "TUBB8|0.01|0.18|0.15|0.62|-2|110|-190|0",
}


@pytest.fixture(scope="module")
def references() -> tuple[Path, Path]:
    named = os.environ.get("GLM_ANNOTATE_REFERENCES")
    if not named:
        pytest.skip("GLM_ANNOTATE_REFERENCES is not set")
    wheel = next(Path(named).glob("spliceai-*.whl"), None)
    data = Path(named) / "SpliceAI" / "tests" / "data"
    if wheel is None or not data.is_dir():
        pytest.skip(f"{named} has no wheel of spliceai, or no checkout SpliceAI")
    return wheel, data


@pytest.fixture(scope="module")
def bundle(references: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "spliceai"
    options = ("--assembly", "grch37", "--context", 11_001)
    assert call("models", "import", references[0], "-o", made, *options) == 2
    assert not made.exists()
    assert call("models", "import", references[0], "-o", made, *options, "--accept-licence") == 0
    return made


@pytest.mark.parametrize("name", ["test.fa", "test_without_prefix.fa"])
@pytest.mark.parametrize("prefix", ["", "chr"])
def test_published_variants(
    references: tuple[Path, Path], bundle: Path, tmp_path: Path, name: str, prefix: str
) -> None:
    fasta = shutil.copy(references[1] / name, tmp_path / name)
    source = write_vcf(tmp_path / "in.vcf", [prefix + x for x in PUBLISHED])
    asked = ",".join(f"{x}:dist=500" for x in NAMES)
    out = tmp_path / "out.vcf"
    assert call("vcf", source, "-f", fasta, "-m", bundle, "-s", asked, "-o", out) == 0
    for record, wanted in zip(records_of(out.read_text()), PUBLISHED.values(), strict=True):
        texts = [record.info[f"SPLICEAI_{x}_DIST500"] for x in NAMES]
        shown = [f"{float(x):.2f}" for x in texts[:4]] + texts[4:]
        assert "|".join([record.info["SPLICEAI_GENE_DIST500"], *shown]) == wanted
