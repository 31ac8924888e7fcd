"""Runs: interrupted or killed ones end like undisturbed ones, and checkpoints are whole."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from glm_annotate.encoding import EncoderSpec, make_encoder
from glm_annotate.errors import InputError
from glm_annotate.genome import to_codes
from glm_annotate.train import checkpoints
from glm_annotate.train.config import load_config
from glm_annotate.train.data import Windows
from glm_annotate.train.families import FAMILIES
from glm_annotate.train.language import make_reader, masked_entropy
from glm_annotate.train.loop import BEST, LAST, train
from glm_annotate.train.optim import Average
from glm_annotate.train.tokens import encode_block, read_tokens
from glm_annotate.train.trainable import find_family

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = """
name = "tiny"
family = "gpn"
seed = 4
[model]
vocabulary = 7
dim = 8
kernel = 3
hidden = 8
dilations = [1, 2]
[encoder]
kind = "kmer"
[encoder.vocab]
first_id = 3
single_ids = {{ N = 2 }}
pad_id = 0
mask_id = 1
[data]
context = 24
circular = true
validation = "held.txt"
valid_stride = 16
[[data.groups]]
name = "a"
fasta = "a.fa"
weight = {{ start = 1.0, end = 1.0 }}
[mask]
rate = {{ start = 0.3, end = 0.2 }}
[optim]
name = "{optimizer}"
lr = 0.01
batch = 4
steps = 6
warmup_steps = 1
anneal_steps = 3
[run]
out = "{out}"
threads = 1
log_every = 1
valid_every = 2
save_every = 1
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    text = "".join(f">{n}\n{''.join(rng.choice(list('ACGT'), 90))}\n" for n in ("x", "y", "held"))
    (tmp_path / "a.fa").write_text(text)
    (tmp_path / "held.txt").write_text("held\n")
    return tmp_path


def write_config(folder: Path, out: str, optimizer: str = "muon") -> Path:
    path = folder / f"{out}.toml"
    path.write_text(CONFIG.format(out=out, optimizer=optimizer))
    return path


def rows_of(path: Path, *drop: str) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return [{k: v for k, v in row.items() if k not in drop} for row in csv.DictReader(handle)]


def assert_same_run(one: Path, other: Path) -> None:
    """Same losses, validations, weights, averages, optimizer states and best checkpoint."""
    assert rows_of(one / "log.csv", "seconds") == rows_of(other / "log.csv", "seconds")
    assert rows_of(one / "valid.csv") == rows_of(other / "valid.csv")
    for name in (LAST, BEST):
        a, b = checkpoints.load(one / name), checkpoints.load(other / name)
        assert (a.step, a.best, a.quality) == (b.step, b.best, b.quality)
        for part in ("weights", "average"):
            left, right = getattr(a, part), getattr(b, part)
            assert left.keys() == right.keys()
            assert all(torch.equal(left[key], right[key]) for key in left)
        for left, right in zip(a.optimizers, b.optimizers, strict=True):
            assert left["param_groups"] == right["param_groups"]
            torch.testing.assert_close(left["state"], right["state"], rtol=0, atol=0)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_three_steps_and_three_more_are_six(folder, optimizer):
    whole = train(write_config(folder, "whole", optimizer), data=str(folder))
    halves = write_config(folder, "halves", optimizer)
    train(halves, data=str(folder), stop=3)
    assert checkpoints.load(folder / "halves" / LAST).step == 3
    train(halves, data=str(folder), resume=True)
    assert whole == folder / "whole" / LAST
    assert [row["step"] for row in rows_of(folder / "whole" / "log.csv")] == list("123456")
    assert_same_run(folder / "whole", folder / "halves")


# Trains, and kills itself in the middle of writing the checkpoint of step 4.
KILLED = """
import os, signal, sys, torch
from glm_annotate.train.loop import train
save = torch.save
def die(state, handle):
    if state["step"] == 4:
        handle.write(b"half a checkpoint")
        handle.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    save(state, handle)
torch.save = die
train(sys.argv[1], data=sys.argv[2])
"""


def test_a_killed_run_goes_on(folder):
    train(write_config(folder, "whole"), data=str(folder))
    path = write_config(folder, "killed")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    out = folder / "killed"
    # Step 4 is validated first, so it may be its best.ckpt that was being written.
    assert checkpoints.load(out / LAST).step == 3
    # Step 4 was logged already; the resumed run writes its row again.
    assert rows_of(out / "log.csv")[-1]["step"] == "4"
    train(path, data=str(folder), resume=True)
    assert_same_run(folder / "whole", out)


def test_weights_move_and_averages_lag(folder):
    state = checkpoints.load(train(write_config(folder, "run"), data=str(folder)))
    config = state.settings()
    torch.manual_seed(config.seed)
    fresh = FAMILIES["gpn"].build(config.model).state_dict()
    assert all(not torch.equal(fresh[key], value) for key, value in state.weights.items())
    assert any(not torch.equal(state.average[key], value) for key, value in state.weights.items())
    assert state.groups == {"a": ["x", "y"]}
    assert state.valid == {"a": ["held"]}


def test_a_run_is_not_overwritten_nor_continued_as_another(folder):
    path = write_config(folder, "run")
    train(path, data=str(folder), stop=1)
    with pytest.raises(InputError, match=r"run: holds a run already; continue it with --resume"):
        train(path, data=str(folder))
    path.write_text(path.read_text().replace("hidden = 8", "hidden = 16"))
    with pytest.raises(InputError, match=r"started with another 'model' than the config has now"):
        train(path, data=str(folder), resume=True)


def test_a_run_can_start_from_another(folder):
    first = train(write_config(folder, "first"), data=str(folder))
    path = write_config(folder, "second")
    text = path.read_text().replace("seed = 4", f'seed = 4\ninit = "first/{LAST}"')
    path.write_text(text.replace("lr = 0.01", "lr = 1e-12").replace('"muon"', '"adamw"'))
    second = checkpoints.load(train(path, data=str(folder), stop=1))
    average = checkpoints.load(first).average
    for key, value in second.weights.items():
        torch.testing.assert_close(value, average[key], rtol=0, atol=1e-9)


def test_validation_by_hand(folder):
    """Mean of -log softmax over A, C, G, T at the masked places, from the network's own logits."""
    config = load_config(write_config(folder, "run"))
    torch.manual_seed(0)
    reader = make_reader(config, folder)
    network = reader.network
    seen: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    windows = to_codes("ACGTTGCAACGTNGCAACGTTGCAACGTTGCA").reshape(4, 8)
    with torch.no_grad():
        found = masked_entropy(network, reader, Windows(windows))
    rows, masked = reader.rows(Windows(windows)).rows, seen[0].numpy()
    places = np.argwhere(masked != rows)
    assert found.count == len(places) > 0
    assert (masked[masked != rows] == 1).all()
    with torch.no_grad():
        logits = network(torch.from_numpy(masked)).double().numpy()
    losses = []
    for window, place in places:
        bases = logits[window, place, 3:7]
        losses.append(np.log(np.exp(bases).sum()) - bases[rows[window, place] - 3])
    assert found.value == pytest.approx(np.mean(losses), rel=1e-6)


def test_a_loss_that_is_not_finite_ends_the_run(folder):
    path = write_config(folder, "run", "adamw")
    path.write_text(path.read_text().replace("lr = 0.01", "lr = 1e30"))
    with pytest.raises(InputError, match=r"the loss is (nan|inf) at step \d; lower optim\.lr"):
        train(path, data=str(folder))


def test_an_unknown_family():
    with pytest.raises(InputError, match=r"family 'gpm' is unknown; known are .*gpn"):
        find_family("gpm")


HYENA = "dim = 8\nlayers = 1\nhidden = 8\nmax_rows = 64"
MSA = "species = 2\ndim = 16\nlayers = 1\nheads = 2\nhidden = 8"
BERT = "vocabulary = 7\ndim = 8\nlayers = 1\nheads = 2\nhidden = 8\npositions = 16"
GPN = "vocabulary = 6\ndim = 8\nkernel = 3\nhidden = 8\ndilations = [1, 2]"


@pytest.mark.parametrize(
    ("family", "model", "message"),
    [
        (
            "hyenadna",
            HYENA,
            "'hyenadna' is causal and would be .* as masked; set objective",
        ),
        ("gpn_msa", MSA, "family 'gpn_msa' reads an alignment and cannot be trained"),
        (
            "basset",
            "tracks = 3",
            "'basset' is tracks and cannot be trained with .* = masked",
        ),
        ("dnabert", BERT, r"data\.context: found 24, which is 24 rows; .* at most 16"),
        ("gpn", GPN, r"model\.vocabulary: found 6, wanted more than 6, the largest id"),
    ],
)
def test_what_cannot_be_trained_says_why(folder, family, model, message):
    """Masked training of a causal network would go on without a word, and be wrong."""
    path = write_config(folder, "run")
    text = path.read_text().replace('family = "gpn"', f'family = "{family}"')
    old = text[text.index("[model]") : text.index("[encoder]")]
    path.write_text(text.replace(old, f"[model]\n{model}\n"))
    with pytest.raises(InputError, match=message):
        train(path, data=str(folder))
    assert not list((folder / "run").glob("*"))


def test_one_hot_rows_are_refused():
    spec = EncoderSpec.model_validate({"kind": "one_hot", "vocab": {"n": "zeros", "mask_id": 5}})
    with pytest.raises(InputError, match=r"found encoder\.kind = one_hot, wanted kmer, bpe or"):
        read_tokens(spec, make_encoder(spec))


def test_averages_leave_integers_alone():
    network = torch.nn.Linear(2, 2)
    network.register_buffer("layout", torch.ones(3, dtype=torch.int64))
    average = Average(network, 0.5)
    average.update(0)
    assert average.weights["layout"].tolist() == [1, 1, 1]


def test_windows_of_unequal_rows_are_refused():
    vocab = {"unk_id": 70, "single_ids": dict(zip("ACGTN", range(64, 69), strict=True))}
    spec = EncoderSpec.model_validate({"kind": "kmer", "k": 3, "stride": 3, "vocab": vocab})
    with pytest.raises(InputError, match="have 2 to 4 rows, and a batch needs equal"):
        encode_block(make_encoder(spec), to_codes("ACGACGACNACG").reshape(2, 6))


class Evil:
    """Runs code when unpickled."""

    def __reduce__(self):
        return os.mkdir, ("evil",)


def test_checkpoints_run_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"config": Evil()}, tmp_path / "e.ckpt")
    with pytest.raises(InputError, match=r"e\.ckpt: not a checkpoint of glm-annotate train: "):
        checkpoints.load(tmp_path / "e.ckpt")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_files_that_are_no_checkpoints(tmp_path, content):
    path = tmp_path / "c.ckpt"
    if content is None:
        torch.save({"weights": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"c\.ckpt: not a checkpoint") as caught:
        checkpoints.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_checkpoint(tmp_path):
    with pytest.raises(InputError, match=r"c\.ckpt: no such checkpoint; make one with: glm-annot"):
        checkpoints.load(tmp_path / "c.ckpt")


def test_a_failed_save_leaves_the_old_checkpoint(folder, monkeypatch):
    path = train(write_config(folder, "run"), data=str(folder), stop=1)
    before = path.read_bytes()

    def full(state, handle):
        handle.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(path, checkpoints.load(path))
    assert path.read_bytes() == before
