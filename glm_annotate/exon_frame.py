"""The frame of exons: which exons hold an allele, and their haplotypes cut into a model's parts.

After MMSplice. Every exon of every transcript is read with so many bases of its introns, whose
number no allele changes: what a deletion takes is filled up from further away, what an insertion
pushes out is cut off. The ends of a transcript have no intron. Decisions: the first and last exon
of a transcript are those that reach furthest; of an insertion it is the base before it that an exon
has to hold, and what is inserted lies on that base's side of the exon's ends; of an allele that
changes several bases into others, each new base lies where the old one did, and what is too much
with the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_annotate.card import ModelCard
from glm_annotate.encoding import Encoder
from glm_annotate.gene_models import Gene, GeneModels
from glm_annotate.genome import Codes, Genome, reverse_complement
from glm_annotate.splice_scores import exon_parts, tissue_parts

Cut = Callable[[Codes, int, int], dict[str, Codes]]
# Of the score, for the header of a VCF.
FORMULA = (
    "change of the logit of PSI, ALT - REF, of the most changed exon; of tracks: of how far it "
    "lies from its mean over the tissues"
)
# By the graph's inputs. What is cut of an exon with five is scored by MMSplice's linear model.
MODULES = ("acceptor_intron", "acceptor", "exon", "donor", "donor_intron")
_CUTS: Mapping[frozenset[str], Cut] = {
    frozenset(MODULES): exon_parts,
    frozenset(("acceptor", "donor")): tissue_parts,
}


def is_modular(card: ModelCard) -> bool:
    """Say whether a model's numbers are those of five parts, and not of tissues."""
    return set(card.inputs) == set(MODULES)


def cut_of(card: ModelCard) -> Cut | None:
    """Find how exons are cut into a graph's inputs; None where that is not known."""
    return _CUTS.get(frozenset(card.inputs))


@dataclass(frozen=True)
class ExonFrame:
    """What a model of parts of exons is read with.

    Attributes:
        genes: Whose exons are read.
        before: Bases of the acceptor's intron; `behind`: of the donor's.
        names: Of the parts, in the order of the card's inputs.
        cut: Cuts an exon with its introns, in the direction of the gene, into them.
        table: What the graph is given for each code of a base, shape (15, ...).
    """

    genes: GeneModels
    before: int
    behind: int
    names: tuple[str, ...]
    cut: Cut
    table: NDArray[Any]

    def holding(self, contig: str, start: int, size: int) -> Iterator[tuple[Gene, Exon]]:
        """Find the exons that hold one of some bases, or have them in their introns' ends.

        Args:
            contig: In any spelling.
            start: First changed base, 0-based.
            size: How many REF bases change; 0: what counts is the base before `start`.

        Yields:
            Gene and exon, by gene and place.
        """
        first = start if size else start - 1
        end = start + size
        margin = max(self.before, self.behind)
        # Of a short exon beside a short intron the neighbour's bases reach out of the gene.
        for gene in self.genes.overlapping(contig, first - margin, end + margin):
            reverse = gene.strand == "-"
            left, right = (self.behind, self.before) if reverse else (self.before, self.behind)
            at, to, has_left, has_right = gene.spliced.T
            held = (at - left * has_left < end) & (to + right * has_right > first)
            for a, b, x, y in gene.spliced[held].tolist():
                yield gene, Exon(contig, a, b, left * x, right * y, reverse)


def frame_of(card: ModelCard, encoder: Encoder, genes: GeneModels) -> ExonFrame | None:
    """Make the frame of a model; None where its card does not fit one."""
    cut, vocab = cut_of(card), encoder.spec.vocab
    one_row = encoder.spec.k == 1 and not (vocab.prefix or vocab.suffix)
    if cut is None or not one_row or vocab.n == "error" or encoder.spec.channels:
        return None
    (group,) = encoder.encode(np.arange(15, dtype=np.uint8)[None])
    return ExonFrame(
        genes, card.anchor, card.context - card.anchor, tuple(card.inputs), cut, group.rows[0]
    )


@dataclass(frozen=True, slots=True)
class Exon:
    """An exon of a transcript, and how much of its introns is read.

    Attributes:
        contig: The FASTA's name.
        start: 0-based; `end`: exclusive.
        left: Bases of the intron before it on the contig; `right`: behind it.
        reverse: Whether it is on the reverse strand.
    """

    contig: str
    start: int
    end: int
    left: int
    right: int
    reverse: bool


@dataclass(frozen=True, slots=True)
class Edit:
    """What becomes of an exon's stretch of the contig.

    Attributes:
        start: First replaced base, 0-based on the contig.
        old: How many bases are replaced.
        new: The bases that replace them, as bytes of codes.
    """

    start: int
    old: int
    new: bytes


@dataclass(frozen=True)
class Haplotype:
    """An exon with its introns as one allele has it.

    Attributes:
        exon: The exon.
        stretch: Bases of the contig from `first` on: the exon, its introns, and as many bases
            beyond them as the edit removes.
        first: 0-based.
        edit: None: the reference.
    """

    exon: Exon
    stretch: Codes
    first: int
    edit: Edit | None = None

    @cached_property
    def ends(self) -> tuple[int, int]:
        """Where the exon starts and ends in the stretch as it becomes."""
        start, end = (x - self.first for x in (self.exon.start, self.exon.end))
        return self._moved(start), self._moved(end)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bases of the acceptor's intron, the exon and the donor's intron."""
        start, end = self.ends
        left, right = self.exon.left, self.exon.right
        before, behind = (right, left) if self.exon.reverse else (left, right)
        return before, end - start, behind

    def codes(self) -> Codes:
        """Give the bases in the direction of the gene, those of `shape`."""
        (start, end), edit = self.ends, self.edit
        whole = self.stretch
        if edit is not None:
            at = edit.start - self.first
            new = np.frombuffer(edit.new, dtype=np.uint8)
            whole = np.concatenate([whole[:at], new, whole[at + edit.old :]])
        codes = whole[start - self.exon.left : end + self.exon.right]
        return reverse_complement(codes) if self.exon.reverse else codes

    def _moved(self, end: int) -> int:
        """Say where the place between two bases of the stretch comes to lie."""
        edit = self.edit
        if edit is None:
            return end
        at, new = edit.start - self.first, len(edit.new)
        if end < at or (edit.old and end == at):
            return end
        if end >= at + edit.old:
            return end + new - edit.old
        return at + min(end - at, new)


def read_exon(genome: Genome, exon: Exon, edit: Edit | None, *, circular: bool) -> Haplotype:
    """Cut the stretch of an exon, and of its edit where there is one, out of the genome."""
    more = edit.old if edit is not None else 0
    first = exon.start - exon.left - more
    size = exon.end + exon.right + more - first
    (stretch,) = genome.windows(exon.contig, np.array([first]), size, circular=circular)
    return Haplotype(exon, stretch, first, edit)
