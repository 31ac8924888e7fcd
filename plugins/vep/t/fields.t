use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib", "$FindBin::Bin/..";
use Test::More;

use GLMTest qw(plugin run_on score_table score_vcf);

my $INFO = '##INFO=<ID=%s,Number=A,Type=%s,Description="%s",Source="glm_annotate",Version="1.2">';
my $HEADER = join("\n",
  '##fileformat=VCFv4.3',
  '##contig=<ID=chr1,length=1000>',
  '##INFO=<ID=AC,Number=A,Type=Integer,Description="not ours">',
  sprintf($INFO, 'T_LLR', 'Float', 'a "quoted\" part' =~ s/"quoted/\\"quoted/r),
  sprintf($INFO, 'T_SAD_MAX', 'Float', 'largest, with a > sign'),
  sprintf($INFO, 'T_STATUS', 'String', 'why'),
  "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO",
) . "\n";

sub record { return join("\t", 'chr1', $_[0], '.', $_[1], $_[2], '.', '.', $_[3]) . "\n" }

my $file = score_vcf($HEADER
  . record(1, 'G', 'A', 'T_LLR=0;T_SAD_MAX=-0.5;T_STATUS=SCORED')
  . record(10, 'a', 'c,G', 'AC=7,8;T_LLR=.,-2.5e-3;T_STATUS=LLR:TOKENIZATION|SAD:NOT_FINITE,SCORED')
  . record(20, 'CAG', 'C', 'T_LLR=1;T_STATUS=SCORED')
  . record(30, 'T', 'TGA', 'T_LLR=2;T_STATUS=SCORED')
  . record(40, 'A', '<DEL>', 'T_LLR=3;T_STATUS=SCORED')
  . record(50, 'AC', 'GT', 'T_LLR=4;T_STATUS=SCORED'));

sub with { return plugin({quiet => 1, @{$_[0]}}, "file=$file", @_[1 .. $#_]) }

my $all = with([]);
is_deeply(
  $all->get_header_info,
  {
    T_LLR => 'a "quoted" part; glm_annotate 1.2',
    T_SAD_MAX => 'largest, with a > sign; glm_annotate 1.2',
    T_STATUS => 'why; glm_annotate 1.2',
  },
  'fields of glm_annotate and no others, with their descriptions'
);
is_deeply($all->feature_types, ['Feature', 'Intergenic'], 'lines of every kind');

# Alleles, as VEP spells them.
my $expected = {T_LLR => 1, T_STATUS => 'SCORED'};
is_deeply(run_on($all, 'chr1', 21, 'AG', '-'), $expected, 'deletion');
is_deeply(run_on($all, '1', 21, 'AG', '-'), $expected, 'contig without chr');
is_deeply(run_on($all, 'chr1', 21, 'CT', '-', -1), $expected, 'on the reverse strand');
is_deeply(run_on($all, 'chr1', 20, 'CAG', 'C'), $expected, 'not trimmed');
is_deeply(run_on($all, 'chr1', 21, 'A', '-'), {}, 'another deletion');
is(run_on($all, 'chr1', 31, '-', 'GA')->{T_LLR}, 2, 'insertion');
is_deeply(run_on($all, 'chr1', 31, '-', 'GG'), {}, 'another insertion');
is(run_on($all, 'chr1', 50, 'AC', 'GT')->{T_LLR}, 4, 'two bases');
is_deeply(run_on($all, 'chr1', 50, 'A', 'G'), {}, 'one of two bases');
is_deeply(run_on($all, 'chr1', 49, 'AAC', 'AGT'), {T_LLR => 4, T_STATUS => 'SCORED'}, 'padded');
is_deeply(run_on($all, 'chr2', 21, 'AG', '-'), {}, 'contig that the file lacks');
is_deeply(run_on($all, 'chr1', 1, 'G', 'A'),
  {T_LLR => 0, T_SAD_MAX => -0.5, T_STATUS => 'SCORED'}, 'first base of the contig');
is_deeply(run_on($all, 'chr1', 40, 'A', 'deletion'), {}, 'no bases');

# Each allele has its own values; a missing number has no key.
is_deeply(run_on($all, 'chr1', 10, 'A', 'C'),
  {T_STATUS => 'LLR:TOKENIZATION&SAD:NOT_FINITE'}, 'first of two');
is_deeply(run_on($all, 'chr1', 10, 'A', 'G'), {T_LLR => '-2.5e-3', T_STATUS => 'SCORED'},
  'second of two');
is_deeply(run_on($all, 'chr1', 10, 'A', 'T'), {}, 'third, not in the file');

is_deeply(run_on(with([output_format => 'json']), 'chr1', 10, 'A', 'C'),
  {GLMAnnotate => {T_STATUS => 'LLR:TOKENIZATION|SAD:NOT_FINITE'}}, 'JSON');
is_deeply(run_on(with([rest => 1]), 'chr1', 10, 'A', 'G', 1),
  {GLMAnnotate => {T_LLR => '-2.5e-3', T_STATUS => 'SCORED'}}, 'REST');

my $some = with([], 'fields=T_STATUS:T_LLR');
is_deeply([sort keys %{$some->get_header_info}], ['T_LLR', 'T_STATUS'], 'header of chosen fields');
is_deeply(run_on($some, 'chr1', 1, 'G', 'A'), {T_LLR => 0, T_STATUS => 'SCORED'}, 'chosen fields');

# Cutoffs count for fields that are not printed, too.
my $cut = with([], 'fields=T_STATUS', 'max_T_LLR=1', 'min_T_LLR=-0.001');
like($cut->get_header_info->{GLMAnnotate_cutoff}, qr/T_LLR <= 1 and T_LLR >= -0\.001/, 'limits');
my $verdict = sub { run_on($cut, 'chr1', @_)->{GLMAnnotate_cutoff} };
is($verdict->(1, 'G', 'A'), 'PASS', 'between the limits');
is($verdict->(21, 'AG', '-'), 'PASS', 'a limit itself passes');
is($verdict->(31, '-', 'GA'), 'FAIL', 'above');
is($verdict->(10, 'A', 'G'), 'FAIL', 'below');
is($verdict->(10, 'A', 'C'), 'UNKNOWN', 'no number');
is($verdict->(10, 'A', 'T'), undef, 'no such allele');
is(run_on(with([], 'min_T_SAD_MAX=0', 'max_T_LLR=5'), 'chr1', 31, '-', 'GA')->{GLMAnnotate_cutoff},
  'UNKNOWN', 'one passes, one is missing');
is(run_on(with([], 'min_T_SAD_MAX=0', 'max_T_LLR=0'), 'chr1', 31, '-', 'GA')->{GLMAnnotate_cutoff},
  'FAIL', 'one fails, one is missing');

# The table of the same scores.
my $table = plugin({quiet => 1}, 'file=' . score_table(
  "#chrom\tpos\tid\tref\talt\tT_LLR\tT_STATUS\n"
  . "chr1\t10\tx\tA\tC\t.\tLLR:TOKENIZATION|SAD:NOT_FINITE\n"
  . "chr1\t10\tx\tA\tG\t-2.5e-3\tSCORED\n"
  . "chr1\t20\t.\tCAG\tC\t1\tSCORED\n"));
is_deeply(run_on($table, 'chr1', 10, 'A', 'C'),
  {T_STATUS => 'LLR:TOKENIZATION&SAD:NOT_FINITE'}, 'table: first of two');
is_deeply(run_on($table, 'chr1', 10, 'A', 'G'), {T_LLR => '-2.5e-3', T_STATUS => 'SCORED'},
  'table: second of two');
is_deeply(run_on($table, '1', 21, 'AG', '-'), $expected, 'table: deletion');
is_deeply([sort keys %{$table->get_header_info}], ['T_LLR', 'T_STATUS'], 'table: header');

# Mistakes.
sub refused {
  my ($wanted, $name, @params) = @_;
  ok(!eval { plugin({quiet => 1}, @params); 1 }, "$name: refused");
  like($@, $wanted, "$name: message");
}
refused(qr/^ERROR: GLMAnnotate needs file=/, 'no file', 'fields=T_LLR');
refused(qr/^ERROR: .*none\.vcf\.gz/, 'file that is not there', 'file=none.vcf.gz');
refused(qr/has no field T_XYZ; it has T_LLR, T_SAD_MAX, T_STATUS/, 'unknown field',
  "file=$file", 'fields=T_LLR:T_XYZ');
refused(qr/has no field AC;/, 'field of another program', "file=$file", 'fields=AC');
refused(qr/has no field T_XYZ/, 'cutoff of an unknown field', "file=$file", 'max_T_XYZ=1');
refused(qr/max_T_LLR is low, which is no number/, 'cutoff that is no number',
  "file=$file", 'max_T_LLR=low');
refused(qr/Unknown option field; there are file, fields/, 'unknown option',
  "file=$file", 'field=T_LLR');
refused(qr/has no field of glm-annotate/, 'VCF without scores',
  'file=' . score_vcf($HEADER =~ s/Source="glm_annotate"/Source="other"/gr
    . record(1, 'G', 'A', '.')));
refused(qr/no line that begins with #chrom, pos/, 'table without its head',
  'file=' . score_table("chr1\t10\tx\tA\tC\t.\n"));

done_testing();
