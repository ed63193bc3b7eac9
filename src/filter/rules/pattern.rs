//! Perl's regular expressions in the syntax of our two engines. Pure.
//!
//! Most patterns run in the linear-time engine. Look-around, back-references, atomic groups and possessive quantifiers need
//! the backtracking one. Both work on bytes, as SpamAssassin does: `\xe4` is a byte, and a letter beyond ASCII in a rule
//! is the bytes of its UTF-8. What neither can do is refused with a reason.

/// A rule's pattern in our syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// The expression; flags are in front of it.
    pub text: String,
    /// It needs the backtracking engine.
    pub backtracking: bool,
}

/// Takes `/…/flags`, `m{…}flags`, `m'…'` apart: the pattern and its flags.
/// # Errors
/// If there is no such thing.
pub fn split(text: &str) -> Result<(&str, &str), String> {
    let text = text.trim();
    let rest =
        text.strip_prefix('m').filter(|rest| rest.starts_with(|c: char| c.is_ascii_punctuation())).unwrap_or(text);
    let open = rest.chars().next().ok_or("the pattern is missing")?;
    let close = match open {
        '{' => '}',
        '(' => ')',
        '[' => ']',
        '<' => '>',
        c if c.is_ascii_punctuation() => c,
        _ => return Err("a pattern is written /…/ or m{…}".to_owned()),
    };
    let end = rest.rfind(close).filter(|&end| end > 0).ok_or("the pattern has no end")?;
    let flags = rest[end + close.len_utf8()..].split_ascii_whitespace().next().unwrap_or_default();
    if !flags.bytes().all(|flag| b"imsxogna".contains(&flag)) {
        return Err(format!("unknown flags `{flags}`"));
    }
    Ok((&rest[open.len_utf8()..end], flags))
}

/// Translates a Perl pattern.
/// # Errors
/// If it uses what no engine here can do.
pub fn translate(pattern: &str, flags: &str) -> Result<Translated, String> {
    let mut reader = Reader {
        chars: pattern.chars().collect(),
        at: 0,
        out: String::with_capacity(pattern.len() + 16),
        extended: flags.contains('x'),
        multi_line: flags.contains('m'),
        backtracking: false,
    };
    let on: String = flags.chars().filter(|flag| "ims".contains(*flag)).collect();
    reader.pattern()?;
    let text = if on.is_empty() { reader.out } else { format!("(?{on}){}", reader.out) };
    Ok(Translated { text, backtracking: reader.backtracking })
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    out: String,
    extended: bool,
    multi_line: bool,
    backtracking: bool,
}

impl Reader {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek(0)?;
        self.at += 1;
        Some(c)
    }

    fn pattern(&mut self) -> Result<(), String> {
        while let Some(c) = self.next() {
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.group()?,
                '{' => self.brace(),
                '$' if self.multi_line => self.out.push('$'),
                '$' => self.out.push_str(r"(?:\n?\z)"),
                '*' | '+' | '?' => self.quantifier(c),
                '}' => self.out.push_str(r"\}"),
                ']' => self.out.push_str(r"\]"),
                c if self.extended && c.is_whitespace() => {}
                '#' if self.extended => while self.next().is_some_and(|c| c != '\n') {},
                c => self.literal(c),
            }
        }
        Ok(())
    }

    fn quantifier(&mut self, c: char) {
        self.out.push(c);
        // `a++` is possessive: a quantifier on a quantifier means no giving back.
        match self.peek(0) {
            Some('+') => {
                self.at += 1;
                self.out.push('+');
                self.backtracking = true;
            }
            Some('?') => {
                self.at += 1;
                self.out.push('?');
            }
            _ => {}
        }
    }

    /// `{2,5}` is a quantifier, any other brace stands for itself.
    fn brace(&mut self) {
        let end = self.chars[self.at..].iter().position(|&c| c == '}');
        let inner: String = end.map(|end| self.chars[self.at..self.at + end].iter().collect()).unwrap_or_default();
        let (low, high) = inner.split_once(',').unwrap_or((&inner, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(low) || !digits(high) || low.is_empty() {
            self.out.push_str(r"\{");
            return;
        }
        self.at += inner.chars().count() + 1;
        self.out.push('{');
        self.out.push_str(&inner);
        self.quantifier('}');
    }

    fn literal(&mut self, c: char) {
        if c.is_ascii() {
            self.out.push(c);
        } else {
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes).bytes();
            let escaped: String = bytes.map(|byte| format!(r"\x{byte:02x}")).collect();
            self.out.push_str(&format!("(?:{escaped})"));
        }
    }

    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        if self.peek(0) == Some('*') {
            return Err("verbs such as (*SKIP) are not supported".to_owned());
        }
        if self.peek(0) != Some('?') {
            return Ok(());
        }
        match (self.peek(1), self.peek(2)) {
            (Some('#'), _) => {
                self.out.pop();
                while self.next().is_some_and(|c| c != ')') {}
                return Ok(());
            }
            (Some('=' | '!' | '>' | '('), _) | (Some('<'), Some('=' | '!')) => self.backtracking = true,
            (Some('|'), _) => return Err("branch reset (?|…) is not supported".to_owned()),
            (Some('R' | '0'..='9' | '&' | '{'), _) => return Err("recursion and code are not supported".to_owned()),
            (Some('^'), _) => {
                self.at += 2;
                self.out.push('?');
                return Ok(());
            }
            _ => {}
        }
        Ok(())
    }

    fn escape(&mut self) -> Result<(), String> {
        let c = self.next().ok_or("a backslash ends the pattern")?;
        match c {
            '1'..='9' => {
                self.backtracking = true;
                self.out.push('\\');
                self.out.push(c);
            }
            'k' | 'g' => {
                self.backtracking = true;
                self.out.push('\\');
                self.out.push(c);
            }
            'K' | 'G' => {
                self.backtracking = true;
                self.out.push('\\');
                self.out.push(c);
            }
            'Q' => {
                while self.at < self.chars.len() && !(self.peek(0) == Some('\\') && self.peek(1) == Some('E')) {
                    let c = self.next().expect("the loop's condition says so");
                    self.quoted(c);
                }
                self.at = (self.at + 2).min(self.chars.len());
            }
            'E' => {}
            'Z' => self.out.push_str(r"(?:\n?\z)"),
            'R' => self.out.push_str(r"(?:\r\n|[\n\r])"),
            'N' if self.peek(0) != Some('{') => self.out.push_str(r"[^\n]"),
            'H' => self.out.push_str(r"[^ \t]"),
            'X' | 'C' | 'N' => return Err(format!(r"\{c} is not supported")),
            _ => {
                let text = self.plain_escape(c, false)?;
                self.out.push_str(&text);
            }
        }
        Ok(())
    }

    /// Escapes that mean the same inside and outside a class.
    fn plain_escape(&mut self, c: char, in_class: bool) -> Result<String, String> {
        Ok(match c {
            'x' => return self.hexadecimal(in_class),
            '0' => self.octal(2),
            'e' => r"\x1b".to_owned(),
            'a' | 'f' | 'n' | 'r' | 't' | 'd' | 'D' | 's' | 'S' | 'w' | 'W' | 'A' | 'z' | 'B' => format!(r"\{c}"),
            'b' if in_class => r"\x08".to_owned(),
            'b' => r"\b".to_owned(),
            'h' if in_class => r" \t".to_owned(),
            'h' => r"[ \t]".to_owned(),
            'v' if in_class => r"\n\x0b\f\r".to_owned(),
            'v' => r"[\n\x0b\f\r]".to_owned(),
            'p' | 'P' => self.property(c),
            c if c.is_ascii_alphanumeric() => c.to_string(),
            c if c.is_ascii() => format!(r"\x{:02x}", c as u32),
            c => {
                self.literal(c);
                String::new()
            }
        })
    }

    fn property(&mut self, c: char) -> String {
        let mut text = format!(r"(?u:\{c}");
        if self.peek(0) == Some('{') {
            while let Some(c) = self.next() {
                text.push(c);
                if c == '}' {
                    break;
                }
            }
        } else if let Some(c) = self.next() {
            text.push(c);
        }
        text + ")"
    }

    fn hexadecimal(&mut self, in_class: bool) -> Result<String, String> {
        let mut digits = String::new();
        if self.peek(0) == Some('{') {
            self.at += 1;
            while let Some(c) = self.next().filter(|&c| c != '}') {
                digits.push(c);
            }
        } else {
            while digits.len() < 2 && self.peek(0).is_some_and(|c| c.is_ascii_hexdigit()) {
                digits.extend(self.next());
            }
        }
        let code = u32::from_str_radix(&digits, 16).unwrap_or(0);
        if code <= 0xff {
            return Ok(format!(r"\x{code:02x}"));
        }
        if in_class {
            return Err("a class with characters above \\xff is not supported".to_owned());
        }
        let wide = char::from_u32(code).ok_or_else(|| format!(r"\x{{{digits}}} is no character"))?;
        self.literal(wide);
        Ok(String::new())
    }

    fn octal(&mut self, digits_max: u32) -> String {
        let mut code = 0;
        let mut digits = 0;
        while let Some(digit) = self.peek(0).and_then(|c| c.to_digit(8)).filter(|_| digits < digits_max) {
            code = code * 8 + digit;
            digits += 1;
            self.at += 1;
        }
        format!(r"\x{:02x}", code & 0xff)
    }

    fn quoted(&mut self, c: char) {
        if c.is_ascii_punctuation() || c == ' ' {
            self.out.push_str(&format!(r"\x{:02x}", c as u32));
        } else {
            self.literal(c);
        }
    }

    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.peek(0) == Some('^') {
            self.at += 1;
            self.out.push('^');
        }
        let mut first = true;
        while let Some(c) = self.next() {
            match c {
                ']' if !first => {
                    self.out.push(']');
                    return Ok(());
                }
                '\\' => {
                    let c = self.next().ok_or("a backslash ends the pattern")?;
                    let text = match c {
                        '1'..='7' => {
                            self.at -= 1;
                            self.octal(3)
                        }
                        _ => self.plain_escape(c, true)?,
                    };
                    self.out.push_str(&text);
                }
                '[' if self.peek(0) == Some(':') => self.posix_class(),
                '[' | ']' | '&' | '~' | '#' | ' ' | '^' => self.out.push_str(&format!(r"\x{:02x}", c as u32)),
                // A hyphen that is no range would read as a set difference when doubled.
                '-' if self.peek(0) == Some('-') || first || self.peek(0) == Some(']') => self.out.push_str(r"\x2d"),
                c if c.is_ascii() => self.out.push(c),
                // Perl without `use utf8` reads the bytes of the character, each a member of its own.
                c => {
                    let mut bytes = [0; 4];
                    let members: String =
                        c.encode_utf8(&mut bytes).bytes().map(|byte| format!(r"\x{byte:02x}")).collect();
                    self.out.push_str(&members);
                }
            }
            first = false;
        }
        Err("a class has no end".to_owned())
    }

    fn posix_class(&mut self) {
        self.out.push('[');
        while let Some(c) = self.next() {
            self.out.push(c);
            if c == ']' {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pattern: &str, flags: &str) -> String {
        translate(pattern, flags).unwrap().text
    }

    #[test]
    fn delimiters_and_flags() {
        assert_eq!(split("/a\\/b/i").unwrap(), ("a\\/b", "i"));
        assert_eq!(split("m{a{2}}is  # comment").unwrap(), ("a{2}", "is"));
        assert_eq!(split("m'x'").unwrap(), ("x", ""));
        assert!(split("abc").is_err());
        assert!(split("/abc/q").is_err());
    }

    #[test]
    fn perl_becomes_ours() {
        assert_eq!(text(r"a\/b\<\@", "i"), r"(?i)a\x2fb\x3c\x40");
        assert_eq!(text("{x} {2}a{2,}", ""), r"\{x\} {2}a{2,}");
        assert_eq!(text("[[&-]", ""), r"[\x5b\x26\x2d]");
        assert_eq!(text(r"[\042\223]\0", ""), r"[\x22\x93]\x00");
        assert_eq!(text("a b # c", "x"), "ab");
        assert_eq!(text("end$", ""), r"end(?:\n?\z)");
        assert_eq!(text(r"\x{20ac}\xA", ""), r"(?:\xe2\x82\xac)\x0a");
        assert!(translate("(?=a)b", "").unwrap().backtracking);
        assert!(translate(r"(a)\1", "").unwrap().backtracking);
        assert!(translate("(?|a|b)", "").is_err());
    }
}
