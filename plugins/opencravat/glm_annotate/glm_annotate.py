"""OpenCRAVAT annotator: scores of genome language models, looked up by allele."""

from __future__ import annotations

import sys
from typing import Any

from cravat import BaseAnnotator


class CravatAnnotator(BaseAnnotator):
    """Reads data/glm_annotate.sqlite, which build_data.py makes of a scored VCF."""

    def setup(self) -> None:
        """Prepare the look-up, and ask OpenCRAVAT for every contig that was scored, chrM too."""
        if self.cursor is None:
            raise FileNotFoundError(
                f"{self.module_dir} has no data/{self.module_name}.sqlite: build_data.py of "
                "plugins/opencravat makes it of a VCF that glm-annotate has scored"
            )
        self.supported_chroms = {
            x for (x,) in self.cursor.execute("select distinct chrom from score")
        }
        # The key columns come first, in the order of the table; the others are output columns.
        self.cursor.execute("select * from score limit 0")
        self.names = [x[0] for x in self.cursor.description][4:]
        self.query = (
            f"select {', '.join(self.names)} from score "
            "where chrom = ? and pos = ? and ref = ? and alt = ?"
        )

    def annotate(
        self, input_data: dict[str, Any], secondary_data: dict[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Give the scores of one allele, in OpenCRAVAT's spelling; None where it was not scored."""
        key = [input_data[x] for x in ("chrom", "pos", "ref_base", "alt_base")]
        row = self.cursor.execute(self.query, key).fetchone()
        return None if row is None else dict(zip(self.names, row, strict=False))

    def cleanup(self) -> None:
        """Nothing is left open: the base class closes the database."""


if __name__ == "__main__":
    CravatAnnotator(sys.argv).run()
