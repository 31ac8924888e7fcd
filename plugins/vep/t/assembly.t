use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib", "$FindBin::Bin/..";
use File::Temp qw(tempdir);
use Test::More;

use GLMTest qw(plugin run_on score_table score_vcf);

# A file of one score a contig; lines of the header come first.
sub scores {
  my ($lines, @contigs) = @_;
  return score_vcf(join("\n",
    '##fileformat=VCFv4.3',
    @$lines,
    '##INFO=<ID=T_LLR,Number=A,Type=Float,Description="d",Source="glm_annotate",Version="1">',
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO",
    map {join("\t", $_, 5, qw(. A C . . T_LLR=1))} @contigs
  ) . "\n");
}

sub contig { return "##contig=<ID=$_[0],length=$_[1]" . (@_ > 2 ? ",assembly=$_[2]>" : '>') }

# The plugin or undef, its error, and its warnings.
sub try_plugin {
  my ($config, @params) = @_;
  my @warnings;
  local $SIG{__WARN__} = sub { push @warnings, @_ };
  my $plugin = eval { plugin($config, @params) };
  return ($plugin, $plugin ? '' : $@, join('', @warnings));
}

sub accepted {
  my ($name, $config, @params) = @_;
  my ($plugin, $error, $warnings) = try_plugin($config, @params);
  ok($plugin, $name) or diag($error);
  is($warnings, '', "$name: without a warning");
}

sub refused {
  my ($wanted, $name, $config, @params) = @_;
  my ($plugin, $error) = try_plugin($config, @params);
  ok(!$plugin, "$name: refused");
  like($error, $wanted, "$name: message");
}

my $hg38 = scores([contig('chr1', 248956422), contig('chrM', 16569)], 'chr1', 'chrM');
my $hg19 = scores([contig('chr1', 249250621), contig('chrM', 16571)], 'chr1', 'chrM');

accepted('GRCh38 by length', {assembly => 'GRCh38'}, "file=$hg38");
refused(qr/chr1 has 248956422 bases in .*, 249250621 in assembly GRCh37: scores of another/,
  'GRCh38 in a run of GRCh37', {assembly => 'GRCh37'}, "file=$hg38");
refused(qr/chr1 has 249250621 bases/, 'hg19 in a run of GRCh38', {assembly => 'GRCh38'}, "file=$hg19");
accepted('the check put off', {assembly => 'GRCh37'}, "file=$hg38", 'check_assembly=0');

# The chromosomes of hg19 are those of GRCh37, but for chrM.
my ($plugin, $error, $warnings) = try_plugin({assembly => 'GRCh37'}, "file=$hg19");
ok($plugin, 'hg19 in a run of GRCh37') or diag($error);
like($warnings, qr/leaves out chrM: chrM has 16571 bases in .*, 16569 in/, 'with a warning');
is(run_on($plugin, '1', 5, 'A', 'C')->{T_LLR}, 1, 'chr1 is used');
is_deeply(run_on($plugin, 'MT', 5, 'A', 'C'), {}, 'chrM is not');
refused(qr/chrM has 16571/, 'nothing but the chrM of hg19', {assembly => 'GRCh37'},
  'file=' . scores([contig('chrM', 16571)], 'chrM'));

# By name, where no length says it.
my $named = scores([contig('chr1', 1, 'x') =~ s/length=1,//r, '##reference=file:///a/hg38.fa'], 'chr1');
accepted('GRCh38 by the name of the reference', {assembly => 'GRCh38'}, "file=$named");
refused(qr/Assembly is GRCh37 but the header of .* says GRCh38/, 'another name',
  {assembly => 'GRCh37'}, "file=$named");
refused(qr/says GRCh37/, 'name in a line of a contig', {assembly => 'GRCh38'},
  'file=' . scores([contig('chrUn_1', 5, '"hg19"')], 'chrUn_1'));

# Any species, by the index of the FASTA.
my $folder = tempdir(CLEANUP => 1);
my $fasta = "$folder/genome.fa";
open(my $index, '>', "$fasta.fai") or die $!;
print $index "1\t1000\t3\t60\t61\nMT\t16569\t2000\t60\t61\n";
close($index);
accepted('lengths of the FASTA', {fasta => $fasta},
  'file=' . scores([contig('chr1', 1000), contig('chr2', 7)], 'chr1'));
refused(qr/chr1 has 1001 bases in .*, 1000 in \Q$fasta\E/, 'another length', {fasta => $fasta},
  'file=' . scores([contig('chr1', 1001)], 'chr1'));

# All names of the mitochondrial genome.
foreach my $name (qw(MT M chrM chrMT)) {
  my ($mito) = try_plugin({assembly => 'GRCh38'}, 'file=' . scores([contig($name, 16569)], $name));
  is(run_on($mito, $_, 5, 'A', 'C')->{T_LLR}, 1, "$_ is $name") foreach qw(MT M chrM chrMT);
}

# Nothing to compare.
my $table = score_table("#chrom\tpos\tid\tref\talt\tT_LLR\nchr1\t5\t.\tA\tC\t1\n");
(undef, undef, $warnings) = try_plugin({assembly => 'GRCh38'}, "file=$table");
like($warnings, qr/cannot tell whether .* is of the assembly/, 'a table says nothing');
(undef, undef, $warnings) = try_plugin({assembly => 'GRCh38', quiet => 1}, "file=$table");
is($warnings, '', 'with --quiet neither does the plugin');

done_testing();
