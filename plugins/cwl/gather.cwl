#!/usr/bin/env cwl-runner
cwlVersion: v1.2
class: CommandLineTool
label: Concatenate scored shards
doc: |
  Concatenates shards in the order given, without changing a byte of a record, indexes the output
  and fails if it has another number of records than the VCF that was cut.

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
      - entryname: gather.sh
        entry: |
          set -euo pipefail
          whole=$1 out=$2
          shift 2
          bcftools concat --naive --output "$out" "$@"
          bcftools index --tbi "$out"
          given=\$(bcftools index --nrecords "$whole")
          gathered=\$(bcftools index --nrecords "$out")
          if [ "$given" != "$gathered" ]; then
              echo "$whole has $given records, its shards have $gathered" >&2
              exit 1
          fi

baseCommand: [bash, gather.sh]

inputs:
  calls:
    type: File
    format: edam:format_3016
    secondaryFiles:
      - pattern: .tbi
        required: false
      - pattern: .csi
        required: false
    inputBinding: {position: 1}
  output_name:
    type: string
    default: scored.vcf.gz
    inputBinding: {position: 2}
  shards:
    type: File[]
    format: edam:format_3016
    inputBinding: {position: 3}

outputs:
  scored:
    type: File
    format: edam:format_3016
    secondaryFiles: [.tbi]
    outputBinding: {glob: $(inputs.output_name)}
