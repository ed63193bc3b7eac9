//! Tag lists, `tag=value; tag=value`, of DKIM, DMARC and ARC. Pure. RFC 6376 §3.2.
//!
//! A duplicate tag makes the whole list invalid, as the RFC demands; unknown tags are kept and ignored by the readers.

/// Tags of one list at most; real ones have under 20.
const TAGS_MAX: usize = 200;

/// A parsed list; names and values without the blanks around them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tags<'a>(Vec<(&'a str, &'a str)>);

/// Why a text is no tag list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagError {
    /// The same tag twice.
    Duplicate,
    /// No `=`, or a name that is none.
    Syntax,
    /// More than 200 tags.
    TooMany,
}

impl TagError {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            TagError::Duplicate => "a tag occurs twice",
            TagError::Syntax => "not a list of tag=value",
            TagError::TooMany => "too many tags",
        }
    }
}

impl<'a> Tags<'a> {
    /// Parses a list; folding white space may stand between all parts.
    /// # Errors
    /// See [`TagError`].
    pub fn parse(text: &'a str) -> Result<Self, TagError> {
        let mut tags: Vec<(&str, &str)> = Vec::new();
        for spec in text.split(';') {
            let spec = trim(spec);
            if spec.is_empty() {
                continue;
            }
            let (name, value) = spec.split_once('=').ok_or(TagError::Syntax)?;
            let name = trim(name);
            if !is_name(name) {
                return Err(TagError::Syntax);
            }
            if tags.iter().any(|(other, _)| *other == name) {
                return Err(TagError::Duplicate);
            }
            if tags.len() == TAGS_MAX {
                return Err(TagError::TooMany);
            }
            tags.push((name, trim(value)));
        }
        Ok(Tags(tags))
    }

    /// A tag's value; names are case-sensitive (RFC 6376 §3.2).
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(tag, _)| *tag == name).map(|(_, value)| *value)
    }

    /// The first tag, which versions must be in key and policy records.
    pub fn first(&self) -> Option<(&'a str, &'a str)> {
        self.0.first().copied()
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r', '\n'])
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A value without any white space: base64 and header lists are folded anywhere.
pub fn without_blanks(value: &str) -> String {
    // Pieces instead of characters: keys and signatures are hundreds of characters with a blank now and then.
    let mut out = String::with_capacity(value.len());
    out.extend(value.split_ascii_whitespace());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_are_read_with_folds_and_refused_with_duplicates() {
        let tags = Tags::parse(" v = 1;\r\n\tb=ab\r\n c ;; x=").unwrap();
        assert_eq!(tags.get("v"), Some("1"));
        assert_eq!(without_blanks(tags.get("b").unwrap()), "abc");
        assert_eq!(tags.get("x"), Some(""));
        assert_eq!(Tags::parse("a=1; a=2"), Err(TagError::Duplicate));
        assert_eq!(Tags::parse("a=1; b"), Err(TagError::Syntax));
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_or_an_error(text in ".{0,200}") {
            let _ = Tags::parse(&text);
        }
    }
}
