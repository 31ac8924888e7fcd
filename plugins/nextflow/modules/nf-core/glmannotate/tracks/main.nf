process GLMANNOTATE_TRACKS {
    tag "${meta.id}"
    label 'process_medium'
    label 'process_gpu'

    conda "${moduleDir}/environment.yml"
    container "${workflow.containerEngine in ['singularity', 'apptainer'] && !task.ext.singularity_pull_docker_container
        ? 'https://depot.galaxyproject.org/singularity/glm_annotate:0.1.0--pyhdfd78af_0'
        : 'quay.io/biocontainers/glm_annotate:0.1.0--pyhdfd78af_0'}"

    input:
    tuple val(meta), path(places), path(index)
    tuple val(meta2), path(fasta), path(fai)
    tuple val(meta3), path(models, stageAs: 'models/*')
    val kinds

    output:
    tuple val(meta), path("${prefix}"), emit: tracks
    tuple val(meta), path("${prefix}/**.bw"), emit: bigwig, optional: true
    tuple val("${task.process}"), val('glm_annotate'), eval("glm-annotate --version | sed 's/^.* //'"), topic: versions, emit: versions_glmannotate

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    // Models that ship with the package have no file: name them in ext.args, as in '-m mito'.
    def bundles = models instanceof List ? models : [models]
    def model = bundles.collect { bundle -> "--model ${bundle}" }.join(' ')
    // Without a file: the regions of ext.args, or whole contigs.
    def where = places ?: ''
    def device = task.accelerator ? 'cuda' : 'cpu'
    """
    export GLM_ANNOTATE_CACHE="\${GLM_ANNOTATE_CACHE:-\$PWD/.glm_annotate}"

    glm-annotate tracks \\
        --fasta-ref ${fasta} \\
        ${model} \\
        --kind ${kinds} \\
        --device ${device} \\
        --threads ${task.cpus} \\
        --output ${prefix} \\
        ${args} \\
        ${where}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir -p ${prefix}/STUB
    touch ${prefix}/STUB/entropy.bw
    """
}
