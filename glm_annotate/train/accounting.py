"""What a run has cost, and what it was made from.

Compute is counted twice: as 6 x parameters x rows (a multiplication and an addition a weight
forward, twice that backward), which is how published models are compared, and as matrix products
and convolutions of a real training step add up to. A petaflop/s-day (PFS-day) is 1e15 operations
a second for a day, 8.64e19.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import glm_annotate
from glm_annotate.bundle import sha256_of
from glm_annotate.train.config import RunConfig
from glm_annotate.train.objective import Batch, Objective

logger = logging.getLogger(__name__)

PFS_DAY = 1e15 * 86400
_COUNTED = 2  # examples that operations are counted on: norms over a batch need two


def count_flops(objective: Objective, batch: Batch, device: torch.device) -> float:
    """Count the operations of a training step, on a copy of the network and few examples."""
    size = len(next(iter(batch.values())))
    part = {key: value[:_COUNTED].to(device) for key, value in batch.items()}
    network = copy.deepcopy(objective.network).to(device)
    with FlopCounterMode(display=False) as counter:
        loss = objective.total(network, part)
        torch.autograd.backward(loss)
    return float(counter.get_total_flops()) * size / min(_COUNTED, size)


def rows_of(batch: Batch, context: int) -> int:
    """Tell how many tokens a batch has, bases where there are no rows."""
    rows = batch.get("rows")
    return rows.numel() if rows is not None else len(next(iter(batch.values()))) * context


def compute_of(
    network: nn.Module, run: RunConfig, *, rows: int, flops: float, seconds: float
) -> dict[str, float]:
    """Sum up what a run has cost so far.

    Args:
        network: What is trained.
        run: Devices, their price and their peak.
        rows: Tokens seen.
        flops: Operations as counted; 0: not counted.
        seconds: Of training.
    """
    devices = run.devices * run.num_nodes
    parameters = sum(weight.numel() for weight in network.parameters())
    hours = seconds / 3600
    found = {
        "parameters": parameters,
        "rows": rows,
        "flops_6nd": 6.0 * parameters * rows,
        "pfs_days_6nd": 6.0 * parameters * rows / PFS_DAY,
        "hours": hours,
        "devices": devices,
        "device_hours": hours * devices,
    }
    if flops:
        found |= {"flops_counted": flops, "pfs_days_counted": flops / PFS_DAY}
    if run.price:
        found["cost"] = run.price * hours * devices
    if run.peak_tflops and flops and seconds:
        found["utilisation"] = flops / (seconds * devices * run.peak_tflops * 1e12)
    return found


def tell(compute: Mapping[str, float], folder: Path) -> None:
    """Log what a run has cost and write it into its folder."""
    rounded = {key: float(f"{value:.6g}") for key, value in compute.items()}
    path = folder / "compute.json"
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(rounded, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    counted = compute.get("pfs_days_counted")
    logger.info(
        "compute: %.3g PFS-days (6 x parameters x rows)%s, %.3g device-hours%s",
        compute["pfs_days_6nd"],
        f", {counted:.3g} as counted" if counted is not None else "",
        compute["device_hours"],
        f", about {compute['cost']:.2f} at the price given" if "cost" in compute else "",
    )


def code_version() -> dict[str, str]:
    """Tell the version of the package, and the commit where it runs from a repository."""
    found = {"version": glm_annotate.__version__}
    root = Path(glm_annotate.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return found
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # git is not installed
        return found
    return {**found, "commit": done.stdout.strip()} if done.returncode == 0 else found


def digests(files: Iterable[Path], data: Path) -> dict[str, str]:
    """Give the sha256 of files, by their names below the data folder."""
    folder = data.resolve()
    found = {}
    for path in files:
        inside = path.resolve().is_relative_to(folder)
        name = str(path.resolve().relative_to(folder)) if inside else path.name
        found[name] = sha256_of(path)
    return found
