"""The part of a MultiQC report that is about glm-annotate."""

from __future__ import annotations

import logging
from typing import Any

from multiqc.base_module import BaseMultiqcModule, ModuleNoSamplesFound
from multiqc.plots import bargraph, linegraph

from .tables import COMPLETE, histograms, median, read_scores, read_summary

log = logging.getLogger(__name__)


class MultiqcModule(BaseMultiqcModule):
    """Reads `SAMPLE.json` of `--summary` and `SAMPLE.tsv` of `--tsv` of `glm-annotate vcf`."""

    def __init__(self) -> None:
        super().__init__(
            name="glm_annotate",
            anchor="glm_annotate",
            info="Scores of variants by genome language models: one number, or the reason why "
            "there is none, for each ALT allele.",
        )
        self.summaries: dict[str, dict[str, Any]] = {}
        for f in self.find_log_files("glm_annotate/summary"):
            summary = read_summary(f["f"])
            if summary is None:
                continue
            name = f["s_name"]
            if name in self.summaries:
                log.debug(f"Duplicate sample name found! Overwriting: {name}")
            self.summaries[name] = summary
            self.add_data_source(f, section="summary")
            self.add_software_version(summary["glm_annotate"], name)
        self.scores: dict[str, dict[str, Any]] = {}
        for f in self.find_log_files("glm_annotate/table", filehandles=True):
            scores = read_scores(f["f"])
            if scores is None:
                continue
            self.scores[f["s_name"]] = scores
            self.add_data_source(f, section="table")
        self.summaries = self.ignore_samples(self.summaries)
        self.scores = self.ignore_samples(self.scores)
        if not self.summaries and not self.scores:
            raise ModuleNoSamplesFound
        log.info(f"Found {len(self.summaries)} summaries and {len(self.scores)} tables of scores")

        # Models in the order in which the first run named them.
        self.tags = list(dict.fromkeys(tag for x in self.summaries.values() for tag in x["models"]))
        self.general_statistics()
        if self.tags:
            self.status_section()
        if self.scores:
            self.distribution_section()
        self.write_data_file(self.flat(), "multiqc_glm_annotate")

    def general_statistics(self) -> None:
        """Alleles, how many have a number from each model, and the median of each score."""
        headers: dict[str, dict[str, Any]] = {
            "alleles": {
                "title": "Alleles",
                "description": "ALT alleles in the input",
                "min": 0,
                "format": "{:,d}",
                "scale": "Blues",
                "shared_key": "glm_annotate_alleles",
            }
        }
        data: dict[str, dict[str, Any]] = {
            name: {"alleles": x["alleles"]} for name, x in self.summaries.items()
        }
        for tag in self.tags:
            headers[f"{tag}_scored"] = {
                "title": f"{tag} scored",
                "description": f"ALT alleles with at least one number from {tag}",
                "min": 0,
                "max": 100,
                "suffix": "%",
                "scale": "RdYlGn",
            }
            headers[f"{tag}_passes"] = {
                "title": f"{tag} passes",
                "description": f"Forward passes of {tag}",
                "min": 0,
                "format": "{:,d}",
                "scale": "Greys",
                "hidden": True,
            }
            for name, x in self.summaries.items():
                if tag in x["models"] and x["alleles"]:
                    model = x["models"][tag]
                    part = 100 * (1 - model["unscored"] / x["alleles"])
                    data[name].update(
                        {f"{tag}_scored": part, f"{tag}_passes": model["forward_passes"]}
                    )
        for score in self.score_names():
            headers[f"{score}_median"] = {
                "title": f"{score} median",
                "description": f"Median of {score} over the alleles that have it",
                "format": "{:,.2f}",
                "scale": "PuOr",
                "hidden": True,
            }
            for name, scores in self.scores.items():
                if score in scores:
                    data.setdefault(name, {})[f"{score}_median"] = median(scores[score])
        self.general_stats_addcols(data, headers)

    def status_section(self) -> None:
        """Bars of the alleles that lack a number, by reason, a tab for each model."""
        skipped, labels = [], []
        for tag in self.tags:
            rows = {
                name: {k: n for k, n in x["models"][tag]["status"].items() if k not in COMPLETE}
                for name, x in self.summaries.items()
                if tag in x["models"]
            }
            skipped.append(rows)
            labels.append({"name": tag, "ylab": "ALT alleles"})
        if not any(row for rows in skipped for row in rows.values()):
            content = "<p>Every allele has every score.</p>"
            self.add_section(name="Alleles without a number", anchor="glm_skipped", content=content)
            return
        categories = [
            list(dict.fromkeys(k for row in rows.values() for k in sorted(row))) for rows in skipped
        ]
        self.add_section(
            name="Alleles without a number",
            anchor="glm_skipped",
            description="ALT alleles that lack a score, by the reason that their `STATUS` names.",
            helptext="""
            A word alone, such as `REF_MISMATCH` or `AMBIGUOUS`, means that the allele has no number
            at all from the model. `SCORE:REASON`, such as `LLR:INDEL`, means that this score has
            none and the others have. Many `REF_MISMATCH` or `CONTIG_MISSING` point to a FASTA of
            another assembly.
            """,
            plot=bargraph.plot(
                skipped,
                categories,
                {
                    "id": "glm_skipped_plot",
                    "title": "glm_annotate: alleles without a number",
                    "ylab": "ALT alleles",
                    **({"data_labels": labels} if len(labels) > 1 else {}),
                },
            ),
        )

    def distribution_section(self) -> None:
        """Histograms of each score, a line for each sample, a tab for each score."""
        curves, labels = [], []
        for score in self.score_names():
            having = {name: x[score] for name, x in self.scores.items() if score in x}
            curves.append(histograms(having))
            labels.append({"name": score, "xlab": score, "ylab": "% of alleles"})
        if not curves:
            return
        self.add_section(
            name="Distribution of scores",
            anchor="glm_scores",
            description="Percent of the alleles of each sample by score, from `--tsv`.",
            helptext="""
            `LLR` and `PLLR` below 0: the model finds ALT less likely than REF. Samples of one
            assay should have similar curves; a curve that is shifted to the left holds many
            unlikely alleles, as false calls or a wrong reference make them.
            """,
            plot=linegraph.plot(
                curves,
                {
                    "id": "glm_scores_plot",
                    "title": "glm_annotate: distribution of scores",
                    "xlab": labels[0]["xlab"],
                    "ylab": "% of alleles",
                    "ymin": 0,
                    **({"data_labels": labels} if len(labels) > 1 else {}),
                },
            ),
        )

    def score_names(self) -> list[str]:
        """Scores in the order of the first table that has them."""
        return list(dict.fromkeys(score for x in self.scores.values() for score in x))

    def flat(self) -> dict[str, dict[str, Any]]:
        """One row a sample for multiqc_data: counts, statuses and medians."""
        rows: dict[str, dict[str, Any]] = {}
        for name, x in self.summaries.items():
            row = rows.setdefault(name, {"records": x["records"], "alleles": x["alleles"]})
            for tag, model in x["models"].items():
                row[f"{tag}_model"] = f"{model['name']} {model['version']}"
                row[f"{tag}_unscored"] = model["unscored"]
                row.update({f"{tag}_{key}": n for key, n in model["status"].items()})
        for name, scores in self.scores.items():
            row = rows.setdefault(name, {})
            row.update({f"{score}_median": median(v) for score, v in scores.items()})
        return rows
