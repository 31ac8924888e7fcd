"""SATORI against the authors' class, and both forms against the network written anew.

The authors' class is read from the checkout `satori` in the folder that the environment variable
GLM_ANNOTATE_REFERENCES names; that test is skipped without. Their code computes with the batch what
it means for the window, so that it is asked for one window at a time.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from classics_kit import ids, one_hot, onnx_worst, run_satori, worst
from parity_kit import ONNX_LIMIT, PUBLIC_LIMIT, shaken

from glm_annotate.train import graph
from glm_annotate.train.families import satori
from glm_annotate.train.sources import open_source

pytestmark = pytest.mark.parity
# As published in modelsparam/CNN-RNN-MH-noEmbds_hyperParams.txt.
PARAMS = {
    "input_channels": 4, "use_embeddings": False, "embd_window": 5, "embd_size": 50,
    "embd_kmersize": 3, "num_multiheads": 8, "singlehead_size": 32, "multihead_size": 100,
    "use_pooling": False, "pooling_val": 6, "readout_strategy": "normalize", "use_RNN": True,
    "use_CNN": True, "CNN1_useexponential": False, "use_posEnc": False, "CNN_filters": 200,
    "CNN_filtersize": 13, "use_CNNpool": True, "CNN_poolsize": 6, "CNN_padding": 6,
    "RNN_hiddensize": 100,
}  # fmt: skip
CLASSES = 164
LENGTH = 600
BATCHES = [ids((count, LENGTH), count) for count in (1, 2, 5)]


def awake(model):
    """Random weights with which no feature is all zero: such a one cannot be normalised."""
    shaken(model)
    with torch.no_grad():
        model.MultiHeadLinear.bias += 0.5
    return model.eval()


def checkpoint_of(model, folder):
    """A file as the authors' training code saves it, under a name that says what it is."""
    optimizer = torch.optim.Adam(model.parameters())
    saved = {
        "epoch": 3,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "loss": 0.25,
    }
    torch.save(saved, folder / "model.pt")
    return open_source(folder / "model.pt")


def theirs(**changes):
    folder = Path(os.environ.get("GLM_ANNOTATE_REFERENCES", "nowhere")) / "satori" / "satori"
    if not folder.is_dir():
        pytest.skip("GLM_ANNOTATE_REFERENCES names no folder with a checkout satori")
    spec = importlib.util.spec_from_file_location("satori_models", folder / "models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = SimpleNamespace(numLabels=CLASSES)
    return awake(module.AttentionNet(arguments, {**PARAMS, **changes}, device="cpu"))


@torch.no_grad()
def one_by_one(model, rows):
    """Probabilities and maps of the authors' class, (B, heads, T, T) as we give them."""
    found = [model(one_hot(rows[i : i + 1], 0.25)) for i in range(len(rows))]
    logits = torch.cat([logits for logits, _ in found])
    joined = torch.cat([maps for _, maps in found])  # heads side by side: (B, T, heads x T)
    maps = joined.unflatten(2, (8, -1)).transpose(1, 2)
    return {"tracks": torch.sigmoid(logits)[:, None], "attention": maps[:, None]}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("variant", "changes"), [("published", {}), ("published, no LSTM", {"use_RNN": False})]
)
def test_parity_with_the_authors(variant, changes, tmp_path, record_property):
    torch.set_num_threads(1)
    model = theirs(**changes)
    source = checkpoint_of(model, tmp_path)
    source = type(source)(source.name, source.weights, {"attention": True}, None)
    (official,) = [x for x in satori.FAMILY.official if x.recognise(source)]
    assert official.variant == "published"
    (network,) = official.load(source, LENGTH).networks
    differences = [
        worst(ours[name], wanted[name])
        for rows in BATCHES
        for ours, wanted in [(graph.run_torch(network, rows), one_by_one(model, rows))]
        for name in ("tracks", "attention")
    ]
    public = max(differences)
    exported = onnx_worst(network, tmp_path, BATCHES, wanted=lambda rows: one_by_one(model, rows))
    reference = "authors' models.py, one window at a time"
    row = ["SATORI", variant, reference, float(public), float(exported), "-", 0]
    record_property("parity", row)
    assert public <= PUBLIC_LIMIT
    assert exported <= ONNX_LIMIT
    if not changes:
        # What makes the form necessary: their numbers depend on the neighbours in the batch.
        with torch.no_grad():
            together, _ = model(one_hot(BATCHES[2], 0.25))
        assert (
            worst(torch.sigmoid(together)[:, None], one_by_one(model, BATCHES[2])["tracks"]) > 1e-2
        )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("compat", ["published", "fixed"])
def test_parity_with_the_network_written_anew(compat, tmp_path, record_property):
    torch.set_num_threads(1)
    made = awake(satori.build({"compat": compat, "tracks": CLASSES, "length": LENGTH}))
    source = checkpoint_of(made, tmp_path)
    source = type(source)(source.name, source.weights, {"compat": compat}, None)
    (official,) = [x for x in satori.FAMILY.official if x.recognise(source)]
    (network,) = official.load(source, LENGTH).networks

    @torch.no_grad()
    def anew(rows):
        logits, _ = run_satori(source.weights, one_hot(rows, 0.25), alone=compat == "published")
        return {"tracks": torch.sigmoid(logits)[:, None]}

    public = max(
        worst(graph.run_torch(network, rows)["tracks"], anew(rows)["tracks"])
        for rows in BATCHES[:2]
    )
    exported = onnx_worst(network, tmp_path, BATCHES[:2], wanted=anew)
    row = [
        "SATORI",
        f"{compat}, anew",
        "re-computed in plain torch",
        public,
        exported,
        "-",
        0,
    ]
    record_property("parity", row)
    assert public <= PUBLIC_LIMIT
    assert exported <= ONNX_LIMIT
