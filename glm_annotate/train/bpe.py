"""Byte pairs: FASTA files in, a `tokenizer.json` out.

Ids begin as DNABERT-2's do: [UNK] 0, [CLS] 1, [SEP] 2, [PAD] 3, [MASK] 4, then A, C, G, T. Every
letter that is none of these four becomes one [UNK]. Decisions: merges are learnt on chunks, drawn
without replacement, of stretches without other letters; nothing but A, C, G and T ever merges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glm_annotate.errors import InputError, UsageError
from glm_annotate.genome import Genome, to_text
from glm_annotate.train.config import load_config

SPECIAL = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
# The part of a config that goes with such a tokenizer.
ENCODER = {"unk_id": 0, "prefix": [1], "suffix": [2], "pad_id": 3, "mask_id": 4}


@dataclass(frozen=True, slots=True)
class Trained:
    """A tokenizer.

    Attributes:
        text: Of `tokenizer.json`.
        size: Ids.
        bases: Letters it was learnt from.
        mean: Mean bases of a token on these letters.
    """

    text: str
    size: int
    bases: int
    mean: float


def train_bpe(
    sources: Sequence[Path],
    *,
    vocabulary: int = 4096,
    longest: int = 16,
    chunk: int = 1000,
    bases: int = 100_000_000,
    seed: int = 0,
    skip: frozenset[str] = frozenset(),
) -> Trained:
    """Learn byte pairs.

    Args:
        sources: FASTA files.
        vocabulary: Ids at most, special tokens and single bases among them.
        longest: Bases of a token at most.
        chunk: Letters of a chunk; no token is learnt across two.
        bases: Letters at most, of all files together.
        seed: Of the choice of chunks, where there are more letters.
        skip: Contigs that are left out, such as those held out.

    Raises:
        InputError: A FASTA cannot be read, has no letters, or the package is not installed.
        UsageError: The vocabulary has no room.
    """
    least = len(SPECIAL) + 4
    if vocabulary <= least:
        raise UsageError(f"--vocabulary {vocabulary}: wanted more than {least}")
    try:
        from tokenizers import Tokenizer, models, trainers
    except ImportError as error:
        raise InputError(
            "byte pairs need the tokenizers package; run: pip install 'glm_annotate[bpe]'"
        ) from error
    texts = list(chunks(sources, chunk, bases, seed, skip))
    total = sum(map(len, texts))
    if not total:
        names = ", ".join(map(str, sources))
        raise InputError(f"{names}: no stretch of A, C, G and T that is left to learn from")
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[0]))
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=list("ACGT"),
        max_token_length=longest,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokens = sum(len(x.ids) for x in tokenizer.encode_batch(texts[:1000]))
    mean = sum(map(len, texts[:1000])) / tokens
    return Trained(str(tokenizer.to_str(pretty=True)), tokenizer.get_vocab_size(), total, mean)


def chunks(
    sources: Sequence[Path], size: int, most: int, seed: int, skip: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Cut FASTA files into upper-case chunks of A, C, G and T.

    Args:
        sources: FASTA files.
        size: Letters of a chunk; the last of a stretch may be shorter.
        most: Letters of all chunks at most.
        seed: Of the choice, where there are more.
        skip: Contigs that are left out.
    """
    places = []
    genomes = [Genome(path) for path in sources]
    for number, genome in enumerate(genomes):
        for contig in genome.contigs:
            if contig in skip:
                continue
            known = np.pad(genome.codes(contig) < 4, 1)
            edges = np.flatnonzero(known[1:] != known[:-1]).reshape(-1, 2)
            for first, end in edges.tolist():
                starts = range(first, end, size)
                places += [(number, contig, a, min(a + size, end)) for a in starts]
    order = np.arange(len(places))
    if sum(end - start for _, _, start, end in places) > most:
        order = np.random.default_rng(seed).permutation(order)
    chosen, held = [], 0
    for index in order.tolist():
        held += places[index][3] - places[index][2]
        if held > most:
            break
        chosen.append(index)
    # In the order of the files, which are read once.
    for number, contig, start, end in (places[i] for i in sorted(chosen)):
        yield to_text(genomes[number].codes(contig)[start:end])


def sources_of(path: Path, data: Path | None) -> tuple[list[Path], frozenset[str]]:
    """Find the FASTA files of a training config and the contigs that it holds out.

    Raises:
        InputError: The config cannot be read.
    """
    from glm_annotate.train.config import data_folder
    from glm_annotate.train.data import listed_names

    config = load_config(path)
    folder = data_folder(path, config, str(data) if data else None)
    groups = [group for group in config.data.groups if not group.held_out]
    files = dict.fromkeys(folder / group.fasta for group in groups)
    held = listed_names(path.parent, config.data.validation)
    return list(files), held | listed_names(path.parent, config.data.exclude)
