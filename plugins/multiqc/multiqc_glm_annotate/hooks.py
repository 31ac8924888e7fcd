"""Called by MultiQC before it reads the user's configuration, which therefore wins."""

from __future__ import annotations

from multiqc import config


def before_config() -> None:
    """Tell MultiQC by what the two kinds of file are known, and how samples are named."""
    patterns = {
        # The first key of the JSON of --summary, on its second line.
        "glm_annotate/summary": {"fn": "*.json", "contents": '"glm_annotate":', "num_lines": 2},
        # The header line of --tsv.
        "glm_annotate/table": {
            "fn": "*.tsv",
            "contents": "chrom\tpos\tid\tref\talt\t",
            "num_lines": 1,
        },
    }
    config.update_dict(config.sp, patterns)
    # NA12878.glm_annotate.json and NA12878.glm_annotate.tsv are both of the sample NA12878.
    if ".glm_annotate" not in config.fn_clean_exts:
        config.fn_clean_exts.insert(0, ".glm_annotate")
