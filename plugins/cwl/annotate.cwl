#!/usr/bin/env cwl-runner
cwlVersion: v1.2
class: Workflow
label: Score a VCF with genome language models, many shards at a time

$namespaces:
  edam: http://edamontology.org/
  s: https://schema.org/

s:license: https://spdx.org/licenses/Apache-2.0

requirements:
  ScatterFeatureRequirement: {}
  StepInputExpressionRequirement: {}
  InlineJavascriptRequirement: {}

inputs:
  calls:
    type: File
    doc: Bgzipped VCF and its index
    format: edam:format_3016
    secondaryFiles:
      - pattern: .tbi
        required: false
      - pattern: .csi
        required: false
  ref:
    type: File
    doc: FASTA of the assembly that the calls were made with, and its index
    format: edam:format_1929
    secondaryFiles:
      - pattern: .fai
        required: true
      - pattern: .gzi
        required: false
  model_names: string[]?
  model_bundles:
    type:
      - "null"
      - type: array
        items: [File, Directory]
  scores: string[]?
  gtf: File?
  device:
    type: string
    default: cpu
  no_version:
    type: boolean
    default: false
  records_per_shard:
    type: int
    default: 100000
  output_name:
    type: string
    default: scored.vcf.gz

steps:
  shards:
    run: shards.cwl
    in:
      calls: calls
      records: records_per_shard
    out: [beds]
  score:
    run: glm-annotate-vcf.cwl
    scatter: regions
    in:
      calls: calls
      ref: ref
      regions: shards/beds
      model_names: model_names
      model_bundles: model_bundles
      scores: scores
      gtf: gtf
      device: device
      no_version: no_version
      output_prefix:
        valueFrom: $(inputs.regions.nameroot)
    out: [scored, summary]
  gather:
    run: gather.cwl
    in:
      calls: calls
      shards: score/scored
      output_name: output_name
    out: [scored]

outputs:
  scored:
    type: File
    outputSource: gather/scored
  summaries:
    type: File[]
    outputSource: score/summary
