//! Rules in SpamAssassin's syntax: loaded once, compiled, run on every message. Pure but for [`Source::read`].
//!
//! [`Rules::load`] compiles what [`source`] read; what can't be compiled is a problem with file, line and reason, and the
//! other rules work. [`Rules::run`] walks each text once ([`matcher::Group`]), then counts the candidates' matches, then functions, then metas
//! in the order of their dependencies. Rules without points that no other rule names are not run.

mod condition;
pub mod definition;
mod eval;
mod literal;
mod matcher;
mod meta;
mod pattern;
mod relax;
mod relays;
mod shipped;
pub mod source;
mod texts;

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use definition::{Definition, Example, FieldSpec, Flags, Kind, Place, Test};
pub use definition::{Problem, Severity};
use matcher::{Group, Matcher};
use meta::Expression;
pub use source::Source;
use texts::Texts;

use super::budget::Budget;
use super::engine::Facts;
use super::message::View;
use super::verdict::Points;

/// A rule, compiled.
pub struct Rule {
    /// Its name.
    pub name: String,
    /// What it adds.
    pub points: Points,
    /// What it says.
    pub description: String,
    /// Where it stands.
    pub place: Place,
    /// Counted beside the verdict.
    pub shadow: bool,
    flags: Flags,
    kind: Compiled,
    /// It has points, or a rule that has them needs it.
    live: bool,
}

enum Compiled {
    Eval(eval::Function, Vec<String>),
    Exists(String),
    Matching(Matcher),
    Meta(Expression),
    UriDetail(Vec<(String, Matcher)>),
    /// It could not be loaded, or needs the network; never hits.
    Void,
}

/// One rule that hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Its number in [`Rules::rules`].
    pub rule: usize,
    /// How often.
    pub count: u16,
    /// What matched first.
    pub evidence: Option<String>,
}

/// All rules, ready to run.
#[derive(Default)]
pub struct Rules {
    /// All of them, by name.
    pub rules: Vec<Rule>,
    /// What is not in force.
    pub problems: Vec<Problem>,
    examples: Vec<Example>,
    lists: eval::Lists,
    body: Group,
    raw: Group,
    full: Group,
    uri: Group,
    headers: Vec<(FieldSpec, Group, StandIns)>,
    mime: Vec<(FieldSpec, Group)>,
    functions: Vec<u32>,
    metas: Vec<u32>,
}

/// What rules see in place of a field that is missing.
type StandIns = Vec<(u32, Vec<u8>)>;

/// Hits of one rule without `tflags multiple`, and the bound of those with it.
const HITS_MAX: u16 = 1_000;
/// Bytes of matching text that are shown.
const EVIDENCE_BYTES_MAX: usize = 60;
/// Points of a rule that nobody gave points, as in SpamAssassin; those in test have next to none.
const POINTS_DEFAULT: f64 = 1.0;
const POINTS_IN_TEST: f64 = 0.01;

/// Where a kind of rule looks.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Target {
    Body,
    Full,
    Header(FieldSpec),
    Mime(FieldSpec),
    Raw,
    Uri,
}

impl Rules {
    /// Compiles a source.
    pub fn load(source: Source) -> Self {
        let names: HashMap<String, usize> = source.rules.keys().cloned().zip(0..).collect();
        let definitions: Vec<&Definition> = source.rules.values().collect();
        let compiled: Vec<(Rule, Vec<Problem>)> =
            definitions.par_iter().map(|definition| compile(definition, &source, &names)).collect();
        let mut rules =
            Rules { examples: source.examples.clone(), lists: eval::Lists::new(&source.lists), ..Rules::default() };
        rules.problems.clone_from(&source.problems);
        for (rule, problems) in compiled {
            rules.rules.push(rule);
            rules.problems.extend(problems);
        }
        rules.order_metas();
        rules.mark_live();
        rules.group(&definitions);
        rules
    }

    /// Rules that can hit.
    pub fn loaded(&self) -> usize {
        self.rules.iter().filter(|rule| !matches!(rule.kind, Compiled::Void)).count()
    }

    /// Metas after those that they name; those in a circle are void.
    fn order_metas(&mut self) {
        // 0: not seen, 1: on the way, 2: done.
        let mut state = vec![0u8; self.rules.len()];
        let mut order = Vec::new();
        for start in 0..self.rules.len() {
            let mut stack = vec![(start, false)];
            while let Some((at, leaving)) = stack.pop() {
                let Compiled::Meta(expression) = &self.rules[at].kind else { continue };
                if leaving {
                    state[at] = 2;
                    order.push(at as u32);
                } else if state[at] == 0 {
                    state[at] = 1;
                    stack.push((at, true));
                    let mut circle = false;
                    expression.each_rule(&mut |rule| {
                        circle |= state[rule] == 1 && matches!(self.rules[rule].kind, Compiled::Meta(_));
                        stack.push((rule, false));
                    });
                    if circle {
                        let text = format!("{}: the meta depends on itself", self.rules[at].name);
                        self.problems.push(Problem {
                            place: self.rules[at].place.clone(),
                            text,
                            severity: Severity::Error,
                        });
                    }
                }
            }
        }
        self.metas = order;
    }

    fn mark_live(&mut self) {
        for rule in &mut self.rules {
            rule.live = rule.points != Points::default() || rule.shadow;
        }
        for &number in self.metas.iter().rev() {
            let rule = &self.rules[number as usize];
            if !rule.live {
                continue;
            }
            let mut named = Vec::new();
            if let Compiled::Meta(expression) = &rule.kind {
                expression.each_rule(&mut |rule| named.push(rule));
            }
            named.into_iter().for_each(|rule| self.rules[rule].live = true);
        }
    }

    fn group(&mut self, definitions: &[&Definition]) {
        let mut targets: BTreeMap<Target, Vec<u32>> = BTreeMap::new();
        let mut unset: HashMap<u32, Vec<u8>> = HashMap::new();
        for (number, definition) in definitions.iter().enumerate().filter(|(number, _)| self.rules[*number].live) {
            let number = number as u32;
            let target = match &definition.kind {
                Kind::Body(_) => Target::Body,
                Kind::Full(_) => Target::Full,
                Kind::RawBody(_) => Target::Raw,
                Kind::Uri(_) => Target::Uri,
                Kind::MimeHeader(spec, ..) => Target::Mime(spec.clone()),
                Kind::Header(spec, _, stand_in) => {
                    if let Some(text) = stand_in {
                        unset.insert(number, text.clone().into_bytes());
                    }
                    Target::Header(spec.clone())
                }
                Kind::Eval(_) | Kind::Exists(_) | Kind::UriDetail(_) => {
                    self.functions.push(number);
                    continue;
                }
                Kind::Meta(_) => continue,
            };
            if matches!(self.rules[number as usize].kind, Compiled::Matching(_)) {
                targets.entry(target).or_default().push(number);
            }
        }
        for (target, members) in targets {
            let literals = |number: u32| match &self.rules[number as usize].kind {
                Compiled::Matching(matcher) => matcher.literals.as_ref(),
                _ => None,
            };
            let group = Group::new(members.iter().map(|&number| (number, literals(number))));
            match target {
                Target::Body => self.body = group,
                Target::Full => self.full = group,
                Target::Raw => self.raw = group,
                Target::Uri => self.uri = group,
                Target::Mime(spec) => self.mime.push((spec, group)),
                Target::Header(spec) => {
                    let stand_ins =
                        members.iter().filter_map(|number| Some((*number, unset.get(number)?.clone()))).collect();
                    self.headers.push((spec, group, stand_ins));
                }
            }
        }
    }

    /// All rules that hit a message, in the order of their names.
    pub fn run(&self, view: &View<'_>, facts: &Facts, budget: &mut Budget) -> Vec<Hit> {
        let texts = Texts::new(view, facts);
        let mut run = Run {
            rules: self,
            hits: vec![0; self.rules.len()],
            seen: vec![0; self.rules.len()],
            round: 0,
            seen_lines: vec![0; self.rules.len()],
            round_of_lines: 0,
            evidence: HashMap::new(),
            budget,
        };
        run.lines(&self.body, &texts.body);
        run.lines(&self.uri, &texts.uris);
        for piece in &texts.raw {
            run.text(&self.raw, piece);
        }
        run.text(&self.full, texts.full());
        self.run_headers(&mut run, &texts);
        for &number in &self.functions {
            run.function(number, &texts);
        }
        for &number in &self.metas {
            run.meta(number);
        }
        run.into_hits()
    }

    fn run_headers(&self, run: &mut Run<'_>, texts: &Texts<'_, '_>) {
        for (spec, group, stand_ins) in &self.headers {
            match texts.header(spec) {
                Some(value) => run.text(group, &value),
                None => {
                    for (number, text) in stand_ins {
                        run.count(*number, text);
                    }
                    if group.has_always() {
                        run.text_without(group, b"", stand_ins);
                    }
                }
            }
        }
        if self.mime.is_empty() {
            return;
        }
        for part in &texts.view.parts {
            let header = super::message::Header::parse(&part.header, run.budget);
            for (spec, group) in &self.mime {
                for field in header.all(&spec.name) {
                    let value =
                        if spec.has("raw") { field.raw.to_vec() } else { field.text().into_owned().into_bytes() };
                    run.text(group, &value);
                }
            }
        }
    }

    /// Examples that do not hold: each rule's `## hit:` and `## miss:` lines, tried on what the rule looks at.
    pub fn failing_examples(&self) -> Vec<Problem> {
        self.examples.iter().filter_map(|example| self.failing(example)).collect()
    }

    /// Examples in the files.
    pub fn example_count(&self) -> usize {
        self.examples.len()
    }

    fn failing(&self, example: &Example) -> Option<Problem> {
        let problem = |text: String| Some(Problem { place: example.place.clone(), text, severity: Severity::Error });
        let Some(rule) = self.rules.iter().find(|rule| rule.name == example.rule) else {
            return problem("the example stands under no rule".to_owned());
        };
        let budget = &mut Budget::default();
        let hit = match &rule.kind {
            Compiled::Matching(matcher) => matcher.count(example.text.as_bytes(), 1, budget).0 > 0,
            _ => {
                let view = View::read(example.text.as_bytes());
                self.run(&view, &Facts::default(), budget).iter().any(|hit| self.rules[hit.rule].name == rule.name)
            }
        };
        if hit == example.hit {
            return None;
        }
        let word = if example.hit { "does not hit" } else { "hits" };
        problem(format!("{} {word} `{}`", rule.name, example.text.escape_debug()))
    }
}

struct Run<'r> {
    rules: &'r Rules,
    hits: Vec<u16>,
    seen: Vec<u32>,
    round: u32,
    seen_lines: Vec<u64>,
    round_of_lines: u64,
    evidence: HashMap<u32, String>,
    budget: &'r mut Budget,
}

impl Run<'_> {
    /// Runs a group on a text whose lines are matched each for itself.
    fn lines(&mut self, group: &Group, text: &[u8]) {
        // Lines of another text have other marks; the first is not 0, which is the mark of a rule not seen.
        self.round_of_lines += 1 << 32;
        let lines: Vec<(usize, &[u8])> = lines_of(text).filter(|(_, line)| !line.is_empty()).collect();
        if lines.is_empty() {
            return;
        }
        // A literal leads to its line; the expression runs there and not on the others.
        let mut found: Vec<(u32, u32)> = Vec::new();
        group.by_literal(text, |number, end| {
            let line = lines.partition_point(|(start, _)| *start < end).saturating_sub(1) as u32;
            if self.seen_at(number, line) {
                found.push((number, line));
            }
        });
        for (number, line) in found {
            self.count(number, lines[line as usize].1);
        }
        for &number in &group.always {
            let kind = &self.rules.rules[number as usize].kind;
            if matches!(kind, Compiled::Matching(matcher) if !matcher.may_match_line(text)) {
                continue;
            }
            for (_, line) in &lines {
                self.count(number, line);
                if self.is_settled(number) {
                    break;
                }
            }
        }
    }

    fn text(&mut self, group: &Group, text: &[u8]) {
        for number in self.candidates(group, text) {
            self.count(number, text);
        }
    }

    fn text_without(&mut self, group: &Group, text: &[u8], others: &[(u32, Vec<u8>)]) {
        for number in self.candidates(group, text) {
            if !others.iter().any(|(other, _)| *other == number) {
                self.count(number, text);
            }
        }
    }

    fn candidates(&mut self, group: &Group, text: &[u8]) -> Vec<u32> {
        self.round += 1;
        let (round, seen) = (self.round, &mut self.seen);
        let mut found = Vec::new();
        group.candidates(text, |number| {
            if seen[number as usize] != round {
                seen[number as usize] = round;
                found.push(number);
            }
        });
        found
    }

    /// True once for a rule and line, as long as lines come in their order.
    fn seen_at(&mut self, number: u32, line: u32) -> bool {
        let mark = self.round_of_lines + u64::from(line);
        std::mem::replace(&mut self.seen_lines[number as usize], mark) != mark
    }

    fn most(&self, number: u32) -> u16 {
        let flags = &self.rules.rules[number as usize].flags;
        if flags.multiple { flags.hits_max.unwrap_or(HITS_MAX) } else { 1 }
    }

    fn is_settled(&self, number: u32) -> bool {
        self.hits[number as usize] >= self.most(number)
    }

    fn count(&mut self, number: u32, text: &[u8]) {
        let Compiled::Matching(matcher) = &self.rules.rules[number as usize].kind else { return };
        if self.is_settled(number) {
            return;
        }
        let most = self.most(number) - self.hits[number as usize];
        let (count, first) = matcher.count(text, most, self.budget);
        if count > 0 {
            self.hits[number as usize] += count;
            if let Some((start, end)) = first {
                self.evidence.entry(number).or_insert_with(|| show(&text[start..end]));
            }
        }
    }

    fn function(&mut self, number: u32, texts: &Texts<'_, '_>) {
        let hit = match &self.rules.rules[number as usize].kind {
            Compiled::Eval(function, arguments) => {
                function(&eval::Context { texts, lists: &self.rules.lists }, arguments)
            }
            Compiled::Exists(name) => texts.view.header.first(name).is_some(),
            Compiled::UriDetail(tests) => self.uri_detail(tests, texts),
            _ => false,
        };
        self.hits[number as usize] = u16::from(hit);
    }

    fn uri_detail(&mut self, tests: &[(String, Matcher)], texts: &Texts<'_, '_>) -> bool {
        texts.view.urls.iter().any(|url| {
            tests.iter().all(|(key, matcher)| {
                let value = match key.as_str() {
                    "text" => url.anchor.as_str(),
                    "domain" => url.domain(),
                    "host" => url.host.as_str(),
                    "scheme" => url.text.split(':').next().unwrap_or_default(),
                    "type" => match url.source {
                        crate::filter::message::Source::Href => "a",
                        crate::filter::message::Source::Embedded => "img",
                        _ => "parsed",
                    },
                    _ => url.text.as_str(),
                };
                matcher.count(value.as_bytes(), 1, self.budget).0 > 0
            })
        })
    }

    fn meta(&mut self, number: u32) {
        let rule = &self.rules.rules[number as usize];
        let Compiled::Meta(expression) = &rule.kind else { return };
        if rule.live {
            let value = expression.value(&|rule| f64::from(self.hits[rule]));
            self.hits[number as usize] = u16::from(value != 0.0 && value.is_finite());
        }
    }

    fn into_hits(self) -> Vec<Hit> {
        let Run { hits, mut evidence, .. } = self;
        let hits = hits.into_iter().enumerate().filter(|(_, count)| *count > 0);
        hits.map(|(rule, count)| Hit { rule, count, evidence: evidence.remove(&(rule as u32)) }).collect()
    }
}

/// Lines with the place where each begins.
fn lines_of(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    text.split(|&byte| byte == b'\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len() + 1;
        Some((start, line))
    })
}

fn show(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(EVIDENCE_BYTES_MAX)]);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn compile(definition: &Definition, source: &Source, names: &HashMap<String, usize>) -> (Rule, Vec<Problem>) {
    let name = &definition.name;
    let flags = source.flags.get(name).copied().unwrap_or_default();
    let mut problems = Vec::new();
    let mut problem = |severity, text: String| {
        problems.push(Problem { place: definition.place.clone(), text: format!("{name}: {text}"), severity });
    };
    let answered = matches!(&definition.kind, Kind::Eval(call) if eval::identity::answers(&call.name));
    let kind = if flags.net && !answered {
        problem(Severity::Note, "needs the network, which is not asked here".to_owned());
        Compiled::Void
    } else if source.scores.get(name) == Some(&0.0) && !name.starts_with("__") {
        // A rule with no points is switched off, as in SpamAssassin; metas see that it never hits.
        Compiled::Void
    } else {
        compile_kind(&definition.kind, names, &mut problem).unwrap_or_else(|text| {
            problem(Severity::Error, text);
            Compiled::Void
        })
    };
    let is_named_only = &*definition.place.file == eval::identity::FILE && !source.scores.contains_key(name);
    let points = if name.starts_with("__") || is_named_only {
        0.0
    } else {
        let default = if name.starts_with("T_") { POINTS_IN_TEST } else { POINTS_DEFAULT };
        source.scores.get(name).copied().unwrap_or(if flags.nice { -default } else { default })
    };
    let rule = Rule {
        name: name.clone(),
        points: Points::new(points),
        description: source.descriptions.get(name).cloned().unwrap_or_default(),
        place: definition.place.clone(),
        shadow: flags.shadow,
        flags,
        kind,
        live: false,
    };
    (rule, problems)
}

fn compile_kind(
    kind: &Kind,
    names: &HashMap<String, usize>,
    problem: &mut impl FnMut(Severity, String),
) -> Result<Compiled, String> {
    let matching = |test: &Test| Matcher::compile(test).map(Compiled::Matching);
    match kind {
        Kind::Body(test)
        | Kind::RawBody(test)
        | Kind::Full(test)
        | Kind::Uri(test)
        | Kind::Header(_, test, _)
        | Kind::MimeHeader(_, test, _) => matching(test),
        Kind::Exists(name) => Ok(Compiled::Exists(name.clone())),
        Kind::UriDetail(tests) => {
            let tests = tests.iter().map(|(key, test)| Ok((key.clone(), Matcher::compile(test)?)));
            tests.collect::<Result<_, String>>().map(Compiled::UriDetail)
        }
        Kind::Eval(call) => eval::find(call).map(|function| Compiled::Eval(function, call.arguments.clone())),
        Kind::Meta(text) => {
            let mut unknown = Vec::new();
            let expression = meta::parse(text, names, &mut unknown)?;
            if !unknown.is_empty() {
                problem(Severity::Note, format!("names no rule: {}", unknown.join(", ")));
            }
            Ok(Compiled::Meta(expression))
        }
    }
}
