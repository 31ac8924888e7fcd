"""Saturation mutagenesis as a VCF: every single-base substitution of a stretch, scored.

One record a substitution, the three of a base in the order of their ALT, as files of precomputed
scores have them. INFO and header are what `vcf` writes of the same alleles, so that `vcf --from`
can take them from the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

from glm_annotate import __version__
from glm_annotate.annotate import Scored
from glm_annotate.chunks import COLUMNS
from glm_annotate.fields import FieldWriter, info_lines, model_lines
from glm_annotate.genome import Genome, N, to_letters
from glm_annotate.header import extend_header, run_lines
from glm_annotate.model import Model
from glm_annotate.vcf import VcfWriter


class SaturationFile(AbstractContextManager["SaturationFile"]):
    """A bgzipped, indexed VCF of substitutions; use it as a context manager, and `write` in order.

    Args:
        path: Where to write.
        model: Gives keys and header; with the mode in which it was asked.
        genome: The reference.
        force: Replace a file that is there.
        tf32: Whether matrix products were rounded so.
        arguments: The command line, for the header; empty leaves it out.
        date: For the header.

    Raises:
        InputError: The file is there already; from `with` on: it cannot be made or written.
    """

    def __init__(
        self,
        path: str,
        model: Model,
        genome: Genome,
        *,
        force: bool,
        tf32: bool = False,
        arguments: Sequence[str] = (),
        date: str = "",
    ) -> None:
        self._fields = FieldWriter([model])
        contigs = (f"##contig=<ID={x},length={n}>".encode() for x, n in genome.contigs.items())
        meta = list(run_lines(__version__, arguments, date)) if arguments else []
        header = extend_header(
            (b"##fileformat=VCFv4.3", *contigs, COLUMNS),
            info_lines([model], __version__),
            [*meta, *model_lines([model], tf32)],
        )
        self._writer = VcfWriter(path, "z", header, force=force, index="tbi")
        self._stack = ExitStack()

    def __enter__(self) -> SaturationFile:
        """Open the file under a temporary name."""
        self._stack.enter_context(self._writer)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete and index the file, unless something failed."""
        self._stack.__exit__(kind, error, trace)

    def write(self, scored: Scored) -> None:
        """Write the substitutions of a piece; letters other than A, C, G and T have none."""
        alleles = scored.alleles
        rows = zip(
            alleles.contig.tolist(),
            (alleles.start + 1).tolist(),
            to_letters(alleles.ref_base).tolist(),
            to_letters(alleles.alt_base).tolist(),
            (alleles.ref_base < N).tolist(),
            self._fields.by_allele(self._fields.columns(scored)),
            strict=True,
        )
        names = [name.encode() for name in alleles.contigs]
        self._writer.write(
            [
                b"%b\t%d\t.\t%c\t%c\t.\t.\t%b\n" % (names[contig], pos, ref, alt, info)
                for contig, pos, ref, alt, known, info in rows
                if known
            ]
        )
