// Makes of the plain example VCF the bgzipped and indexed one that the tests need.
process TEST_BGZIP {
    tag "${meta.id}"

    conda "${moduleDir}/../../modules/nf-core/glmannotate/shards/environment.yml"
    container 'quay.io/biocontainers/bcftools:1.24--h118bc1c_2'

    input:
    tuple val(meta), path(vcf)

    output:
    tuple val(meta), path("input.vcf.gz"), path("input.vcf.gz.tbi"), emit: vcf

    script:
    """
    bcftools view --no-version --output-type z --output input.vcf.gz ${vcf}
    bcftools index --tbi input.vcf.gz
    """
}
