use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib", "$FindBin::Bin/..";
use Test::More;

use GLMTest qw(alleles_of data_file plugin score_vcf);

# golden.vcf is what Ensembl VEP 115.2 wrote with this plugin; see ../README.md. Here the plugin
# meets stand-ins of VEP's modules and has to give each allele the same.

sub lines_of {
  my $name = shift;
  open(my $in, '<', data_file($name)) or die "$name: $!";
  my @lines = <$in>;
  close($in);
  return @lines;
}

my $plugin = plugin({output_format => 'vcf', quiet => 1},
  'file=' . score_vcf(join('', lines_of('scores.vcf'))), 'max_MITO_PLLR=-2');

my (@columns, $rows, %described);
foreach my $line (lines_of('golden.vcf')) {
  chomp $line;
  @columns = split /\|/, $1 if $line =~ /^##INFO=<ID=CSQ,.*Format: ([^"]+)"/;
  $described{$1} = $2 if $line =~ /^##((?:MITO|GLM)\w+)=(.*)/;
  next if $line =~ /^#/;

  my ($chr, $pos, $id, $ref, $alts, $qual, $filter, $info) = split /\t/, $line;
  my %found = map {$_->[0] => $plugin->run($_->[1])} alleles_of($chr, $pos, $ref, split /,/, $alts);
  my ($rows_text) = $info =~ /CSQ=([^;]+)/;
  foreach my $text (split /,/, $rows_text) {
    my %row;
    @row{@columns} = split /\|/, $text, -1;
    my %wanted = map {$_ => $row{$_}} grep {/^(MITO|GLM)/ && $row{$_} ne ''} keys %row;
    is_deeply($found{$row{Allele}}, \%wanted, "$id $row{Allele} $row{SYMBOL}");
    $rows++;
  }
}
is_deeply($plugin->get_header_info, \%described, 'descriptions in the header');
cmp_ok($rows, '>', 15, 'rows compared');

done_testing();
