//! Rules in SpamAssassin's syntax: loaded once, compiled, run on every message. I/O: rule files, in [`Source::read`].
//!
//! [`Rules::load`] compiles what [`source`] read; what can't be compiled is a problem with file, line and reason, and the
//! other rules work. [`Rules::run`] walks each text once ([`group`]) and then works out the rules that have points ([`run`]): patterns
//! only where something of theirs was seen, other rules only as far as a meta needs them.

mod backtrack;
mod condition;
pub mod cost;
pub mod definition;
mod eval;
mod formula;
mod gate;
mod grams;
mod group;
mod heads;
mod linear;
mod literal;
mod matcher;
pub mod messages;
mod meta;
mod needs;
mod notes;
mod pattern;
mod redirect;
mod relax;
mod relays;
mod run;
mod scratch;
mod shape;
mod shipped;
pub mod source;
mod strong;
mod texts;
mod trial;
mod uris;
mod way;

use std::collections::{BTreeMap, HashMap, HashSet};

use parking_lot::Mutex;
use rayon::prelude::*;

use definition::{Definition, Example, Flags, Kind, Place, Test};
pub use definition::{Problem, Severity};
use formula::Formulas;
use group::Group;
use matcher::Matcher;
use meta::Expression;
use needs::Needs;
use redirect::Redirectors;
use run::Run;
use scratch::Scratch;
pub use source::Source;
use texts::{Target, Texts};

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
    /// What it cost so far.
    pub counters: cost::Counters,
}

impl Rule {
    /// True if it is asked for its own sake, not only by other rules.
    fn is_asked(&self) -> bool {
        self.points != Points::default() || self.shadow
    }
}

enum Compiled {
    Eval(Box<eval::Asked>),
    Exists(String),
    Matching(Box<Matcher>),
    Meta(Expression),
    UriDetail(Vec<(String, Matcher)>),
    /// It could not be loaded, or needs the network; never hits.
    Void,
}

/// A message that rules are run on.
pub struct Examined<'m, 'x> {
    /// Its parts.
    pub view: &'m View<'x>,
    /// What is known beside it.
    pub facts: &'m Facts,
    /// What may be spent on it.
    pub budget: &'m mut Budget,
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
    /// What is looked at, with the patterns that look there.
    targets: Vec<Looked>,
    /// Rules that are asked for their own sake; metas after those that they name.
    roots: Vec<u32>,
    /// Metas after those that they name.
    metas: Vec<u32>,
    /// Rules that can hit although nothing of theirs was seen in a text.
    may: Vec<bool>,
    /// Of each rule, what working it out asks most.
    briefs: Vec<Brief>,
    formulas: Formulas,
    /// Rules that ask whether a field is there.
    exists: Vec<(u32, String)>,
    /// What each meta needs to hit.
    needs: Needs,
    /// Messages so far.
    runs: cost::Runs,
    /// Memory of runs that have ended.
    scratches: Mutex<Vec<Scratch>>,
}

/// What is asked of a rule again and again, in few bytes.
#[derive(Clone, Copy)]
struct Brief {
    nature: Nature,
    /// It is asked for its own sake.
    asked: bool,
    /// Where nothing of the pattern was seen in a text, it does not match there.
    watched: bool,
    /// What must be seen of a pattern in a text for it to match there, a bit for each set of literals.
    wanted: u8,
    /// Places in a text where something of the pattern is seen, at least, where it matches.
    least: u16,
    /// Its hits at most.
    most: u16,
    /// Hits of a header's rule where the field is missing.
    unset_hits: u16,
    /// Of a pattern, the number of what it looks at in [`Rules::targets`]; of a meta, where its formula stands.
    place: u32,
}

impl Brief {
    fn of(rule: &Rule) -> Self {
        let nature = match &rule.kind {
            Compiled::Void => Nature::Void,
            Compiled::Meta(_) => Nature::Meta,
            Compiled::Matching(matcher) if matcher.negated => Nature::Negated,
            Compiled::Matching(_) => Nature::Pattern,
            Compiled::Eval(_) | Compiled::Exists(_) | Compiled::UriDetail(_) => Nature::Test,
        };
        let most = if rule.flags.multiple { rule.flags.hits_max.unwrap_or(run::HITS_MAX).max(1) } else { 1 };
        Brief { nature, asked: rule.is_asked(), watched: false, wanted: 0, least: 1, most, unset_hits: 0, place: 0 }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Nature {
    /// It can't hit.
    Void,
    Meta,
    Pattern,
    /// A pattern that hits where it does not match.
    Negated,
    /// It hits once or not.
    Test,
}

/// What is looked at.
struct Looked {
    target: Target,
    group: Group,
    /// All that look there.
    members: Vec<u32>,
    /// Those that the scan settles if nothing of them was seen: negated ones hit then, and others do not where they were open before it,
    /// because what they look at is scanned late.
    unseen: Vec<u32>,
}

/// Points of a rule that nobody gave points, as in SpamAssassin; those in test have next to none.
const POINTS_DEFAULT: f64 = 1.0;
const POINTS_IN_TEST: f64 = 0.01;

impl Rules {
    /// Compiles a source.
    pub fn load(source: Source) -> Self {
        let names: HashMap<String, usize> = source.rules.keys().cloned().zip(0..).collect();
        let definitions: Vec<&Definition> = source.rules.values().collect();
        let compiled: Vec<(Rule, Vec<Problem>)> =
            definitions.par_iter().map(|definition| compile(definition, &source, &names)).collect();
        let (redirectors, problems) = Redirectors::compile(&source.redirectors);
        let lists = eval::Lists::new(&source.lists, redirectors);
        let mut rules = Rules { examples: source.examples.clone(), lists, ..Rules::default() };
        rules.problems.clone_from(&source.problems);
        rules.problems.extend(problems);
        for (rule, problems) in compiled {
            rules.rules.push(rule);
            rules.problems.extend(problems);
        }
        rules.share_sets();
        rules.order_metas();
        rules.briefs = rules.rules.iter().map(Brief::of).collect();
        rules.group(&definitions);
        rules.order_by_cost();
        rules.find_needs();
        rules.lay_out_metas();
        let (patterns, others): (Vec<u32>, Vec<u32>) = (0..rules.rules.len() as u32)
            .filter(|&rule| rules.rules[rule as usize].is_asked())
            .partition(|&rule| matches!(rules.rules[rule as usize].kind, Compiled::Matching(_)));
        rules.roots = patterns.into_iter().chain(others).collect();
        rules
    }

    /// Rules that can hit.
    pub fn loaded(&self) -> usize {
        self.rules.iter().filter(|rule| !matches!(rule.kind, Compiled::Void)).count()
    }

    /// The names of rules that can hit.
    pub fn names_loaded(&self) -> impl Iterator<Item = &str> {
        let loaded = self.rules.iter().filter(|rule| !matches!(rule.kind, Compiled::Void));
        loaded.map(|rule| rule.name.as_str())
    }

    /// The words of a list setting.
    pub fn listed(&self, list: &str) -> HashSet<String> {
        self.lists.words(list)
    }

    /// Lets patterns share the sets of bytes that are the same.
    fn share_sets(&mut self) {
        let known = &mut backtrack::Known::default();
        for rule in &mut self.rules {
            match &mut rule.kind {
                Compiled::Matching(matcher) => matcher.share(known),
                Compiled::UriDetail(tests) => tests.iter_mut().for_each(|(_, matcher)| matcher.share(known)),
                Compiled::Eval(_) | Compiled::Exists(_) | Compiled::Meta(_) | Compiled::Void => {}
            }
        }
    }

    /// Metas after those that they name; those in a circle are void.
    fn order_metas(&mut self) {
        // 0: not seen, 1: on the way, 2: done.
        let mut state = vec![0u8; self.rules.len()];
        let (mut order, mut circles) = (Vec::new(), Vec::new());
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
                        circles.push(at);
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
        circles.into_iter().for_each(|rule| self.rules[rule].kind = Compiled::Void);
    }

    fn group(&mut self, definitions: &[&Definition]) {
        let mut targets: BTreeMap<Target, Vec<u32>> = BTreeMap::new();
        for (number, definition) in definitions.iter().enumerate() {
            let Compiled::Matching(matcher) = &self.rules[number].kind else { continue };
            let brief = &mut self.briefs[number];
            (brief.watched, brief.wanted) = (true, (1 << (matcher.more.len() + 1)) - 1);
            brief.least = matcher.least;
            let target = match &definition.kind {
                Kind::Body(_) if self.rules[number].flags.no_subject => Target::Paragraphs,
                Kind::Body(_) => Target::Body,
                Kind::Full(_) => Target::Full,
                Kind::RawBody(_) => Target::Raw,
                Kind::Uri(_) => Target::Uri,
                Kind::MimeHeader(spec, ..) => Target::Mime(spec.clone()),
                Kind::Header(spec, _, stand_in) => {
                    let stand_in = stand_in.as_deref().unwrap_or_default().as_bytes();
                    let (scratch, budget) = (&mut Scratch::default(), &mut Budget::default());
                    brief.unset_hits = matcher.count(0, stand_in, 1, scratch, budget).0;
                    Target::Header(spec.clone())
                }
                Kind::Eval(_) | Kind::Exists(_) | Kind::Meta(_) | Kind::UriDetail(_) => continue,
            };
            targets.entry(target).or_default().push(number as u32);
        }
        for (place, (target, members)) in targets.into_iter().enumerate() {
            let matchers = members.iter().filter_map(|&number| match &self.rules[number as usize].kind {
                Compiled::Matching(matcher) => Some((number, &**matcher)),
                _ => None,
            });
            let (group, unwatched) = Group::new(matchers);
            members.iter().for_each(|&number| self.briefs[number as usize].place = place as u32);
            unwatched.into_iter().for_each(|number| self.briefs[number as usize].watched = false);
            let settled = |&&rule: &&u32| {
                let Brief { nature, watched, .. } = self.briefs[rule as usize];
                watched && (nature == Nature::Negated || target == Target::Full)
            };
            let unseen = members.iter().filter(settled).copied().collect();
            self.targets.push(Looked { target, group, members, unseen });
        }
    }

    /// Lets each meta ask for what is cheap first.
    fn order_by_cost(&mut self) {
        let mut costs: Vec<u64> =
            self.rules.iter().zip(&self.briefs).map(|(rule, brief)| rule.cost(brief.watched)).collect();
        for &meta in &self.metas {
            if let Compiled::Meta(expression) = &mut self.rules[meta as usize].kind {
                costs[meta as usize] = expression.order(&|rule| costs[rule]) + 1;
            }
        }
    }

    fn lay_out_metas(&mut self) {
        for (rule, brief) in self.rules.iter().zip(&mut self.briefs) {
            if let Compiled::Meta(expression) = &rule.kind {
                brief.place = self.formulas.add(expression);
            }
        }
    }

    fn find_needs(&mut self) {
        let may = self.briefs.iter().map(|brief| match brief.nature {
            Nature::Void | Nature::Meta => false,
            Nature::Test | Nature::Negated => true,
            Nature::Pattern => {
                let unscanned = self.targets[brief.place as usize].target == Target::Full;
                !brief.watched || unscanned || brief.unset_hits > 0
            }
        });
        self.may = may.collect();
        let exists = self.rules.iter().enumerate().filter_map(|(number, rule)| match &rule.kind {
            Compiled::Exists(field) => Some((number as u32, field.clone())),
            _ => None,
        });
        self.exists = exists.collect();
        let likely = |rule: &Rule, may: &bool| match &rule.kind {
            Compiled::Void => 0.0,
            Compiled::Exists(_) => LIKELY_FIELD,
            Compiled::Matching(matcher) if !may => matcher.likely(),
            _ => 1.0,
        };
        let mut likely: Vec<f32> = self.rules.iter().zip(&self.may).map(|(rule, may)| likely(rule, may)).collect();
        for &meta in &self.metas {
            let Compiled::Meta(expression) = &self.rules[meta as usize].kind else { continue };
            let of = |rule: u32| likely[rule as usize];
            let needs = needs::of(expression, &of);
            let chance = needs.iter().map(|need| need.chance(&of)).product();
            self.needs.add(meta, needs, &of);
            likely[meta as usize] = chance;
        }
    }

    /// All rules with points that hit a message, and those that were asked on the way, in the order of their names.
    pub fn run(&self, view: &View<'_>, facts: &Facts, budget: &mut Budget) -> Vec<Hit> {
        self.run_together(std::iter::once(Examined { view, facts, budget })).remove(0)
    }

    /// The same for several messages, in less time: they take turns at each text and at each rule, so that what these need is fetched from
    /// memory once for all of them.
    pub fn run_together<'m, 'x: 'm>(&self, messages: impl Iterator<Item = Examined<'m, 'x>>) -> Vec<Vec<Hit>> {
        self.run_some(&self.roots, messages)
    }

    /// The same with all rules that were loaded, whether anything depends on them or not.
    pub fn run_all(&self, view: &View<'_>, facts: &Facts, budget: &mut Budget) -> Vec<Hit> {
        let all: Vec<u32> = (0..self.rules.len() as u32).collect();
        self.run_some(&all, std::iter::once(Examined { view, facts, budget })).remove(0)
    }

    fn run_some<'m, 'x: 'm>(&self, rules: &[u32], messages: impl Iterator<Item = Examined<'m, 'x>>) -> Vec<Vec<Hit>> {
        let (texts, mut budgets): (Vec<Texts<'_, '_>>, Vec<&mut Budget>) =
            messages.map(|Examined { view, facts, budget }| (Texts::new(view, facts, &self.lists), budget)).unzip();
        let mut scratch = self.scratches.lock().pop().unwrap_or_default();
        let mut hits = Vec::with_capacity(texts.len());
        for (texts, budgets) in texts.chunks(messages::MOST).zip(budgets.chunks_mut(messages::MOST)) {
            let budgets = budgets.iter_mut().map(|budget| &mut **budget);
            let mut run = Run::new(self, texts.iter().zip(budgets), &mut scratch);
            run.look();
            rules.iter().for_each(|&rule| run.ask(rule));
            hits.extend(run.finish());
        }
        self.scratches.lock().push(scratch);
        hits
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
            Compiled::Matching(matcher) => {
                matcher.count(0, example.text.as_bytes(), 1, &mut Scratch::default(), budget).0 > 0
            }
            _ => {
                let view = View::read(example.text.as_bytes());
                self.run_all(&view, &Facts::default(), budget).iter().any(|hit| self.rules[hit.rule].name == rule.name)
            }
        };
        if hit == example.hit {
            return None;
        }
        let word = if example.hit { "does not hit" } else { "hits" };
        problem(format!("{} {word} `{}`", rule.name, example.text.escape_debug()))
    }
}

/// How probably a message has a field that a rule asks for, roughly.
const LIKELY_FIELD: f32 = 0.5;

/// What finding out costs, roughly: a look where something was seen is the measure.
const COST_OF_LOOK: u64 = 2;
const COST_OF_FUNCTION: u64 = 10;
const COST_OF_TEXT: u64 = 20;

impl Rule {
    fn cost(&self, watched: bool) -> u64 {
        match &self.kind {
            Compiled::Void => 0,
            Compiled::Exists(_) => 1,
            Compiled::Eval(..) | Compiled::UriDetail(_) | Compiled::Meta(_) => COST_OF_FUNCTION,
            Compiled::Matching(matcher) => {
                let walk = if watched { COST_OF_LOOK } else { COST_OF_TEXT };
                walk + matcher.cost()
            }
        }
    }
}

fn compile(definition: &Definition, source: &Source, names: &HashMap<String, usize>) -> (Rule, Vec<Problem>) {
    let name = &definition.name;
    let flags = source.flags.get(name).copied().unwrap_or_default();
    let mut problems = Vec::new();
    let mut problem = |severity, text: String| {
        problems.push(Problem { place: definition.place.clone(), text: format!("{name}: {text}"), severity });
    };
    let unanswered = matches!(&definition.kind, Kind::Eval(call) if eval::Asked::find(call).is_err());
    let kind = if flags.net && unanswered {
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
        counters: cost::Counters::default(),
    };
    (rule, problems)
}

/// Names that stand for more than one field, or for none.
const MADE_UP_FIELDS: [&str; 8] = [
    "all",
    "all-external",
    "all-internal",
    "all-trusted",
    "all-untrusted",
    "envelopefrom",
    definition::MESSAGE_ID,
    "tocc",
];

fn compile_kind(
    kind: &Kind,
    names: &HashMap<String, usize>,
    problem: &mut impl FnMut(Severity, String),
) -> Result<Compiled, String> {
    let matching = |test: &Test| Matcher::compile(test).map(|matcher| Compiled::Matching(Box::new(matcher)));
    match kind {
        Kind::Body(test)
        | Kind::RawBody(test)
        | Kind::Full(test)
        | Kind::Uri(test)
        | Kind::Header(_, test, _)
        | Kind::MimeHeader(_, test, _) => matching(test),
        Kind::Exists(name) if MADE_UP_FIELDS.contains(&name.as_str()) => {
            Ok(Compiled::Eval(Box::new(eval::Asked::of(eval::is_there, name))))
        }
        Kind::Exists(name) => Ok(Compiled::Exists(name.clone())),
        Kind::UriDetail(tests) => {
            let tests = tests.iter().map(|(key, test)| Ok((key.clone(), Matcher::compile(test)?)));
            tests.collect::<Result<_, String>>().map(Compiled::UriDetail)
        }
        Kind::Eval(call) => eval::Asked::find(call).map(|asked| Compiled::Eval(Box::new(asked))),
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
