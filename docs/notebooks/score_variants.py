# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Score variants in a notebook
#
# The shipped model `mito`, the example genome and 80 variants of the human mitochondrial genome.
# Open this file as a notebook with [jupytext](https://jupytext.readthedocs.io); it runs in the
# folder where it lies.

# %%
# ruff: noqa: T201
from pathlib import Path

import numpy as np
import pandas as pd

import glm_annotate
from glm_annotate import Interval, load_bundle

DATA = Path("../../example_data")
FASTA = DATA / "chrM.fa"

# %% [markdown]
# ## A table of alleles
#
# One row an ALT, with the INFO keys of `glm-annotate vcf` as columns.

# %%
table = glm_annotate.score(DATA / "mtdna_variants.vcf", FASTA, "mito", "LLR,PLLR,ENT")
print(table.sort_values("MITO_PLLR").head().to_string())

# %%
print(table["MITO_STATUS"].value_counts())
assert table["MITO_PLLR"].notna().sum() >= 80

# %% [markdown]
# What has no number says why: `LLR` is defined for alleles of equal length alone, `PLLR` for
# insertions and deletions too.

# %%
indels = table[table["ref"].str.len() != table["alt"].str.len()]
assert indels["MITO_LLR"].isna().all()
print(indels[["pos", "ref", "alt", "MITO_PLLR", "MITO_STATUS"]].to_string())

# %% [markdown]
# ## Variants of your own
#
# Texts, tuples or a DataFrame; rows keep their order.

# %%
bundle = load_bundle("mito")
own = pd.DataFrame({"chrom": "chrM", "pos": [3243, 8993], "ref": ["A", "T"], "alt": ["G", "G,C"]})
scored = glm_annotate.score(own, FASTA, {"M": bundle}, ["LLR", "EMB_COS"])
print(scored.to_string())
assert scored["M_LLR"].lt(-3).all()

# %% [markdown]
# ## What the model makes of the bases themselves
#
# `predict` gives an array for each interval: of a language model the probabilities of A, C, G and
# T, in one unmasked pass a window. The information is high where the model is sure of a base.

# %%
stretch = Interval("chrM", 3229, 3304)  # tRNA-Leu(UUR), 0-based and half-open
(chances,) = bundle.predict([stretch], FASTA)
bits = 2 + np.sum(chances * np.log2(chances), axis=1)
best = "".join(np.array(list("ACGT"))[chances.argmax(axis=1)])
print(best, f"{bits.mean():.2f} bits a base")
assert chances.shape == (75, 4)

# %%
(hidden,) = bundle.predict(
    ["ACGTTAAGATGGCAGAGCCCGGTAATCGCATAAAACTTAAAACTTTACAGTCAGAGG"], output="embedding"
)
print("embedding of each base:", hidden.shape)
