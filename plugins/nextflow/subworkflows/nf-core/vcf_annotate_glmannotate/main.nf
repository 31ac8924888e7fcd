include { GLMANNOTATE_SHARDS } from '../../../modules/nf-core/glmannotate/shards/main'
include { GLMANNOTATE_VCF    } from '../../../modules/nf-core/glmannotate/vcf/main'
include { GLMANNOTATE_GATHER } from '../../../modules/nf-core/glmannotate/gather/main'

workflow VCF_ANNOTATE_GLMANNOTATE {
    take:
    ch_vcf      // channel: [ val(meta), path(vcf), path(index) ], bgzipped and indexed
    ch_fasta    // channel: [ val(meta2), path(fasta), path(fai) ]
    ch_models   // channel: [ val(meta3), [ path(bundle), ... ] ], [] where ext.args names shipped models
    val_records // integer: records in a shard

    main:
    GLMANNOTATE_SHARDS(ch_vcf, val_records)

    ch_shards = ch_vcf
        .join(GLMANNOTATE_SHARDS.out.bed)
        .flatMap { meta, vcf, index, beds ->
            def shards = beds instanceof List ? beds : [beds]
            shards.collect { bed ->
                [meta + [id: "${meta.id}.${bed.baseName}", whole: meta, shards: shards.size()], vcf, index, bed]
            }
        }

    GLMANNOTATE_VCF(ch_shards, ch_fasta, ch_models)

    ch_gather = GLMANNOTATE_VCF.out.vcf
        .map { meta, vcf -> [groupKey(meta.whole, meta.shards), vcf] }
        .groupTuple()
        .map { key, vcfs -> [key.target, vcfs] }
        .join(ch_vcf)

    GLMANNOTATE_GATHER(ch_gather)

    emit:
    vcf     = GLMANNOTATE_GATHER.out.vcf   // channel: [ val(meta), path(vcf) ]
    index   = GLMANNOTATE_GATHER.out.index // channel: [ val(meta), path(index) ]
    summary = GLMANNOTATE_VCF.out.summary  // channel: [ val(meta), path(json) ], one a shard
}
