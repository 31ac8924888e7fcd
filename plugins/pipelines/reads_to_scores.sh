#!/usr/bin/env bash
# From reads to scored and filtered variants of one sample.
#
#   reads_to_scores.sh -f REF.fa -m MODEL -o PREFIX [options] SAMPLE.bam
#   reads_to_scores.sh -f REF.fa -m MODEL -o PREFIX [options] READS_1.fq.gz READS_2.fq.gz
#
#   -p PLOIDY   1 for mitochondrial DNA (default 2)
#   -s NAME     name of the sample, where there are FASTQs (default: sample)
#   -q QUAL     least QUAL of a call (default 20)
#   -i EXPR     what goes to PREFIX.filtered.vcf.gz, as for bcftools view -i (default: all)
#   -t N        threads (default 2)
#
# Writes PREFIX.bam (of FASTQs), PREFIX.calls.vcf.gz (called, left-aligned), PREFIX.scored.vcf.gz,
# PREFIX.glm_annotate.json, PREFIX.glm_annotate.tsv and PREFIX.filtered.vcf.gz, with their indexes.
# Needs bcftools and glm-annotate; FASTQs also minimap2 and samtools.
set -euo pipefail

usage() {
    sed -n '2,15s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

fasta='' model='' prefix='' ploidy=2 sample=sample quality=20 expression='' threads=2
while getopts f:m:o:p:s:q:i:t:h letter; do
    case $letter in
        f) fasta=$OPTARG ;;
        m) model=$OPTARG ;;
        o) prefix=$OPTARG ;;
        p) ploidy=$OPTARG ;;
        s) sample=$OPTARG ;;
        q) quality=$OPTARG ;;
        i) expression=$OPTARG ;;
        t) threads=$OPTARG ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
if [ -z "$fasta" ] || [ -z "$model" ] || [ -z "$prefix" ] || [ $# -lt 1 ] || [ $# -gt 2 ]; then
    usage
fi

bam=$1
if [ $# -eq 2 ]; then
    bam=$prefix.bam
    minimap2 -a -x sr -t "$threads" -R "@RG\tID:$sample\tSM:$sample" "$fasta" "$1" "$2" |
        samtools sort -@ "$threads" -o "$bam" -
    samtools index "$bam"
fi

# Depths to count on beside the call; -m calls several ALTs at a site. Left-aligned, so that other
# programs find the alleles: glm-annotate itself gives every spelling of an indel the same score.
bcftools mpileup -f "$fasta" -a AD,DP -d 8000 -Ou "$bam" |
    bcftools call -m -v --ploidy "$ploidy" -Ou |
    bcftools view -i "QUAL>=$quality" -Ou |
    bcftools norm -f "$fasta" -Oz -o "$prefix.calls.vcf.gz"
bcftools index -f -t "$prefix.calls.vcf.gz"

glm-annotate vcf "$prefix.calls.vcf.gz" -f "$fasta" -m "$model" --threads "$threads" --force \
    -o "$prefix.scored.vcf.gz" -W=tbi \
    --summary "$prefix.glm_annotate.json" --tsv "$prefix.glm_annotate.tsv"

bcftools view ${expression:+-i "$expression"} -Oz -o "$prefix.filtered.vcf.gz" \
    "$prefix.scored.vcf.gz"
bcftools index -f -t "$prefix.filtered.vcf.gz"
