"""GPN and GPN-MSA against the authors' package, gpn 0.9.0a1, with random weights."""

from __future__ import annotations

import ast
import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_kit import call, write_vcf
from parity_kit import ONNX_LIMIT, PUBLIC_LIMIT, Case, batch_of, check_parity, randomise, worst

from glm_annotate.encoding import EncoderSpec, make_encoder
from glm_annotate.genome import to_codes
from glm_annotate.train import graph
from glm_annotate.train.families import gpn_msa, gpn_songlab
from glm_annotate.train.sources import open_source

pytestmark = pytest.mark.parity
pytest.importorskip("transformers")
gpn = pytest.importorskip("gpn")
REFERENCE = f"gpn {importlib.metadata.version('gpn')}"

LEGACY = {
    "hidden_size": 24,
    "n_layers": 8,
    "kernel_size": 9,
    "dilation_max": 8,
    "dilation_cycle": 5,
}
CONVNET = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 4}
BYTENET = {
    "encoder": "bytenet", "hidden_size": 32, "num_hidden_layers": 10, "slim": True,
    "embedding": "embedding", "mlm_head_transform": False,
}  # fmt: skip
# Each variant of the table first, then what its config may also say.
CONFIGS = {
    "legacy ConvNet": LEGACY,
    "convnet": CONVNET,
    "bytenet": BYTENET,
    "legacy ConvNet, as published but narrow": {"hidden_size": 16},
    "convnet, every option": {
        **CONVNET, "bias": True, "depthwise": True, "dilation_double_every": 2, "dilation_base": 3,
        "dilation_max": 7, "dilation_cycle": 3, "first_kernel_size": 5, "rest_kernel_size": 7,
        "embedding": "embedding", "mlm_head_transform": False,
    },
    "bytenet, every option": {
        **BYTENET, "bias": True, "depthwise": True, "slim": False, "embedding": "one_hot",
        "mlm_head_transform": True, "first_kernel_size": 3, "rest_kernel_size": 9,
    },
}  # fmt: skip


def public_model(variant, folder):
    """A model of the authors' classes with random weights, and a checkpoint that they saved."""
    from gpn.legacy import ConvNetConfig, ConvNetForMaskedLM
    from gpn.model import GPNConfig, GPNForMaskedLM

    legacy = variant.startswith("legacy")
    config = (ConvNetConfig if legacy else GPNConfig)(**CONFIGS[variant])
    model = randomise((ConvNetForMaskedLM if legacy else GPNForMaskedLM)(config))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return model


def tokenizer():
    """The authors' tokenizer, made as their train_tokenizer_ss does."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[MASK]", "[UNK]"]
    trainer = trainers.BpeTrainer(
        vocab_size=7, special_tokens=special, initial_alphabet=list("acgt"), show_progress=False
    )
    made.train_from_iterator(["acgt"], trainer=trainer, length=4)
    names = {"pad_token": "[PAD]", "mask_token": "[MASK]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


@torch.no_grad()
def run(model, rows, aux=None):
    """Logits and last hidden state of the authors' model."""
    inputs = {"input_ids": torch.from_numpy(np.asarray(rows, dtype=np.int64))}
    if aux is not None:
        inputs["aux_features"] = torch.from_numpy(aux)
    hidden = model.model(**inputs).last_hidden_state
    return {"logits": model(**inputs).logits.numpy(), "embedding": hidden.numpy()}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("variant", ["legacy ConvNet", "convnet", "bytenet"])
def test_parity(variant, tmp_path, record_property, shared_dir):
    folder = tmp_path / "public"
    model = public_model(variant, folder)
    case = Case(
        system=gpn_songlab.FAMILY.title,
        variant=variant,
        reference=REFERENCE,
        source=folder,
        forward=lambda rows: run(model, rows),
        rows=((1, 23), (3, 40), (2, 512)),
    )
    check_parity(case, tmp_path, record_property, shared_dir)


@pytest.mark.parametrize("variant", CONFIGS)
def test_network(variant, tmp_path):
    model = public_model(variant, tmp_path)
    source = open_source(tmp_path)
    (official,) = [x for x in gpn_songlab.FAMILY.official if x.recognise(source)]
    assert official.variant == variant.partition(",")[0]
    network = official.load(source, None).network
    for seed, shape in enumerate([(2, 1), (3, 18), (2, 512)]):
        rows = np.random.default_rng(seed).integers(7, size=shape)
        ours, theirs = graph.run_torch(network, rows), run(model, rows)
        assert max(worst(ours[x], theirs[x]) for x in ours) <= PUBLIC_LIMIT


def test_trap_norms_have_torchs_eps_not_the_configs(tmp_path):
    # Rows of next to no variance, where 1e-5 and the config's 1e-12 are far apart.
    from gpn.model import GPNConfig, GPNForMaskedLM

    model = randomise(GPNForMaskedLM(GPNConfig(**BYTENET)))
    assert model.config.layer_norm_eps == 1e-12
    with torch.no_grad():
        model.model.embeddings.word_embeddings.weight.mul_(1e-2)
    model.save_pretrained(tmp_path)
    official = gpn_songlab.FAMILY.official[2]
    network = official.load(open_source(tmp_path), None).network
    rows = np.random.default_rng(0).integers(7, size=(2, 30))
    theirs = run(model, rows)["logits"]
    assert worst(graph.run_torch(network, rows)["logits"], theirs) <= PUBLIC_LIMIT
    for part in network.modules():
        if isinstance(part, torch.nn.LayerNorm):
            part.eps = 1e-12
    assert worst(graph.run_torch(network, rows)["logits"], theirs) > 1e-2


def test_trap_ids_are_those_of_the_authors_tokenizer(tmp_path):
    public_model("bytenet", tmp_path)
    card = gpn_songlab.FAMILY.official[2].load(open_source(tmp_path), None).card
    encoder = make_encoder(EncoderSpec.model_validate(card["encoder"]))
    text = "ACGTTGCANNNNRYacgtnKGATTACA"
    (group,) = encoder.encode(to_codes(text.encode())[None])
    theirs = tokenizer()
    assert group.rows[0].tolist() == theirs(text)["input_ids"]
    assert card["encoder"]["vocab"]["mask_id"] == theirs.mask_token_id
    assert card["encoder"]["vocab"]["pad_id"] == theirs.pad_token_id
    assert theirs("AC[MASK]T")["input_ids"] == [3, 4, 1, 6]


def test_trap_windows_are_cut_as_the_authors_do(tmp_path):
    """Their run_vep by hand: [pos - w // 2, pos + w // 2), both strands, N past the ends."""
    model = public_model("legacy ConvNet", tmp_path / "public")
    bundle, fasta = tmp_path / "bundle", tmp_path / "genome.fa"
    rng = np.random.default_rng(7)
    genome = "".join(rng.choice(list("ACGT"), size=1500))
    fasta.write_text(f">one\n{genome}\n")
    assert call("export", tmp_path / "public", "-o", bundle) == 0
    places = [0, 1, 100, 255, 256, 700, 1243, 1244, 1245, 1499]
    alts = ["ACGT"[("ACGT".index(genome[p]) + 1 + p % 3) % 4] for p in places]
    lines = [f"one {p + 1} {genome[p]} {alt}" for p, alt in zip(places, alts, strict=True)]
    vcf, table = write_vcf(tmp_path / "in.vcf", lines), tmp_path / "out.tsv"
    words = ("-f", fasta, "-m", f"T={bundle}", "-s", "LLR", "-o", tmp_path / "out.vcf")
    assert call("vcf", vcf, *words, "--tsv", table, "--device", "cpu:1") == 0
    head, *rows = [line.split("\t") for line in table.read_text().splitlines()]
    found = [float(row[head.index("T_LLR")]) for row in rows]

    complement = str.maketrans("ACGTN", "TGCAN")
    padded, half, theirs = "N" * 256 + genome + "N" * 256, 256, tokenizer()
    expected = []
    for p, alt in zip(places, alts, strict=True):
        forward = padded[p : p + 2 * half]
        both = []
        for text, at, ref, other in [
            (forward, half, genome[p], alt),
            (
                forward[::-1].translate(complement),
                half - 1,
                genome[p].translate(complement),
                alt.translate(complement),
            ),
        ]:
            assert text[at] == ref
            ids = theirs([f"{text[:at]}[MASK]{text[at + 1 :]}"])["input_ids"]
            logits = run(model, ids)["logits"][0, at]
            both.append(logits[theirs(other)["input_ids"][0]] - logits[theirs(ref)["input_ids"][0]])
        expected.append(sum(both) / 2)
    assert max(map(abs, expected)) > 0.3
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


# GPN-MSA

SPECIES = 7
MSA = {
    "n_aux_features": 5 * SPECIES, "hidden_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 3, "intermediate_size": 56, "max_position_embeddings": 160,
}  # fmt: skip


def public_msa(folder, *, stored="sinusoids", **changes):
    from gpn.legacy import GPNRoFormerConfig, GPNRoFormerForMaskedLM

    model = randomise(GPNRoFormerForMaskedLM(GPNRoFormerConfig(**MSA | changes)))
    positions = model.model.encoder.embed_positions
    if stored == "sinusoids":
        # The authors' class leaves the table as it was drawn, under transformers 5.
        positions.weight.data = positions.create_weight()
    model.save_pretrained(folder)
    return model


def loaded_msa(folder):
    source = open_source(folder)
    (official,) = [x for x in gpn_msa.FAMILY.official if x.recognise(source)]
    assert not any(x.recognise(source) for x in gpn_songlab.FAMILY.official)
    return official.load(source, None)


def authors_data_classes(*names):
    """Classes of gpn.data, without importing it: it asks for packages that they do not use."""
    tree = ast.parse((Path(gpn.__file__).parent / "data.py").read_text())
    tree.body = [x for x in tree.body if isinstance(x, ast.ClassDef) and x.name in names]
    space = {"np": np}
    exec(compile(tree, "gpn.data", "exec"), space)
    return [space[name] for name in names]


def test_msa(tmp_path, record_property, shared_dir):
    pytest.importorskip("zarr")
    model = public_msa(tmp_path / "public")
    case = Case(
        "GPN-MSA",
        "GPNRoFormer",
        REFERENCE,
        tmp_path / "public",
        lambda *batch: run(model, *batch),
        species=SPECIES,
    )
    check_parity(case, tmp_path, record_property, shared_dir)


@pytest.mark.parametrize("changes", [{}, {"num_attention_heads": 2, "layer_norm_eps": 1e-3}])
def test_msa_network_and_graph(changes, tmp_path):
    torch.set_num_threads(1)
    model = public_msa(tmp_path / "public", **changes)
    network, path = loaded_msa(tmp_path / "public").network, tmp_path / "model.onnx"
    graph.write_graph(network, path, "fp32")
    case = Case("GPN-MSA", "GPNRoFormer", REFERENCE, tmp_path, lambda *batch: run(model, *batch))
    batches = [
        batch_of(network, case, shape, seed)
        for seed, shape in enumerate([(1, 1), (3, 40), (5, 19), (2, 128), (1, 160)])
    ]
    for batch, found in zip(batches, graph.run_graph(path, batches), strict=True):
        ours, theirs = graph.run_torch(network, batch), case.forward(*batch)
        for name in ours:
            assert worst(ours[name], theirs[name]) <= PUBLIC_LIMIT
            assert worst(found[name], theirs[name]) <= ONNX_LIMIT


def test_trap_msa_rotary_table_is_the_stored_one(tmp_path):
    model = public_msa(tmp_path, stored="as drawn")
    table = model.model.encoder.embed_positions
    assert worst(table.weight.numpy(), table.create_weight().numpy()) > 0.1
    network = loaded_msa(tmp_path).network
    rng = np.random.default_rng(0)
    batch = rng.integers(6, size=(2, 50)), rng.integers(5, size=(2, 50, 7)).astype(np.float32)
    ours, theirs = graph.run_torch(network, batch), run(model, *batch)
    assert worst(ours["logits"], theirs["logits"]) <= PUBLIC_LIMIT


def test_trap_msa_columns_and_codes_are_those_of_the_authors(tmp_path):
    """Windows cut, complemented and tokenised by their classes: [L, species], human first."""
    parts = authors_data_classes("ReverseComplementer", "Tokenizer")
    complement, theirs = (made() for made in parts)
    model = public_msa(tmp_path)
    loaded = loaded_msa(tmp_path)
    encoder = make_encoder(EncoderSpec.model_validate(loaded.card["encoder"]))
    rng = np.random.default_rng(3)
    columns = rng.choice(list("ACGTNacgt-"), size=(128, 1 + SPECIES)).astype("S1")
    for turned in (columns, complement(columns, position_axis=0)):
        tokens = theirs(turned)
        human = b"".join(turned[:, 0]).replace(b"-", b"N")
        (group,) = encoder.encode(to_codes(human)[None])
        assert group.rows[0].tolist() == tokens[:, 0].tolist()
        rows, channels = group.rows.astype(np.int64), tokens[None, :, 1:].astype(np.float32)
        rows[0, 64] = theirs.mask_token_id()
        assert encoder.spec.vocab.mask_id == theirs.mask_token_id()
        ours = graph.run_torch(loaded.network, (rows, channels))["logits"]
        assert worst(ours, run(model, rows, tokens[None, :, 1:])["logits"]) <= PUBLIC_LIMIT
