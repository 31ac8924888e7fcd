"""Bundles of a run as models that can score: sessions, channels, tracks, and what is refused."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from glm_annotate import __version__
from glm_annotate.alignment import Alignment
from glm_annotate.bundle import Bundle, load_bundle
from glm_annotate.channels import Channels, Source, check_channels
from glm_annotate.errors import BundleError, UsageError
from glm_annotate.gene_files import read_gene_models
from glm_annotate.gene_models import GENES, GeneModels, read_gene_table
from glm_annotate.genome import Genome
from glm_annotate.model import Model, Splice, Tracks
from glm_annotate.runtime import open_runners
from glm_annotate.scores import ScoreSpec, share_scores
from glm_annotate.signals import BigWig, Signals
from glm_annotate.track_choice import TrackChoice, choose_tracks
from glm_annotate.track_table import TRACKS, Role, TrackTable, read_tracks

if TYPE_CHECKING:
    from glm_annotate.job import Job

logger = logging.getLogger(__name__)

_SITES: tuple[Role, Role] = ("acceptor", "donor")


def open_models(job: Job, genome: Genome) -> list[Model]:
    """Load bundles and open their sessions.

    Raises:
        UsageError: Two models have one tag, no model of the run gives a score, or a model reads an
            alignment or a signal and none is named.
    """
    bundles = [_tagged(text) for text in job.models]
    tags = [tag for tag, _ in bundles]
    if len(set(tags)) < len(tags):
        twice = next(tag for tag in tags if tags.count(tag) > 1)
        raise UsageError(f"-m: two models have the tag {twice}; give one another: -m NEWTAG=MODEL")
    for _, bundle in bundles:
        _check_supported(bundle, job)
    signals = _open_signals([bundle for _, bundle in bundles], genome, job)
    genes = _open_genes([bundle for _, bundle in bundles], job)
    models = []
    shares = share_scores(job.scores, [bundle.card for _, bundle in bundles])
    for (tag, bundle), scores in zip(bundles, shares, strict=True):
        _check_outputs(tag, scores)
        card = bundle.card
        circular = card.circular if job.circular is None else job.circular
        names = frozenset(filter(None, (genome.resolve(name) for name in circular)))
        strand = job.strand or card.strand
        models.append(
            Model(
                tag,
                bundle,
                scores,
                (False, True) if strand == "both" and card.frame != "gene" else (False,),
                names,
                open_runners(bundle, job.runtime),
                job.ignore_scope,
                open_channels(bundle, genome, job.msa, signals),
                open_tracks(bundle, job.tracks),
                open_splice(bundle, genes),
            )
        )
        logger.info("%s: model %s %s on %s", tag, card.name, card.version, _where(models[-1], job))
    if job.msa is not None and not any(count_species(bundle) for _, bundle in bundles):
        logger.warning("--msa %s: no model of this run reads an alignment", job.msa)
    return models


def open_channels(
    bundle: Bundle, genome: Genome, msa: str | None, signals: Mapping[str, BigWig]
) -> Channels | None:
    """Open the sources of a model's channels; None where it reads none.

    Args:
        bundle: The model.
        genome: The reference.
        msa: An alignment, needed where a channel is of one.
        signals: bigWigs by name, needed for each channel that is of one.
    """
    spec, sources = bundle.card.encoder, dict[str, Source]()
    species, names = count_species(bundle), signals_of(bundle)
    if species and msa is not None:
        sources["msa"] = Alignment(msa, genome, species)
    if names:
        channels = [x for x in spec.channels if x.source == "bigwig"]
        sources["bigwig"] = Signals(channels, signals)
    return Channels(spec, genome, sources) if sources else None


def open_tracks(bundle: Bundle, choice: TrackChoice | None) -> Tracks | None:
    """Read the table of a model of tracks, and choose those that are scored; None of others.

    A model of one contact map may have no table; several maps are its tracks. A model in the frame
    of genes gives splice sites, which are no tracks to choose from.

    Raises:
        BundleError: The bundle has no table.
        UsageError: Nothing is left of the tracks, or a name is unknown.
    """
    path, outputs = bundle.path / TRACKS, bundle.card.outputs
    if "tracks" not in outputs and not ("contacts" in outputs and path.is_file()):
        return None
    if bundle.card.frame != "variant":
        return None
    table = _table(bundle)
    which = np.arange(len(table)) if choice is None else choose_tracks(table, choice)
    return Tracks(table.take(which), which)


def open_splice(bundle: Bundle, given: GeneModels | None) -> Splice | None:
    """Find the genes and sites of a model in the frame of genes; None of others.

    Args:
        bundle: The model.
        given: Genes to use in place of the bundle's own.

    Raises:
        UsageError: There are no genes.
        BundleError: The bundle has not one track of each site, or cannot read N.
    """
    card = bundle.card
    if card.frame != "gene":
        return None
    own = bundle.path / GENES
    if given is None and not own.is_file():
        raise UsageError(
            f"{bundle.path}: the model reads alleles in their genes, and the bundle has no "
            f"{GENES}; name them: --gtf FILE"
        )
    unread = card.encoder.vocab.n == "error" or card.encoder.channels
    among = card.crop <= card.anchor < card.context - card.crop
    if unread or card.bin_size != 1 or not among:
        raise BundleError(
            f"{bundle.path}: a model with frame = gene needs bin_size = 1, no channels, an "
            "encoder that takes N, and the anchor among its bins; export the bundle again"
        )
    roles = [track.role for track in _table(bundle).tracks]
    if any(roles.count(role) != 1 for role in _SITES):
        raise BundleError(
            f"{bundle.path}: {TRACKS} has the roles {', '.join(roles)}; a model with frame = gene "
            f"has one {_SITES[0]} and one {_SITES[1]}; export the bundle again"
        )
    acceptor, donor = map(roles.index, _SITES)
    return Splice(read_gene_table(own) if given is None else given, acceptor, donor)


def _open_genes(bundles: Sequence[Bundle], job: Job) -> GeneModels | None:
    """Read the genes of --gtf once for all models, and tell if none needs them."""
    if job.gtf is None:
        return None
    if all(bundle.card.frame == "variant" for bundle in bundles):
        logger.warning("--gtf %s: no model of this run reads genes", job.gtf)
        return None
    return read_gene_models(job.gtf)


def _table(bundle: Bundle) -> TrackTable:
    path = bundle.path / TRACKS
    if not path.is_file():
        raise BundleError(f"{bundle.path}: has no {TRACKS}; export the bundle again")
    return read_tracks(path)


def count_species(bundle: Bundle) -> int:
    """Count the channels of an alignment."""
    return sum(x.source == "msa" for x in bundle.card.encoder.channels)


def signals_of(bundle: Bundle) -> list[str]:
    """List the signals that a model reads, each once."""
    names = [x.name for x in bundle.card.encoder.channels if x.source == "bigwig"]
    return list(dict.fromkeys(names))


def _open_signals(bundles: Sequence[Bundle], genome: Genome, job: Job) -> dict[str, BigWig]:
    """Open the bigWigs that are read, each once, and tell of the others."""
    known = dict.fromkeys(name for bundle in bundles for name in signals_of(bundle))
    for name in job.signals:
        if name not in known:
            others = ", ".join(known) or "none"
            logger.warning(
                "--signal %s: no model of this run reads a signal of that name; they read: %s",
                name,
                others,
            )
    return {n: BigWig(n, path, genome) for n, path in job.signals.items() if n in known}


def _check_outputs(tag: str, scores: Sequence[ScoreSpec]) -> None:
    """Refuse embedding scores beside track scores of one model: they are made in other ways."""
    outputs = {spec.score.output for spec in scores}
    if "embedding" in outputs and outputs & {"tracks", "contacts"}:
        raise UsageError(
            f"-s: {tag} cannot give scores of embeddings and of tracks in one run; run them apart"
        )


def _check_supported(bundle: Bundle, job: Job) -> None:
    """Refuse a card that asks for what this version does not do, rather than score without it."""
    card = bundle.card
    wants = {
        f"frame = {card.frame}": card.frame == "exon"
        or (card.frame == "gene" and card.objective != "tracks"),
        f"shifts = {list(card.shifts)}": card.shifts != (0,)
        and (card.objective != "tracks" or card.frame != "variant"),
    }
    missing = [what for what, wanted in wants.items() if wanted]
    if missing:
        raise BundleError(
            f"{bundle.path}: the card has {missing[0]}, which glm-annotate {__version__} cannot "
            "do; it runs models on whole windows around variants; a later version may"
        )
    check_channels(bundle)
    species = count_species(bundle)
    if species and job.msa is None:
        raise UsageError(
            f"{bundle.path}: the model reads an alignment with {species} other species beside the "
            "bases; name it: --msa FILE.zarr"
        )
    absent = [name for name in signals_of(bundle) if name not in job.signals]
    if absent:
        given = ", ".join(job.signals) or "none"
        raise UsageError(
            f"{bundle.path}: the model reads the signal {absent[0]} beside the bases, and the "
            f"signals given are: {given}; name its bigWig: --signal {absent[0]}=FILE.bw"
        )


def _where(model: Model, job: Job) -> str:
    device = ", ".join(str(runner.device) for runner in model.runners)
    return f"{device} ({job.runtime.threads} threads)" if device == "cpu" else device


def _tagged(text: str) -> tuple[str, Bundle]:
    found = re.fullmatch(r"([A-Z][A-Z0-9]*)=(.+)", text)
    bundle = load_bundle(found[2] if found else text)
    return (found[1] if found else bundle.card.tag), bundle
