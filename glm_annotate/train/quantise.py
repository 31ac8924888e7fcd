"""int8: matrices and activations of a graph as eight bits, with scales fixed beforehand.

Static QDQ: scales come from calibration windows and are part of the graph. Dynamic quantisation
would take them over the batch at hand, and a score would depend on its batch mates.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_annotate.card import ModelCard
from glm_annotate.encoding import make_encoder, mask_rows
from glm_annotate.errors import InputError
from glm_annotate.genome import Genome
from glm_annotate.train.families.family import Network
from glm_annotate.train.graph import Batch, feeds_of

# Products are what takes the time; all else stays float32.
_OPERATORS = ["MatMul", "Gemm", "Conv"]
# Windows that set the scales, and after them those that tell what it cost.
SCALED, _MEASURED = 16, 4
_WINDOWS = SCALED + _MEASURED
_MASKED = 0.1


def calibration_batches(
    card: ModelCard, network: Network, tokenizer: Path, fasta: str | Path | None
) -> list[Batch]:
    """Cut windows, a tenth of their rows masked, one a batch.

    The first `SCALED` set the scales, the others are for measuring: outside of what calibration
    saw (padding, unknown letters) eight bits mean little.

    Args:
        card: Of the model.
        network: Tells the channels, which are drawn at random, and the most rows.
        tokenizer: Its `tokenizer.json`, if it has one.
        fasta: A genome to draw windows from; None: random bases.

    Raises:
        InputError: The FASTA has no contig as long as a window.
    """
    rng = np.random.default_rng(17)
    windows = _random(card, rng) if fasta is None else _drawn(card, rng, fasta)
    encoder = make_encoder(card.encoder, tokenizer if tokenizer.is_file() else None)
    limit = min(x for x in (network.max_rows, card.window.max_tokens, 1 << 30) if x is not None)
    batches: list[Batch] = []
    for window in windows:
        rows = encoder.encode(window[None])[0].rows.astype(np.int64)[:, :limit]
        if card.encoder.vocab.mask_id is not None:
            touched: NDArray[np.bool_] = np.less(rng.random(rows.shape[1]), _MASKED)
            rows = mask_rows(rows, touched, card.encoder)
        if network.channels:
            codes = rng.integers(5, size=(*rows.shape, network.channels)).astype(np.float32)
            batches.append((rows, codes))
        else:
            batches.append(rows)
    return batches


def quantise(path: Path, batches: Sequence[Batch]) -> None:
    """Turn a float32 graph into int8, in place.

    Args:
        path: The graph; weights beside it are found and written beside it again.
        batches: Inputs whose activations set the scales.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    beside = Path(f"{path}.data").exists()
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        target = Path(scratch) / path.name
        level = logging.root.level
        logging.root.setLevel(logging.ERROR)
        try:
            quantize_static(
                path,
                target,
                _Reader(batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_OPERATORS,
                per_channel=True,
                # Both signed: unsigned activations overflow on processors without VNNI.
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                use_external_data_format=beside,
                # Products of two activations (attention) cost accuracy and hold no weights.
                extra_options={"MatMulConstBOnly": True},
            )
        finally:
            logging.root.setLevel(level)
        path.unlink()
        Path(f"{path}.data").unlink(missing_ok=True)
        for file in target.parent.iterdir():
            shutil.move(file, path.parent / file.name)


class _Reader:
    """Hands the batches to the calibrator, one after the other."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._left: Iterator[Batch] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        """Give the next inputs, None after the last."""
        batch = next(self._left, None)
        return None if batch is None else feeds_of(batch)


def _random(card: ModelCard, rng: np.random.Generator) -> list[np.ndarray[Any, Any]]:
    return list(rng.integers(4, size=(_WINDOWS, card.context)).astype(np.uint8))


def _drawn(
    card: ModelCard, rng: np.random.Generator, fasta: str | Path
) -> list[np.ndarray[Any, Any]]:
    """Draw windows without N, places in proportion to the length of contigs."""
    genome = Genome(fasta)
    room = {name: length - card.context for name, length in genome.contigs.items()}
    room = {name: places for name, places in room.items() if places > 0}
    if not room:
        raise InputError(f"{fasta}: no contig is as long as a window of {card.context} bases")
    chance = np.array(list(room.values())) / sum(room.values())
    found: list[np.ndarray[Any, Any]] = []
    for _ in range(50 * _WINDOWS):
        name = str(rng.choice(list(room), p=chance))
        window = genome.windows(name, rng.integers(room[name], size=1), card.context)[0]
        if (window < 4).all():
            found.append(window)
        if len(found) == _WINDOWS:
            return found
    raise InputError(f"{fasta}: too few windows of {card.context} bases without N")
