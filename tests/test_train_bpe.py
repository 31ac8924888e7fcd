"""Byte pairs: merges by hand, what is read and what is not, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from train_kit import write_genome, write_run

from glm_annotate.cli_training import tokenizer_command
from glm_annotate.encoding import EncoderSpec, make_encoder
from glm_annotate.errors import UsageError
from glm_annotate.genome import to_codes
from glm_annotate.train.bpe import ENCODER, SPECIAL, chunks, sources_of, train_bpe
from glm_annotate.train.tokens import read_tokens


def write(path: Path, sequences: dict[str, str]) -> Path:
    path.write_text("".join(f">{name}\n{text}\n" for name, text in sequences.items()))
    return path


def test_the_most_frequent_pair_merges_first(tmp_path):
    """GA stands there 21 times, AT 20, TG 19; then GA + T 20 times, T + GA 19; then GAT + GAT.

    Their ids are 9, 10 and 11, after five special tokens and four bases.
    """
    path = write(tmp_path / "a.fa", {"x": "GAT" * 20, "y": "GAC"})
    made = train_bpe([path], vocabulary=12)
    words = json.loads(made.text)["model"]["vocab"]
    assert [words[x] for x in (*SPECIAL, *"ACGT")] == list(range(9))
    assert {word for word, i in words.items() if i >= 9} == {"GA", "GAT", "GATGAT"}
    assert (words["GA"], made.size, made.bases) == (9, 12, 63)
    assert made.mean == pytest.approx(63 / 12)  # ten GATGAT, a GA and a C


def test_no_token_is_longer_than_asked(tmp_path):
    path = write(tmp_path / "a.fa", {"x": "ACGT" * 200})
    words = json.loads(train_bpe([path], vocabulary=60, longest=5).text)["model"]["vocab"]
    assert max(len(word) for word in words if not word.startswith("[")) <= 5


def test_chunks_are_stretches_of_known_bases(tmp_path):
    one = write(tmp_path / "a.fa", {"x": "acgtacgtNNacgRac", "y": "NNN", "skip": "ACGT"})
    two = write(tmp_path / "b.fa", {"z": "TTTTT"})
    found = list(chunks([one, two], 3, 1000, 0, frozenset({"skip"})))
    assert found == ["ACG", "TAC", "GT", "ACG", "AC", "TTT", "TT"]
    part = list(chunks([one, two], 3, 7, 1))
    assert sum(map(len, part)) <= 7
    assert set(part) <= {*found, "ACG", "T"}
    assert part == list(chunks([one, two], 3, 7, 1))


def test_the_tokenizer_is_one_of_the_encoders(tmp_path):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "a.fa", {"x": "".join(rng.choice(list("ACGT"), 3000))})
    (tmp_path / "t.json").write_text(train_bpe([path], vocabulary=50).text)
    spec = EncoderSpec.model_validate({"kind": "bpe", "vocab": ENCODER})
    encoder = make_encoder(spec, tmp_path / "t.json")
    (found,) = encoder.encode(to_codes("ACGTNNACGTAC")[None])
    words = {
        i: w for w, i in json.loads((tmp_path / "t.json").read_text())["model"]["vocab"].items()
    }
    texts = [words[i] for i in found.rows[0].tolist()]
    assert (texts[0], texts[-1], texts.count("[UNK]")) == ("[CLS]", "[SEP]", 2)
    assert "".join(x for x in texts if not x.startswith("[")) == "ACGTACGTAC"
    tokens = read_tokens(spec, encoder, tmp_path / "t.json")
    assert {words[i] for i in tokens.ids.tolist()} == {w for w in words.values() if w[0] != "["}
    kept = found.rows[0][np.isin(found.rows[0], tokens.ids)]
    assert tokens.count(kept.astype(np.int64)) == 10


def test_a_config_names_files_and_what_is_held_out(tmp_path):
    write_genome(tmp_path)
    path = write_run(tmp_path, data='exclude = ["kept"]')
    assert sources_of(path, tmp_path) == ([tmp_path / "a.fa"], {"held", "kept"})


def test_the_command(tmp_path):
    write_genome(tmp_path)
    config, out = write_run(tmp_path, data='root = "."'), tmp_path / "t.json"
    arguments = [str(config), "-o", str(out), "--vocabulary", "30"]
    done = CliRunner().invoke(tokenizer_command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    held = frozenset({"held"})
    assert out.read_text() == train_bpe([tmp_path / "a.fa"], vocabulary=30, skip=held).text
    again = CliRunner().invoke(tokenizer_command, [str(tmp_path / "a.fa"), "-o", str(out)])
    assert "--force replaces it" in str(again.exception)


def test_a_vocabulary_without_room(tmp_path):
    with pytest.raises(UsageError, match="--vocabulary 9: wanted more than 9"):
        train_bpe([tmp_path / "a.fa"], vocabulary=9)
