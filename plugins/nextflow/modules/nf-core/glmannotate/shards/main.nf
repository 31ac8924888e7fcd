process GLMANNOTATE_SHARDS {
    tag "${meta.id}"
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container "${workflow.containerEngine in ['singularity', 'apptainer'] && !task.ext.singularity_pull_docker_container
        ? 'https://depot.galaxyproject.org/singularity/bcftools:1.24--h118bc1c_2'
        : 'quay.io/biocontainers/bcftools:1.24--h118bc1c_2'}"

    input:
    tuple val(meta), path(vcf), path(index)
    val records

    output:
    tuple val(meta), path("shard_*.bed"), emit: bed
    tuple val("${task.process}"), val('bcftools'), eval("bcftools --version | sed '1!d; s/^.*bcftools //'"), topic: versions, emit: versions_bcftools

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    """
    bcftools query ${args} --format '%CHROM\\t%POS\\n' ${vcf} > sites.tsv

    # A shard is cut between positions, never within one. Without records: a region that has none.
    awk -v per=${records} '
        function shard() { out = sprintf("shard_%05d.bed", ++shards) }
        function span() { printf "%s\\t%d\\t%d\\n", contig, (first > 0 ? first - 1 : 0), last > out }
        BEGIN { shard() }
        \$1 != contig || (count >= per && \$2 != last) {
            if (count) span()
            if (count >= per) { close(out); shard(); count = 0 }
            contig = \$1
            first = \$2
        }
        { count++; last = \$2 }
        END { if (count) span(); else printf "none\\t0\\t1\\n" > out }
    ' sites.tsv
    """

    stub:
    """
    printf 'none\\t0\\t1\\n' > shard_00001.bed
    printf 'none\\t0\\t1\\n' > shard_00002.bed
    """
}
