#!/usr/bin/env cwl-runner
cwlVersion: v1.2
class: CommandLineTool
label: glm-annotate tracks
doc: Writes what genome language models say along a genome as bigWig tracks.

$namespaces:
  edam: http://edamontology.org/
  s: https://schema.org/

s:license: https://spdx.org/licenses/Apache-2.0

hints:
  DockerRequirement:
    dockerPull: glm_annotate:0.1.0
  SoftwareRequirement:
    packages:
      glm_annotate:
        version: ["0.1.0"]
  ResourceRequirement:
    coresMin: 2
    ramMin: 8000

baseCommand: [glm-annotate, tracks]

arguments:
  - prefix: --threads
    valueFrom: $(runtime.cores)
  - prefix: --output
    valueFrom: $(inputs.output_folder)

inputs:
  places:
    type: File?
    doc: BED of regions or VCF of variants; without it those of region, or whole contigs
    inputBinding: {position: 1}
  region:
    type: string?
    doc: chr:beg-end, joined by commas
    inputBinding: {prefix: --regions}
  ref:
    type: File
    doc: FASTA and its index
    format: edam:format_1929
    secondaryFiles:
      - pattern: .fai
        required: true
      - pattern: .gzi
        required: false
    inputBinding: {prefix: --fasta-ref}
  kinds:
    type: string[]
    doc: predict, likelihood, entropy, information, ism, ref, alt, delta
    inputBinding: {prefix: --kind, itemSeparator: ","}
  model_names:
    type:
      - "null"
      - type: array
        items: string
        inputBinding: {prefix: --model}
    doc: Shipped models or hf://owner/repo
  model_bundles:
    type:
      - "null"
      - type: array
        items: [File, Directory]
        inputBinding: {prefix: --model}
    doc: Model bundles, .zip or folders
  gtf:
    type: File?
    inputBinding: {prefix: --gtf}
  device:
    type: string
    default: cpu
    doc: auto, cpu or cuda
    inputBinding: {prefix: --device}
  output_folder:
    type: string
    default: tracks

outputs:
  tracks:
    type: Directory
    outputBinding: {glob: $(inputs.output_folder)}
