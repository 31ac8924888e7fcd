version 1.0

# Scores the ALT alleles of a VCF with genome language models, many shards at a time.
workflow glm_annotate {
    meta {
        description: "Cuts an indexed VCF into shards of about as many records each, scores them with genome language models, and concatenates the outputs"
        author: "The glm_annotate authors"
    }

    parameter_meta {
        vcf: "Bgzipped VCF"
        vcf_index: "Its .tbi or .csi"
        ref_fasta: "Reference that the VCF was made with"
        ref_fasta_index: "Its .fai"
        model_bundles: "Model bundles as .zip"
        model_names: "Shipped models or hf://owner/repo"
        scores: "Scores as for -s; the model's own if empty"
        extra_args: "Further arguments of glm-annotate vcf"
        output_prefix: "Name of the output, without .vcf.gz"
        records_per_shard: "Records in a shard; records of one position stay together"
        gpu: "Whether shards are scored on a GPU"
        cpu: "Cores of a shard"
        memory_gb: "Memory of a shard"
        docker: "Image with glm-annotate, bcftools and tabix"
    }

    input {
        File vcf
        File vcf_index
        File ref_fasta
        File ref_fasta_index
        Array[File] model_bundles = []
        Array[String] model_names = []
        Array[String] scores = []
        String extra_args = ""
        String output_prefix = basename(vcf, ".vcf.gz") + ".glm"
        Int records_per_shard = 100000
        Boolean gpu = false
        Int cpu = 2
        Int memory_gb = 8
        String docker = "glm_annotate:0.1.0"
    }

    call shards {
        input:
            vcf = vcf,
            vcf_index = vcf_index,
            records = records_per_shard,
            docker = docker
    }

    scatter (regions in shards.beds) {
        call score {
            input:
                vcf = vcf,
                vcf_index = vcf_index,
                regions = regions,
                ref_fasta = ref_fasta,
                ref_fasta_index = ref_fasta_index,
                model_bundles = model_bundles,
                model_names = model_names,
                scores = scores,
                extra_args = extra_args,
                gpu = gpu,
                cpu = cpu,
                memory_gb = memory_gb,
                docker = docker
        }
    }

    call gather {
        input:
            scored = score.scored,
            vcf = vcf,
            vcf_index = vcf_index,
            output_prefix = output_prefix,
            docker = docker
    }

    output {
        File scored_vcf = gather.scored_vcf
        File scored_vcf_index = gather.scored_vcf_index
        Array[File] summaries = score.summary
    }
}

task shards {
    input {
        File vcf
        File vcf_index
        Int records
        String docker
    }

    Int disk_gb = 10 + ceil(size(vcf, "GiB"))

    # A shard is cut between positions, never within one. Without records: a region that has none.
    command <<<
        set -euo pipefail
        ln -s '~{vcf}' input.vcf.gz
        ln -s '~{vcf_index}' "input.vcf.gz.$(echo '~{vcf_index}' | sed 's/.*\.//')"
        bcftools query --format '%CHROM\t%POS\n' input.vcf.gz |
        awk -v per=~{records} '
            function shard() { out = sprintf("shard_%05d.bed", ++shards) }
            function span() {
                printf "%s\t%d\t%d\n", contig, (first > 0 ? first - 1 : 0), last > out
            }
            BEGIN { shard() }
            $1 != contig || (count >= per && $2 != last) {
                if (count) span()
                if (count >= per) { close(out); shard(); count = 0 }
                contig = $1
                first = $2
            }
            { count++; last = $2 }
            END { if (count) span(); else printf "none\t0\t1\n" > out }
        '
    >>>

    output {
        Array[File] beds = glob("shard_*.bed")
    }

    runtime {
        docker: docker
        cpu: 1
        memory: "2 GiB"
        disks: "local-disk ~{disk_gb} HDD"
    }
}

task score {
    input {
        File vcf
        File vcf_index
        File regions
        File ref_fasta
        File ref_fasta_index
        Array[File] model_bundles
        Array[String] model_names
        Array[String] scores
        String extra_args
        Boolean gpu
        Int cpu
        Int memory_gb
        String docker
    }

    String shard = basename(regions, ".bed")
    Int disk_gb = 20 + ceil(2 * size(vcf, "GiB") + size(ref_fasta, "GiB") + 2 * size(model_bundles, "GiB"))

    # -T beside -R: a record that reaches into the next region is not there twice.
    command <<<
        set -euo pipefail
        ln -s '~{vcf}' input.vcf.gz
        ln -s '~{vcf_index}' "input.vcf.gz.$(echo '~{vcf_index}' | sed 's/.*\.//')"
        ln -s '~{ref_fasta}' genome.fa
        ln -s '~{ref_fasta_index}' genome.fa.fai
        export GLM_ANNOTATE_CACHE="${GLM_ANNOTATE_CACHE:-$PWD/.glm_annotate}"
        glm-annotate vcf input.vcf.gz -f genome.fa \
            ~{sep=" " prefix("-m ", model_bundles)} \
            ~{sep=" " prefix("-m ", model_names)} \
            ~{sep=" " prefix("-s ", scores)} \
            -R '~{regions}' -T '~{regions}' \
            --device ~{if gpu then "cuda" else "cpu"} --threads ~{cpu} \
            --summary '~{shard}.glm_annotate.json' \
            -o '~{shard}.vcf.gz' \
            ~{extra_args}
    >>>

    output {
        File scored = "~{shard}.vcf.gz"
        File summary = "~{shard}.glm_annotate.json"
    }

    runtime {
        docker: docker
        cpu: cpu
        memory: "~{memory_gb} GiB"
        disks: "local-disk ~{disk_gb} SSD"
        gpu: gpu
        gpuCount: if gpu then 1 else 0
        gpuType: "nvidia-tesla-t4"
        preemptible: 2
        maxRetries: 1
    }
}

task gather {
    input {
        Array[File] scored
        File vcf
        File vcf_index
        String output_prefix
        String docker
    }

    Int disk_gb = 10 + ceil(size(vcf, "GiB") + 2 * size(scored, "GiB"))

    # Blocks are copied as they are, so that no byte of a record changes.
    command <<<
        set -euo pipefail
        ln -s '~{vcf}' input.vcf.gz
        ln -s '~{vcf_index}' "input.vcf.gz.$(echo '~{vcf_index}' | sed 's/.*\.//')"
        bcftools concat --naive --file-list '~{write_lines(scored)}' --output '~{output_prefix}.vcf.gz'
        bcftools index --tbi '~{output_prefix}.vcf.gz'
        given=$(bcftools index --nrecords input.vcf.gz)
        gathered=$(bcftools index --nrecords '~{output_prefix}.vcf.gz')
        if [ "$given" != "$gathered" ]; then
            echo "~{basename(vcf)} has $given records, its shards have $gathered" >&2
            exit 1
        fi
    >>>

    output {
        File scored_vcf = "~{output_prefix}.vcf.gz"
        File scored_vcf_index = "~{output_prefix}.vcf.gz.tbi"
    }

    runtime {
        docker: docker
        cpu: 1
        memory: "2 GiB"
        disks: "local-disk ~{disk_gb} HDD"
    }
}
