"""Model cards: what is allowed, what is refused and how, and what the digest covers."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from glm_annotate.bundle import read_card
from glm_annotate.card import SCORING_KEYS, ModelCard
from glm_annotate.errors import BundleError

CARD = {
    "format": 1,
    "name": "toy",
    "version": "1.0",
    "tag": "TOY",
    "objective": "masked",
    "context": 16,
    "anchor": 8,
    "encoder": {"kind": "kmer", "vocab": {"first_id": 3, "unk_id": 2, "mask_id": 1}},
    "inputs": {"rows": {"name": "input_ids", "axes": ["batch", "row"], "dtype": "int64"}},
    "outputs": {"logits": {"name": "logits", "axes": ["batch", "row", "id"]}},
}
TENSOR = {"name": "x", "axes": ["batch"]}


def changed(path: str, value: object) -> dict[str, object]:
    """Give the card with the value at a dotted path replaced."""
    card: dict[str, object] = copy.deepcopy(CARD)
    *parents, last = path.split(".")
    at = card
    for key in parents:
        at = at.setdefault(key, {})
    at[last] = value
    return card


def test_a_card_and_what_it_need_not_say():
    card = ModelCard.model_validate(CARD)
    assert (card.window.kind, card.window.multiple_of) == ("fixed", 1)
    assert (card.strand, card.shifts, card.pllr_max, card.logits_shift) == ("both", (0,), 64, 0)
    assert ModelCard.model_validate_json(card.model_dump_json()) == card


@pytest.mark.parametrize(
    ("path", "value", "where", "message"),
    [
        ("colour", "red", "colour", "Extra inputs are not permitted"),
        ("encoder.vocab.first", 1, "encoder.vocab.first", "Extra inputs"),
        ("window.size", 1, "window.size", "Extra inputs"),
        ("provenance.licence", "MIT", "provenance.licence", "Extra inputs"),
        ("format", 2, "format", "Input should be 1"),
        ("tag", "toy", "card", "tag 'toy' must be capitals"),
        ("tag", "1TOY", "card", "tag '1TOY'"),
        ("tag", "TOY_1", "card", "tag 'TOY_1'"),
        ("tag", "TOY\n", "card", "must be capitals"),
        ("objective", "splice", "objective", "'masked', 'causal', 'tracks' or 'contacts'"),
        ("context", 0, "context", "greater than or equal to 1"),
        ("anchor", -1, "anchor", "greater than or equal to 0"),
        ("anchor", 16, "card", "anchor 16 lies outside a window of 16 bases"),
        ("inputs", {"ids": TENSOR}, "card", "the role 'rows'"),
        ("inputs", {"rows": {"name": "x"}}, "inputs.rows.axes", "Field required"),
        ("inputs.rows.dtype", "float64", "inputs.rows.dtype", "float32"),
        ("outputs", {"hidden": TENSOR}, "outputs.hidden.[key]", "'logits', 'embedding'"),
        ("outputs", {}, "card", "masked model needs the output logits or embedding"),
        ("outputs", {"embedding": TENSOR}, "card", "needs the key embedding"),
        ("objective", "tracks", "card", "tracks model needs the output tracks"),
        ("objective", "contacts", "card", "contacts model needs the output contacts"),
        ("outputs.tracks", TENSOR, "card", "needs the key bin_size"),
        ("outputs.contacts", TENSOR, "card", "needs the key contacts"),
        ("embedding", {"dim": 0}, "embedding.dim", "greater than or equal to 1"),
        ("embedding", {"dim": 4, "pool": "mean"}, "embedding.pool", "'site', 'window' or 'all'"),
        ("window", {"kind": "dynamic"}, "card", "needs max_tokens"),
        ("window", {"max_tokens": 0}, "window.max_tokens", "greater than or equal to 1"),
        ("logits_shift", 2, "logits_shift", "Input should be 0 or 1"),
        ("strand", "reverse", "strand", "'both', 'forward', 'equivariant' or 'gene'"),
        ("shifts", [], "shifts", "at least 1 item"),
        ("bin_size", 0, "bin_size", "greater than or equal to 1"),
        ("crop", -1, "crop", "greater than or equal to 0"),
        ("contacts", {"bin_size": 0}, "contacts.bin_size", "greater than or equal to 1"),
        ("scope", {"contigs": [{"min_length": 3}]}, "scope.contigs.0.name", "Field required"),
        ("pllr_max", 0, "pllr_max", "greater than or equal to 1"),
        ("dense", -1, "dense", "greater than or equal to 0"),
        ("precision", "fp8", "precision", "'fp32'"),
        ("atol", 0, "atol", "greater than 0"),
        ("sha256", {"model.onnx": "abc"}, "sha256.model.onnx", "match pattern"),
        ("encoder.vocab.order", "ACG", "encoder.vocab", "order 'ACG'"),
        ("encoder.stride", 2, "encoder", "stride 2 is larger than k 1"),
    ],
)
def test_a_faulty_card_is_one_line_with_file_and_key(tmp_path, path, value, where, message):
    card = changed(path, value)
    with pytest.raises(ValidationError):
        ModelCard.model_validate(card)
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(BundleError) as caught:
        read_card(tmp_path)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'card.json'}: {where}: ")
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize("key", ["name", "tag", "objective", "context", "encoder", "outputs"])
def test_keys_without_a_default_are_required(tmp_path, key):
    card = {k: v for k, v in CARD.items() if k != key}
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(BundleError, match=rf"card\.json: {key}: Field required"):
        read_card(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]", b"", b"\xff\xfe"])
def test_a_card_that_is_no_json_object(tmp_path, content):
    (tmp_path / "card.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"card\.json: ") as caught:
        read_card(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_card(tmp_path):
    with pytest.raises(BundleError, match=r"not a model bundle: it holds no card\.json"):
        read_card(tmp_path)


def test_an_exon_model_has_inputs_of_its_own():
    card = {**CARD, "frame": "exon", "inputs": {"exon": TENSOR}, "objective": "tracks"}
    card = {**card, "outputs": {"tracks": TENSOR}, "bin_size": 1}
    assert ModelCard.model_validate(card).frame == "exon"


OTHER = {
    "objective": ("causal", True),
    "context": (18, True),
    "anchor": (7, True),
    "window": ({"kind": "dynamic", "max_tokens": 9}, True),
    "frame": ("gene", True),
    "circular": (["chrM"], True),
    "encoder.vocab.mask_id": (0, True),
    "inputs.rows.name": ("ids", True),
    "outputs.logits.name": ("scores", True),
    "logits_shift": (1, True),
    "embedding": ({"dim": 4}, True),
    "strand": ("forward", True),
    "shifts": ([0, 1], True),
    "bin_size": (32, True),
    "crop": (4, True),
    "contacts": ({"bin_size": 2}, True),
    "pllr_max": (8, True),
    "dense": (64, True),
    "precision": ("fp16", True),
    "name": ("other", False),
    "version": ("2.0", False),
    "tag": ("OTHER", False),
    "description": ("words", False),
    "family": ("gpn", False),
    "scope": ({"taxa": ["Homo sapiens"]}, False),
    "scores": (["LLR"], False),
    "atol": (0.1, False),
    "provenance.citation": ("words", False),
    "sha256": ({"README.md": "0" * 64}, False),
}


@pytest.mark.parametrize("path", sorted(OTHER))
def test_what_the_scoring_digest_covers(path):
    value, covered = OTHER[path]
    before = ModelCard.model_validate(CARD).scoring_digest()
    after = ModelCard.model_validate(changed(path, value)).scoring_digest()
    assert (before != after) is covered


def test_every_key_is_either_covered_or_not():
    """A new key of the card has to be put on one side by hand."""
    tested = {path.split(".")[0] for path in OTHER}
    assert tested | {"format"} == set(ModelCard.model_fields)
    assert {p.split(".")[0] for p, (_, covered) in OTHER.items() if covered} == set(SCORING_KEYS)


@pytest.mark.parametrize(
    ("contig", "length", "same", "inside"),
    [
        ("chrM", 16569, (), True),
        ("chrM", 15999, (), False),
        ("chrM", 16000, (), True),
        ("chrM", 17000, (), True),
        ("chrM", 17001, (), False),
        ("MT", 16569, ("chrM",), True),
        ("MT", 16569, (), False),
        ("chrX", 1, (), True),
        ("chr1", 16569, (), False),
    ],
)
def test_scope_by_name_and_length(contig, length, same, inside):
    bounds = {"name": "chrM", "min_length": 16000, "max_length": 17000}
    card = ModelCard.model_validate({**CARD, "scope": {"contigs": [bounds, {"name": "chrX"}]}})
    assert card.in_scope(contig, length, same) is inside


@pytest.mark.parametrize("scope", [None, {"taxa": ["Mammalia"]}])
def test_a_card_without_contigs_is_for_all(scope):
    assert ModelCard.model_validate({**CARD, "scope": scope}).in_scope("chr1", 5)


def test_the_schema_in_the_documentation_is_the_cards(repo_dir: Path):
    """After a change of the card, write it anew: docs/card.schema.json, indent 2, keys in order."""
    written = (repo_dir / "docs" / "card.schema.json").read_text(encoding="utf-8")
    assert json.loads(written) == ModelCard.model_json_schema()
