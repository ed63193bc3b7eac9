//! A weaker pattern for the linear engine: everything that the stronger one matches, it matches. Pure.
//!
//! Its literals and its own run decide whether the stronger one runs at all: backtracking is slow even where it finds nothing.

/// `text` without look-around, possessive and atomic marks; nothing if it holds more than that.
pub fn relax(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        if rest.starts_with("(?=") || rest.starts_with("(?!") || rest.starts_with("(?<=") || rest.starts_with("(?<!") {
            at += group_end(rest)?;
            // A quantifier on what is gone would bind to what stands before it.
            if text[at..].starts_with(['*', '+', '?', '{']) {
                return None;
            }
        } else if rest.starts_with("(?>") {
            out.push_str("(?:");
            at += 3;
        } else if rest.starts_with("(?(") || rest.starts_with("\\K") || rest.starts_with("\\G") {
            return None;
        } else if let Some(escaped) = rest.strip_prefix('\\') {
            let c = escaped.chars().next()?;
            match c {
                // What was captured may be anything.
                '1'..='9' => out.push_str("(?s:.*)"),
                'k' | 'g' => return None,
                _ => {
                    out.push('\\');
                    out.push(c);
                }
            }
            at += 1 + c.len_utf8();
        } else if rest.starts_with('[') {
            let end = class_end(rest)?;
            out.push_str(&rest[..end]);
            at += end;
        } else {
            let c = rest.chars().next()?;
            let possessive =
                c == '+' && out.ends_with(['+', '*', '?', '}']) && !out.ends_with("\\+") && !out.ends_with("\\}");
            if !possessive {
                out.push(c);
            }
            at += c.len_utf8();
        }
    }
    Some(out)
}

/// Bytes up to the end of the group at the front of `text`.
fn group_end(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'[' => at += class_end(&text[at..])? - 1,
            b'(' => depth += 1,
            b')' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Bytes up to the end of the class at the front of `text`; literal brackets in it are escaped by then.
pub fn class_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'[' => at += text[at..].find(":]")? + 1,
            b']' => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_weaker() {
        assert_eq!(relax(r"(?<!x)viagra(?=[)]|\))y").as_deref(), Some("viagray"));
        assert_eq!(relax("a++(?>bc)*+d").as_deref(), Some("a+(?:bc)*d"));
        assert_eq!(relax(r"(a)\1b").as_deref(), Some("(a)(?s:.*)b"));
        assert_eq!(relax("(?=a"), None);
    }
}
