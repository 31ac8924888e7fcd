"""The scoring engine without files: alleles in, numbers or reasons out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from glm_annotate.annotate import Annotator, Model, Result, score_chunks
from glm_annotate.bundle import load_bundle
from glm_annotate.chunks import Chunk
from glm_annotate.genome import Genome
from glm_annotate.opening import open_channels
from glm_annotate.runtime import OrtRunner, Settings, open_runners
from glm_annotate.scores import parse_scores
from glm_annotate.signals import BigWig
from glm_annotate.variants import SKIPS

Allele = tuple[str, int, str, str]


def write_fasta(path: Path, contigs: dict[str, str]) -> Path:
    path.write_text("".join(f">{name}\n{bases}\n" for name, bases in contigs.items()))
    return path


def gapped_contigs(seed: int, **sizes: int) -> dict[str, str]:
    """Draw contigs; `lin`, of at least 202 bases, gets repeats and a gap of N."""
    rng = np.random.default_rng(seed)
    made = {name: "".join(rng.choice(list("ACGT"), size)) for name, size in sizes.items()}
    line = made["lin"]
    made["lin"] = line[:90] + "AAAAAAAACACACAC" + line[105:200] + "NN" + line[202:]
    return made


class ScoreOracle(Protocol):
    """What says which number, or which reason, an allele has."""

    def score(self, chrom: str, pos: int, ref: str, alt: str, text: str, /) -> float | str:
        """Score an allele as -s `text` would."""


def differing(
    found: Mapping[str, Sequence[float | str]], oracle: ScoreOracle, alleles: Sequence[Allele]
) -> tuple[list[object], int]:
    """Compare numbers and reasons by the text of the score: the odd ones, and how many numbers."""
    wrong: list[object] = []
    numbers = 0
    for text, values in found.items():
        for allele, value in zip(alleles, values, strict=True):
            expected = oracle.score(*allele, text)
            if isinstance(expected, str) or isinstance(value, str):
                same = value == expected
            else:
                numbers += 1
                same = math.isclose(value, expected, rel_tol=1e-6, abs_tol=1e-6)
            if not same:
                wrong.append((text, allele, value, expected))
    return wrong, numbers


def make_chunk(alleles: Sequence[Allele], infos: Sequence[str] | None = None) -> Chunk:
    columns = [[str(x).encode() for x in column] for column in zip(*alleles, strict=True)]
    chroms, pos, refs, alts = columns
    texts = [x.encode() for x in infos] if infos else [b"."] * len(alleles)
    lines = [
        b"\t".join((c, p, b".", r, a, b".", b".", i)) + b"\n"
        for c, p, r, a, i in zip(chroms, pos, refs, alts, texts, strict=True)
    ]
    ends = [len(line) - 1 for line in lines]
    numbers = np.arange(1, len(lines) + 1)
    places = np.array([int(p) for p in pos])
    return Chunk("line", numbers, lines, ends, chroms, places, refs, alts, texts)


class Engine:
    """One model on one genome."""

    def __init__(
        self,
        bundle: Path,
        fasta: Path,
        scores: Sequence[str] = (),
        *,
        circular: frozenset[str] = frozenset(),
        strand: str | None = None,
        batch: int = 0,
        threads: int = 1,
        msa: Path | None = None,
        signals: Mapping[str, Path] | None = None,
    ) -> None:
        self.bundle = load_bundle(bundle)
        self.genome = Genome(fasta, circular=circular)
        specs = parse_scores(tuple(scores), self.bundle.card)
        strands = (False, True) if (strand or self.bundle.card.strand) == "both" else (False,)
        runners = open_runners(self.bundle, Settings(batch=batch, threads=threads))
        self.runner: OrtRunner = runners[0]
        files = {x: BigWig(x, str(path), self.genome) for x, path in (signals or {}).items()}
        channels = open_channels(self.bundle, self.genome, str(msa) if msa else None, files)
        model = Model("T", self.bundle, specs, strands, circular, runners, channels=channels)
        self.annotator = Annotator(self.genome, [model])

    def results(self, *chunks: Chunk) -> list[Result]:
        works = (self.annotator.read(chunk) for chunk in chunks)
        return [done.results["T"] for done in score_chunks(self.annotator, works)]

    def score(self, alleles: Sequence[Allele]) -> dict[str, list[float | str]]:
        """Give, by score, a number or a reason for each allele."""
        (result,) = self.results(make_chunk(alleles))
        out: dict[str, list[float | str]] = {}
        for key, values in result.values.items():
            codes = np.where(result.skip > 0, result.skip, result.reasons[key])
            out[key] = [
                str(SKIPS[code - 1]) if code else float(value)
                for code, value in zip(codes.tolist(), values.tolist(), strict=True)
            ]
        return out
