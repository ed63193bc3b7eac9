//! What is said of a message and why: symbols whose points add up to the score, and what follows from it. Pure.
//!
//! Points are kept in thousandths, so the sum printed is the sum of what is printed. The same symbols reach the header, the log,
//! the reply and `weir scan`.

use std::fmt::{self, Write};

use crate::config::settings::Scores;

/// Points in thousandths: exact, so that sums agree with what is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Points(i32);

impl Points {
    /// Points of a decimal number, rounded to thousandths; absurd ones are bounded at a million.
    pub fn new(value: f64) -> Self {
        const BOUND: f64 = 1_000_000.0;
        Points((value.clamp(-BOUND, BOUND) * 1000.0).round() as i32)
    }

    /// As a decimal number.
    pub fn value(self) -> f64 {
        f64::from(self.0) / 1000.0
    }

    /// The rest without `other`.
    pub fn without(self, other: Points) -> Points {
        Points(self.0.saturating_sub(other.0))
    }

    /// True from `bound` on.
    pub fn reaches(self, bound: f64) -> bool {
        self.value() >= bound
    }
}

impl std::iter::Sum for Points {
    fn sum<I: Iterator<Item = Points>>(points: I) -> Points {
        Points(points.fold(0, |sum, one| sum.saturating_add(one.0)))
    }
}

impl fmt::Display for Points {
    /// Without needless zeros: `1.5`, `-0.001`, `10`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, thousandths) = (self.0.unsigned_abs() / 1000, self.0.unsigned_abs() % 1000);
        let decimals = format!("{thousandths:03}");
        match decimals.trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            decimals => write!(f, "{sign}{whole}.{decimals}"),
        }
    }
}

/// Who says so. A later judgement of a recorded message asks rules, attachments and limits again and believes the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Judge {
    /// What is attached.
    Attachment,
    /// The classifier.
    Classifier,
    /// SPF, DKIM, DMARC, ARC.
    Identity,
    /// A limit of the budget.
    Limit,
    /// `[[list]]`.
    List,
    /// A rule file.
    Rule,
    /// Another program, or another room.
    Scanner,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its name, as rules and users know it.
    pub name: String,
    /// What it adds.
    pub points: Points,
    /// In words.
    pub description: String,
    /// What in the message made it so, shortened; and where the rule stands.
    pub evidence: Option<String>,
    /// It is counted but adds nothing to the score: `tflags shadow`.
    pub shadow: bool,
    /// Who says so.
    pub judge: Judge,
    /// Who had found it before a rule of its name took it over, and what it was worth there.
    pub found: Option<(Judge, Points)>,
}

impl Symbol {
    /// A symbol without evidence.
    pub fn new(judge: Judge, name: impl Into<String>, points: Points, description: impl Into<String>) -> Self {
        let (name, description) = (name.into(), description.into());
        Symbol { name, points, description, evidence: None, shadow: false, judge, found: None }
    }

    /// The same with what made it so.
    pub fn because(self, evidence: impl Into<String>) -> Self {
        Symbol { evidence: Some(evidence.into()), ..self }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Deliver as it is.
    Accept,
    /// Deliver with a mark.
    Tag,
    /// Deliver with a mark in the subject.
    Subject,
    /// Ask to come again.
    Greylist,
    /// Keep for an operator.
    Hold,
    /// Keep back.
    Quarantine,
    /// Take and throw away.
    Discard,
    /// Refuse.
    Reject,
}

impl Action {
    /// All of them, the mildest first.
    pub const ALL: [Action; 8] = [
        Action::Accept,
        Action::Tag,
        Action::Subject,
        Action::Greylist,
        Action::Hold,
        Action::Quarantine,
        Action::Discard,
        Action::Reject,
    ];

    /// The word for logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Accept => "accept",
            Action::Discard => "discard",
            Action::Greylist => "greylist",
            Action::Hold => "hold",
            Action::Quarantine => "quarantine",
            Action::Reject => "reject",
            Action::Subject => "subject",
            Action::Tag => "tag",
        }
    }

    /// True if something else than delivery follows.
    pub fn is_kept_back(self) -> bool {
        self >= Action::Greylist
    }
}

/// Scores from which something is done; infinite: never.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Mark.
    pub tag: f64,
    /// Mark the subject.
    pub subject: f64,
    /// Ask to come again.
    pub greylist: f64,
    /// Keep for an operator.
    pub hold: f64,
    /// Keep back.
    pub quarantine: f64,
    /// Refuse.
    pub reject: f64,
    /// Throw away.
    pub discard: f64,
}

impl From<&Scores> for Thresholds {
    fn from(scores: &Scores) -> Self {
        Thresholds::by_name(|name| scores.bound(name).map(|bound| bound.score))
    }
}

impl Thresholds {
    /// Each from its configuration's key; one that is not set is never reached.
    pub fn by_name(score_of: impl Fn(&str) -> Option<f64>) -> Self {
        let of = |name| score_of(name).unwrap_or(f64::INFINITY);
        Thresholds {
            tag: of("tag"),
            subject: of("subject"),
            greylist: of("greylist"),
            hold: of("hold"),
            quarantine: of("quarantine"),
            reject: of("reject"),
            discard: of("discard"),
        }
    }

    /// What follows from `score`: of what keeps a message back, that with the highest threshold at or below the score; else
    /// the strongest mark.
    pub fn action(&self, score: Points) -> Action {
        let kept = [
            (self.greylist, Action::Greylist),
            (self.hold, Action::Hold),
            (self.quarantine, Action::Quarantine),
            (self.discard, Action::Discard),
            (self.reject, Action::Reject),
        ];
        let reached = kept.into_iter().filter(|(bound, _)| score.reaches(*bound));
        let last = reached.max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        match last {
            Some((_, action)) => action,
            None if score.reaches(self.subject) => Action::Subject,
            None if score.reaches(self.tag) => Action::Tag,
            None => Action::Accept,
        }
    }

    /// The threshold of an action; nothing for [`Action::Accept`].
    pub fn of(&self, action: Action) -> Option<f64> {
        Some(match action {
            Action::Accept => return None,
            Action::Discard => self.discard,
            Action::Greylist => self.greylist,
            Action::Hold => self.hold,
            Action::Quarantine => self.quarantine,
            Action::Reject => self.reject,
            Action::Subject => self.subject,
            Action::Tag => self.tag,
        })
    }
}

/// The whole opinion on one message.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Sum of the symbols' points, shadow symbols left out.
    pub score: Points,
    /// All reasons, the weightiest first.
    pub symbols: Vec<Symbol>,
    /// What follows from score and thresholds.
    pub action: Action,
    /// The thresholds that were applied.
    pub thresholds: Thresholds,
    /// The classifier's calibrated probability of spam, if it was asked.
    pub probability: Option<f32>,
}

/// Bytes of the list of symbols in a header: with names and folding it stays below the line limit of RFC 5322 §2.1.1.
const HEADER_LINE_CHARS: usize = 76;
/// Stars of X-Spam-Level; SpamAssassin's bound.
const LEVEL_STARS_MAX: usize = 50;

impl Verdict {
    /// Adds up `symbols` and decides.
    pub fn new(mut symbols: Vec<Symbol>, thresholds: Thresholds, probability: Option<f32>) -> Self {
        let score: Points = symbols.iter().filter(|symbol| !symbol.shadow).map(|symbol| symbol.points).sum();
        symbols.sort_by(|a, b| b.points.0.abs().cmp(&a.points.0.abs()).then_with(|| a.name.cmp(&b.name)));
        let classifier = symbols.iter().filter(|symbol| symbol.judge == Judge::Classifier);
        let alone = score.without(classifier.map(|symbol| symbol.points).sum()) <= Points::default();
        // Whatever the thresholds are: what it has learned may be wrong, and a refusal can't be looked at again.
        let asked =
            if alone { Thresholds { reject: f64::INFINITY, discard: f64::INFINITY, ..thresholds } } else { thresholds };
        Verdict { score, symbols, action: asked.action(score), thresholds, probability }
    }

    /// The same reasons and `more` under other thresholds.
    pub fn under(&self, thresholds: Thresholds, more: impl IntoIterator<Item = Symbol>) -> Self {
        let symbols = self.symbols.iter().cloned().chain(more).collect();
        Verdict::new(symbols, thresholds, self.probability)
    }

    /// What it comes to once the client has come again.
    pub fn beyond_greylist(&self) -> Self {
        self.under(Thresholds { greylist: f64::INFINITY, ..self.thresholds }, [])
    }

    /// True if the message is marked as spam.
    pub fn is_spam(&self) -> bool {
        self.score.reaches(self.thresholds.tag)
    }

    /// True if the subject is to be marked.
    pub fn marks_subject(&self) -> bool {
        self.score.reaches(self.thresholds.subject)
    }

    /// True if a symbol of this name was found.
    pub fn has(&self, name: &str) -> bool {
        self.symbols.iter().any(|symbol| symbol.name == name)
    }

    /// The header fields that Sieve rules and mail programs look for, each with its line end.
    pub fn header_fields(&self) -> String {
        let mut out = String::new();
        if self.is_spam() {
            out.push_str("X-Spam-Flag: YES\r\n");
        }
        let stars = (self.score.value().max(0.0) as usize).min(LEVEL_STARS_MAX);
        if stars > 0 {
            writeln!(out, "X-Spam-Level: {}\r", "*".repeat(stars)).expect("a String takes any write");
        }
        let answer = if self.is_spam() { "Yes" } else { "No" };
        let head = format!("X-Spam-Status: {answer}, score={} required={}", self.score, self.required());
        out.push_str(&head);
        let mut column = head.len();
        let mut text = "tests=".to_owned();
        let hits = self.symbols.iter().filter(|symbol| !symbol.shadow);
        let names: Vec<String> = hits.map(|symbol| format!("{}={}", symbol.name, symbol.points)).collect();
        if names.is_empty() {
            text.push_str("none");
        }
        let mut words = names.iter().enumerate().map(|(place, name)| {
            let comma = if place + 1 < names.len() { "," } else { "" };
            format!("{name}{comma}")
        });
        if let Some(first) = words.next() {
            text.push_str(&first);
        }
        fold_word(&mut out, &mut column, &text);
        words.for_each(|word| fold_word(&mut out, &mut column, &word));
        out.push_str("\r\n");
        out
    }

    /// One line for a log or reply: the score and the heaviest reasons.
    pub fn summary(&self) -> String {
        let reasons: Vec<&str> = self
            .symbols
            .iter()
            .filter(|symbol| !symbol.shadow && symbol.points.0 > 0)
            .take(3)
            .map(|symbol| symbol.name.as_str())
            .collect();
        format!("score {} of {}: {}", self.score, self.required(), reasons.join(", "))
    }

    /// The score from which a message counts as spam.
    fn required(&self) -> Points {
        Points::new(self.thresholds.tag)
    }
}

fn fold_word(out: &mut String, column: &mut usize, word: &str) {
    if *column + 1 + word.len() > HEADER_LINE_CHARS {
        out.push_str("\r\n\t");
        *column = 8;
    } else {
        out.push(' ');
        *column += 1;
    }
    out.push_str(word);
    *column += word.len();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str, points: f64, shadow: bool) -> Symbol {
        Symbol { shadow, ..Symbol::new(Judge::Rule, name, Points::new(points), "") }
    }

    const NEVER: f64 = f64::INFINITY;
    const THRESHOLDS: Thresholds = Thresholds {
        tag: 5.0,
        subject: NEVER,
        greylist: NEVER,
        hold: NEVER,
        quarantine: 8.0,
        reject: 15.0,
        discard: NEVER,
    };

    #[test]
    fn the_highest_threshold_that_is_reached_decides() {
        let all = Thresholds { subject: 6.0, greylist: 4.0, hold: 7.0, discard: 30.0, ..THRESHOLDS };
        let table = [
            (3.9, Action::Accept),
            (4.0, Action::Greylist),
            (6.5, Action::Greylist),
            (7.0, Action::Hold),
            (8.0, Action::Quarantine),
            (15.0, Action::Reject),
            (30.0, Action::Discard),
        ];
        for (score, action) in table {
            assert_eq!(all.action(Points::new(score)), action, "{score}");
        }
        let passed = Verdict::new(vec![symbol("A", 6.5, false)], all, None).beyond_greylist();
        assert_eq!((passed.action, passed.marks_subject(), passed.is_spam()), (Action::Subject, true, true));
    }

    #[test]
    fn other_thresholds_and_more_reasons_keep_the_sum() {
        let verdict = Verdict::new(vec![symbol("A", 9.0, false)], THRESHOLDS, Some(0.5));
        let allowed = verdict.under(THRESHOLDS, [symbol("ALLOWED", -100.0, false)]);
        assert_eq!((allowed.score.to_string(), allowed.action), ("-91".to_owned(), Action::Accept));
    }

    #[test]
    fn the_classifier_alone_refuses_nothing() {
        let strict = Thresholds { quarantine: 6.0, reject: 6.0, discard: 6.2, ..THRESHOLDS };
        let learned = Symbol::new(Judge::Classifier, "CLASSIFIER_SPAM", Points::new(6.5), "");
        let action = |more: &[Symbol]| {
            let symbols = more.iter().chain([&learned]).cloned().collect();
            Verdict::new(symbols, strict, Some(0.999)).action
        };
        assert_eq!(action(&[]), Action::Quarantine);
        assert_eq!(action(&[symbol("NICE", -0.4, false), symbol("SHADOW", 9.0, true)]), Action::Quarantine);
        assert_eq!(action(&[symbol("A_REASON", 0.1, false)]), Action::Discard);
    }

    #[test]
    fn points_print_as_they_add() {
        let shown: Vec<String> = [1.5, -0.001, 10.0, 0.1].map(|value| Points::new(value).to_string()).to_vec();
        assert_eq!(shown, ["1.5", "-0.001", "10", "0.1"]);
        let sum: Points = (0..10).map(|_| Points::new(0.1)).sum();
        assert_eq!(sum.to_string(), "1");
    }

    #[test]
    fn shadow_symbols_never_act() {
        let verdict = Verdict::new(vec![symbol("A", 4.9, false), symbol("S", 100.0, true)], THRESHOLDS, None);
        assert_eq!((verdict.score, verdict.action), (Points::new(4.9), Action::Accept));
        let verdict = Verdict::new(vec![symbol("A", 15.0, false)], THRESHOLDS, None);
        assert_eq!(verdict.action, Action::Reject);
    }

    #[test]
    fn header_fields_are_those_that_sieve_rules_expect() {
        let verdict = Verdict::new(vec![symbol("B", 1.25, false), symbol("A", 5.0, false)], THRESHOLDS, None);
        let fields = verdict.header_fields();
        assert!(
            fields.starts_with("X-Spam-Flag: YES\r\nX-Spam-Level: ******\r\nX-Spam-Status: Yes, score=6.25 required=5")
        );
        assert!(fields.contains("tests=A=5, B=1.25\r\n"), "{fields}");
        assert!(fields.lines().all(|line| line.len() <= HEADER_LINE_CHARS + 1));
    }
}
