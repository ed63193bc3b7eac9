#!/usr/bin/perl
# Asks SpamAssassin itself which rules hit: reads file names from stdin, prints `NAME<TAB>RULE RULE ...` for each, subrules
# included. Local tests only, without classifier and user's settings; argument: the folder of the rules.
use strict;
use warnings;
use Mail::SpamAssassin;

my ($rules) = @ARGV;
my $plugins = join '', map { "loadplugin Mail::SpamAssassin::Plugin::$_\n" } qw(
    BodyEval Check DKIM DMARC FreeMail HTMLEval HTTPSMismatch HeaderEval ImageInfo MIMEEval MIMEHeader RelayEval ReplaceTags SPF
    URIDetail URIEval VBounce WLBLEval WelcomeListSubject);
my $assassin = Mail::SpamAssassin->new({
    rules_filename => $rules,
    site_rules_filename => '/nonexistent',
    userprefs_filename => '/dev/null',
    userstate_dir => '/nonexistent',
    dont_copy_prefs => 1,
    local_tests_only => 1,
    pre_config_text => $plugins,
    post_config_text => "use_bayes 0\n",
});
$assassin->compile_now(0);
$| = 1;
while (my $file = <STDIN>) {
    chomp $file;
    open(my $in, '<:raw', $file) or die "$file: $!";
    my $raw = do { local $/; <$in> };
    my $mail = $assassin->parse($raw, 0);
    my $status = $assassin->check($mail);
    my %hits;
    $hits{$_} = 1 for grep { length } split /,/, $status->get_names_of_tests_hit() . ',' . $status->get_names_of_subtests_hit();
    print "$file\t", join(' ', sort keys %hits), "\n";
    $status->finish();
    $mail->finish();
}
