# ruff: noqa: F821
# Snakemake puts `snakemake` into this script.
__author__ = "The glm_annotate authors"
__copyright__ = "Copyright 2026, The glm_annotate authors"
__license__ = "Apache-2.0"

import shlex
from collections.abc import Iterable

from snakemake.shell import shell


def listed(value: str | Iterable[str]) -> list[str]:
    return [value] if isinstance(value, str) else [str(x) for x in value]


def option(name: str, value: str | None) -> list[str]:
    return [f"--{name}={shlex.quote(str(value))}"] if value else []


extra = snakemake.params.get("extra", "")
log = snakemake.log_fmt_shell(stdout=False, stderr=True)

# A bundle is a file or a folder, so it may be an input; a shipped or hf:// model is a parameter.
models = listed(snakemake.params.get("models", [])) + listed(snakemake.input.get("models", []))
if not models:
    raise ValueError("glm_annotate/vcf: name models in params.models or input.models")
# A job that was given no GPU must not take one that belongs to others.
granted = any(snakemake.resources.get(name, 0) for name in ("gpu", "nvidia_gpu", "gres"))

options = option("device", snakemake.params.get("device", "auto" if granted else "cpu"))
for model in models:
    options += option("model", model)
options += option("gtf", snakemake.input.get("gtf"))
# POS decides, so that a record that reaches into the next region is not there twice.
for name in ("regions-file", "targets-file"):
    options += option(name, snakemake.input.get("regions"))
for name in ("tsv", "summary", "matrix"):
    options += option(name, snakemake.output.get(name))
index = snakemake.output.get("index", "")
options += option("write-index", index.rpartition(".")[2])

shell(
    "glm-annotate vcf {snakemake.input.calls:q}"
    " --fasta-ref={snakemake.input.ref:q} --threads={snakemake.threads}"
    " --output={snakemake.output.calls:q} " + " ".join(options) + " {extra} {log}"
)
