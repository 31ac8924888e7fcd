=head1 LICENSE

Copyright The glm_annotate authors

Licensed under the Apache License, Version 2.0 (the "License");
you may not use this file except in compliance with the License.
You may obtain a copy of the License at

     http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software
distributed under the License is distributed on an "AS IS" BASIS,
WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
See the License for the specific language governing permissions and
limitations under the License.

=head1 CONTACT

 The issue tracker of glm_annotate, not the Ensembl help desk.

=cut

=head1 NAME

 GLMAnnotate

=head1 SYNOPSIS

 mv GLMAnnotate.pm ~/.vep/Plugins

 # all fields of the file
 ./vep -i variations.vcf --plugin GLMAnnotate,file=/path/to/scores.vcf.gz

 # two of them
 ./vep -i variations.vcf --plugin GLMAnnotate,file=/path/to/scores.vcf.gz,fields=MITO_LLR:MITO_STATUS

 # with a column that says whether MITO_LLR is -5 or less
 ./vep -i variations.vcf --plugin GLMAnnotate,file=/path/to/scores.vcf.gz,max_MITO_LLR=-5

=head1 DESCRIPTION

 An Ensembl VEP plugin that adds scores of genome language models, computed beforehand
 by glm-annotate, to each allele.

 The file is a bgzipped VCF with a Tabix index, as glm-annotate writes it:

 > glm-annotate vcf variations.vcf -f genome.fa -m MODEL -o scores.vcf.gz -W=tbi

 or its table, which has no header that tells the assembly:

 > glm-annotate vcf variations.vcf -f genome.fa -m MODEL -o scores.vcf --tsv scores.tsv
 > sed '1s/^/#/' scores.tsv | bgzip > scores.tsv.gz
 > tabix -s 1 -b 2 -e 2 scores.tsv.gz

 Either has to be sorted by position. The tabix utility must be in the path.

 Fields are those that glm-annotate has declared in the header (Source="glm_annotate"), and
 their descriptions are taken from there. Of a table they are all columns behind the allele.

 Options are passed to the plugin as key=value pairs:
   file            : (mandatory) Tabix-indexed VCF or table
   fields          : (optional) colon-separated fields to print (default: all)
   min_FIELD       : (optional) smallest number of FIELD that passes
   max_FIELD       : (optional) largest number of FIELD that passes
   check_assembly  : (optional) 0: do not compare the file with the assembly and
                     the FASTA file of VEP (default: 1)
   expand_left, expand_right, cache_size : (optional) as in other Tabix plugins

 Output:
  One column for each field, with the number or text of the allele; nothing where the file
  has no such allele or no number. Where a status lists several reasons they are joined
  by '&'. Where VEP writes JSON, the fields of an allele are a hash under "glmannotate".

  With min_ or max_ there is one column more, "GLMAnnotate_cutoff": PASS where all numbers are
  within the limits, FAIL where one is not, and UNKNOWN where none is outside and one is
  missing. No line is dropped; filter_vep does that.

 Alleles are matched one by one by position and bases, after what REF and ALT share has been
 trimmed from both ends. Neither file is left-aligned here: where they may differ in that,
 run 'bcftools norm -f genome.fa' on both. Contigs may be called 1 or chr1, and MT, M, chrM
 or chrMT. Structural variants are not annotated.

 Plugin and file must be of one assembly. Lengths of contigs in the file are compared with
 the index of --fasta and, if --assembly is GRCh37 or GRCh38, with the lengths that these
 have. Where only a mitochondrial contig differs (hg19's chrM) it is left out, with a warning.

=cut

package GLMAnnotate;

use strict;
use warnings;

use List::Util qw(max min);

use Bio::EnsEMBL::Variation::Utils::Sequence qw(get_matched_variant_alleles);

use Bio::EnsEMBL::Variation::Utils::BaseVepTabixPlugin;
use base qw(Bio::EnsEMBL::Variation::Utils::BaseVepTabixPlugin);

my $CUTOFF_KEY = 'GLMAnnotate_cutoff';

my @OPTIONS = qw(file fields check_assembly expand_left expand_right cache_size);

# Columns of a table that say which allele a line is about.
my %IS_ALLELE_COLUMN = map {$_ => 1} qw(chrom pos id ref alt);

my %IS_MITOCHONDRIAL = map {$_ => 1} qw(MT M chrMT chrM);

# Lengths of the chromosomes 1 to 22, X, Y.
my %LENGTHS = (
  GRCh37 => [qw(
    249250621 243199373 198022430 191154276 180915260 171115067 159138663 146364022
    141213431 135534747 135006516 133851895 115169878 107349540 102531392 90354753
    81195210 78077248 59128983 63025520 48129895 51304566 155270560 59373566
  )],
  GRCh38 => [qw(
    248956422 242193529 198295559 190214555 181538259 170805979 159345973 145138636
    138394717 133797422 135086622 133275309 114364328 107043718 101991189 90338345
    83257441 80373285 58617616 64444167 46709983 50818468 156040895 57227415
  )],
);

sub new {
  my $class = shift;

  my $self = $class->SUPER::new(@_);

  $self->expand_left(0);
  $self->expand_right(0);
  $self->get_user_params();

  my $params = $self->params_to_hash();
  die "ERROR: GLMAnnotate needs file=scores.vcf.gz\n" unless $params->{file};
  $self->add_file($params->{file});

  $self->_read_header();
  $self->_choose_fields($params->{fields});
  $self->_read_cutoffs($params);
  $self->_check_assembly() if !defined($params->{check_assembly}) || $params->{check_assembly};

  return $self;
}

sub feature_types {
  return ['Feature', 'Intergenic'];
}

sub get_header_info {
  my $self = shift;

  my %header = map {$_ => $self->{descriptions}->{$_}} @{$self->{fields}};
  if (@{$self->{cutoffs}}) {
    my $limits = join(' and ', map {"$_->{field} $_->{sign} $_->{limit}"} @{$self->{cutoffs}});
    $header{$CUTOFF_KEY} = "PASS where $limits, FAIL where not, UNKNOWN where a number is missing";
  }
  return \%header;
}

sub run {
  my ($self, $bvfoa) = @_;

  my $vf = $bvfoa->base_variation_feature;
  my $allele = $bvfoa->variation_feature_seq;
  return {} unless defined($allele) && $allele =~ /^([ACGTN]+|-)$/i;

  my $contig = $self->_contig_of($vf->{chr});
  return {} unless defined($contig);

  # An insertion has start = end + 1. One base more on the left is where a VCF anchors indels.
  my ($first, $last) = (min($vf->{start}, $vf->{end}), max($vf->{start}, $vf->{end}));

  foreach my $record (@{$self->get_data($contig, max(1, $first - 1), $last)}) {
    # Only this allele: with all ALTs of the site the first one found would be given to all.
    my $matches = get_matched_variant_alleles(
      {
        ref    => uc($vf->ref_allele_string),
        alts   => [uc($allele)],
        pos    => $vf->{start},
        strand => $vf->strand,
      },
      {
        ref    => $record->{ref},
        alts   => $record->{alts},
        pos    => $record->{start},
      }
    );
    return $self->_result($record->{values}->[$matches->[0]->{b_index}]) if @$matches;
  }

  return {};
}

sub parse_data {
  my ($self, $line) = @_;

  return $self->{columns} ? $self->_parse_row($line) : $self->_parse_record($line);
}

sub get_start {
  return $_[1]->{start};
}

sub get_end {
  return $_[1]->{end};
}

# A line of a VCF: each field has one value for each ALT.
sub _parse_record {
  my ($self, $line) = @_;

  my ($chrom, $pos, $id, $ref, $alts, $qual, $filter, $info) = split /\t/, $line;
  my @alts = split /,/, uc($alts);
  my @values = map { {} } @alts;
  foreach my $entry (split /;/, $info) {
    my ($key, $text) = split /=/, $entry, 2;
    next unless defined($text) && exists($self->{descriptions}->{$key});
    my @of_alts = split /,/, $text, -1;
    $values[$_]->{$key} = $of_alts[$_] for 0 .. min($#alts, $#of_alts);
  }
  return $self->_parsed($pos, $ref, \@alts, \@values);
}

# A line of a table: one ALT.
sub _parse_row {
  my ($self, $line) = @_;

  my %row;
  @row{@{$self->{columns}}} = split /\t/, $line, -1;
  return $self->_parsed($row{pos}, $row{ref}, [uc($row{alt})], [\%row]);
}

sub _parsed {
  my ($self, $pos, $ref, $alts, $values) = @_;

  return {
    ref    => uc($ref),
    alts   => $alts,
    start  => $pos,
    end    => $pos + length($ref) - 1,
    values => $values,
  };
}

sub _result {
  my ($self, $values) = @_;

  my $json = ($self->{config}->{output_format} || '') eq 'json' || $self->{config}->{rest};

  my %result;
  foreach my $field (@{$self->{fields}}) {
    my $value = $values->{$field};
    next if !defined($value) || $value eq '.';
    # In VEP's VCF a '|' would begin the next column.
    $value =~ s/\|/&/g unless $json;
    $result{$field} = $value;
  }
  $result{$CUTOFF_KEY} = $self->_verdict($values) if @{$self->{cutoffs}};

  return $json ? {GLMAnnotate => \%result} : \%result;
}

sub _verdict {
  my ($self, $values) = @_;

  my $verdict = 'PASS';
  foreach my $cutoff (@{$self->{cutoffs}}) {
    my $value = $values->{$cutoff->{field}};
    if (!defined($value) || !_is_number($value)) {
      $verdict = 'UNKNOWN';
    }
    elsif ($cutoff->{sign} eq '>=' ? $value < $cutoff->{limit} : $value > $cutoff->{limit}) {
      return 'FAIL';
    }
  }
  return $verdict;
}

sub _is_number {
  return $_[0] =~ /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i;
}

# Fields with their descriptions, contigs with their lengths, and of a table its columns.
sub _read_header {
  my $self = shift;

  my $file = $self->{_files}->[0];
  my (%descriptions, @order, %lengths, @builds, $last);
  open(my $header, '-|', 'tabix', '-H', $file) or die "ERROR: tabix cannot be run: $!\n";
  while (my $line = <$header>) {
    $line =~ s/\r?\n$//;
    if ($line =~ /^##INFO=<ID=([^,>]+),.*Source="glm_annotate"/) {
      push @order, $1;
      $descriptions{$1} = _description($line);
    }
    elsif ($line =~ /^##contig=<ID=([^,>]+)/) {
      my $contig = $1;
      $lengths{$contig} = $1 if $line =~ /[,<]length=(\d+)/;
      push @builds, _human_build($1) if $line =~ /[,<]assembly="?([^",>]+)/;
    }
    elsif ($line =~ /^##reference=(.+)/) {
      push @builds, _human_build($1);
    }
    $last = $line;
  }
  close($header) or die "ERROR: tabix cannot read $file: is it bgzipped and indexed?\n";

  if (!defined($last) || $last !~ /^#CHROM\tPOS\tID\tREF\tALT\t/) {
    my ($columns, $fields) = _table_columns($last);
    die "ERROR: $file has no header of a VCF, and of a table no line that begins with " .
        "#chrom, pos, ref and alt (sed '1s/^/#/' scores.tsv | bgzip)\n" unless $columns;
    $self->{columns} = $columns;
    @order = @$fields;
    %descriptions = map {$_ => "$_ of glm_annotate"} @order;
  }
  die "ERROR: $file has no field of glm-annotate\n" unless @order;

  $self->{all_fields} = \@order;
  $self->{descriptions} = \%descriptions;
  $self->{lengths} = \%lengths;
  $self->{builds} = [grep {defined} @builds];

  open(my $names, '-|', 'tabix', '-l', $file) or die "ERROR: tabix cannot be run: $!\n";
  chomp(my @contigs = <$names>);
  close($names) or die "ERROR: tabix cannot list the contigs of $file\n";
  $self->{contigs} = {map {$_ => 1} @contigs};
}

# Columns of a table, and those of them that are fields; nothing if LINE is no head of one.
sub _table_columns {
  my $line = shift;

  return unless defined($line) && $line =~ s/^#(?!#)//;
  my @columns = map {$IS_ALLELE_COLUMN{lc($_)} ? lc($_) : $_} split /\t/, $line;
  my %has = map {$_ => 1} @columns;
  return if grep {!$has{$_}} qw(chrom pos ref alt);
  return (\@columns, [grep {!$IS_ALLELE_COLUMN{$_}} @columns]);
}

sub _description {
  my $line = shift;

  my ($text) = $line =~ /Description="((?:[^"\\]|\\.)*)"/;
  $text = '' unless defined($text);
  $text =~ s/\\(.)/$1/g;
  my ($version) = $line =~ /Version="([^"]*)"/;
  $text .= "; glm_annotate $version" if defined($version);
  return $text;
}

sub _choose_fields {
  my ($self, $wanted) = @_;

  my @fields = defined($wanted) ? split(/:/, $wanted) : @{$self->{all_fields}};
  $self->_must_have($_) for @fields;
  $self->{fields} = \@fields;
}

sub _read_cutoffs {
  my ($self, $params) = @_;

  my %known = map {$_ => 1} @OPTIONS;
  my @cutoffs;
  foreach my $key (sort grep {!$known{$_}} keys %$params) {
    my ($which, $field) = $key =~ /^(min|max)_(.+)$/;
    die "ERROR: Unknown option $key; there are " . join(', ', @OPTIONS) .
        ", min_FIELD and max_FIELD\n" unless $which;
    $self->_must_have($field);
    die "ERROR: $key is $params->{$key}, which is no number\n" unless _is_number($params->{$key});
    push @cutoffs, {
      field => $field,
      sign  => $which eq 'min' ? '>=' : '<=',
      limit => $params->{$key},
    };
  }
  $self->{cutoffs} = \@cutoffs;
}

sub _must_have {
  my ($self, $field) = @_;

  die "ERROR: $self->{_files}->[0] has no field $field; it has " .
      join(', ', @{$self->{all_fields}}) . "\n" unless exists($self->{descriptions}->{$field});
}

# The name that the file has for a contig of VEP, or nothing.
sub _contig_of {
  my ($self, $chr) = @_;

  my $names = $self->{contig_of} ||= {};
  if (!exists($names->{$chr})) {
    ($names->{$chr}) = grep {$self->{contigs}->{$_}} _aliases($chr);
  }
  return $names->{$chr};
}

sub _aliases {
  my $chr = shift;

  return ($chr, sort keys %IS_MITOCHONDRIAL) if $IS_MITOCHONDRIAL{$chr};
  return ($chr, $chr =~ /^chr(.+)/ ? $1 : "chr$chr");
}

sub _human_build {
  my $name = shift;

  return 'GRCh38' if $name =~ /GRCh38|hg38|hs38/i;
  return 'GRCh37' if $name =~ /GRCh37|hg19|hs37|b37/i;
  return;
}

sub _check_assembly {
  my $self = shift;

  my $file = $self->{_files}->[0];
  my $assembly = $self->{config}->{assembly};
  my $build = defined($assembly) ? _human_build($assembly) : undef;
  my $compared = 0;

  if ($build) {
    my @names = (1 .. 22, 'X', 'Y');
    my %expected = (MT => 16569);
    @expected{@names} = @{$LENGTHS{$build}};
    $compared += $self->_compare_lengths(\%expected, "assembly $assembly");
    foreach my $found (@{$self->{builds}}) {
      die "ERROR: Assembly is $assembly but the header of $file says $found\n" if $found ne $build;
      $compared++;
    }
  }
  my $fasta = $self->{config}->{fasta};
  $compared += $self->_compare_lengths(_lengths_of_fasta("$fasta.fai"), $fasta)
    if defined($fasta) && -e "$fasta.fai";

  warn "WARNING: GLMAnnotate cannot tell whether $file is of the assembly of this run\n"
    unless $compared || $self->{config}->{quiet};
}

sub _lengths_of_fasta {
  my $index = shift;

  my %lengths;
  open(my $lines, '<', $index) or die "ERROR: cannot read $index: $!\n";
  while (<$lines>) {
    my ($name, $length) = split /\t/;
    $lengths{$name} = $length;
  }
  close($lines);
  return \%lengths;
}

# How many contigs could be compared; dies if the file is of another assembly.
sub _compare_lengths {
  my ($self, $expected, $where) = @_;

  my $file = $self->{_files}->[0];
  my @agree;
  my @differ;
  foreach my $contig (sort keys %{$self->{lengths}}) {
    my ($name) = grep {exists($expected->{$_})} _aliases($contig);
    next unless defined($name);
    if ($expected->{$name} == $self->{lengths}->{$contig}) {
      push @agree, $contig;
    }
    else {
      push @differ, [$contig, $expected->{$name}];
    }
  }
  foreach my $pair (@differ) {
    my ($contig, $length) = @$pair;
    my $text = "$contig has $self->{lengths}->{$contig} bases in $file, $length in $where";
    die "ERROR: $text: scores of another assembly\n" unless $IS_MITOCHONDRIAL{$contig} && @agree;
    warn "WARNING: GLMAnnotate leaves out $contig: $text\n";
    delete $self->{contigs}->{$contig};
  }
  return @agree + @differ;
}

1;
