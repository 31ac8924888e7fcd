package Bio::EnsEMBL::Variation::Utils::BaseVepTabixPlugin;

# Stands in for VEP's base class of the same name: the methods that plugins call, without caches.
# Lines come from the tabix program.

use strict;
use warnings;

sub new {
  my ($class, $config, @params) = @_;
  return bless {config => $config, params => \@params}, $class;
}

sub params_to_hash {
  my $self = shift;
  my %pairs;
  foreach my $param (@{$self->{params}}) {
    my ($key, $value) = split /=/, $param;
    die "ERROR: $param has no value\n" unless defined($value);
    $pairs{$key} = $value;
  }
  return \%pairs;
}

sub get_user_params { return }

sub expand_left { $_[0]->{left} = $_[1] if @_ > 1; return $_[0]->{left} }

sub expand_right { $_[0]->{right} = $_[1] if @_ > 1; return $_[0]->{right} }

sub add_file {
  my ($self, $file) = @_;
  foreach my $needed ($file, "$file.tbi") {
    die "ERROR: $needed not found\n" unless -e $needed;
  }
  push @{$self->{_files}}, $file;
  return 1;
}

sub get_data {
  my ($self, $contig, $start, $end) = @_;
  foreach my $value ($contig, $start, $end) {
    die "ERROR: a part of the region is missing\n" unless $value;
  }
  my @found;
  foreach my $file (@{$self->{_files}}) {
    open(my $lines, '-|', 'tabix', $file, "$contig:$start-$end") or die "ERROR: $!\n";
    while (my $line = <$lines>) {
      chomp $line;
      push @found, $self->parse_data($line, $file);
    }
    close($lines) or die "ERROR: tabix $file $contig:$start-$end\n";
  }
  return \@found;
}

1;
