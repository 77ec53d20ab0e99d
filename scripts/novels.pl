#!/usr/bin/perl
# novels.pl Rdata.rdb FOLDER: writes the novels in Debian's r-cran-janeaustenr as plain text, a file per novel, a line per paragraph.
#
# Rdata.rdb is R's lazy-load database: objects one after the other, each a 32-bit big-endian length and a zlib stream. An object here is
# a serialised character vector (XDR, big-endian): "X\n", three version words, the native encoding, then per line of text
# a flags word whose low byte is 9, a length (-1: none) and the bytes.
use strict;
use warnings;
use Compress::Zlib;

my ($database, $folder) = @ARGV;
defined $folder or die "usage: novels.pl Rdata.rdb FOLDER\n";

sub read_file {
  my ($path) = @_;
  open(my $in, '<:raw', $path) or die "$path: $!\n";
  local $/;
  return scalar <$in>;
}

# The lines of one serialised character vector.
sub lines_of {
  my ($object) = @_;
  my ($format, $version) = unpack('a2 N', $object);
  die "not a serialised R object of version 2 or 3\n" unless $format eq "X\n" && ($version == 2 || $version == 3);
  my $at = 2 + 12;
  $at += 4 + unpack('N', substr($object, $at, 4)) if $version == 3;
  my ($type, $count) = unpack('N N', substr($object, $at, 8));
  die "not a character vector\n" unless ($type & 0xff) == 16;
  $at += 8;
  my @lines;
  for (1 .. $count) {
    my ($flags, $length) = unpack('N N', substr($object, $at, 8));
    die "damaged string\n" unless ($flags & 0xff) == 9 && ($length == 0xffffffff || $at + 8 + $length <= length $object);
    $length = 0 if $length == 0xffffffff;
    push @lines, substr($object, $at + 8, $length);
    $at += 8 + $length;
  }
  return @lines;
}

# Lines wrapped at 70 columns to one line per paragraph, with an empty line between paragraphs.
sub paragraphs {
  my (@paragraphs, @current);
  for my $line (@_, '') {
    (my $text = $line) =~ s/^\s+|\s+$//g;
    if (length $text) {
      push @current, $text;
    } elsif (@current) {
      push @paragraphs, join(' ', @current);
      @current = ();
    }
  }
  return @paragraphs;
}

my $rest = read_file($database);
while (length $rest > 4) {
  $rest = substr($rest, 4);
  my $inflater = inflateInit() or die "zlib cannot start\n";
  my ($object, $status) = $inflater->inflate($rest);
  die "$database: damaged zlib stream\n" unless $status == Z_STREAM_END;
  my @paragraphs = paragraphs(lines_of($object));
  (my $name = lc $paragraphs[0]) =~ s/[^a-z]+/-/g;
  open(my $out, '>:raw', "$folder/$name.txt") or die "$folder/$name.txt: $!\n";
  print $out map { "$_\n\n" } @paragraphs;
  close $out or die "$folder/$name.txt: $!\n";
}
