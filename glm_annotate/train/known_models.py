"""Models inside packages that users can install, by the names that `models import` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from glm_annotate.train.families import mmsplice, spliceai
from glm_annotate.train.families.family import Family


@dataclass(frozen=True, slots=True)
class Known:
    """A model inside a package.

    Attributes:
        package: The distribution.
        variant: Of `family.official`.
        family: The system.
        members: Files of weights, and the prefix that their keys get.
        genes: Gene tables by assembly; `layout`: of these, one of `gene_table.TABLES`, or `spliced`
            for that of `gene_table.exon_table`.
        licence: The member that holds the licence, for the bundle; "" where there is none.
        note: What a user should know of the licence.
    """

    package: str
    variant: str
    family: Family
    members: Mapping[str, str]
    genes: Mapping[str, str] = field(default_factory=dict)
    layout: str = ""
    licence: str = ""
    note: str = ""


_EXONS = {x: f"mmsplice/models/{x}_exons.csv.gz" for x in ("grch37", "grch38")}

KNOWN: dict[str, Known] = {
    "cispliceai": Known(
        package="cispliceai",
        variant="CI-SpliceAI",
        family=spliceai.FAMILY,
        members={"cispliceai/data/CI-SpliceAI.pb": ""},
        genes={x: f"cispliceai/data/{x}.csv" for x in ("grch37", "grch38")},
        layout="junctions",
        licence="licenses/LICENSE",
    ),
    "spliceai": Known(
        package="spliceai",
        variant="SpliceAI",
        family=spliceai.FAMILY,
        members={f"spliceai/models/spliceai{x + 1}.h5": f"{x}/" for x in range(5)},
        genes={x: f"spliceai/annotations/{x}.txt" for x in ("grch37", "grch38")},
        layout="exons",
        note="the wheel's metadata says GPLv3, the authors' repository now says CC BY-NC 4.0 of "
        "the models; commercial use needs a licence of Illumina, Inc.",
    ),
    "mmsplice": Known(
        package="mmsplice",
        variant="MMSplice",
        family=mmsplice.FAMILY,
        members={
            f"mmsplice/models/{file}.h5": f"{module}/"
            for module, file in zip(
                mmsplice.MODULES, ("Intron3", "Acceptor", "Exon", "Donor", "Intron5"), strict=True
            )
        },
        genes=_EXONS,
        layout="spliced",
        licence="LICENSE",
    ),
    "mtsplice": Known(
        package="mmsplice",
        variant="MTSplice",
        family=mmsplice.FAMILY,
        members={f"mmsplice/models/mtsplice_deep{x}.h5": f"{x}/" for x in range(4)},
        genes=_EXONS,
        layout="spliced",
        licence="LICENSE",
    ),
}
