//! clamd's INSTREAM: a message in chunks, one line of answer. Pure. clamd(8), "COMMANDS".

/// What begins a scan; `z` ends lines by NUL.
pub const INSTREAM: &[u8] = b"zINSTREAM\0";
/// The chunk of no bytes that ends the stream.
pub const END: [u8; 4] = [0; 4];
/// Bytes of one chunk: few enough that a long message is scanned while it is sent.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Longest answer that is read; names of signatures are short.
pub const ANSWER_BYTES_MAX: usize = 1024;

/// What clamd says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing found.
    Clean,
    /// It could not scan, in its words.
    Error(String),
    /// The signature's name.
    Found(String),
}

/// The length that stands before a chunk.
pub fn chunk_head(chunk: &[u8]) -> [u8; 4] {
    u32::try_from(chunk.len()).expect("a chunk is far below 4 GiB").to_be_bytes()
}

/// Reads an answer without its NUL; nothing if it is none.
pub fn parse(answer: &[u8]) -> Option<Answer> {
    let text: String = String::from_utf8_lossy(answer).chars().filter(|c| !c.is_control()).collect();
    if let Some(error) = text.strip_suffix(" ERROR") {
        return Some(Answer::Error(error.trim().to_owned()));
    }
    let said = text.strip_prefix("stream: ")?;
    if said == "OK" {
        return Some(Answer::Clean);
    }
    said.strip_suffix(" FOUND").map(|name| Answer::Found(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_clean_found_or_error_and_nothing_else() {
        assert_eq!(parse(b"stream: OK"), Some(Answer::Clean));
        assert_eq!(parse(b"stream: Eicar-Test FOUND"), Some(Answer::Found("Eicar-Test".into())));
        let over = b"INSTREAM size limit exceeded. ERROR";
        assert_eq!(parse(over), Some(Answer::Error("INSTREAM size limit exceeded.".into())));
        for garbage in [&b""[..], b"OK", b"stream: ", b"HTTP/1.1 200 OK", b"\xff\xfe"] {
            assert_eq!(parse(garbage), None);
        }
    }
}
