"""Small language models in their authors' layouts, and examples, for tests of fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from glm_annotate.train.families.dnabert2 import FAMILY as DNABERT2
from glm_annotate.train.families.gpn import FAMILY as GPN

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
NAMES = {
    "vocabulary": "vocab_size",
    "dim": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "intermediate_size",
}


def write_tokenizer(path: Path, size: int = 60, *, alphabet: str = "ACGT") -> int:
    """Byte pairs of random bases, with the settings of DNABERT-2's authors."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL,
        initial_alphabet=list(alphabet),
        show_progress=False,
    )
    rng = np.random.default_rng(0)
    made.train_from_iterator(["".join(rng.choice(list("ACGT"), 400)) for _ in range(60)], trainer)
    made.enable_truncation(max_length=20)
    made.enable_padding(pad_id=3, pad_token="[PAD]")
    made.save(str(path))
    return made.get_vocab_size()


def write_dnabert2(folder: Path, *, dim: int = 24, layers: int = 2, seed: int = 0) -> Path:
    """A DNABERT-2 of random weights, as a folder of the Hugging Face hub."""
    folder.mkdir(parents=True)
    size = write_tokenizer(folder / "tokenizer.json")
    values = {"vocabulary": size, "dim": dim, "layers": layers, "heads": 4, "hidden": 2 * dim}
    torch.manual_seed(seed)
    network = DNABERT2.build(values)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    config = {NAMES[key]: value for key, value in values.items()}
    config |= {"hidden_act": "gelu", "model_type": "bert", "layer_norm_eps": 1e-12}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_promoters(path: Path, *, groups: int = 24, mutants: int = 6, length: int = 60) -> Path:
    """Families of promoters whose value is how many TATAAA they hold, plus some of their GC."""
    rng = np.random.default_rng(3)
    lines = ["sequence\texpression"]
    for _ in range(groups):
        parent = rng.choice(list("ACGT"), length)
        for _ in range(mutants):
            child = parent.copy()
            child[rng.integers(length)] = rng.choice(list("ACGT"))
            if rng.random() < 0.5:
                at = int(rng.integers(5, length - 12))
                child[at : at + 6] = list("TATAAA")
            text = "".join(child)
            value = 3.0 * text.count("TATAAA") + 5 * (text.count("G") + text.count("C")) / length
            lines.append(f"{text}\t{value:.4f}")
    path.write_text("\n".join(lines) + "\n")
    return path


def config_text(source: str, mode: str, *, extra: str = "", **changes: str) -> str:
    """A training config; `changes` replace values of its keys."""
    values = {
        "out": f'"runs/{mode}"', "steps": "40", "batch": "32", "lr": "0.01", "loss": '"mse"',
        "targets": '["expression"]', "files": '["promoters.tsv"]', "context": "60",
        "pool": '"mean"', "hidden": "0", "rc": "false", "held": "valid_fraction = 0.25",
        "homology": "20", **changes,
    }  # fmt: skip
    return f"""
name = "promoters"
family = "with_head"
objective = "finetune"
seed = 5
model = {{}}
[data]
context = {values["context"]}
reverse_complement = {values["rc"]}
[finetune]
source = "{source}"
mode = "{mode}"
loss = {values["loss"]}
head = {{ pool = {values["pool"]}, hidden = {values["hidden"]} }}
lora = {{ rank = 4, alpha = 8 }}
[finetune.examples]
files = {values["files"]}
targets = {values["targets"]}
homology = {values["homology"]}
{values["held"]}
{extra}
[optim]
lr = {values["lr"]}
batch = {values["batch"]}
steps = {values["steps"]}
warmup_steps = 2
ema = 0.5
[run]
out = {values["out"]}
threads = 1
log_every = 10
valid_every = 0
"""


def write_gpn(folder: Path) -> dict:
    """Sizes of a small GPN for `build`."""
    return {"vocabulary": 7, "dim": 8, "kernel": 3, "hidden": 8, "dilations": [1, 2]}


__all__ = ["GPN", "config_text", "write_dnabert2", "write_promoters", "write_tokenizer"]
