#!/usr/bin/perl
# conversations.pl FOLDER COUNT: conversations about the texts in a folder (a line per paragraph), as lines of JSON with `messages`. Each has
# two rounds: a sentence is begun and gone on with, then the text is named that it is from. The sentences lie evenly over all texts; the
# same call gives the same conversations.
use strict;
use warnings;

my ($folder, $count) = @ARGV;
defined $count && $count =~ /^[1-9]\d*$/ or die "usage: conversations.pl FOLDER COUNT\n";

# A paragraph's first sentence, if it is of a middling length and nobody speaks in it.
sub first_sentence {
  my ($paragraph) = @_;
  my ($sentence) = $paragraph =~ /^([A-Z][^".!?]*[a-z]{3}[.!?])(?:\s|$)/ or return;
  my $words = () = $sentence =~ /\S+/g;
  return $words >= 14 && $words <= 40 ? $sentence : undef;
}

sub sentences_of {
  my ($path) = @_;
  open(my $in, '<:raw', $path) or die "$path: $!\n";
  return grep { defined } map { chomp; first_sentence($_) } <$in>;
}

# pride-and-prejudice.txt: Pride and Prejudice
sub title_of {
  my ($path) = @_;
  (my $name = $path) =~ s{.*/|\.[^.]*$}{}g;
  return ucfirst join ' ', map { /^(a|an|and|in|of|on|the|to)$/ ? $_ : ucfirst } split /[-_ ]+/, $name;
}

sub quoted {
  my ($text) = @_;
  $text =~ s/([\\"])/\\$1/g;
  $text =~ s/([\x00-\x1f])/sprintf '\\u%04x', ord $1/ge;
  return "\"$text\"";
}

sub conversation {
  my ($title, $sentence) = @_;
  my @words = split / +/, $sentence;
  my $begun = int(@words / 3);
  my @said = ("Go on: @words[0 .. $begun - 1]", "@words[$begun .. $#words]", 'Which book is that from?', "It is from $title.");
  my @messages = map { sprintf '{"role": "%s", "content": %s}', $_ % 2 ? 'assistant' : 'user', quoted($said[$_]) } 0 .. $#said;
  return '{"messages": [' . join(', ', @messages) . ']}';
}

my @all;
for my $path (sort glob("\Q$folder\E/*")) {
  push @all, map { conversation(title_of($path), $_) } sentences_of($path);
}
@all >= $count or die "$folder: " . scalar(@all) . " sentences will do, $count are wanted: a smaller COUNT, or more text\n";
print "$all[int($_ * @all / $count)]\n" for 0 .. $count - 1;
