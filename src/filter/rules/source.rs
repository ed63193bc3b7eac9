//! Rule files in SpamAssassin's syntax, read into definitions. I/O: reads `.cf` files.
//!
//! Later lines overrule earlier ones, as there. Every line that has no effect is in [`Source::problems`] with file, line and
//! reason; only settings that are about SpamAssassin itself (its reports, caches, databases) are passed over, by name.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::condition;
use super::definition::{Call, Definition, Example, FieldSpec, Flags, Kind, Place, Problem, Severity, Test};
use super::eval::identity;
use super::shipped::{DATA, SHIPPED};
use crate::config::settings::Filter;

/// All that was read.
#[derive(Debug, Default)]
pub struct Source {
    /// Rules by name.
    pub rules: BTreeMap<String, Definition>,
    /// Points: one value, or four of which the first is for filters without network and classifier.
    pub scores: HashMap<String, f64>,
    /// Descriptions.
    pub descriptions: HashMap<String, String>,
    /// `tflags`.
    pub flags: HashMap<String, Flags>,
    /// Words of list settings (`freemail_domains`, `enlist_uri_host` …) by setting, in lower case.
    pub lists: HashMap<String, Vec<String>>,
    /// `redirector_pattern` lines in their order.
    pub redirectors: Vec<(Place, String)>,
    /// `## hit:` and `## miss:` lines.
    pub examples: Vec<Example>,
    /// What is not in force.
    pub problems: Vec<Problem>,
    tags: HashMap<String, String>,
    joints: HashMap<String, String>,
    replaced: Vec<String>,
}

/// Settings that say nothing about what a message is, or belong to databases and networks that we reach in other ways.
const PASSED_OVER: &str = " add_header adsp_override asn_lookup asn_use_geodb askdns bayes_ignore_header bayes_stopword clear_headers \
    clear_report_template clear_unsafe_report_template dns_block_rule dns_local_ports_avoid dns_query_restriction fns_check \
    fns_ignore_dkim fns_ignore_headers remove_header report report_contact report_safe require_version reuse rewrite_header test \
    unsafe_report uridnsbl_skip_domain uridnssub urifullnsrhssub urirhssub urirhsbl uridnsbl url_shortener_get \
    use_bayes use_auto_whitelist txrep_factor def_welcomelist_from_dkim def_welcomelist_from_spf def_welcomelist_auth \
    def_whitelist_auth def_whitelist_from_dkim def_whitelist_from_spf user_scores_dsn lang version_tag ";
/// Settings that change verdicts there and have no effect here: words of their names, and why.
const WITHOUT_EFFECT: [(&str, &str); 7] = [
    (" priority ", "rules run in the order in which they need each other"),
    (" shortcircuit ", "all rules are run"),
    (
        " trusted_networks internal_networks originating_ip_headers clear_originating_ip_headers ",
        "`networks` of [relay] are trusted",
    ),
    (" ok_languages ", "no language is thought worse than others"),
    (" util_rb_2tld util_rb_3tld clear_util_rb ", "registered domains come from a list that is built in"),
    (" required_score ", "`tag`, `quarantine` and `reject` of [filter] are the bounds"),
    (" url_shortener freemail_import_welcomelist_auth ", "no function here asks for it"),
];
/// Settings that hold lists of words for functions.
const LISTS: &str = " freemail_domains freemail_whitelist freemail_welcomelist \
    welcomelist_from whitelist_from welcomelist_to whitelist_to blocklist_from blacklist_from blocklist_to blacklist_to \
    welcomelist_from_rcvd whitelist_from_rcvd def_welcomelist_from_rcvd def_whitelist_from_rcvd more_spam_to all_spam_to \
    welcomelist_subject whitelist_subject blocklist_subject blacklist_subject \
    ok_locales util_rb_tld welcomelist_bounce_relays whitelist_bounce_relays dangerous_extensions suspect_extensions harmless_extensions \
    brand_common ";
/// In `rules` of a configuration: the rules that are built in, beside the others.
const BUILT_IN: &str = "built-in";
/// Bytes of a rule file.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Problems that are kept.
const PROBLEMS_MAX: usize = 10_000;

impl Source {
    /// Reads files and folders of `.cf` files, in the order of names; the lists that are built in are there already.
    pub fn read(paths: &[PathBuf]) -> Self {
        let mut source = Source::default();
        source.add(DATA.0, DATA.1.as_bytes());
        source.read_all(paths);
        source
    }

    fn read_all(&mut self, paths: &[PathBuf]) {
        for path in paths {
            if path.ends_with(BUILT_IN) && !path.exists() {
                self.add_built_in();
                continue;
            }
            for file in files(path) {
                let name = file.display().to_string();
                match read_file(&file) {
                    Ok(bytes) => self.add(&name, &bytes),
                    Err(error) => {
                        self.problem(&Place { file: name.into(), line: 0 }, Severity::Error, error.to_string());
                    }
                }
            }
        }
        self.finish();
    }

    fn add_built_in(&mut self) {
        SHIPPED.iter().for_each(|(name, text)| self.add(name, text.as_bytes()));
    }

    /// Reads what a configuration names; the rules that are built in if it names nothing at all. Attachments are judged by the lists
    /// that are built in even if there is no rule.
    pub fn configured(filter: &Filter) -> Self {
        let mut source = Source::default();
        source.add(DATA.0, DATA.1.as_bytes());
        if !filter.rules_shipped && filter.rules.is_empty() {
            return source;
        }
        source.add(identity::FILE, identity::RULES.as_bytes());
        if !filter.rules_shipped || !filter.rules.is_empty() {
            source.read_all(&filter.rules);
            return source;
        }
        source.add_built_in();
        source.finish();
        source
    }

    /// Reads one text, for tests and fuzzing.
    pub fn from_text(name: &str, text: &[u8]) -> Self {
        let mut source = Source::default();
        source.add(name, text);
        source.finish();
        source
    }

    fn add(&mut self, name: &str, bytes: &[u8]) {
        let file: Arc<str> = name.into();
        let mut blocks: Vec<Block> = Vec::new();
        let mut last_rule = String::new();
        for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let place = Place { file: file.clone(), line: number + 1 };
            let line = readable(line);
            let active = blocks.iter().all(|block| block.active);
            if active && let Some(example) = example(&line, &last_rule, &place) {
                self.examples.push(example);
                continue;
            }
            let line = without_comment(&line);
            let (word, rest) = split_word(&line);
            if word.is_empty() || self.block(&mut blocks, word, rest, &place) || !active {
                continue;
            }
            if let Err(text) = self.line(word, rest, &place, &mut last_rule) {
                self.problem(&place, Severity::Error, format!("{word}: {text}"));
            }
        }
        if !blocks.is_empty() {
            self.problem(&Place { file, line: 0 }, Severity::Error, "an `if` is not closed".to_owned());
        }
    }

    /// Handles `if`, `ifplugin`, `else`, `endif`; true if it was one of them.
    fn block(&mut self, blocks: &mut Vec<Block>, word: &str, rest: &str, place: &Place) -> bool {
        let truth = match word {
            "if" => condition::holds(rest.trim_end_matches('{')),
            "ifplugin" => Ok(condition::has_plugin(rest.trim_end_matches('{'))),
            "else" => {
                match blocks.last_mut() {
                    Some(block) => block.active = !block.active && !block.failed,
                    None => self.problem(place, Severity::Error, "`else` without `if`".to_owned()),
                }
                return true;
            }
            "endif" => {
                if blocks.pop().is_none() {
                    self.problem(place, Severity::Error, "`endif` without `if`".to_owned());
                }
                return true;
            }
            _ => return false,
        };
        if let Err(text) = &truth {
            self.problem(place, Severity::Error, text.clone());
        }
        if word == "ifplugin" && truth == Ok(false) && blocks.iter().all(|block| block.active) {
            let plugin = rest.trim_end_matches('{').trim();
            self.note_once(place, format!("left out: what needs the plugin {plugin}, which is not here"));
        }
        blocks.push(Block { active: truth.as_ref().is_ok_and(|truth| *truth), failed: truth.is_err() });
        true
    }

    fn line(&mut self, word: &str, rest: &str, place: &Place, last_rule: &mut String) -> Result<(), String> {
        if let Some((list, words)) = list(word, rest) {
            self.extend(&list, words);
            return Ok(());
        }
        match word {
            "header" | "body" | "rawbody" | "full" | "uri" | "mimeheader" | "meta" | "uri_detail" => {
                let (name, rest) = split_word(rest);
                rule_name(name)?;
                name.clone_into(last_rule);
                let kind = kind(word, rest)?;
                self.rules.insert(name.to_owned(), Definition { name: name.to_owned(), kind, place: place.clone() });
            }
            "score" => self.score(rest)?,
            "describe" => {
                let (name, text) = split_word(rest);
                self.descriptions.insert(name.to_owned(), text.to_owned());
            }
            "tflags" => {
                let (name, words) = split_word(rest);
                self.flags.insert(name.to_owned(), flags(words));
            }
            "replace_tag" => {
                let (name, text) = split_word(rest);
                self.tags.insert(name.to_owned(), text.to_owned());
            }
            "replace_inter" | "replace_pre" | "replace_post" => {
                let (name, text) = split_word(rest);
                self.joints.insert(format!("{} {name}", &word["replace_".len()..]), text.to_owned());
            }
            "replace_rules" => self.replaced.extend(rest.split_ascii_whitespace().map(str::to_owned)),
            "list_file" => self.list_file(rest, place, last_rule)?,
            "delist" => {
                let (word, rest) = split_word(rest);
                let (list, words) = list(word, rest).ok_or("this is no list")?;
                self.shorten(&list, words);
            }
            "redirector_pattern" => self.redirectors.push((place.clone(), rest.to_owned())),
            _ if PASSED_OVER.contains(&format!(" {word} ")) || word.starts_with("bayes_stopword") => {}
            "replace_start" | "replace_end" => return Err("tags are always written <…> here".to_owned()),
            _ => {
                let known = WITHOUT_EFFECT.iter().find(|(words, _)| words.contains(&format!(" {word} ")));
                match known {
                    Some((_, reason)) => self.note_once(place, format!("`{word}` has no effect here: {reason}")),
                    None => self.problem(place, Severity::Note, format!("`{word}` is not a setting of this filter")),
                }
            }
        }
        Ok(())
    }

    fn score(&mut self, rest: &str) -> Result<(), String> {
        let (name, values) = split_word(rest);
        rule_name(name)?;
        let first = values.split_ascii_whitespace().next().ok_or("the points are missing")?;
        let (relative, number) = match first.strip_prefix('(') {
            Some(inner) => (true, inner.trim_end_matches(')')),
            None => (false, first),
        };
        let value: f64 = number.parse().map_err(|_| format!("`{first}` is no number"))?;
        if !value.is_finite() {
            return Err(format!("`{first}` is no number"));
        }
        let before = if relative { self.scores.get(name).copied().unwrap_or(1.0) } else { 0.0 };
        self.scores.insert(name.to_owned(), before + value);
        Ok(())
    }

    fn extend(&mut self, list: &str, words: &str) {
        let words = words.split_ascii_whitespace().map(str::to_ascii_lowercase);
        self.lists.entry(list.to_owned()).or_default().extend(words);
    }

    /// Takes words out of a list; with none named, the list is gone.
    fn shorten(&mut self, list: &str, words: &str) {
        let gone: Vec<String> = words.split_ascii_whitespace().map(str::to_ascii_lowercase).collect();
        match self.lists.get_mut(list) {
            Some(known) if !gone.is_empty() => known.retain(|word| !gone.contains(word)),
            _ => _ = self.lists.remove(list),
        }
    }

    /// `list_file SETTING… FILE`: each line of the file stands behind the setting; `#` begins a comment.
    fn list_file(&mut self, rest: &str, place: &Place, last_rule: &mut String) -> Result<(), String> {
        let (head, name) = rest.trim().rsplit_once([' ', '\t']).ok_or("write `list_file SETTING FILE`")?;
        let (word, front) = split_word(head);
        list(word, front).ok_or_else(|| format!("`{word}` is no list"))?;
        let file = Path::new(&*place.file).parent().unwrap_or(Path::new("")).join(name);
        let bytes = read_file(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let file: Arc<str> = file.display().to_string().into();
        for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let line = without_comment(&readable(line));
            if !line.trim().is_empty() {
                let place = Place { file: file.clone(), line: number + 1 };
                self.line(word, &format!("{front} {}", line.trim()), &place, last_rule)?;
            }
        }
        Ok(())
    }

    fn problem(&mut self, place: &Place, severity: Severity, text: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { place: place.clone(), text, severity });
        }
    }

    /// A note that a file gets once, at the first of its lines that are meant.
    fn note_once(&mut self, place: &Place, text: String) {
        if !self.problems.iter().rev().any(|known| known.text == text && known.place.file == place.file) {
            self.problem(place, Severity::Note, text);
        }
    }

    fn finish(&mut self) {
        for name in std::mem::take(&mut self.replaced) {
            let Some(definition) = self.rules.get_mut(&name) else { continue };
            if let Kind::Body(test)
            | Kind::Full(test)
            | Kind::RawBody(test)
            | Kind::Uri(test)
            | Kind::Header(_, test, _)
            | Kind::MimeHeader(_, test, _) = &mut definition.kind
            {
                test.pattern = replace(&test.pattern, &self.tags, &self.joints);
            }
        }
    }
}

struct Block {
    active: bool,
    failed: bool,
}

/// The list that a setting adds to, and the words; nothing for a setting that is no list.
fn list<'t>(word: &str, rest: &'t str) -> Option<(String, &'t str)> {
    match word {
        "enlist_uri_host" | "enlist_addrlist" | "brand" => {
            let (name, words) = split_word(rest);
            let name = name.trim_matches(['(', ')']);
            let name = if word == "brand" { name.to_lowercase() } else { name.to_owned() };
            Some((format!("{word} {name}"), words))
        }
        _ => LISTS.contains(&format!(" {word} ")).then(|| (word.to_owned(), rest)),
    }
}

fn read_file(file: &Path) -> std::io::Result<Vec<u8>> {
    if fs::metadata(file)?.len() > FILE_BYTES_MAX {
        return Err(std::io::Error::other("the file is too large"));
    }
    fs::read(file)
}

fn files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries =
        fs::read_dir(path).map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>());
    let mut files: Vec<PathBuf> = entries.unwrap_or_default();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "cf"));
    files.sort();
    files
}

/// A line as text; bytes that are no UTF-8 become the escapes that patterns know them by.
fn readable(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok(text) => text.to_owned(),
        Err(_) => line
            .iter()
            .map(|&byte| if byte < 0x80 { char::from(byte).to_string() } else { format!(r"\x{byte:02x}") })
            .collect(),
    }
}

fn example(line: &str, rule: &str, place: &Place) -> Option<Example> {
    let rest = line.trim_start().strip_prefix("##")?.trim_start();
    let (hit, text) = match rest.strip_prefix("hit:") {
        Some(text) => (true, text),
        None => (false, rest.strip_prefix("miss:")?),
    };
    let text = text.strip_prefix(' ').unwrap_or(text).replace("\\n", "\n").replace("\\t", "\t");
    Some(Example { rule: rule.to_owned(), hit, text, place: place.clone() })
}

/// Cuts at a `#` that is not escaped, and unescapes those that are.
fn without_comment(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '#' => break,
            '\\' => match chars.next() {
                Some('#') => out.push('#'),
                Some(next) => out.extend(['\\', next]),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

fn split_word(line: &str) -> (&str, &str) {
    let line = line.trim();
    line.split_once(|c: char| c.is_ascii_whitespace()).map_or((line, ""), |(word, rest)| (word, rest.trim_start()))
}

fn rule_name(name: &str) -> Result<(), String> {
    let good =
        !name.is_empty() && name.len() <= 128 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if good { Ok(()) } else { Err(format!("`{name}` is no name of a rule")) }
}

fn flags(words: &str) -> Flags {
    let mut flags = Flags::default();
    for word in words.split_ascii_whitespace() {
        match word {
            "multiple" => flags.multiple = true,
            "nice" => flags.nice = true,
            "net" => flags.net = true,
            "nosubject" => flags.no_subject = true,
            "shadow" => flags.shadow = true,
            _ => {
                if let Some(most) = word.strip_prefix("maxhits=") {
                    flags.hits_max = most.parse().ok();
                }
            }
        }
    }
    flags
}

fn kind(word: &str, rest: &str) -> Result<Kind, String> {
    if rest.is_empty() {
        return Err("nothing to look for".to_owned());
    }
    if rest.starts_with("eval:") {
        return Call::parse(word, rest).map(Kind::Eval);
    }
    let plain = |text: &str| Test { negated: false, pattern: text.to_owned() };
    Ok(match word {
        "meta" => Kind::Meta(rest.to_owned()),
        "body" => Kind::Body(plain(rest)),
        "rawbody" => Kind::RawBody(plain(rest)),
        "full" => Kind::Full(plain(rest)),
        "uri" => Kind::Uri(plain(rest)),
        "uri_detail" => Kind::UriDetail(uri_detail(rest)?),
        _ => {
            if let Some(name) = rest.strip_prefix("exists:") {
                return Ok(Kind::Exists(FieldSpec::parse(name.trim()).name));
            }
            let (field, test) = rest.split_once(|c: char| c.is_ascii_whitespace()).ok_or("no pattern")?;
            let test = test.trim();
            let (negated, pattern) = match (test.strip_prefix("=~"), test.strip_prefix("!~")) {
                (Some(pattern), _) => (false, pattern),
                (_, Some(pattern)) => (true, pattern),
                _ => return Err("between field and pattern stands =~ or !~".to_owned()),
            };
            let (pattern, unset) = match pattern.rsplit_once("[if-unset:") {
                Some((pattern, unset)) => {
                    (pattern, unset.trim_end().strip_suffix(']').map(|text| text.trim().to_owned()))
                }
                None => (pattern, None),
            };
            let test = Test { negated, pattern: pattern.trim().to_owned() };
            let field = FieldSpec::parse(field);
            if word == "mimeheader" { Kind::MimeHeader(field, test, unset) } else { Kind::Header(field, test, unset) }
        }
    })
}

/// `key =~ /…/ key2 !~ /…/`: patterns have no blanks before the next key, or escape them.
fn uri_detail(rest: &str) -> Result<Vec<(String, Test)>, String> {
    let mut tests: Vec<(String, Test)> = Vec::new();
    let mut words = rest.split_ascii_whitespace().peekable();
    while let Some(key) = words.next() {
        match words.peek() {
            Some(&operator) if operator == "=~" || operator == "!~" => {
                words.next();
                let pattern = words.next().ok_or("the pattern is missing")?.to_owned();
                tests.push((key.to_ascii_lowercase(), Test { negated: operator == "!~", pattern }));
            }
            _ => {
                let (_, last) = tests.last_mut().ok_or("a condition is written `key =~ /…/`")?;
                last.pattern.push(' ');
                last.pattern.push_str(key);
            }
        }
    }
    Ok(tests)
}

/// Passes over a pattern in which tags stand for patterns that hold tags.
const REPLACE_PASSES_MAX: usize = 8;
/// Bytes that a pattern may grow to.
const PATTERN_BYTES_MAX: usize = 256 * 1024;

/// Puts patterns in place of `<A>`, and joints between neighbours (`<inter W1>`).
fn replace(pattern: &str, tags: &HashMap<String, String>, joints: &HashMap<String, String>) -> String {
    let mut text = pattern.to_owned();
    let mut joint = |kind: &str| {
        let (open, from) = (format!("<{kind} "), text.find(&format!("<{kind} "))?);
        let end = from + text[from..].find('>')?;
        let name = text[from + open.len()..end].to_owned();
        text.replace_range(from..=end, "");
        joints.get(&format!("{kind} {name}")).cloned()
    };
    let (before, after, between) = (joint("pre"), joint("post"), joint("inter"));
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    for pass in 0..REPLACE_PASSES_MAX {
        let (out, changed) = replace_once(&text, tags, pass == 0, &before, &after, between.as_deref());
        text = out;
        if !changed || text.len() > PATTERN_BYTES_MAX {
            break;
        }
    }
    text
}

fn replace_once(
    text: &str,
    tags: &HashMap<String, String>,
    joined: bool,
    before: &str,
    after: &str,
    between: Option<&str>,
) -> (String, bool) {
    let mut out = String::with_capacity(text.len() * 2);
    let mut changed = false;
    let mut rest = text;
    let mut after_tag = false;
    while let Some(open) = rest.find('<') {
        let name = rest[open + 1..].find(['<', '>']).map(|end| &rest[open + 1..open + 1 + end]);
        let known = name.and_then(|name| {
            tags.get(name).filter(|_| rest[open + 1 + name.len()..].starts_with('>')).map(|tag| (name, tag))
        });
        out.push_str(&rest[..open]);
        let Some((name, tag)) = known else {
            out.push('<');
            rest = &rest[open + 1..];
            after_tag = false;
            continue;
        };
        if joined {
            if after_tag && open == 0 {
                out.push_str(between.unwrap_or_default());
            }
            out.push_str(before);
        }
        out.push_str(tag);
        if joined {
            out.push_str(after);
        }
        changed = true;
        after_tag = true;
        rest = &rest[open + name.len() + 2..];
    }
    out.push_str(rest);
    (out, changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditionals_choose_and_problems_have_places() {
        let source = Source::from_text(
            "t.cf",
            b"ifplugin Mail::SpamAssassin::Plugin::Nothing\nbody A /a/\nelse\nbody A /b/\nendif\nbody\nscore A (0.5)\n\
              frobnicate 1\nheader B exists:X-B # note\ntflags A multiple maxhits=3\n## hit: one\\ntwo\n",
        );
        assert_eq!(source.rules["A"].kind, Kind::Body(Test { negated: false, pattern: "/b/".into() }));
        assert_eq!(source.scores["A"], 1.5);
        assert_eq!(source.flags["A"].hits_max, Some(3));
        assert_eq!(source.rules["B"].kind, Kind::Exists("x-b".into()));
        assert_eq!(source.examples[0].text, "one\ntwo");
        let lines: Vec<usize> = source.problems.iter().map(|problem| problem.place.line).collect();
        assert_eq!(lines, [1, 6, 8]);
    }

    #[test]
    fn tags_are_replaced_and_joined() {
        let source = Source::from_text(
            "t.cf",
            b"replace_tag A [a@]\nreplace_tag B b\nreplace_inter W1 [ .]?\nbody X /<inter W1><A><B>c<Z>/\nreplace_rules X\n",
        );
        assert_eq!(source.rules["X"].kind, Kind::Body(Test { negated: false, pattern: "/[a@][ .]?bc<Z>/".into() }));
    }
}
