"""Masks of genes: which bins of a window a gene has, and the scores of an allele gene by gene.

An allele is scored in every gene that has a bin of its window for the mask, not only in those that
hold it: a change of an enhancer is seen in its gene. Decisions: of a model with shifts the gene has
to have one in each of the windows; places are those of the reference, so that of an insertion or a
deletion both alleles have the same bins (see `track_windows`); both strands of a gene count alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from glm_annotate.answers import Floats, Ints, is_writable
from glm_annotate.gene_models import Gene, GeneModels, Stretches
from glm_annotate.model import GeneRow
from glm_annotate.scores import ScoreSpec
from glm_annotate.track_windows import Bins, Bools, Stitch, around, interval_mask


@dataclass(frozen=True, slots=True)
class View:
    """Where the bins of an allele's window lie on its contig.

    Attributes:
        contig: The FASTA's name.
        left: Left edge of the window, 0-based, may be negative.
        bins: Of the window.
        stitch: How they lie where alleles of unequal length were stitched.
        known: Which bins both alleles have, shape (bins,); None: all.
        turn: Bases of a contig that wraps around, else 0.
    """

    contig: str
    left: int
    bins: Bins
    stitch: Stitch | None = None
    known: Bools | None = None
    turn: int = 0

    def stretch(self, margin: int) -> tuple[int, int]:
        """Give the stretch of the contig under the bins and so many bases at each side."""
        start, skipped = self.left + self.bins.first, self.stitch.skipped if self.stitch else 0
        return start - margin, start + self.bins.size * self.bins.count + skipped + margin

    def origins(self, margin: int) -> list[int]:
        """Say where base 0 of the contig lies, once for each turn that `stretch` may touch.

        The turn before the first is one of them, for genes that reach beyond the contig's end.
        """
        if not self.turn:
            return [0]
        start, end = self.stretch(margin)
        first, last = start // self.turn - 1, (end - 1) // self.turn
        return [self.turn * lap for lap in range(first, last + 1)]


@dataclass(slots=True)
class InGene:
    """What is said of one allele in one gene.

    Attributes:
        gene: The gene.
        masks: Those for which it has bins.
        values: By `ScoreSpec.key`, of scores over these masks, shape (merged tracks,).
        sums: Of REF and of ALT over the bins of the first mask, shape (2, merged tracks); NaN
            where the gene has none of them.
    """

    gene: Gene
    masks: tuple[str, ...]
    values: dict[str, Floats] = field(default_factory=dict)
    sums: Floats = field(default_factory=lambda: np.zeros(0))


def mask_name(options: Mapping[str, str]) -> str:
    """Name the mask that a score's options choose, as in `tss:512`."""
    return ":".join(options[key] for key in ("mask", "width") if key in options)


def by_mask(specs: Iterable[ScoreSpec], *, genes: bool) -> dict[str, list[ScoreSpec]]:
    """Sort scores by their masks: those of genes, or the others."""
    found: dict[str, list[ScoreSpec]] = {}
    for spec in specs:
        if spec.in_genes == genes:
            found.setdefault(mask_name(spec.options), []).append(spec)
    return found


def gene_mask(gene: Gene, mask: str, view: View) -> Bools:
    """Choose the bins of a gene, shape (bins,).

    Args:
        gene: On the contig of the view.
        mask: Name of a mask of genes.
        view: The window.
    """
    stretches, margin = _stretches(gene, mask), _margin(mask)
    origins = np.array(view.origins(margin), dtype=np.int64)
    places = (stretches[None] + origins[:, None, None]).reshape(-1, 2) - view.left
    found = interval_mask(view.bins, places, view.stitch)
    return found if view.known is None else found & view.known


def _stretches(gene: Gene, mask: str) -> Ints:
    kind, _, width = mask.partition(":")
    if width:
        return around(gene.tss, int(width))
    return gene.stretches(cast(Stretches, kind))


def _margin(mask: str) -> int:
    """Say how far a mask may reach beyond its gene."""
    width = mask.partition(":")[2]
    return int(width) // 2 + 1 if width else 0


def genes_in(genes: GeneModels, views: Sequence[View], masks: Sequence[str]) -> list[InGene]:
    """Find the genes that an allele is scored in, by their starts.

    Args:
        genes: All of them.
        views: The allele's windows, one a shift.
        masks: Names of masks of genes.
    """
    if not views[0].bins.count:
        return []
    near: dict[int, Gene] = {}
    margin = max(map(_margin, masks))
    start, end = views[0].stretch(margin)
    for origin in views[0].origins(margin):
        found = genes.overlapping(views[0].contig, start - origin, end - origin)
        near |= {id(gene): gene for gene in found}
    places = []
    for gene in sorted(near.values(), key=lambda g: (g.start, g.end, g.gene_id)):
        held = tuple(m for m in masks if all(gene_mask(gene, m, v).any() for v in views))
        if held:
            places.append(InGene(gene, held))
    return places


def largest_gene(places: Iterable[InGene], key: str) -> InGene | None:
    """Choose the gene whose largest number of all tracks, without its sign, is the largest.

    Of equal ones the first; None where no gene has a number.
    """
    best, most = None, -1.0
    for place in places:
        values = finite(place.values[key]) if key in place.values else np.zeros(0)
        known = np.abs(values[np.isfinite(values)])
        if known.size and known.max() > most:
            best, most = place, float(known.max())
    return best


def finite(values: Floats) -> Floats:
    """Put NaN in place of what is no number, or beyond what VCF's Float can hold."""
    return np.where(is_writable(values), values, np.nan)


def gene_row(allele: int, place: InGene, keys: Iterable[str]) -> GeneRow:
    """Give the row of an allele in a gene, with NaN for scores whose mask it has no bin of."""
    none = np.full(place.sums.shape[1], np.nan)
    values = {key: finite(place.values.get(key, none)) for key in keys}
    return GeneRow(allele, place.gene.name, place.gene.gene_id, values, place.sums)
