"""Make a small DNABERT-2 of random weights in its authors' layout: a stand-in for the real one.

python recipes/dnabert2-promoters/make_source.py SEQUENCES.tsv.gz FOLDER

Its byte pairs are learnt from the sequences of the table, its weights from nothing: what a run on
it reaches says that fine-tuning works, and is what the pretrained model has to beat.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from glm_annotate.train.families import FAMILIES

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
SIZES = {"vocab_size": 512, "hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 6,
         "intermediate_size": 192}  # fmt: skip
OURS = ("vocabulary", "dim", "layers", "heads", "hidden")


def main() -> None:
    """Write tokenizer.json, config.json and pytorch_model.bin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sequences", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(options.sequences, "rt", encoding="utf-8") as lines:
        next(lines)
        texts = [line.split("\t")[0].replace("N", "") for line in lines]
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=SIZES["vocab_size"],
            special_tokens=SPECIAL,
            max_token_length=8,
            show_progress=False,
        ),
    )
    tokenizer.save(str(options.folder / "tokenizer.json"))
    sizes = {**SIZES, "vocab_size": tokenizer.get_vocab_size()}
    torch.manual_seed(0)
    network = FAMILIES["dnabert2"].build(dict(zip(OURS, sizes.values(), strict=True)))
    torch.save(network.state_dict(), options.folder / "pytorch_model.bin")
    config = {**sizes, "model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    (options.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
