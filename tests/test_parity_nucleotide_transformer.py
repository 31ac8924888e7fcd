"""The Nucleotide Transformer against transformers' ESM; v2's feed-forward is patched in here."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from cli_kit import call, write_vcf
from parity_kit import Case, check_parity, randomise, real_variants, worst

from glm_annotate.bundle import load_bundle
from glm_annotate.encoding import EncoderSpec, make_encoder
from glm_annotate.errors import InputError
from glm_annotate.genome import to_codes
from glm_annotate.train import graph
from glm_annotate.train.families.nucleotide_transformer import FAMILY
from glm_annotate.train.sources import open_source

pytestmark = pytest.mark.parity

transformers = pytest.importorskip("transformers")

V1, V2 = FAMILY.official
REFERENCE = f"transformers {transformers.__version__} EsmForMaskedLM"
SHAPE = {
    "hidden_size": 40,
    "intermediate_size": 28,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "pad_token_id": 1,
    "mask_token_id": 2,
    "emb_layer_norm_before": False,
    "tie_word_embeddings": False,
}
V1_CONFIG = {"vocab_size": 4105, "max_position_embeddings": 1002, "token_dropout": True}
V2_CONFIG = {
    "vocab_size": 4107,
    "max_position_embeddings": 2050,
    "position_embedding_type": "rotary",
}


class Gated(torch.nn.Module):
    """SwiGLU without biases: the first half of the wide layer gates the second."""

    def __init__(self, dim, hidden):
        super().__init__()
        self.dense = torch.nn.Linear(dim, 2 * hidden, bias=False)

    def forward(self, x):
        gate, value = self.dense(x).tensor_split(2, dim=-1)
        return gate * torch.sigmoid(gate) * value


def public_model(config, seed=0, *, patched=True):
    """transformers' network; a rotary one gets the feed-forward of v2."""
    made = transformers.EsmConfig(**(SHAPE | config), attn_implementation="eager")
    model = transformers.EsmForMaskedLM(made)
    if made.position_embedding_type == "rotary" and patched:
        for layer in model.esm.encoder.layer:
            layer.intermediate = Gated(made.hidden_size, made.intermediate_size)
            layer.output.dense = torch.nn.Linear(
                made.intermediate_size, made.hidden_size, bias=False
            )
    return randomise(model, seed)


def forward_of(model):
    @torch.no_grad()
    def forward(rows):
        hidden = model.esm(torch.from_numpy(rows)).last_hidden_state
        return {"logits": model.lm_head(hidden).numpy(), "embedding": hidden.numpy()}

    return forward


def vocabulary(k, special):
    """What the authors' list holds, one more base at a time."""
    kmers = [""]
    for _ in range(k):
        kmers = [kmer + base for kmer in kmers for base in "ATCG"]
    return [*special.split(), *kmers, "A", "T", "C", "G", "N"]


V1_TOKENS = [*vocabulary(6, "<unk> <pad> <mask> <cls>"), "<eos>", "<bos>"]
V2_TOKENS = vocabulary(6, "<unk> <pad> <mask> <cls> <eos> <bos>")
V2_3MERS = vocabulary(3, "<unk> <pad> <mask> <cls> <eos> <bos>")


def save(model, folder, tokens):
    """Save as transformers does; v2's official configs name no model type."""
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(tokens))
    if model.config.position_embedding_type == "rotary":
        values = json.loads((folder / "config.json").read_text())
        assert values.pop("model_type") == "esm"
        (folder / "config.json").write_text(json.dumps(values | {"add_bias_fnn": False}))
    return folder


CASES = {
    "v1": ({**V1_CONFIG, "layer_norm_eps": 1e-12}, V1_TOKENS, 150),
    "v1, no token dropout": ({**V1_CONFIG, "token_dropout": False}, V1_TOKENS, 54),
    "v2": ({**V2_CONFIG, "layer_norm_eps": 1e-12}, V2_TOKENS, 150),
    "v2, 3-mers": ({**V2_CONFIG, "vocab_size": 75}, V2_3MERS, 51),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("variant", CASES)
def test_parity(variant, tmp_path, record_property, shared_dir):
    config, tokens, context = CASES[variant]
    model = public_model(config)
    case = Case(
        system=FAMILY.title,
        variant=variant,
        reference=REFERENCE + (", feed-forward patched" if variant.startswith("v2") else ""),
        source=save(model, tmp_path / "official", tokens),
        forward=forward_of(model),
        options=("--context", str(context)),
    )
    check_parity(case, tmp_path, record_property, shared_dir)


@pytest.mark.timeout(300)
def test_the_default_scores_leave_no_small_variant_without_a_number(tmp_path, shared_dir):
    """At the default window, an indel's PLLR needs half of the rows, and gets them."""
    model = public_model({**V2_CONFIG, "num_hidden_layers": 1, "hidden_size": 8})
    bundle = tmp_path / "bundle"
    folder = save(model, tmp_path / "official", V2_TOKENS)
    assert call("export", folder, "-o", bundle) == 0
    card = load_bundle(bundle).card
    assert (card.context, card.anchor) == (1002, 501)
    assert card.provenance.weights_licence == card.provenance.code_licence == "CC-BY-NC-SA-4.0"
    fasta, alleles = real_variants(shared_dir, 12)
    vcf = write_vcf(tmp_path / "in.vcf", [f"{c} {p} {r} {a}" for c, p, r, a in alleles])
    words = ["vcf", vcf, "-f", fasta, "-m", f"T={bundle}", "--device", "cpu:1"]
    for name, scores in (("default", ()), ("pllr", ("-s", "PLLR"))):
        table = tmp_path / f"{name}.tsv"
        assert call(*words, *scores, "-o", tmp_path / f"{name}.vcf", "--tsv", table) == 0
        head, *lines = [line.split("\t") for line in table.read_text().splitlines()]
        columns = [head.index(x) for x in head if x.startswith("T_") and x != "T_STATUS"]
        assert len(columns) == 2 - len(scores) // 2
        assert len(lines) == len(alleles)
        assert all(any(line[at] != "." for at in columns) for line in lines), lines


def both(config, folder, tokens, official):
    model = public_model(config)
    return model, official.load(open_source(save(model, folder, tokens)), None).network


@pytest.mark.parametrize("epsilon", [1e-12, 1e-5, 0.05])
def test_trap_the_epsilon_is_that_of_the_config(epsilon, tmp_path):
    model, network = both({**V2_CONFIG, "layer_norm_eps": epsilon}, tmp_path, V2_TOKENS, V2)
    rows = np.random.default_rng(2).integers(6, 4107, size=(2, 20))
    wanted = forward_of(model)(rows)["logits"]
    assert worst(graph.run_torch(network, rows)["logits"], wanted) < 1e-5
    if epsilon == 0.05:
        other = public_model({**V2_CONFIG, "layer_norm_eps": 1e-12})
        assert worst(forward_of(other)(rows)["logits"], wanted) > 1e-3


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("masked", [0, 1, 7, 18])
def test_trap_token_dropout_follows_the_config(dropout, masked, tmp_path):
    model, network = both({**V1_CONFIG, "token_dropout": dropout}, tmp_path, V1_TOKENS, V1)
    rows = np.random.default_rng(masked).integers(4, 4105, size=(2, 19))
    rows[0, :masked] = 2
    wanted = forward_of(model)(rows)
    found = graph.run_torch(network, rows)
    assert max(worst(found[name], wanted[name]) for name in wanted) < 1e-5


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_attention_maps_are_those_of_every_layer(version, tmp_path):
    config, tokens, official = {
        "v1": (V1_CONFIG, V1_TOKENS, V1),
        "v2": (V2_CONFIG, V2_TOKENS, V2),
    }[version]
    model, network = both(config, tmp_path, tokens, official)
    rows = torch.from_numpy(np.random.default_rng(5).integers(2, 4105, size=(2, 13)))
    with torch.no_grad():
        wanted = model.esm(rows, output_attentions=True)
        embedding, maps = network.attend(rows)
    assert maps.shape == (2, 3, 4, 13, 13)
    assert worst(maps.numpy(), torch.stack(wanted.attentions, dim=1).numpy()) < 1e-5
    assert worst(embedding.numpy(), wanted.last_hidden_state.numpy()) < 1e-5


def test_trap_a_v2_file_that_native_esm_saved_is_refused(tmp_path):
    """Native ESM reads v2's config, makes a feed-forward of another shape and says nothing."""
    model = public_model(V2_CONFIG, patched=False)
    source = open_source(save(model, tmp_path, V2_TOKENS))
    assert not V2.recognise(source)
    assert V1.recognise(source)
    with pytest.raises(InputError, match="fetch the official file"):
        V1.load(source, None)


@pytest.mark.parametrize(
    ("tokens", "config", "official"),
    [
        (V1_TOKENS, V1_CONFIG, V1),
        (V2_TOKENS, V2_CONFIG, V2),
        (V2_3MERS, CASES["v2, 3-mers"][0], V2),
    ],
    ids=["v1", "v2", "v2-3mer"],
)
def test_the_encoder_gives_what_the_public_tokenizer_gives(tokens, config, official, tmp_path):
    model = public_model(config)
    source = open_source(save(model, tmp_path, tokens))
    card = official.load(source, None).card
    encoder = make_encoder(EncoderSpec.model_validate(card["encoder"]))
    public = transformers.EsmTokenizer(str(tmp_path / "vocab.txt"), eos_token=None)
    rng = np.random.default_rng(8)
    for length in (1, 5, 6, 7, 35, 36, 60, 61):
        for ns in (0, 1, 3):
            bases = rng.choice(list("ACGT"), size=length)
            bases[rng.integers(length, size=ns)] = "N"
            text = "".join(bases)
            (group,) = encoder.encode(to_codes(text)[None])
            assert group.rows[0].tolist() == public(text)["input_ids"], text
