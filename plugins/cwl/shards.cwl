#!/usr/bin/env cwl-runner
cwlVersion: v1.2
class: CommandLineTool
label: BED files of about as many records each
doc: |
  Cuts the records of an indexed VCF into regions. A shard is cut between positions, never within
  one. A VCF without records has one shard, whose region has none either.

$namespaces:
  edam: http://edamontology.org/
  s: https://schema.org/

s:license: https://spdx.org/licenses/Apache-2.0

hints:
  DockerRequirement:
    dockerPull: glm_annotate:0.1.0
  SoftwareRequirement:
    packages:
      bcftools:
        version: ["1.16"]

requirements:
  InitialWorkDirRequirement:
    listing:
      - entryname: shards.sh
        entry: |
          set -euo pipefail
          bcftools query --format '%CHROM\t%POS\n' "$1" |
          awk -v per="$2" '
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

baseCommand: [bash, shards.sh]

inputs:
  calls:
    type: File
    format: edam:format_3016
    inputBinding: {position: 1}
  records:
    type: int
    default: 100000
    doc: Records in a shard; records of one position stay together
    inputBinding: {position: 2}

outputs:
  beds:
    type: File[]
    format: edam:format_3003
    outputBinding: {glob: "shard_*.bed"}
