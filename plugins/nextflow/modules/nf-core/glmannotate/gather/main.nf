process GLMANNOTATE_GATHER {
    tag "${meta.id}"
    label 'process_low'

    conda "${moduleDir}/environment.yml"
    container "${workflow.containerEngine in ['singularity', 'apptainer'] && !task.ext.singularity_pull_docker_container
        ? 'https://depot.galaxyproject.org/singularity/bcftools:1.24--h118bc1c_2'
        : 'quay.io/biocontainers/bcftools:1.24--h118bc1c_2'}"

    input:
    tuple val(meta), path(shards, stageAs: 'shards/*'), path(vcf), path(index)

    output:
    tuple val(meta), path("${prefix}.vcf.gz"), emit: vcf
    tuple val(meta), path("${prefix}.vcf.gz.{csi,tbi}"), emit: index
    tuple val("${task.process}"), val('bcftools'), eval("bcftools --version | sed '1!d; s/^.*bcftools //'"), topic: versions, emit: versions_bcftools

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def args2 = task.ext.args2 ?: '--tbi'
    prefix = task.ext.prefix ?: "${meta.id}"
    if ("${vcf}" == "${prefix}.vcf.gz") {
        error("Input and output names are the same, set prefix in module configuration to disambiguate!")
    }
    """
    find -L shards -name '*.vcf.gz' | sort > shards.txt

    # Blocks are copied as they are, so that no byte of a record changes.
    bcftools concat --naive ${args} --file-list shards.txt --output ${prefix}.vcf.gz
    bcftools index ${args2} --threads ${task.cpus} ${prefix}.vcf.gz

    given=\$(bcftools index --nrecords ${vcf})
    gathered=\$(bcftools index --nrecords ${prefix}.vcf.gz)
    if [ "\$given" != "\$gathered" ]; then
        echo "${vcf} has \$given records, its shards have \$gathered" >&2
        exit 1
    fi
    """

    stub:
    def args2 = task.ext.args2 ?: '--tbi'
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    echo "" | gzip > ${prefix}.vcf.gz
    touch ${prefix}.vcf.gz.${args2 =~ /(--tbi|-t)/ ? 'tbi' : 'csi'}
    """
}
