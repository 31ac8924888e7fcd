process GLMANNOTATE_VCF {
    tag "${meta.id}"
    label 'process_medium'
    label 'process_gpu'

    conda "${moduleDir}/environment.yml"
    container "${workflow.containerEngine in ['singularity', 'apptainer'] && !task.ext.singularity_pull_docker_container
        ? 'https://depot.galaxyproject.org/singularity/glm_annotate:0.1.0--pyhdfd78af_0'
        : 'quay.io/biocontainers/glm_annotate:0.1.0--pyhdfd78af_0'}"

    input:
    tuple val(meta), path(vcf), path(index), path(regions)
    tuple val(meta2), path(fasta), path(fai)
    tuple val(meta3), path(models, stageAs: 'models/*')

    output:
    tuple val(meta), path("${prefix}.${extension}"), emit: vcf
    tuple val(meta), path("${prefix}.${extension}.{csi,tbi}"), emit: index, optional: true
    tuple val(meta), path("${prefix}.tsv"), emit: tsv, optional: true
    tuple val(meta), path("${prefix}.glm_annotate.json"), emit: summary
    tuple val("${task.process}"), val('glm_annotate'), eval("glm-annotate --version | sed 's/^.* //'"), topic: versions, emit: versions_glmannotate

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    extension = args =~ /(-O|--output-type)[ =]?[bu]/ ? 'bcf' : args =~ /(-O|--output-type)[ =]?v/ ? 'vcf' : 'vcf.gz'
    // Models that ship with the package have no file: name them in ext.args, as in '-m mito'.
    def bundles = models instanceof List ? models : [models]
    def model = bundles.collect { bundle -> "--model ${bundle}" }.join(' ')
    // POS decides, so that a record that reaches into the next region is not there twice.
    def where = regions ? "--regions-file ${regions} --targets-file ${regions}" : ''
    def device = task.accelerator ? 'cuda' : 'cpu'
    if ("${vcf}" == "${prefix}.${extension}") {
        error("Input and output names are the same, set prefix in module configuration to disambiguate!")
    }
    """
    export GLM_ANNOTATE_CACHE="\${GLM_ANNOTATE_CACHE:-\$PWD/.glm_annotate}"

    glm-annotate vcf \\
        --fasta-ref ${fasta} \\
        ${model} \\
        ${where} \\
        --device ${device} \\
        --threads ${task.cpus} \\
        --summary ${prefix}.glm_annotate.json \\
        --output ${prefix}.${extension} \\
        ${args} \\
        ${vcf}
    """

    stub:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    extension = args =~ /(-O|--output-type)[ =]?[bu]/ ? 'bcf' : args =~ /(-O|--output-type)[ =]?v/ ? 'vcf' : 'vcf.gz'
    def create = extension == 'vcf.gz' ? 'echo "" | gzip >' : 'touch'
    def create_index = args =~ /(-W|--write-index)/ ? "touch ${prefix}.${extension}.${args =~ /(-W|--write-index)=tbi/ ? 'tbi' : 'csi'}" : ''
    """
    ${create} ${prefix}.${extension}
    ${create_index}
    echo '{}' > ${prefix}.glm_annotate.json
    """
}
