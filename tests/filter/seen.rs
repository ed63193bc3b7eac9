//! Text and links as a reader sees them, from outside: rules of this file ask what `weir scan` made of each message.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use serde_json::Value;

/// One message: what it shows, its bytes, symbols that are due, symbols that must not be there.
type Case = (&'static str, Vec<u8>, &'static [&'static str], &'static [&'static str]);

/// What `weir scan` says of each message under these rules beside ours.
fn scan(rules: &str, cases: &[Case]) -> BTreeMap<String, BTreeSet<String>> {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let own = folder.path().join("own.cf");
    fs::write(&own, rules).expect("own folder");
    let mut scan = Command::new(env!("CARGO_BIN_EXE_weir"));
    scan.args(["scan", "--json", "--rules", "built-in", "--rules"]).arg(&own).current_dir(folder.path());
    for (name, message, ..) in cases {
        let file = folder.path().join(format!("{name}.eml"));
        fs::write(&file, message).expect("own folder");
        scan.arg(file);
    }
    let out = scan.output().expect("weir runs");
    let lines: Vec<Value> =
        String::from_utf8_lossy(&out.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), cases.len(), "{}", String::from_utf8_lossy(&out.stderr));
    let names = |said: &Value| {
        let symbols = said["symbols"].as_array().expect("a list").iter();
        symbols.map(|symbol| symbol["name"].as_str().expect("a name").to_owned()).collect()
    };
    let stem = |said: &Value| {
        let file = Path::new(said["file"].as_str().expect("a path")).file_stem().expect("a name");
        file.to_string_lossy().into_owned()
    };
    lines.iter().map(|said| (stem(said), names(said))).collect()
}

fn hold(rules: &str, cases: &[Case]) {
    let found = scan(rules, cases);
    let mut wrong = Vec::new();
    for (name, _, due, not) in cases {
        let found = &found[*name];
        wrong
            .extend(due.iter().filter(|symbol| !found.contains(**symbol)).map(|symbol| format!("{name}: no {symbol}")));
        wrong.extend(not.iter().filter(|symbol| found.contains(**symbol)).map(|symbol| format!("{name}: {symbol}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn plain(charset: &str, encoding: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "From: a@b.example\nMIME-Version: 1.0\nContent-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: {encoding}\n\n"
    );
    [head.as_bytes(), body, b"\n"].concat()
}

fn page(body: &str) -> Vec<u8> {
    format!("From: a@b.example\nMIME-Version: 1.0\nContent-Type: text/html; charset=utf-8\n\n<html><body>{body}</body></html>\n")
        .into_bytes()
}

fn field(name: &str, value: &str) -> Vec<u8> {
    format!("{name}: {value}\nX-Test: y\n\nhello\n").into_bytes()
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.encode(bytes).into_bytes()
}

const TEXT_RULES: &str = "\
body T_RUSSIAN /\u{43f}\u{440}\u{438}\u{432}\u{435}\u{442}/\nbody T_JAPANESE /\u{65e5}\u{672c}/\nbody T_CHINESE /\u{4e2d}\u{56fd}/\n\
body T_TAIWAN /\u{4e2d}\u{570b}/\nbody T_KOREAN /\u{d55c}\u{ad6d}/\nbody T_CAFE /caf\u{e9}/\nbody T_EURO /\u{20ac} 5/\nbody T_PILLS /cheap pills/\n\
body T_VIAGRA /\\bviagra\\b/\nbody T_PAYPAL /\\bpaypal\\b/\nheader T_SUBJECT Subject =~ /\\bpaypal\\b/\nbody T_SUBJECT_SEEN /^paypal$/\n\
header T_NAME From:name =~ /^Caf\u{e9} M\u{fc}ller$/\nbody T_CUT /one two/\n";

/// Charsets, transfer encodings, HTML, disguise, subject and display names.
fn texts() -> Vec<Case> {
    vec![
        ("koi8", plain("koi8-r", "8bit", b"\xd0\xd2\xc9\xd7\xc5\xd4"), &["T_RUSSIAN"], &[]),
        ("cp1251", plain("windows-1251", "8bit", b"\xef\xf0\xe8\xe2\xe5\xf2"), &["T_RUSSIAN"], &[]),
        ("sjis", plain("shift_jis", "8bit", b"\x93\xfa\x96\x7b"), &["T_JAPANESE"], &[]),
        ("iso2022", plain("iso-2022-jp", "7bit", b"\x1b$BF|K\\\x1b(B"), &["T_JAPANESE"], &[]),
        ("eucjp", plain("euc-jp", "8bit", b"\xc6\xfc\xcb\xdc"), &["T_JAPANESE"], &[]),
        ("gb2312", plain("gb2312", "base64", &base64(b"\xd6\xd0\xb9\xfa")), &["T_CHINESE"], &[]),
        ("big5", plain("big5", "base64", &base64(b"\xa4\xa4\xb0\xea")), &["T_TAIWAN"], &[]),
        ("euckr", plain("euc-kr", "8bit", b"\xc7\xd1\xb1\xb9"), &["T_KOREAN"], &[]),
        ("latin1", plain("iso-8859-1", "quoted-printable", b"caf=E9"), &["T_CAFE"], &[]),
        ("latin9", plain("iso-8859-15", "8bit", b"\xa4 5"), &["T_EURO"], &[]),
        ("utf16", plain("utf-16le", "base64", &base64(b"c\0a\0f\0\xe9\0")), &["T_CAFE"], &[]),
        ("utf7", plain("utf-7", "7bit", b"caf+AOk-"), &["T_CAFE"], &[]),
        ("unnamed", plain("us-ascii", "8bit", b"caf\xc3\xa9"), &["T_CAFE"], &[]),
        ("quoted", plain("utf-8", "quoted-printable", b"cheap=20=\npi=6C=6Cs"), &["T_PILLS"], &[]),
        ("folded", plain("utf-8", "7bit", b"one\n  two"), &["T_CUT"], &[]),
        ("tags", page("v<b></b>i<span>a</span>g<!-- x -->ra"), &["T_VIAGRA"], &[]),
        ("entities", page("&#118;&#x69;agra &eacute;"), &["T_VIAGRA"], &[]),
        ("cells", page("<td>via</td><td>gra</td>"), &[], &["T_VIAGRA"]),
        ("script", page("<script>viagra</script><style>viagra</style>x"), &[], &["T_VIAGRA"]),
        ("zero_width", plain("utf-8", "8bit", "v\u{200b}i\u{ad}a\u{2060}g\u{feff}ra".as_bytes()), &["T_VIAGRA"], &[]),
        ("look_alike", plain("utf-8", "8bit", "p\u{430}yp\u{430}l".as_bytes()), &["T_PAYPAL"], &[]),
        (
            "full_width",
            plain("utf-8", "8bit", "\u{ff50}\u{ff41}\u{ff59}\u{ff50}\u{ff41}\u{ff4c}".as_bytes()),
            &["T_PAYPAL"],
            &[],
        ),
        (
            "mathematical",
            plain("utf-8", "8bit", "\u{1d429}\u{1d41a}\u{1d432}\u{1d429}\u{1d41a}\u{1d425}".as_bytes()),
            &["T_PAYPAL"],
            &[],
        ),
        ("russian", plain("utf-8", "8bit", "\u{440}\u{430}\u{443}".as_bytes()), &[], &["T_PAYPAL"]),
        ("subject_words", field("Subject", "=?utf-8?q?pay?= =?utf-8?b?cGFs?="), &["T_SUBJECT"], &[]),
        ("subject_disguise", field("Subject", "=?utf-8?b?cNCweXDQsGw=?="), &["T_SUBJECT_SEEN"], &[]),
        ("subject_invisible", field("Subject", "=?utf-8?q?pass=E2=80=8Bword?="), &["WEIR_SUBJECT_INVISIBLE"], &[]),
        (
            "name_words",
            field("From", "=?utf-8?q?Caf=C3=A9?= =?iso-8859-1?q?_M=FCller?= <a@b.example>"),
            &["T_NAME"],
            &[],
        ),
        ("name_disguise", field("From", "=?utf-8?b?UNCweVBhbA==?= <a@b.example>"), &["WEIR_BRAND_FORGED"], &[]),
        (
            "name_invisible",
            field("From", "=?utf-8?q?Pay=E2=80=8BPal?= <a@b.example>"),
            &["WEIR_BRAND_FORGED", "WEIR_NAME_INVISIBLE"],
            &[],
        ),
    ]
}

#[test]
fn texts_are_read_as_a_reader_sees_them() {
    hold(TEXT_RULES, &texts());
}

/// What a reader can't see is noted, however it is hidden.
#[test]
fn hidden_text_is_noted() {
    let words = "nobody sees these words of a novel ".repeat(20);
    let ways = [
        ("none", format!("<div style='display:none'>{words}</div>")),
        ("invisible", format!("<div style='visibility: hidden'>{words}</div>")),
        ("attribute", format!("<div hidden>{words}</div>")),
        ("tiny", format!("<span style='font-size:0px'>{words}</span>")),
        ("transparent", format!("<p style='opacity:0'>{words}</p>")),
    ];
    let mut cases: Vec<Case> = vec![
        ("plain", page(&format!("<p>{words}</p>")), &[], &["WEIR_HIDDEN_TEXT"]),
        (
            "preview",
            page(&format!("<div style='display:none'>a line for the list</div><p>{words}</p>")),
            &[],
            &["WEIR_HIDDEN_TEXT"],
        ),
    ];
    let white = page(&format!("buy now <font color='#ffffff'>{words}</font>"));
    cases.push(("white", white, &["WEIR_LOW_CONTRAST"], &[]));
    cases.extend(ways.map(|(name, body)| (name, page(&format!("buy now {body}")), &["WEIR_HIDDEN_TEXT"][..], &[][..])));
    hold("", &cases);
}

const LINK_RULES: &str = "\
redirector_pattern m'^https?://hop\\.example/l/;(.*)'i\n\
uri T_EVIL m{^https?://(?:www\\.)?evil\\.example(?:/|$)}\nuri T_IP m{^http://192\\.0\\.2\\.235/}\nuri_detail T_CLICK text =~ /click/ domain =~ /^evil\\.example$/\n";

fn link(href: &str) -> Vec<u8> {
    page(&format!("<a href=\"{href}\">click</a>"))
}

fn text(line: &str) -> Vec<u8> {
    plain("utf-8", "8bit", line.as_bytes())
}

/// Obfuscations, redirectors, shorteners, homographs, links called by another address, addresses in all spellings, many subdomains.
fn links() -> Vec<Case> {
    vec![
        ("text", text("see http://evil.example/x."), &["T_EVIL"], &[]),
        ("html", link("http://evil.example/x"), &["T_EVIL", "T_CLICK"], &[]),
        ("hxxp", text("see hxxp://evil.example/x"), &["T_EVIL"], &[]),
        ("dots", text("see evil[.]example/x"), &["T_EVIL"], &[]),
        ("dot_word", text("see hxxps://evil(dot)example"), &["T_EVIL"], &[]),
        ("percent", link("http://ev%69%6C.example/x"), &["T_EVIL", "WEIR_URI_ESCAPED"], &[]),
        ("full_width", link("http://\u{ff45}vil\u{3002}example/x"), &["T_EVIL"], &[]),
        ("control", link("ht&#10;tp://ev&#9;il.example/x"), &["T_EVIL"], &[]),
        ("backslashes", link("http:\\\\evil.example/x"), &["T_EVIL"], &[]),
        ("one_slash", link("https:/evil.example/x"), &["T_EVIL"], &[]),
        ("no_scheme", link("//evil.example/x"), &["T_EVIL"], &[]),
        ("userinfo", link("http://www.paypal.com@evil.example/x"), &["WEIR_URI_USERINFO"], &[]),
        ("entity", link("http&#58;//evil&#46;example/x"), &["T_EVIL"], &[]),
        ("carried", link("https://hop.example/?u=https%3A%2F%2Fevil.example%2Fx&v=1"), &["T_EVIL"], &[]),
        (
            "carried_twice",
            link("https://a.example/?u=https%3A%2F%2Fb.example%2F%3Fv%3Dhttp%253A%252F%252Fevil.example%252Fx"),
            &["T_EVIL"],
            &[],
        ),
        ("carried_base64", link("https://hop.example/c/aHR0cHM6Ly9ldmlsLmV4YW1wbGUveA=="), &["T_EVIL"], &[]),
        (
            "rewritten",
            link("https://urldefense.proofpoint.com/v2/url?u=https-3A__evil.example_x&d=a"),
            &["T_EVIL"],
            &[],
        ),
        ("copied", link("https://www.google.com/amp/s/evil.example/x"), &["T_EVIL"], &[]),
        ("translated", link("https://evil-example.translate.goog/x"), &["T_EVIL"], &[]),
        ("pattern", link("https://hop.example/l/;evil.example/x"), &["T_EVIL"], &[]),
        ("pattern_encoded", link("https://hop.example/l/;http%3A%2F%2Fevil.example%2Fx"), &["T_EVIL"], &[]),
        ("shortener", link("https://bit.ly/2x"), &["WEIR_SHORT_PAGE"], &[]),
        ("shortener_below", link("https://notbit.ly/2x"), &[], &["WEIR_SHORT_PAGE"]),
        (
            "homograph",
            link("http://p\u{430}ypal.com/x"),
            &["WEIR_URI_HOMOGRAPH", "WEIR_URI_BRAND", "WEIR_URI_PUNYCODE"],
            &[],
        ),
        ("homograph_ascii", link("http://xn--pypal-4ve.com/x"), &["WEIR_URI_HOMOGRAPH", "WEIR_URI_BRAND"], &[]),
        ("umlaut", link("http://b\u{fc}cher.example/x"), &["WEIR_URI_PUNYCODE"], &["WEIR_URI_HOMOGRAPH"]),
        (
            "mismatch",
            page("<a href='http://evil.example/x'>https://www.bank.example.org/</a>"),
            &["WEIR_LINK_TEXT", "WEIR_HTTPS_HTTP"],
            &[],
        ),
        ("mismatch_www", page("<a href='http://evil.example/x'>www.bank.example.org</a>"), &["WEIR_LINK_TEXT"], &[]),
        ("match", page("<a href='http://m.bank.example.org/x'>www.bank.example.org</a>"), &[], &["WEIR_LINK_TEXT"]),
        ("ip", link("http://192.0.2.235/x"), &["T_IP", "WEIR_URI_IP"], &[]),
        ("ip_text", text("see http://192.0.2.235/x"), &["T_IP", "WEIR_URI_IP"], &[]),
        ("ip_number", link("http://3221226219/x"), &["T_IP", "WEIR_URI_IP", "WEIR_URI_ESCAPED"], &[]),
        ("ip_octal", link("http://0300.0.02.0353/x"), &["T_IP", "WEIR_URI_IP"], &[]),
        ("ip_hex", link("http://0xC0.0x0.0x2.0xEB/x"), &["T_IP", "WEIR_URI_IP", "WEIR_URI_ESCAPED"], &[]),
        ("ip_hex_number", link("http://0xC00002EB/x"), &["T_IP", "WEIR_URI_IP", "WEIR_URI_ESCAPED"], &[]),
        ("ip_short", link("http://192.0.747/x"), &["T_IP"], &[]),
        ("ip_6", link("http://[2001:db8::1]/x"), &["WEIR_URI_IP"], &[]),
        ("subdomains", link("http://a.b.c.d.e.evil.example/x"), &["WEIR_URI_LABELS"], &[]),
        (
            "honest",
            link("https://www.example.org/a/b.html?c=d"),
            &[],
            &["T_EVIL", "WEIR_URI_LABELS", "WEIR_URI_IP", "WEIR_URI_ESCAPED"],
        ),
    ]
}

#[test]
fn links_are_read_as_a_browser_opens_them() {
    hold(LINK_RULES, &links());
}

/// SpamAssassin's own function is asked what its patterns make of a link; ours must see that too.
#[test]
fn redirector_patterns_lead_where_spamassassin_follows_them() {
    let folder = Path::new("/usr/share/spamassassin");
    let links = [
        "http://chkpt.zdnet.com/chkpt/word/evil.example/x",
        "http://www.nate.com/r/abc/evil.example/x",
        "http://redir.internet.com/a/b/evil.example/x",
        "http://www.adtech.de/x;link=evil.example/x;y",
        "http://shop.example/redirect.php?a=b&goto=evil.example/x&c=d",
        "http://www.google.com/url?sa=D&q=evil.example/x&z=1",
        "http://translate.google.co.uk/translate?hl=en&u=evil.example/x",
        "http://www.facebook.com/l/;evil.example/x",
        "http://www.aol.com/redir.adp?_url=evil.example/x",
        "http://a.example/index.php?URL=evil.example/x",
        "http://a.example/none?to=evil.example/x",
    ];
    let program = "use Mail::SpamAssassin; use Mail::SpamAssassin::Util;\n\
        my $sa = Mail::SpamAssassin->new({rules_filename => '/usr/share/spamassassin', dont_copy_prefs => 1, local_tests_only => 1});\n\
        $sa->init(1); for my $link (@ARGV) {\n\
        my @all = Mail::SpamAssassin::Util::uri_list_canonicalize($sa->{conf}->{redirector_patterns}, [$link], $sa->{registryboundaries});\n\
        print((grep { $_ eq 'http://evil.example/x' } @all) ? 1 : 0, qq(\\n)); }";
    let out = Command::new("perl").args(["-e", program]).args(links).output().expect("perl runs");
    let theirs: Vec<bool> = String::from_utf8_lossy(&out.stdout).lines().map(|line| line == "1").collect();
    assert_eq!(theirs.len(), links.len(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(theirs.iter().filter(|follows| **follows).count() >= 9, "{theirs:?}");
    let patterns: String = fs::read_dir(folder)
        .expect("Debian's package spamassassin is installed")
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .flat_map(|text| {
            text.lines().filter(|line| line.starts_with("redirector_pattern")).map(str::to_owned).collect::<Vec<_>>()
        })
        .map(|line| line + "\n")
        .collect();
    let rules = patterns + "uri T_EVIL m{^http://evil\\.example/x$}\n";
    let names: Vec<String> = (0..links.len()).map(|number| format!("link{number}")).collect();
    let mut cases: Vec<Case> = Vec::new();
    for (link, name) in links.iter().zip(&names) {
        cases.push((String::leak(name.clone()), self::link(link), &[], &[]));
    }
    let found = scan(&rules, &cases);
    let ours: Vec<bool> = names.iter().map(|name| found[name].contains("T_EVIL")).collect();
    assert_eq!(ours, theirs, "{links:?}");
}
