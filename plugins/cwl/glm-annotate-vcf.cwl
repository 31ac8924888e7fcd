#!/usr/bin/env cwl-runner
cwlVersion: v1.2
class: CommandLineTool
label: glm-annotate vcf
doc: |
  Scores the ALT alleles of a VCF with genome language models and writes the scores to INFO. Every
  allele gets a number, or the reason why it has none.

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

requirements:
  InlineJavascriptRequirement: {}

baseCommand: [glm-annotate, vcf]

arguments:
  - prefix: --threads
    valueFrom: $(runtime.cores)
  # POS decides, so that a record that reaches into the next region is not there twice.
  - prefix: --targets-file
    valueFrom: $(inputs.regions)
  - prefix: --summary
    valueFrom: $(inputs.output_prefix).glm_annotate.json
  - prefix: --output
    valueFrom: $(inputs.output_prefix)$(inputs.output_ending)

inputs:
  calls:
    type: File
    doc: VCF or BCF; bgzipped and with its index where regions are given
    format: edam:format_3016
    secondaryFiles:
      - pattern: .tbi
        required: false
      - pattern: .csi
        required: false
    inputBinding: {position: 1}
  ref:
    type: File
    doc: FASTA of the assembly that the calls were made with, and its index
    format: edam:format_1929
    secondaryFiles:
      - pattern: .fai
        required: true
      - pattern: .gzi
        required: false
    inputBinding: {prefix: --fasta-ref}
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
  scores:
    type: string[]?
    doc: Scores as for -s; the model's own if there are none
    inputBinding: {prefix: --score, itemSeparator: ","}
  regions:
    type: File?
    doc: BED; only records whose POS lies in it
    format: edam:format_3003
    inputBinding: {prefix: --regions-file}
  gtf:
    type: File?
    doc: Genes, for models that read alleles in their genes
    inputBinding: {prefix: --gtf}
  device:
    type: string
    default: cpu
    doc: auto, cpu or cuda
    inputBinding: {prefix: --device}
  no_version:
    type: boolean
    default: false
    doc: No version and command line in the header
    inputBinding: {prefix: --no-version}
  output_prefix:
    type: string
    default: scored
  output_ending:
    type: string
    default: .vcf.gz
    doc: .vcf, .vcf.gz or .bcf

outputs:
  scored:
    type: File
    format: edam:format_3016
    outputBinding: {glob: $(inputs.output_prefix)$(inputs.output_ending)}
  summary:
    type: File
    format: edam:format_3464
    outputBinding: {glob: $(inputs.output_prefix).glm_annotate.json}
