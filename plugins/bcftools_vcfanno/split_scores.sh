#!/bin/sh
# One ALT a record, and no key where there is no number: vcfanno and echtvar read '.' as 0.
# usage: sh split_scores.sh SCORES.vcf.gz OUT.vcf.gz
set -eu

if [ $# -ne 2 ]; then
    echo "usage: sh split_scores.sh SCORES.vcf.gz OUT.vcf.gz" >&2
    exit 2
fi
keys=$(bcftools view -h "$1" | sed -n '/Source="glm_annotate"/s/^##INFO=<ID=\([^,]*\),.*/\1/p')
if [ -z "$keys" ]; then
    echo "split_scores.sh: $1 has no field of glm-annotate" >&2
    exit 1
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bcftools norm --no-version -m -any -Ob -o "$folder/scores.bcf" "$1"
for key in $keys; do
    bcftools annotate --no-version -k -i "$key=\".\"" -x "INFO/$key" \
        -Ob -o "$folder/next.bcf" "$folder/scores.bcf"
    mv "$folder/next.bcf" "$folder/scores.bcf"
done
bcftools view --no-version -Oz -o "$2" "$folder/scores.bcf"
bcftools index -f -t "$2"
