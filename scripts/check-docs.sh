#!/usr/bin/env bash
# Checks the Markdown files, scripts and configuration files of this repository:
#
#   - the target of every link to a file or heading of this repository exists;
#   - every code block names its language;
#   - every mentioned `make` target exists;
#   - no file contains a path that exists only on one machine.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v perl >/dev/null || { echo "check-docs: perl is missing; install it" >&2; exit 1; }

# Includes new files that are not committed yet, and excludes deleted ones. Without Git, for example in an archive, it
# includes all files.
list() {
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git ls-files --cached --others --exclude-standard | sort -u
    else
        find . -type f -not -path './target/*' -not -path '*/node_modules/*' | sed 's|^\./||' | sort
    fi
}

list | HERE="$PWD" perl -CSDA -Mstrict -Mwarnings -e '
use utf8;
use File::Basename qw(dirname);

my @files = grep { -f } map { chomp; $_ } <STDIN>;
my $errors = 0;
sub report { my ($file, $line, $what) = @_; print STDERR "$file:$line: $what\n"; $errors++ }

sub lines_of {
    my ($file) = @_;
    open my $in, "<:encoding(UTF-8)", $file or die "check-docs: failed to read $file: $!\n";
    my @lines = <$in>;
    chomp @lines;
    return @lines;
}

# Replaces fenced blocks by empty lines, so that line numbers stay the same. Also returns the errors of the fences.
my %prose;
sub prose_of {
    my ($file) = @_;
    return $prose{$file} if $prose{$file};
    my ($fence, @out, @errors, $number);
    for my $line (lines_of($file)) {
        $number++;
        if (defined $fence) {
            undef $fence if $line =~ /^[ >\t]*(`{3,}|~{3,})\s*$/ && index($1, $fence) == 0;
            push @out, "";
        } elsif ($line =~ /^(?:[ >\t]|[-*] |\d+\. )*(`{3,}|~{3,})\s*([^`]*)$/) {
            $fence = $1;
            push @errors, [$number, "this code block has no language; use ```text if it has none"] if $2 eq "";
            push @out, "";
        } else {
            push @out, $line;
        }
    }
    push @errors, [$number // 0, "a code block is not closed"] if defined $fence;
    return $prose{$file} = { lines => \@out, errors => \@errors };
}

# Returns the anchors of a page, which GitHub derives from its headings.
my %anchors;
sub anchors_of {
    my ($file) = @_;
    return $anchors{$file} if $anchors{$file};
    my (%seen, %found);
    my $before = "";
    for my $line (@{ prose_of($file)->{lines} }) {
        $found{$1} = 1 while $line =~ /<[^>]*\b(?:id|name)="([^"]+)"/g;
        my $heading = $line =~ /^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$/ ? $1
            : $line =~ /^(?:=+|-{3,})\s*$/ && $before =~ /\S/ && $before !~ /^\s*[|>#-]/ ? $before : undef;
        $before = $line;
        next unless defined $heading;
        $heading =~ s/!?\[([^\]]*)\]\([^)]*\)/$1/g;
        my $slug = lc $heading;
        $slug =~ s/[^\w\- ]//g;
        $slug =~ s/ /-/g;
        my $times = $seen{$slug}++;
        $found{ $times ? "$slug-$times" : $slug } = 1;
    }
    return $anchors{$file} = \%found;
}

# Returns the path without "." and "..", or undef if it leaves the repository.
sub plain {
    my @parts;
    for my $part (split m{/}, $_[0]) {
        next if $part eq "" || $part eq ".";
        if ($part eq "..") { return undef unless @parts; pop @parts } else { push @parts, $part }
    }
    return join "/", @parts;
}

sub check_link {
    my ($file, $line, $target) = @_;
    return if $target =~ m{^(?:[a-z][a-z0-9+.-]*:|//)}i;
    my ($path, $anchor) = split /#/, $target, 2;
    $path =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ge;
    $path =~ s/\?.*//;
    my $to = $path eq "" ? $file : plain($path =~ m{^/} ? $path : dirname($file) . "/$path");
    return report($file, $line, "the link to $target leaves the repository") unless defined $to;
    $to = "." if $to eq "";
    return report($file, $line, "the link to $target is broken: $to does not exist") unless -e $to;
    return if !defined $anchor || $anchor eq "";
    if ($to =~ /\.md$/) {
        report($file, $line, "the link to $target is broken: $to has no heading #$anchor") unless anchors_of($to)->{$anchor};
    } elsif ($anchor !~ /^L\d+(?:-L\d+)?$/) {
        report($file, $line, "the link to $target has an anchor, but the file has no headings");
    }
}

my %make_targets;
if (-f "Makefile") { /^([a-z][a-z-]*):/ and $make_targets{$1} = 1 for lines_of("Makefile") }

sub check_make {
    my ($file, $line, $text) = @_;
    while ($text =~ /(?:^|[`;&(]\s*)make ([a-z][a-z-]*)/g) {
        report($file, $line, "the Makefile has no target $1") unless $make_targets{$1};
    }
}

for my $file (grep { /\.md$/ } @files) {
    my $prose = prose_of($file);
    report($file, @$_) for @{ $prose->{errors} };
    my $number = 0;
    for my $text (@{ $prose->{lines} }) {
        $number++;
        my $links = $text;
        $links =~ s/(`+)(?:(?!\1).)*\1//g;
        check_link($file, $number, $1) while $links =~ /\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)/g;
        check_link($file, $number, $1) if $links =~ /^ {0,3}\[(?!\^)[^\]]+\]:\s*<?([^\s>]+)/;
        check_link($file, $number, $1) while $links =~ /<(?:a|img|source)\b[^>]*\b(?:href|src|srcset)="([^"\s]+)"/g;
        check_make($file, $number, $1) while $text =~ /(`make [^`]*)`/g;
    }
    my ($line, $in_code) = (0, 0);
    for my $text (lines_of($file)) {
        $line++;
        if ($text =~ /^\s*(?:```|~~~)/) { $in_code = !$in_code; next }
        check_make($file, $line, $text) if $in_code;
    }
}

# Only documents, scripts and configuration: tests in source code may name such paths.
for my $file (grep { m{(?:\.(?:md|toml|sh|ya?ml|json)|^Makefile|^\.ci/run)$} && !m{(?:^|/)package-lock\.json$} } @files) {
    my $number = 0;
    for my $text (lines_of($file)) {
        $number++;
        if (length $ENV{HERE} > 1 && index($text, "$ENV{HERE}/") >= 0) {
            report($file, $number, "$ENV{HERE} is the path of this checkout; write a relative path");
            next;
        }
        next unless $text =~ m{(?<![\w.:/-])(/(?:home|Users)/(?!(?:user|you|YOU|USER|NAME)\b)[A-Za-z0-9._-]+/[^\s"\x27`)]*|/root/\.(?:cache|cargo|rustup|config|local)[^\s"\x27`)]*|file:/{2}/[^\s"\x27`)]*)};
        report($file, $number, "$1 exists only on one machine; write a path that is valid everywhere");
    }
}

if ($errors) { print STDERR "check-docs: $errors error" . ($errors > 1 ? "s" : "") . "\n"; exit 1 }
printf "check-docs: %d pages checked, no errors\n", scalar grep { /\.md$/ } @files;
'
