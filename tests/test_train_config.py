"""Training configs: what is refused, and in which words."""

from __future__ import annotations

import tomllib

import pytest

from glm_annotate.errors import InputError
from glm_annotate.train.config import (
    DATA_VARIABLE,
    MaskConfig,
    OptimConfig,
    Ramp,
    data_folder,
    load_config,
    read_names,
)

GOOD = """
name = "tiny"
family = "gpn"
[model]
dim = 8
[encoder]
kind = "kmer"
[encoder.vocab]
first_id = 3
mask_id = 1
unk_id = 2
[data]
context = 16
root = "here"
[[data.groups]]
name = "a"
fasta = "a.fa"
weight = { start = 1.0, end = 2.0 }
[optim]
steps = 10
warmup_steps = 2
[run]
out = "run"
"""


def write(path, text):
    path.write_text(text)
    return path


def test_a_good_config_is_read(tmp_path):
    config = load_config(write(tmp_path / "c.toml", GOOD))
    assert config.data.groups[0].weight == Ramp(start=1.0, end=2.0)
    assert (config.optim.name, config.mask, config.seed) == ("adamw", MaskConfig(), 0)


def test_the_shipped_recipe_is_read(repo_dir):
    recipe = repo_dir / "recipes" / "mito"
    config = load_config(recipe / "config.toml")
    lists = [g.accessions for g in config.data.groups if g.accessions]
    for name in (*lists, config.data.validation, config.data.exclude):
        assert read_names(recipe / name)
    card = tomllib.loads((recipe / "card.toml").read_text())
    assert card["name"] == config.name


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[optim]", "[optim]\nstep = 3", r"unknown key 'optim\.step'; known here: accumulate"),
        ("[run]", "[run]\noutput = 1", r"unknown key 'run\.output'; known here: accelerator"),
        ('name = "tiny"', 'nam = "tiny"', "unknown key 'nam'; known here: contrastive, data"),
        ("weight = {", "wait = {", r"'data\.groups\.0\.wait'; known here: accessions, fasta"),
        ('name = "tiny"', "", "name: Field required"),
        ("[encoder.vocab]", "[encoder.vocab]\norders = 1", r"vocab\.orders'; known here: first_id"),
        ("[encoder.vocab]", '[encoder.vocab]\norder = "ACGG"', "encoder.vocab: .*'ACGG' is not"),
        ("context = 16", 'context = "long"', r"data\.context: .*valid integer"),
        ("context = 16", "context = 0", r"data\.context: .*greater than 0"),
        ("start = 1.0", "start = -1.0", r"data\.groups\.0\.weight\.start: .*greater than or equal"),
        ("steps = 10", "steps = 1", "optim: .*warmup_steps .* is above steps"),
        ("[run]", "[mask]\nkeep = 0.6\nrandom = 0.6\n[run]", "mask: .*keep . random is above 1"),
        ("[run]", "[run", "not TOML"),
        ("steps = 10", 'steps = 10\nschedule = "cosine"\nanneal_steps = 3', "remove anneal_steps"),
        ("steps = 10", "steps = 10\nbatch = 2\naccumulate = 3", "accumulate is above batch"),
        ("[[data.groups]]", "[[data.groop]]", r"unknown key 'data\.groop'"),
        ('fasta = "a.fa"', 'fasta = "a.fa"\nrandom = 0.5', "random is for groups with regions or"),
        ('name = "tiny"', 'name = "tiny"\nobjective = "tracks"', r"supervised\.tracks: the obj"),
        ('name = "tiny"', 'name = "tiny"\nobjective = "finetune"', "finetune: the objective of"),
        ('name = "tiny"', 'name = "tiny"\ntokenizer = "t.json"', "tokenizer: a bpe encoder needs"),
    ],
)  # fmt: skip
def test_a_bad_config_is_one_line(tmp_path, old, new, message):
    assert old in GOOD
    path = write(tmp_path / "c.toml", GOOD.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_language_model_needs_a_group(tmp_path):
    start, end = GOOD.index("[[data.groups]]"), GOOD.index("[optim]")
    path = write(tmp_path / "c.toml", GOOD[:start] + GOOD[end:])
    with pytest.raises(InputError, match=r"data\.groups: objective masked needs at least one"):
        load_config(path)


def test_an_unknown_key_inside_a_list_names_the_keys_there(tmp_path):
    text = GOOD.replace('fasta = "a.fa"', 'fasta = "a.fa"\nfasat = "a.fa"')
    with pytest.raises(InputError, match="accessions, fasta, genes, held_out, name, random, "):
        load_config(write(tmp_path / "c.toml", text))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml: cannot read the training config"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(InputError, match=r"none\.txt: cannot read the list of accessions"):
        read_names(tmp_path / "none.txt")


def test_lists_take_comments_and_blank_lines(tmp_path):
    path = write(tmp_path / "l.txt", "# a list\nNC_1.1  # one\n\n  NC_2.1\n")
    assert read_names(path) == ("NC_1.1", "NC_2.1")


def test_the_data_folder_is_argument_then_variable_then_config(tmp_path, monkeypatch):
    path = write(tmp_path / "c.toml", GOOD)
    config = load_config(path)
    for name in ("here", "variable", "argument"):
        (tmp_path / name).mkdir()
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    assert data_folder(path, config) == tmp_path / "here"
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "variable"))
    assert data_folder(path, config) == tmp_path / "variable"
    assert data_folder(path, config, str(tmp_path / "argument")) == tmp_path / "argument"
    with pytest.raises(InputError, match=f"none: no such data folder; .*{DATA_VARIABLE}"):
        data_folder(path, config, str(tmp_path / "none"))


def test_a_ramp_is_linear():
    ramp = Ramp(start=0.3, end=0.1)
    assert [ramp.at(x) for x in (0.0, 0.25, 1.0)] == pytest.approx([0.3, 0.25, 0.1])


def test_every_step_may_be_warm_up_or_anneal():
    assert OptimConfig(steps=5, warmup_steps=2, anneal_steps=3).steps == 5
