"""Other projects' VCF test files: every record comes out, or one line says why not."""

from __future__ import annotations

import gzip
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from glm_annotate.chunks import Chunk
from glm_annotate.errors import InputError
from glm_annotate.header import Header, extend_header, info_line
from glm_annotate.records import open_input
from glm_annotate.vcf import VcfWriter, splice

CORPORA = ["bcftools", "hts-specs", "htslib", "vcf-validator"]


@dataclass
class Found:
    path: Path
    kind: str
    header: Header
    newline: bytes
    chunks: list[Chunk]
    error: str


@pytest.fixture(scope="module", params=CORPORA)
def corpus(request, shared_dir, tmp_path_factory) -> list[Found]:
    """Every file of a corpus, read in chunks of three."""
    folder = tmp_path_factory.mktemp(request.param)
    archive = shared_dir / "data" / "vcf_corpora" / f"{request.param}.tar.xz"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return [_read(path) for path in sorted(folder.rglob("*")) if path.is_file()]


def _read(path: Path) -> Found:
    try:
        with open_input(str(path)) as found:
            chunks = list(found.chunks(3))
            return Found(path, found.kind, found.header, found.newline, chunks, "")
    except InputError as error:
        return Found(path, "", (), b"", [], str(error))


def _text(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def _joined(found: Found, lines: list[bytes]) -> bytes:
    return b"".join(x + found.newline for x in found.header) + b"".join(lines)


def test_text_comes_out_whole(corpus):
    texts = [x for x in corpus if x.kind == "vcf"]
    assert texts
    for found in texts:
        expected = _text(found.path)
        lines = [line for chunk in found.chunks for line in chunk.lines]
        # A header that ends the file without a newline gets one.
        ended = expected if lines else expected.removesuffix(b"\n") + b"\n"
        assert _joined(found, lines) == ended, found.path
        assert len(lines) == sum(not x.startswith(b"#") for x in expected.splitlines()), found.path


def test_errors_are_one_line_with_the_file(corpus):
    for found in corpus:
        if found.error:
            assert found.error.startswith(f"{found.path}: "), found.error
            assert "\n" not in found.error


def test_good_files_are_read(corpus):
    for found in corpus:
        if not found.error or found.path.parent.name != "passed" or ".bz2" in found.path.name:
            continue
        # What the validator passes and htslib does not: empty lines at the end.
        assert "is empty" in found.error, found.error
        assert _text(found.path).endswith((b"\n\n", b"\n \n")), found.path


def test_splicing_changes_the_info_column_alone(corpus):
    for found in corpus:
        if found.kind != "vcf":
            continue
        for chunk in found.chunks:
            out = splice(chunk, [b"TOY_X=1"] * len(chunk))
            for before, after in zip(chunk.lines, out, strict=True):
                old, new = before.split(b"\t"), after.split(b"\t")
                assert old[:7] + old[8:] == new[:7] + new[8:]
                assert new[7].rstrip(b"\r\n").endswith(b"TOY_X=1")


def test_bcf_holds_all_records_or_is_refused(corpus, bcftools, tmp_path):
    texts = [x for x in corpus if x.kind == "vcf" and x.chunks]
    written = 0
    # Every file costs two processes, so some stand for all.
    for found in texts[:: max(1, len(texts) // 12)]:
        contigs = {x.decode("latin-1"): 10**9 for c in found.chunks for x in c.chroms if x}
        ours = [info_line("TOY_X", "A", "Float", "test", "1")]
        header = extend_header(found.header, ours, contigs=contigs, binary=True)
        path = tmp_path / "out.bcf"
        try:
            with VcfWriter(str(path), "b", header, newline=found.newline, force=True) as out:
                for chunk in found.chunks:
                    out.write(splice(chunk, [b"TOY_X=-1"] * len(chunk)))
        except InputError:
            continue  # what htslib refuses; the texts are tested with the writer
        shown = subprocess.run(
            [bcftools, "view", "-H", "-i", "TOY_X<0", str(path)], capture_output=True, check=True
        )
        assert shown.stdout.count(b"\n") == sum(map(len, found.chunks)), found.path
        written += 1
    assert written
