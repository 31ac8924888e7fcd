"""Bundles of a run as models that can score: sessions, channels, tracks, and what is refused."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from glm_annotate import __version__
from glm_annotate.alignment import Alignment
from glm_annotate.bundle import Bundle, find_bundle, load_bundle, read_card
from glm_annotate.calibration import Calibration, read_background
from glm_annotate.card import ModelCard
from glm_annotate.channels import Channels, Source, check_channels
from glm_annotate.dense import dense_stride
from glm_annotate.errors import BundleError, InputError, UsageError
from glm_annotate.exon_frame import MODULES, ExonFrame, frame_of, is_modular
from glm_annotate.gene_files import read_gene_models
from glm_annotate.gene_models import GENES, GeneModels, read_gene_table
from glm_annotate.genome import Genome
from glm_annotate.model import Model, Splice, Tracks
from glm_annotate.runtime import open_runners
from glm_annotate.scores import ScoreSpec, available, share_scores
from glm_annotate.signals import BigWig, Signals
from glm_annotate.track_choice import TrackChoice, choose_tracks
from glm_annotate.track_table import TRACKS, Role, TrackTable, read_tracks

if TYPE_CHECKING:
    from glm_annotate.run_setup import Setup

logger = logging.getLogger(__name__)

_SITES: tuple[Role, Role] = ("acceptor", "donor")


def open_models(setup: Setup, genome: Genome) -> list[Model]:
    """Load bundles and open their sessions.

    Raises:
        UsageError: Two models have one tag, no model of the run gives a score, or a model reads an
            alignment or a signal and none is named.
    """
    bundles = [_tagged(text) for text in setup.models]
    tags = [tag for tag, _ in bundles]
    if len(set(tags)) < len(tags):
        twice = next(tag for tag in tags if tags.count(tag) > 1)
        raise UsageError(f"-m: two models have the tag {twice}; give one another: -m NEWTAG=MODEL")
    for _, bundle in bundles:
        _check_supported(bundle, setup)
    signals = _open_signals([bundle for _, bundle in bundles], genome, setup)
    models = []
    roles = [site_roles(bundle) for _, bundle in bundles]
    shares = share_scores(setup.scores, [bundle.card for _, bundle in bundles], roles)
    genes = _open_genes([bundle for _, bundle in bundles], shares, genome, setup)
    for (tag, bundle), scores in zip(bundles, shares, strict=True):
        _check_outputs(tag, scores)
        card = bundle.card
        circular = card.circular if setup.circular is None else setup.circular
        names = frozenset(filter(None, (genome.resolve(name) for name in circular)))
        strand = setup.strand or card.strand
        models.append(
            Model(
                tag,
                bundle,
                scores,
                (False, True) if strand == "both" and card.frame == "variant" else (False,),
                names,
                open_runners(bundle, setup.runtime),
                setup.ignore_scope,
                open_channels(bundle, genome, setup.msa, signals),
                open_tracks(bundle, setup.tracks),
                open_splice(bundle, genes, setup.tracks),
                open_genes(bundle, scores, genes),
                open_exons(bundle, genes),
                dense_stride(bundle) if setup.mode == "dense" else 0,
                open_calibration(bundle, genome) if setup.calibrated else None,
            )
        )
        logger.info(
            "%s: model %s %s on %s", tag, card.name, card.version, _where(models[-1], setup)
        )
    if setup.msa is not None and not any(count_species(bundle) for _, bundle in bundles):
        logger.warning("--msa %s: no model of this run reads an alignment", setup.msa)
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


def open_calibration(bundle: Bundle, genome: Genome) -> Calibration | None:
    """Read what the scores of a model are compared with; None where its bundle has nothing."""
    background = read_background(bundle)
    return None if background is None else Calibration(background, genome)


def open_tracks(bundle: Bundle, choice: TrackChoice | None) -> Tracks | None:
    """Read the table of a model of tracks, and choose those that are scored; None of others.

    A model of one contact map may have no table; several maps are its tracks. A model in the frame
    of genes gives splice sites, one of parts of exons gives numbers of these: neither are tracks to
    choose from. Tissues are.

    Raises:
        BundleError: The bundle has no table.
        UsageError: Nothing is left of the tracks, or a name is unknown.
    """
    path, outputs = bundle.path / TRACKS, bundle.card.outputs
    if "tracks" not in outputs and not ("contacts" in outputs and path.is_file()):
        return None
    if bundle.card.in_genes or (bundle.card.frame == "exon" and is_modular(bundle.card)):
        return None
    table = _table(bundle)
    which = np.arange(len(table)) if choice is None else choose_tracks(table, choice)
    return Tracks(table.take(which), which)


def open_splice(
    bundle: Bundle, given: GeneModels | None, choice: TrackChoice | None = None
) -> Splice | None:
    """Find the genes and sites of a model that is read in genes; None of others.

    Args:
        bundle: The model.
        given: Genes to use in place of the bundle's own.
        choice: Of tracks, where they are more than one acceptor and one donor.

    Raises:
        UsageError: There are no genes, or nothing is left of the tracks.
        BundleError: The bundle has not one track of each site and none of their use, or cannot
            read N.
    """
    card = bundle.card
    if not card.in_genes:
        return None
    genes = _genes_of(bundle, given)
    if genes is None:
        raise UsageError(
            f"{bundle.path}: the model reads alleles in their genes, and the bundle has no "
            f"{GENES}; name them: --gtf FILE"
        )
    unread = card.encoder.vocab.n == "error" or card.encoder.channels
    among = card.crop <= card.anchor < card.context - card.crop
    if unread or card.bin_size != 1 or not among:
        raise BundleError(
            f"{bundle.path}: a model that is read in genes needs bin_size = 1, no channels, an "
            "encoder that takes N, and the anchor among its bins; export the bundle again"
        )
    table = _table(bundle)
    roles = [track.role for track in table.tracks]
    if site_roles(bundle) == _SITES:
        return Splice(genes, tuple(map(roles.index, _SITES)), paired=True)
    chosen = range(len(table)) if choice is None else choose_tracks(table, choice).tolist()
    columns = tuple(i for i in chosen if roles[i] == "usage")
    if not columns:
        raise UsageError(f"{bundle.path}: none of the tracks that were chosen has the role usage")
    return Splice(genes, columns, paired=False)


def site_roles(bundle: Bundle) -> tuple[Role, ...] | None:
    """List the roles of tracks that scores of splice sites read; None of other models.

    Raises:
        BundleError: The bundle has not one track of each site and none of their use.
    """
    if not bundle.card.in_genes:
        return None
    roles = [track.role for track in _table(bundle).tracks]
    if all(roles.count(role) == 1 for role in _SITES):
        return _SITES
    if "usage" not in roles or set(_SITES) & set(roles):
        raise BundleError(
            f"{bundle.path}: {TRACKS} has the roles {', '.join(roles)}; a model that is read in "
            f"genes has one {_SITES[0]} and one {_SITES[1]}, or usage; export the bundle again"
        )
    return ("usage",)


def open_genes(
    bundle: Bundle, scores: Sequence[ScoreSpec], given: GeneModels | None
) -> GeneModels | None:
    """Find the genes of scores over masks of genes; None where there are no such scores.

    Args:
        bundle: The model.
        scores: What is computed.
        given: Genes to use in place of the bundle's own.

    Raises:
        UsageError: There are no genes.
    """
    over = next((spec for spec in scores if spec.in_genes), None)
    if over is None:
        return None
    genes = _genes_of(bundle, given)
    if genes is None:
        raise UsageError(
            f"-s {over.name}:mask={over.options['mask']}: {bundle.path} has no {GENES}; name the "
            "genes: --gtf FILE"
        )
    return genes


def _genes_of(bundle: Bundle, given: GeneModels | None) -> GeneModels | None:
    """Give the genes of the run, else those of the bundle; None where there are none."""
    own = bundle.path / GENES
    if given is not None or not own.is_file():
        return given
    return read_gene_table(own)


def open_exons(bundle: Bundle, given: GeneModels | None) -> ExonFrame | None:
    """Find the exons of a model that reads parts of them; None of others.

    Args:
        bundle: The model.
        given: Genes to use in place of the bundle's own.

    Raises:
        UsageError: There are no genes.
        BundleError: The inputs of the graph are not known parts, or bases are not read one by one.
    """
    if bundle.card.frame != "exon":
        return None
    genes = _genes_of(bundle, given)
    if genes is None:
        raise UsageError(
            f"{bundle.path}: the model reads exons, and the bundle has no {GENES}; name the genes: "
            "--gtf FILE"
        )
    frame = frame_of(bundle.card, bundle.encoder, genes)
    if frame is None:
        raise BundleError(
            f"{bundle.path}: a model with frame = exon has the inputs {', '.join(MODULES)}, or "
            "acceptor and donor, an encoder of single bases that takes N, and no channels; the "
            f"card has {', '.join(bundle.card.inputs)}; export the bundle again"
        )
    return frame


def _open_genes(
    bundles: Sequence[Bundle],
    shares: Iterable[Sequence[ScoreSpec]],
    genome: Genome,
    setup: Setup,
) -> GeneModels | None:
    """Read the genes of --gtf once for all models, and tell if none needs them.

    Raises:
        InputError: No contig of the FASTA has a gene.
    """
    if setup.gtf is None:
        return None
    masked = any(spec.in_genes for scores in shares for spec in scores)
    if not masked and not any(x.card.in_genes or x.card.frame == "exon" for x in bundles):
        logger.warning("--gtf %s: no model of this run reads genes", setup.gtf)
        return None
    genes = read_gene_models(setup.gtf)
    if all(genes.resolve(contig) is None for contig in genome.contigs):
        raise InputError(
            f"{setup.gtf}: no gene on a contig of {genome.path} (genes are on "
            f"{', '.join(genes.contigs[:3])}, the FASTA has {', '.join([*genome.contigs][:3])}); "
            "name the genes of this assembly: --gtf FILE"
        )
    return genes


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


def _open_signals(bundles: Sequence[Bundle], genome: Genome, setup: Setup) -> dict[str, BigWig]:
    """Open the bigWigs that are read, each once, and tell of the others."""
    known = dict.fromkeys(name for bundle in bundles for name in signals_of(bundle))
    for name in setup.signals:
        if name not in known:
            others = ", ".join(known) or "none"
            logger.warning(
                "--signal %s: no model of this run reads a signal of that name; they read: %s",
                name,
                others,
            )
    return {n: BigWig(n, path, genome) for n, path in setup.signals.items() if n in known}


def _check_outputs(tag: str, scores: Sequence[ScoreSpec]) -> None:
    """Refuse embedding scores beside track scores of one model: they are made in other ways."""
    outputs = {spec.score.output for spec in scores}
    if "embedding" in outputs and outputs & {"tracks", "contacts"}:
        raise UsageError(
            f"-s: {tag} cannot give scores of embeddings and of tracks in one run; run them apart"
        )


def _check_supported(bundle: Bundle, setup: Setup) -> None:
    """Refuse a card that asks for what this version does not do, rather than score without it."""
    card = bundle.card
    wants = {
        f"frame = {card.frame}": card.frame != "variant" and card.objective != "tracks",
        f"shifts = {list(card.shifts)}": card.shifts != (0,)
        and (card.objective != "tracks" or card.frame != "variant" or card.in_genes),
    }
    missing = [what for what, wanted in wants.items() if wanted]
    if missing:
        raise BundleError(
            f"{bundle.path}: the card has {missing[0]}, which glm-annotate {__version__} cannot "
            "do; it runs models on whole windows around variants; a later version may"
        )
    check_channels(bundle)
    species = count_species(bundle)
    if species and setup.msa is None:
        raise UsageError(
            f"{bundle.path}: the model reads an alignment with {species} other species beside the "
            "bases; name it: --msa FILE.zarr"
        )
    absent = [name for name in signals_of(bundle) if name not in setup.signals]
    if absent:
        given = ", ".join(setup.signals) or "none"
        raise UsageError(
            f"{bundle.path}: the model reads the signal {absent[0]} beside the bases, and the "
            f"signals given are: {given}; name its bigWig: --signal {absent[0]}=FILE.bw"
        )


def _where(model: Model, setup: Setup) -> str:
    device = ", ".join(str(runner.device) for runner in model.runners)
    return f"{device} ({setup.runtime.threads} threads)" if device == "cpu" else device


def split_tag(text: str) -> tuple[str, str]:
    """Split `TAG=MODEL` of -m; the tag is empty where there is none."""
    found = re.fullmatch(r"([A-Z][A-Z0-9]*)=(.+)", text)
    return (found[1], found[2]) if found else ("", text)


def card_of(text: str) -> ModelCard:
    """Read the card of `[TAG=]MODEL`, before anything of the model is opened."""
    return read_card(find_bundle(split_tag(text)[1]))


def plain_scores(cards: Iterable[ModelCard]) -> tuple[str, ...]:
    """Choose scores to open models with whose scores are not made: such as need no genes."""
    return tuple(dict.fromkeys(x for card in cards for x in ("ENT", "SAD") if x in available(card)))


def _tagged(text: str) -> tuple[str, Bundle]:
    tag, name = split_tag(text)
    bundle = load_bundle(name)
    return tag or bundle.card.tag, bundle
