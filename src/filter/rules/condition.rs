//! `if` of rule files: what this filter can do, asked the way SpamAssassin's rules ask. Pure.
//!
//! Shipped rule sets choose between variants of a rule by version, plugin and feature. We answer as SpamAssassin 4.0.1
//! with the plugins whose functions we have.

/// The version that rules are told; 4.0.1, whose syntax is loaded.
const VERSION: f64 = 4.000_001;

/// Plugins whose rules and settings mean something here.
const PLUGINS: [&str; 19] = [
    "BodyEval",
    "Check",
    "DKIM",
    "DMARC",
    "FreeMail",
    "HTMLEval",
    "HTTPSMismatch",
    "HeaderEval",
    "ImageInfo",
    "MIMEEval",
    "MIMEHeader",
    "RelayEval",
    "ReplaceTags",
    "SPF",
    "URIDetail",
    "URIEval",
    "VBounce",
    "WLBLEval",
    "WelcomeListSubject",
];

/// Features that we do not have though our version would.
const FEATURES_MISSING: [&str; 3] = ["feature_capture_rules", "feature_dns_block_rule", "compat_welcomelist_blocklist"];

/// True if rules of this plugin can be loaded; takes the full name.
pub fn has_plugin(name: &str) -> bool {
    let short = name.trim().strip_prefix("Mail::SpamAssassin::Plugin::").unwrap_or(name.trim());
    PLUGINS.contains(&short)
}

fn has_feature(name: &str) -> bool {
    let (owner, feature) = name.trim().rsplit_once("::").unwrap_or(("", name.trim()));
    if owner.starts_with("Mail::SpamAssassin::Plugin::") {
        return has_plugin(owner);
    }
    !FEATURES_MISSING.contains(&feature)
}

/// The value of a condition such as `(version >= 4.0) && !plugin(X)`.
/// # Errors
/// If it can't be read; the caller then leaves the block out and says so.
pub fn holds(text: &str) -> Result<bool, String> {
    if text.len() > CONDITION_BYTES_MAX {
        return Err("the condition is too long".to_owned());
    }
    let mut reader = Reader { rest: text };
    let value = reader.or()?;
    if reader.rest.trim().is_empty() {
        Ok(value != 0.0)
    } else {
        Err(format!("`{}` is not understood", reader.rest.trim()))
    }
}

struct Reader<'t> {
    rest: &'t str,
}

/// Bytes of a condition; it bounds the depth of parentheses too.
const CONDITION_BYTES_MAX: usize = 512;

impl Reader<'_> {
    fn take(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn or(&mut self) -> Result<f64, String> {
        let mut value = self.and()?;
        while self.take("||") {
            let right = self.and()?;
            value = f64::from(u8::from(value != 0.0 || right != 0.0));
        }
        Ok(value)
    }

    fn and(&mut self) -> Result<f64, String> {
        let mut value = self.comparison()?;
        while self.take("&&") {
            let right = self.comparison()?;
            value = f64::from(u8::from(value != 0.0 && right != 0.0));
        }
        Ok(value)
    }

    fn comparison(&mut self) -> Result<f64, String> {
        let left = self.unary()?;
        for (token, compare) in COMPARISONS {
            if self.take(token) {
                return Ok(f64::from(u8::from(compare(left, self.unary()?))));
            }
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<f64, String> {
        if self.take("!") {
            return Ok(f64::from(u8::from(self.unary()? == 0.0)));
        }
        if self.take("(") {
            let value = self.or()?;
            return if self.take(")") { Ok(value) } else { Err("a parenthesis is not closed".to_owned()) };
        }
        self.word()
    }

    fn word(&mut self) -> Result<f64, String> {
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !c.is_alphanumeric() && !"_:.".contains(c)).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        if let Ok(number) = word.parse::<f64>() {
            return Ok(number);
        }
        let truth = |value: bool| Ok(f64::from(u8::from(value)));
        match word {
            "version" => Ok(VERSION),
            "perl_version" => Ok(5.036),
            "local_tests_only" => truth(true),
            "plugin" => truth(has_plugin(&self.argument()?)),
            "can" => truth(has_feature(&self.argument()?)),
            "true" => truth(true),
            "false" => truth(false),
            _ => Err(format!("`{word}` is not known in a condition")),
        }
    }

    fn argument(&mut self) -> Result<String, String> {
        if !self.take("(") {
            return Err("a parenthesis is missing".to_owned());
        }
        let (argument, rest) = self.rest.split_once(')').ok_or("a parenthesis is not closed")?;
        self.rest = rest;
        Ok(argument.trim().to_owned())
    }
}

type Compare = fn(f64, f64) -> bool;
const COMPARISONS: [(&str, Compare); 6] = [
    (">=", |a, b| a >= b),
    ("<=", |a, b| a <= b),
    ("==", |a, b| a == b),
    ("!=", |a, b| a != b),
    (">", |a, b| a > b),
    ("<", |a, b| a < b),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_shipped_rules() {
        assert!(holds("(version >= 3.004002)").unwrap());
        assert!(!holds("!((version >= 3.004000))").unwrap());
        assert!(holds("!plugin(Mail::SpamAssassin::Plugin::Razor2)").unwrap());
        assert!(holds("can(Mail::SpamAssassin::Conf::feature_bug6558_free) && version > 3").unwrap());
        assert!(!holds("can(Mail::SpamAssassin::Conf::feature_capture_rules)").unwrap());
        assert!(holds("what(").is_err());
        assert!(holds(&"(".repeat(10_000)).is_err());
    }
}
