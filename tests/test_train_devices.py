"""Devices and parts of a batch: gradients, weights and checkpoints are those of one process.

Parts are of unequal size and hide unequal numbers of bases, which an average of averages gets
wrong.
"""

from __future__ import annotations

import multiprocessing
import socket
from pathlib import Path

import pytest
import torch
from train_kit import rows_of, run_and_keep, run_as, write_genome, write_run

from glm_annotate.errors import InputError
from glm_annotate.train import checkpoints
from glm_annotate.train.config import load_config
from glm_annotate.train.loop import LAST, train
from glm_annotate.train.sharing import make_fabric

Gradients = list[list[torch.Tensor]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("devices")
    write_genome(made)
    return made


def run(folder: Path, path: Path, **options: bool) -> Gradients:
    """Train in this process; returns gradients by step and parameter."""
    out = folder / f"{path.stem}.pt"
    run_and_keep(str(path), str(folder), str(out), **options)
    return torch.load(out, weights_only=True)


def run_in_two(folder: Path, path: Path) -> Gradients:
    """Train in two processes, forked from one that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["glm_annotate.train.loop", "torch.distributed.tensor"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = folder / f"{path.stem}.pt"
    arguments = str(path), str(folder), str(out)
    both = [context.Process(target=run_as, args=(rank, 2, port, arguments)) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(50)
    assert [process.exitcode for process in both] == [0, 0]
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module")
def alone(folder: Path) -> Gradients:
    """Gradients of one process and whole batches."""
    return run(folder, write_run(folder, "alone"))


def assert_same(folder: Path, name: str, found, expected) -> None:
    assert len(found) == len(expected) == 4
    for step, other in zip(found, expected, strict=True):
        for one, two in zip(step, other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-7)
    for log in ("log.csv", "valid.csv"):
        drop = ("seconds", "loss", "gradient", "value")
        assert rows_of(folder / name / log, *drop) == rows_of(folder / "alone" / log, *drop)
    logs = [rows_of(folder / x / "log.csv") for x in (name, "alone")]
    for one, two in zip(*logs, strict=True):
        assert float(one["loss"]) == pytest.approx(float(two["loss"]), abs=2e-6)
    states = [checkpoints.load(folder / x / LAST) for x in (name, "alone")]
    for part in ("weights", "average"):
        left, right = (getattr(state, part) for state in states)
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-5)


def test_parts_one_after_another(folder, alone):
    path = write_run(folder, "parts", optim="accumulate = 3")
    assert_same(folder, "parts", run(folder, path), alone)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_of_two_parts_each(folder, alone, strategy):
    """Five windows in four parts on two processes."""
    devices = f'accelerator = "cpu"\ndevices = 2\nstrategy = "{strategy}"'
    path = write_run(folder, strategy, optim="accumulate = 2", run=devices)
    assert_same(folder, strategy, run_in_two(folder, path), alone)


def test_a_shared_out_run_goes_on_alone(folder, alone):
    """A checkpoint of FSDP holds whole tensors; steps 3 and 4 are done by one process."""
    devices = 'accelerator = "cpu"\ndevices = 2\nstrategy = "fsdp"'
    path = write_run(folder, "half", optim="", run=devices)
    path.write_text(path.read_text().replace("steps = 4", "steps = 2"))
    run_in_two(folder, path)
    path = write_run(folder, "half")
    found = run(folder, path, resume=True)
    for one, two in zip(found[1], alone[3], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("optim", "run_keys", "message"),
    [
        ("accumulate = 3", "devices = 2", r"optim\.batch: found 5, wanted 6 or more: each of 2"),
        ("", 'strategy = "fsdp"\nprecision = "16-mixed"', r"16-mixed is not for strategy = fsdp"),
    ],
)
def test_what_devices_cannot_do(tmp_path, optim, run_keys, message):
    write_genome(tmp_path)
    path = write_run(tmp_path, optim=optim, run=run_keys)
    with pytest.raises(InputError, match=message):
        train(path, data=str(tmp_path))


@pytest.mark.parametrize("key", ['strategy = "fsdp"', 'precision = "16-mixed"'])
def test_muon_needs_whole_matrices(tmp_path, key):
    path = write_run(tmp_path, run=key)
    path.write_text(path.read_text().replace('"adamw"', '"muon"'))
    config = load_config(path)
    with pytest.raises(InputError, match=f"whole matrices and not with run.{key[:9]}"):
        make_fabric(config.run, config.optim)
