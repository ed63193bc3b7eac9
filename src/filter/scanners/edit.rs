//! Carries out what a milter wants changed in a message. Pure. smfi_addheader(3), smfi_insheader(3), smfi_chgheader(3).
//!
//! Fields are counted as libmilter counts them: places from 0, fields of one name from 1. What is not touched keeps its bytes,
//! so signatures of untouched fields hold.

use std::borrow::Cow;

use crate::base::content::Content;
use crate::wire::header::fields;
use crate::wire::milter::Edit;

/// One field of the header section.
struct Piece<'a> {
    name: Cow<'a, [u8]>,
    bytes: Cow<'a, [u8]>,
}

/// `content` with all changes made in their order. `leading_space`: values bring the blank behind the colon with them.
pub fn apply(content: &Content, edits: &[Edit], leading_space: bool) -> Content {
    let mut walk = fields(content);
    let mut pieces: Vec<Piece<'_>> =
        walk.by_ref().map(|field| Piece { name: field.name.into(), bytes: (&content[field.range]).into() }).collect();
    let rest = &content[walk.position()..];
    let mut body: Option<Vec<u8>> = None;
    for edit in edits {
        match edit {
            Edit::AddHeader { name, value } => pieces.push(piece(name, value, leading_space)),
            Edit::InsertHeader { index, name, value } => {
                let place = (*index as usize).min(pieces.len());
                pieces.insert(place, piece(name, value, leading_space));
            }
            Edit::ChangeHeader { index, name, value } => change(&mut pieces, *index, name, value, leading_space),
            Edit::ReplaceBody(part) => body.get_or_insert_default().extend_from_slice(part),
            Edit::AddRecipient(_) | Edit::ChangeSender(_) | Edit::RemoveRecipient(_) => {}
        }
    }
    let mut out: Vec<u8> = Vec::with_capacity(content.len() + 1024);
    for piece in &pieces {
        out.extend_from_slice(&piece.bytes);
        if !out.ends_with(b"\n") {
            out.extend_from_slice(b"\r\n");
        }
    }
    match body {
        Some(body) => [b"\r\n", body.as_slice()].iter().for_each(|part| out.extend_from_slice(part)),
        None => out.extend_from_slice(rest),
    }
    Content::from_bytes(out)
}

/// The `index`th field of this name gets the value, or goes; a field that is not there is added at the end.
fn change(pieces: &mut Vec<Piece<'_>>, index: u32, name: &str, value: &[u8], leading_space: bool) {
    let wanted = index.max(1) as usize - 1;
    let places = pieces.iter().enumerate().filter(|(_, piece)| piece.name.eq_ignore_ascii_case(name.as_bytes()));
    let place = places.map(|(place, _)| place).nth(wanted);
    match place {
        Some(place) if value.is_empty() => drop(pieces.remove(place)),
        Some(place) => pieces[place] = piece(name, value, leading_space),
        None if value.is_empty() => {}
        None => pieces.push(piece(name, value, leading_space)),
    }
}

fn piece(name: &str, value: &[u8], leading_space: bool) -> Piece<'static> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(b':');
    if !leading_space {
        bytes.push(b' ');
    }
    bytes.extend(folded(value));
    bytes.extend_from_slice(b"\r\n");
    Piece { name: name.as_bytes().to_vec().into(), bytes: bytes.into() }
}

/// A value whose lines all belong to one field: milters end them by LF, and a line that would begin a field of its own is folded.
pub fn folded(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for (place, line) in value.split(|byte| *byte == b'\n').enumerate() {
        let line: Vec<u8> = line.iter().copied().filter(|byte| !matches!(byte, b'\r' | 0)).collect();
        if place > 0 {
            if line.trim_ascii().is_empty() {
                continue;
            }
            out.extend_from_slice(b"\r\n");
            if !line.starts_with(b" ") && !line.starts_with(b"\t") {
                out.push(b'\t');
            }
        }
        out.extend_from_slice(&line);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(content: &str, edits: &[Edit]) -> String {
        let content = apply(&Content::from_bytes(content.as_bytes().to_vec()), edits, false);
        String::from_utf8(content.to_vec()).unwrap()
    }

    fn set(index: u32, name: &str, value: &str) -> Edit {
        Edit::ChangeHeader { index, name: name.into(), value: value.into() }
    }

    #[test]
    fn fields_are_added_inserted_changed_and_removed_where_they_are_counted() {
        let mail = "A: 1\r\nB: 2\r\nb: 3\r\n\r\nbody\r\n";
        let name = |name: &str| name.to_owned();
        let edits = [
            Edit::InsertHeader { index: 0, name: name("Top"), value: b"x\n y".to_vec() },
            Edit::InsertHeader { index: 99, name: name("End"), value: b"e".to_vec() },
            Edit::AddHeader { name: name("Last"), value: b"l".to_vec() },
            set(2, "B", "new"),
            set(1, "a", ""),
            set(5, "A", ""),
            set(1, "C", "c"),
        ];
        assert_eq!(edited(mail, &edits), "Top: x\r\n y\r\nB: 2\r\nB: new\r\nEnd: e\r\nLast: l\r\nC: c\r\n\r\nbody\r\n");
    }

    #[test]
    fn a_body_is_replaced_by_all_its_pieces() {
        let edits = [Edit::ReplaceBody(b"one ".to_vec()), Edit::ReplaceBody(b"two\r\n".to_vec())];
        assert_eq!(edited("A: 1\r\n\r\nold\r\n", &edits), "A: 1\r\n\r\none two\r\n");
        assert_eq!(edited("A: 1", &edits), "A: 1\r\n\r\none two\r\n");
    }

    #[test]
    fn a_value_can_not_forge_a_field() {
        assert_eq!(folded(b"x\r\nBcc: y\n\n\0z"), b"x\r\n\tBcc: y\r\n\tz");
        let untouched = "A : odd\r\n\tfold\r\n\r\nbody";
        assert_eq!(edited(untouched, &[]), untouched);
    }
}
