package GLMTest;

# What the tests share: files of scores in a temporary folder, and alleles as VEP hands them to a
# plugin.

use strict;
use warnings;

use Exporter qw(import);
use File::Temp qw(tempdir);
use FindBin;

our @EXPORT_OK = qw(allele alleles_of data_file run_on score_table score_vcf plugin);

my $FOLDER = tempdir(CLEANUP => 1);
my $made = 0;

sub data_file { return "$FindBin::Bin/data/$_[0]" }

# Compressed and indexed TEXT of a VCF.
sub score_vcf {
  return _indexed('vcf', $_[0], '-p', 'vcf');
}

# The same of a table.
sub score_table {
  return _indexed('tsv', $_[0], qw(-s 1 -b 2 -e 2));
}

sub _indexed {
  my ($suffix, $text, @how) = @_;
  my $path = "$FOLDER/" . $made++ . ".$suffix";
  open(my $out, '>', $path) or die "$path: $!";
  print $out $text;
  close($out);
  system('bgzip', '-f', $path) == 0 or die "bgzip $path";
  system('tabix', @how, "$path.gz") == 0 or die "tabix $path.gz";
  return "$path.gz";
}

sub plugin {
  my ($config, @params) = @_;
  require GLMAnnotate;
  return GLMAnnotate->new($config, @params);
}

# An allele of a variant at START to END, which an insertion has the other way round.
sub allele {
  my ($chr, $start, $ref, $alt, $strand) = @_;
  my $end = $ref eq '-' ? $start - 1 : $start + length($ref) - 1;
  my $variant = bless {
    chr => $chr, start => $start, end => $end, ref => $ref, strand => $strand || 1,
  }, 'GLMTest::Variant';
  return bless {variant => $variant, seq => $alt}, 'GLMTest::Allele';
}

# Alleles of a line of a VCF in VEP's spelling: a base that all share is trimmed where lengths
# differ, and what a lone ALT shares besides; with the name that VEP gives them.
sub alleles_of {
  my ($chr, $pos, $ref, @alts) = @_;
  if (grep {length($_) != length($ref)} @alts) {
    while (!grep {substr($_, 0, 1) ne substr($ref, 0, 1)} @alts) {
      $pos++;
      $_ = substr($_, 1) for $ref, @alts;
      last if @alts > 1 || $ref eq '' || $alts[0] eq '';
    }
    $_ = $_ eq '' ? '-' : $_ for $ref, @alts;
  }
  return map {[$_, allele($chr, $pos, $ref, $_)]} @alts;
}

sub run_on {
  my ($plugin, @variant) = @_;
  return $plugin->run(allele(@variant));
}

package GLMTest::Variant;

sub ref_allele_string { return $_[0]->{ref} }

sub strand { return $_[0]->{strand} }

package GLMTest::Allele;

sub base_variation_feature { return $_[0]->{variant} }

sub variation_feature_seq { return $_[0]->{seq} }

1;
