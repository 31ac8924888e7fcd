"""Whole runs of every language objective: losses by hand, held-out figures, resuming, export."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from train_kit import rows_of, write_genome, write_run

from glm_annotate.errors import InputError
from glm_annotate.genome import to_text
from glm_annotate.testing import check_bundle
from glm_annotate.train import accounting, checkpoints, logs
from glm_annotate.train.config import load_config
from glm_annotate.train.export import export
from glm_annotate.train.loop import BEST, LAST, Run, selection_score, train
from glm_annotate.train.objective import Measured
from glm_annotate.train.objectives import OBJECTIVES, make_objective

pytestmark = pytest.mark.usefixtures("one_thread")

HYENA = "dim = 8\nlayers = 1\nhidden = 8\nmax_rows = 64"
CHARACTERS = (
    'kind = "kmer"\nvocab = { first_id = 7, single_ids = { N = 11 }, pad_id = 4, unk_id = 6 }'
)
BERT = "vocabulary = 69\ndim = 8\nlayers = 1\nheads = 2\nhidden = 8\npositions = 40"
WORDS = (
    'kind = "kmer"\nk = 3\n'
    "vocab = { first_id = 5, pad_id = 0, unk_id = 1, prefix = [2], suffix = [3], mask_id = 4 }"
)
PAIRS = 'kind = "bpe"\nvocab = { unk_id = 0, prefix = [1], suffix = [2], pad_id = 3, mask_id = 4 }'
BERT2 = "vocabulary = 40\ndim = 8\nlayers = 1\nheads = 2\nhidden = 8"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_genome(tmp_path)
    return tmp_path


@pytest.fixture
def pairs(folder: Path) -> Path:
    """A folder with byte pairs of its genome."""
    from glm_annotate.train.bpe import train_bpe

    made = train_bpe([folder / "a.fa"], vocabulary=40, skip=frozenset({"held"}))
    (folder / "tokenizer.json").write_text(made.text)
    return folder


PARTS = {
    "single": {},
    "repeats": {"data": "repeat_weight = 0.1\nrepeat_sampling = 0.5"},
    "spans": {"mask": 'scheme = "span"\nspan = 2\nspan_max = 4'},
    "words": {
        "family": "dnabert", "model": BERT, "encoder": WORDS, "mask": 'scheme = "contiguous"',
    },
    "pairs": {
        "family": "dnabert2", "model": BERT2, "encoder": PAIRS, "data": "rows = 9",
        "top": 'tokenizer = "tokenizer.json"',
    },
    "causal": {
        "objective": "causal", "family": "hyenadna", "model": HYENA, "encoder": CHARACTERS,
    },
    "contrastive": {"objective": "contrastive", "data": 'exclude = ["kept"]'},
}  # fmt: skip


def write(folder: Path, name: str, **more: str) -> Path:
    """Write the config of a run; for contrast a second genome, equal to the first, and `also`."""
    if name != "contrastive":
        return write_run(folder, name, **{**PARTS[name], **more})
    extra = "".join(np.random.default_rng(9).choice(list("ACGT"), 90))
    for fasta in ("a.fa", "b.fa"):
        write_genome(folder, fasta)
        with open(folder / fasta, "a") as handle:
            handle.write(f">also\n{extra}\n")
        (folder / f"{fasta}.fai").unlink(missing_ok=True)
    group = '[[data.groups]]\nname = "b"\nfasta = "b.fa"\n'
    path = write_run(folder, name, **{**PARTS[name], **more}, group=group)
    path.write_text(path.read_text().replace('["held"]', '["held", "also"]'))
    return path


@pytest.mark.parametrize("name", PARTS)
def test_every_objective_trains_and_goes_on(pairs, name):
    """Two steps and two more are four, whatever is learned."""
    path = write(pairs, name)
    whole = checkpoints.load(train(path, data=str(pairs)))
    (pairs / name).rename(pairs / "whole")
    train(path, data=str(pairs), stop=2)
    halves = checkpoints.load(train(path, data=str(pairs), resume=True))
    for part in ("weights", "average"):
        torch.testing.assert_close(getattr(whole, part), getattr(halves, part), rtol=0, atol=0)
    assert whole.quality == halves.quality
    drop = ("seconds",)
    for log in ("log.csv", "valid.csv"):
        assert rows_of(pairs / name / log, *drop) == rows_of(pairs / "whole" / log, *drop)
    losses = [float(row["loss"]) for row in rows_of(pairs / name / "log.csv")]
    assert all(math.isfinite(x) for x in losses)
    assert whole.flops == halves.flops > 0


def test_every_name_has_an_objective():
    assert set(OBJECTIVES) == {
        *("masked", "causal", "contrastive", "tracks", "labels", "regression", "contacts"),
        "finetune",
    }


@pytest.mark.parametrize("name", ["single", "repeats", "words", "pairs", "causal"])
def test_the_sum_of_losses_by_hand(pairs, name):
    """Add up -log softmax row by row in float64, and the weights beside it."""
    config = load_config(write(pairs, name))
    torch.manual_seed(0)
    objective = make_objective(config, pairs, pairs)
    batch = objective.batch(3, 0.0)
    with torch.no_grad():
        logits = objective.network(batch["rows"]).double().numpy()
        total = float(objective.total(objective.network, batch))
    labels = batch["labels"].numpy()
    weights = batch["weights"].numpy() if "weights" in batch else np.ones(labels.shape)
    summed = weight = 0.0
    for window, place in np.argwhere(labels >= 0):
        row = logits[window, place]
        loss = np.log(np.exp(row - row.max()).sum()) + row.max() - row[labels[window, place]]
        summed += weights[window, place] * loss
        weight += weights[window, place]
    assert weight > 0
    assert total == pytest.approx(summed, rel=1e-5)
    assert float(objective.weight(batch)) == pytest.approx(weight, rel=1e-6)
    assert ("weights" in batch) == (name == "repeats")


def test_lower_case_weighs_a_tenth(folder):
    """Windows of the first 30 bases, which are lower-case, and of the others."""
    config = load_config(write(folder, "repeats"))
    objective = make_objective(config, folder, folder)
    batch = objective.batch(0, 0.0)
    texts = {}
    for name in ("x", "y", "kept"):
        part = (folder / "a.fa").read_text().split(f">{name}\n")[1].split("\n")[0]
        texts[name] = part
    windows = objective.corpus.windows(config.seed, 0, 5, 0.0)
    pairs_ = str.maketrans("ACGT", "TGCA")
    for codes, weights in zip(windows.codes, batch["weights"].numpy(), strict=True):
        text = to_text(codes)
        found = []
        for whole in texts.values():
            place = whole.upper().find(text)
            if place >= 0:
                found = [0.1 if c.islower() else 1 for c in whole[place : place + 24]]
            place = whole.upper().find(text[::-1].translate(pairs_))
            if place >= 0:
                found = [0.1 if c.islower() else 1 for c in whole[place : place + 24]][::-1]
        np.testing.assert_allclose(weights, found, rtol=1e-6)


def test_held_out_entropy_of_the_next_base_by_hand(folder):
    config = load_config(write(folder, "causal"))
    torch.manual_seed(0)
    objective = make_objective(config, folder, folder)
    with torch.no_grad():
        found = objective.validate(objective.network)["a"]
    text = (folder / "a.fa").read_text().split(">held\n")[1].split("\n")[0].upper()
    losses = []
    for start in range(0, 90 - 24 + 1, 16):
        ids = [7 + "ACGT".index(c) for c in text[start : start + 24]]
        with torch.no_grad():
            logits = objective.network(torch.tensor([ids]))[0].double().numpy()
        for row, following in zip(logits[:-1], ids[1:], strict=True):
            losses.append(np.log(np.exp(row[7:11]).sum()) - row[following])
    assert found.count == len(losses) == 5 * 23
    assert found.value == pytest.approx(np.mean(losses), rel=1e-5)


def test_contrastive_pairs_and_loss(folder):
    """Genomes a and b are equal here, and so the views of a pair; what is held out is not shown."""
    config = load_config(write(folder, "contrastive"))
    torch.manual_seed(0)
    objective = make_objective(config, folder, folder)
    assert sorted(objective.homologs.train) == ["x", "y"]
    assert sorted(objective.homologs.valid) == ["also", "held"]
    batch = objective.batch(0, 0.0)
    assert torch.equal(batch["rows"][:, 0], batch["rows"][:, 1])
    assert not (batch["labels"] >= 0).any()
    with torch.no_grad():
        total = float(objective.total(objective.network, batch))
        views = objective.network.embed(batch["rows"][:, 0]).double().mean(dim=1).numpy()
    unit = views / np.linalg.norm(views, axis=1, keepdims=True)
    scores = unit @ unit.T / 0.1
    sets, expected = batch["set"].numpy(), 0.0
    for i in range(5):
        others = [scores[i, j] for j in range(5) if sets[j] != sets[i]]
        expected += np.log(sum(np.exp(x - scores[i, i]) for x in [scores[i, i], *others]))
    assert total == pytest.approx(expected, rel=1e-4)
    assert float(objective.weight(batch)) == 5
    with torch.no_grad():
        found = objective.validate(objective.network)
    assert found["retrieval"] == Measured(1.0, 2, "higher")  # equal views are nearest


def test_masked_loss_beside_contrast(folder):
    path = write(folder, "contrastive")
    plain = load_config(path)
    text = path.read_text().replace("[mask]", "[contrastive]\nmasked_weight = 0.5\n[mask]")
    path.write_text(text)
    both = load_config(path)
    totals = []
    for config in (plain, both):
        torch.manual_seed(0)
        objective = make_objective(config, folder, folder)
        batch = make_objective(both, folder, folder).batch(1, 0.0)
        with torch.no_grad():
            totals.append(float(objective.total(objective.network, batch)))
            _, logits = objective.network(batch["rows"].flatten(0, 1))
    labels = batch["labels"].flatten(0, 1).numpy()
    expected = 0.0
    for window, row in zip(logits.double().numpy(), labels, strict=True):
        asked = np.flatnonzero(row >= 0)
        losses = [np.log(np.exp(window[i]).sum()) - window[i, row[i]] for i in asked]
        expected += np.mean(losses) if losses else 0.0
    # The mean of both views of each pair, at half weight.
    assert totals[1] - totals[0] == pytest.approx(0.5 * expected / 2, rel=1e-4)
    with torch.no_grad():
        assert set(objective.validate(objective.network)) == {"contrastive", "retrieval", "masked"}


def test_listed_homologs(folder):
    """Members on both strands, cut at the same share of their lengths."""
    homolog = "ACGGTTACCAGTTTGACCATGCAGTACCGATT"  # 32 bases
    pairs_ = str.maketrans("ACGT", "TGCA")
    (folder / "p.fa").write_text(f">c\n{'T' * 10}{homolog}\n>d\n{'G' * 40}\n>e\n{'C' * 50}\n")
    (folder / "q.fa").write_text(f">k\n{homolog[::-1].translate(pairs_)}{'A' * 9}\n>m\nACGTAC\n")
    rows = ["set\tfasta\tcontig\tstart\tend\tstrand"]
    rows += ["1\tp.fa\tc\t10\t42\t+", "1\tq.fa\tk\t0\t32\t-"]
    rows += ["2\tp.fa\td\t0\t30\t+", "2\tp.fa\td\t5\t40\t+"]
    for number in (3, 4):
        rows += [f"{number}\tp.fa\te\t0\t40\t+", f"{number}\tp.fa\tc\t0\t9\t+"]
    (folder / "h.tsv").write_text("\n".join(rows) + "\n")
    groups = '[[data.groups]]\nname = "q"\nfasta = "q.fa"\n'
    path = write_run(folder, "listed", objective="contrastive", group=groups)
    text = path.read_text().replace('"a.fa"', '"p.fa"').replace('["held"]', '["e"]')
    path.write_text(text.replace("[mask]", '[contrastive]\npairs = "h.tsv"\n[mask]'))
    objective = make_objective(load_config(path), folder, folder)
    homologs = objective.homologs
    assert (sorted(homologs.train), sorted(homologs.valid)) == (["1", "2"], ["3", "4"])
    allowed = {homolog[i : i + 24] for i in range(9)}
    allowed |= {x[::-1].translate(pairs_) for x in allowed}
    seen = set()
    for step in range(40):
        found = homologs.pairs(step)
        for one, other, number in zip(found.one, found.other, found.sets, strict=True):
            if number == 0:
                assert to_text(one) == to_text(other)
                seen.add(to_text(one))
    assert seen == allowed
    (folder / "h.tsv").write_text("\n".join(rows).replace("\t42\t", "\t43\t"))
    with pytest.raises(InputError, match=r"h\.tsv: line 2: c:10-43 on strand \+ is no place of"):
        make_objective(load_config(path), folder, folder)


def test_a_held_out_species_is_measured_against_the_others(folder):
    path = write(folder, "contrastive")
    path.write_text(
        path.read_text().replace('fasta = "b.fa"', 'fasta = "b.fa"\nheld_out = true\n'
        '[[data.groups]]\nname = "c"\nfasta = "a.fa"')
    )  # fmt: skip
    objective = make_objective(load_config(path), folder, folder)
    members = [m for x in objective.homologs.train.values() for m in x]
    assert {Path(m.genome).name for m in members} == {"a.fa"}
    assert set(objective.homologs.valid) == {"x", "y", "held", "also"}


def test_byte_pairs_need_to_know_their_rows(pairs):
    path = write(pairs, "pairs", data="")
    with pytest.raises(InputError, match=r"data\.rows: byte pairs give windows different numbers"):
        make_objective(load_config(path), pairs, pairs)


@pytest.mark.parametrize("name", ["pairs", "causal"])
def test_what_was_trained_is_exported(pairs, name):
    """The tokenizer travels in the checkpoint; ONNX Runtime agrees with torch."""
    checkpoint = train(write(pairs, name), data=str(pairs))
    (pairs / "tokenizer.json").unlink()
    report = export(checkpoint, pairs / "bundle", card={"tag": "TINY"})
    check_bundle(pairs / "bundle")
    card = report.card
    assert card.objective == ("causal" if name == "causal" else "masked")
    assert card.logits_shift == int(name == "causal")
    if name == "pairs":
        assert (card.window.kind, card.window.max_tokens) == ("dynamic", 9)
        assert card.scores == ("PLLR", "EMB_COS")
    state = checkpoints.load(checkpoint)
    rows = 4 * 5 * (9 if name == "pairs" else 24)
    assert state.compute["rows"] == rows
    parameters = state.compute["parameters"]
    expected = 6 * parameters * rows / 8.64e19
    assert card.provenance.compute_pfs_days == pytest.approx(expected, rel=1e-3)


# --- the run ------------------------------------------------------------------------------------


def test_a_run_without_progress_ends_early(folder):
    """With a rate of nearly 0 nothing gets better after the first validation."""
    path = write_run(folder, run="patience = 2", optim="ema = 0.0")
    text = path.read_text().replace("lr = 0.01", "lr = 1e-30").replace("steps = 4", "steps = 20")
    path.write_text(text.replace("valid_every = 2", "valid_every = 1"))
    state = checkpoints.load(train(path, data=str(folder)))
    assert (state.step, state.stale) == (3, 2)
    assert checkpoints.load(folder / "run" / BEST).step == 1
    train(path, data=str(folder), resume=True)
    assert checkpoints.load(folder / "run" / LAST).step == 3


def test_what_picks_the_best():
    found = {
        "loss": Measured(0.5, 9), "r": Measured(0.7, 9, "higher"), "other": Measured(0.1, 9),
    }  # fmt: skip
    assert selection_score(found, ()) == pytest.approx(0.3)
    assert selection_score(found, ("r",)) == -0.7
    assert selection_score(found, ("r", "loss")) == pytest.approx(-0.1)
    assert selection_score({"r": found["r"]}, ()) == -0.7
    assert selection_score({}, ()) == math.inf
    with pytest.raises(InputError, match=r"run\.select: no figure 'x'; there are: loss, r, other"):
        selection_score(found, ("x",))


def test_compute_by_hand(folder):
    path = write_run(folder, run="price = 2.5\npeak_tflops = 0.5")
    state = checkpoints.load(train(path, data=str(folder)))
    written = json.loads((folder / "run" / "compute.json").read_text())
    config = state.settings()
    parameters = sum(x.numel() for x in state.weights.values())
    rows = 4 * 5 * 24
    assert written["rows"] == rows
    assert written["pfs_days_6nd"] == pytest.approx(6 * parameters * rows / 8.64e19, rel=1e-5)
    assert written["cost"] == pytest.approx(2.5 * state.seconds / 3600, rel=1e-5)
    used = written["flops_counted"] / (state.seconds * 0.5e12)
    assert written["utilisation"] == pytest.approx(used, rel=1e-5)
    assert set(state.code) >= {"version"}
    assert config.run.price == 2.5


def test_operations_are_counted():
    """A layer of 3 x 4 on 5 rows: 2 x 60 forward and for the weights; the input needs none."""

    class Layer:
        network = torch.nn.Linear(3, 4)

        def total(self, model, batch):
            return model(batch["x"]).sum()

    batch = {"x": torch.ones(6, 5, 3)}
    found = accounting.count_flops(Layer(), batch, torch.device("cpu"))
    assert found == 6 * 2 * (2 * 5 * 3 * 4)
    assert Layer.network.weight.grad is None


def test_data_that_changed_are_told(folder):
    path = write_run(folder)
    train(path, data=str(folder), stop=1)
    state = checkpoints.load(folder / "run" / LAST)
    assert list(state.data) == ["a.fa"]
    write_genome(folder, seed=1)
    with pytest.raises(InputError, match=r"run: a\.fa has changed since the run was started"):
        train(path, data=str(folder), resume=True)


def test_logs_of_the_first_version_go_on(tmp_path):
    (tmp_path / "log.csv").write_text(
        "step,bases,loss,lr,mask_rate,seconds\n1,9,0.5,0.1,0.3,2.0\n2,18,0.4,0.1,0.3,3.0\n3,2"
    )
    (tmp_path / "valid.csv").write_text("step,bases,group,cross_entropy,positions\n1,9,a,1.2,7\n")
    made = logs.Logs(tmp_path, step=1, steps=9, bases=9, tensorboard=False)
    made.train(2, loss=0.25, lr=0.1, gradient=2.0, seconds=3.0)
    made.close()
    assert (tmp_path / "log.csv").read_text().splitlines() == [
        "step,bases,loss,lr,gradient,seconds", "1,9,0.5,0.1,,2.0", "2,18,0.250000,0.1,2,3.0",
    ]  # fmt: skip
    assert (tmp_path / "valid.csv").read_text() == "step,bases,figure,value,count\n1,9,a,1.2,7\n"


def test_a_bar_on_a_terminal_alone(tmp_path, monkeypatch):
    def shown() -> str:
        text = io.StringIO()
        monkeypatch.setattr(text, "isatty", lambda: terminal, raising=False)
        monkeypatch.setattr(sys, "stderr", text)
        made = logs.Logs(tmp_path, step=2, steps=10, bases=500, tensorboard=False)
        for _ in range(3):
            made.step(1.25)
        made.close()
        return text.getvalue()

    terminal = False
    assert shown() == ""
    terminal = True
    # 5 of 10 steps of 500 bases, of which 2 were done before.
    last = shown().split("\r")[-1]
    assert "50%" in last
    assert "2.50k/5.00k" in last
    assert "bases/s, loss=1.2500" in last


def test_what_layers_draw_depends_on_seed_and_step(folder):
    path = write_run(folder)
    run = Run(load_config(path), folder, folder, folder / "run")
    numbers = []
    for step in (0, 1, 0):
        run.step = step
        run._seed()
        numbers.append(float(torch.rand(1)))
    assert numbers[0] == numbers[2] != numbers[1]


def test_tensorboard_gets_what_the_csv_gets(folder):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(write_run(folder, run="tensorboard = true"), data=str(folder))
    events = EventAccumulator(str(folder / "run" / "tensorboard"))
    events.Reload()
    found = [event.value for event in events.Scalars("train/loss")]
    expected = [float(row["loss"]) for row in rows_of(folder / "run" / "log.csv")]
    assert found == pytest.approx(expected, abs=1e-5)
    assert [event.step for event in events.Scalars("valid/a")] == [2, 4]
