//! Text without disguise: invisible characters dropped, look-alikes folded to ASCII. Pure.
//!
//! Readers see `раураl` and `pаypal` as one word; so must rules and classifier. Folding is applied to words
//! that mix scripts and to characters that exist only as styled ASCII (full width, mathematical letters); Russian stays Russian.

use std::borrow::Cow;

use encoding_rs::Encoding;

/// What was found while folding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disguise {
    /// Characters without width or with a direction of their own.
    pub invisible: u32,
    /// Letters of another script or style that were folded to ASCII.
    pub look_alikes: u32,
}

/// `text` as a reader sees it.
pub fn fold<'t>(text: &'t str, disguise: &mut Disguise) -> Cow<'t, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Words of ASCII are passed over together, up to the next that is none.
    loop {
        let strange = Encoding::ascii_valid_up_to(rest.as_bytes());
        if strange == rest.len() {
            break;
        }
        let begin = rest[..strange].rfind(|c: char| c.is_whitespace()).map_or(0, |blank| blank + 1);
        let end = rest[strange..].find(|c: char| c.is_whitespace()).map_or(rest.len(), |blank| strange + blank);
        out.push_str(&rest[..begin]);
        // The blank behind it belongs to it: it may be a strange one, too.
        let end = rest[end..].chars().next().map_or(end, |blank| end + blank.len_utf8());
        fold_word(&rest[begin..end], &mut out, disguise);
        rest = &rest[end..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn fold_word(word: &str, out: &mut String, disguise: &mut Disguise) {
    let mixed = word.bytes().any(|byte| byte.is_ascii_alphabetic());
    for c in word.chars() {
        if is_invisible(c) {
            disguise.invisible += 1;
        } else if let Some(plain) = styled(c) {
            disguise.look_alikes += 1;
            out.push(plain);
        } else if let Some(plain) = look_alike(c).filter(|_| mixed) {
            disguise.look_alikes += 1;
            out.push(plain);
        } else {
            out.push(if c == '\u{a0}' { ' ' } else { c });
        }
    }
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e007f}')
}

/// ASCII in fancy dress: full-width forms and the mathematical alphanumeric blocks.
fn styled(c: char) -> Option<char> {
    let code = c as u32;
    let plain = match code {
        0xff01..=0xff5e => code - 0xff01 + 0x21,
        // Thirteen alphabets of 52 letters each (Unicode, block 1D400): bold, italic, script, Fraktur …
        0x1d400..=0x1d6a3 => letter((code - 0x1d400) % 52),
        0x1d7ce..=0x1d7ff => u32::from(b'0') + (code - 0x1d7ce) % 10,
        0x24b6..=0x24e9 => letter(code - 0x24b6),
        _ => return None,
    };
    char::from_u32(plain)
}

fn letter(place: u32) -> u32 {
    if place < 26 { u32::from(b'A') + place } else { u32::from(b'a') + place - 26 }
}

/// Letters of Cyrillic and Greek that look like a Latin one (after Unicode UTS 39, confusables).
fn look_alike(c: char) -> Option<char> {
    const TABLE: &[(char, char)] = &[
        ('Α', 'A'),
        ('Β', 'B'),
        ('Ε', 'E'),
        ('Ζ', 'Z'),
        ('Η', 'H'),
        ('Ι', 'I'),
        ('Κ', 'K'),
        ('Μ', 'M'),
        ('Ν', 'N'),
        ('Ο', 'O'),
        ('Ρ', 'P'),
        ('Τ', 'T'),
        ('Υ', 'Y'),
        ('Χ', 'X'),
        ('α', 'a'),
        ('ι', 'i'),
        ('ν', 'v'),
        ('ο', 'o'),
        ('ρ', 'p'),
        ('υ', 'u'),
        ('Ѕ', 'S'),
        ('І', 'I'),
        ('Ј', 'J'),
        ('А', 'A'),
        ('В', 'B'),
        ('Е', 'E'),
        ('К', 'K'),
        ('М', 'M'),
        ('Н', 'H'),
        ('О', 'O'),
        ('Р', 'P'),
        ('С', 'C'),
        ('Т', 'T'),
        ('У', 'Y'),
        ('Х', 'X'),
        ('а', 'a'),
        ('е', 'e'),
        ('о', 'o'),
        ('р', 'p'),
        ('с', 'c'),
        ('у', 'y'),
        ('х', 'x'),
        ('ѕ', 's'),
        ('і', 'i'),
        ('ј', 'j'),
        ('ԁ', 'd'),
        ('ԛ', 'q'),
        ('ԝ', 'w'),
        ('ı', 'i'),
        ('ɑ', 'a'),
        ('ɡ', 'g'),
        ('ո', 'n'),
        ('օ', 'o'),
        ('һ', 'h'),
        ('ӏ', 'l'),
    ];
    TABLE.iter().find(|&&(from, _)| from == c).map(|&(_, to)| to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disguised_words_fold_and_honest_ones_stay() {
        let mut disguise = Disguise::default();
        assert_eq!(fold("p\u{430}yp\u{200b}al", &mut disguise), "paypal");
        assert_eq!(disguise, Disguise { invisible: 1, look_alikes: 1 });
        assert_eq!(fold("привет", &mut disguise), "привет");
        assert_eq!(fold("a b\u{a0}p\u{430}y now c \u{200b}d", &mut disguise), "a b pay now c d");
        assert_eq!(fold("𝐅𝐫𝐞𝐞 ＦＲＥＥ", &mut disguise), "Free FREE");
    }
}
