package Bio::EnsEMBL::Variation::Utils::Sequence;

# Stands in for VEP's module of the same name: one function, written anew from what it promises.

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(get_matched_variant_alleles);

# Pairs of ALTs of two variants that are the same change, by their index.
sub get_matched_variant_alleles {
  my ($left, $right) = @_;
  my ($ref, @alts) = ($left->{ref}, @{$left->{alts}});
  if (($left->{strand} || 1) != ($right->{strand} || 1)) {
    ($ref, @alts) = map { _reverse_complement($_) } $ref, @alts;
  }
  my @matches;
  foreach my $i (0 .. $#alts) {
    my %spelled = map {$_ => 1} _spellings($ref, $alts[$i], $left->{pos});
    foreach my $j (0 .. $#{$right->{alts}}) {
      next unless grep {$spelled{$_}} _spellings($right->{ref}, $right->{alts}->[$j], $right->{pos});
      push @matches, {a_index => $i, b_index => $j};
    }
  }
  return \@matches;
}

# The change as position, bases that go and bases that come: trimmed from the left first, and from
# the right first, which differ in repeats.
sub _spellings {
  my ($ref, $alt, $pos) = @_;
  s/^-$// for $ref, $alt;
  my @spellings;
  foreach my $order ('left right', 'right left') {
    my ($gone, $come, $at) = ($ref, $alt, $pos);
    foreach my $side (split / /, $order) {
      if ($side eq 'left') {
        my $shared = 0;
        $shared++ while $shared < length($gone) && $shared < length($come)
          && substr($gone, $shared, 1) eq substr($come, $shared, 1);
        ($gone, $come, $at) = (substr($gone, $shared), substr($come, $shared), $at + $shared);
      }
      else {
        while ($gone ne '' && $come ne '' && substr($gone, -1) eq substr($come, -1)) {
          chop $gone;
          chop $come;
        }
      }
    }
    push @spellings, "$at:$gone>$come";
  }
  return @spellings;
}

sub _reverse_complement {
  my $bases = reverse shift;
  $bases =~ tr/ACGT/TGCA/;
  return $bases;
}

1;
