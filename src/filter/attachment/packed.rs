//! One file packed by itself: gzip (RFC 1952), bzip2, xz, Zstandard (RFC 8878), unpacked in memory as far as is looked at. Pure.
//!
//! Each of them may be several streams in a row, which programs unpack as one. What a stream says that it needs is not believed: memory is
//! bounded before it is taken, and streams of nothing, of which a megabyte holds thousands, end with their number or the message's time.

use std::io::{Error, Read, Result};

use bzip2::bufread::BzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::format::{Format, is_passed_over};
use super::split_extension;
use crate::filter::budget::Budget;

/// Memory for what an xz stream can refer back to: enough for `xz -9` with what the reader needs beside it.
const XZ_KIB_MAX: u32 = 72 * 1024;
/// The same for Zstandard: what its readers must have is 8 MiB (RFC 8878 §3.1.1.1.2), what `zstd -19` takes.
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Streams of bzip2 in one file, each of which takes megabytes; programs that pack in parallel make one of each 900,000 bytes.
const BZIP2_STREAMS_MAX: usize = 100;
/// Packed bytes between two looks at the clock.
const BYTES_PER_LOOK: usize = 4096;

/// Last extensions of such files.
pub const EXTENSIONS: [&str; 9] = ["bz2", "gz", "tbz", "tbz2", "tgz", "txz", "tzst", "xz", "zst"];

/// What is in such a file, at most `most` bytes of it; with whether it could be read so far.
pub fn unpack(format: Format, bytes: &[u8], most: u64, budget: &mut Budget) -> (Vec<u8>, bool) {
    let input = Paced { rest: bytes, budget, unseen: 0 };
    let mut content = Vec::new();
    let read = match format {
        Format::Bzip2 => bzip2(bytes, most, &mut content),
        Format::Xz => XzReader::new_mem_limit(input, true, XZ_KIB_MAX).take(most).read_to_end(&mut content),
        Format::Zstd => Frames::new(input).take(most).read_to_end(&mut content),
        _ => flate2::read::MultiGzDecoder::new(input).take(most).read_to_end(&mut content),
    };
    (content, read.is_ok())
}

fn bzip2(mut rest: &[u8], most: u64, content: &mut Vec<u8>) -> Result<usize> {
    for _ in 0..=BZIP2_STREAMS_MAX {
        let left = most - content.len() as u64;
        if rest.is_empty() || left == 0 {
            return Ok(content.len());
        }
        BzDecoder::new(&mut rest).take(left).read_to_end(content)?;
    }
    Err(Error::other("too many streams"))
}

/// The name of what is packed: without the extension that says how, if it has one.
pub fn inner_name(name: &str) -> &str {
    match split_extension(name) {
        Some((stem, last)) if EXTENSIONS.contains(&last.to_lowercase().as_str()) => stem,
        _ => name,
    }
}

/// Bytes that end when the time is up.
struct Paced<'b> {
    rest: &'b [u8],
    budget: &'b mut Budget,
    /// Bytes since the last look at the clock.
    unseen: usize,
}

impl Read for Paced<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        if self.unseen >= BYTES_PER_LOOK {
            self.unseen = 0;
            if self.budget.is_late() {
                return Err(Error::other("the time is up"));
            }
        }
        let most = out.len().min(BYTES_PER_LOOK);
        let read = self.rest.read(&mut out[..most])?;
        self.unseen += read;
        Ok(read)
    }
}

/// Frames of Zstandard in a row.
struct Frames<'b> {
    input: Paced<'b>,
    decoder: FrameDecoder,
    /// The decoder is within a frame.
    open: bool,
}

impl<'b> Frames<'b> {
    fn new(input: Paced<'b>) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW_BYTES_MAX);
        Frames { input, decoder, open: false }
    }

    /// Passes over frames that are none of the content (RFC 8878 §3.1.2): a mark, the length of what follows, and that.
    fn pass_over(&mut self) {
        while let Some((head, rest)) = self.input.rest.split_at_checked(8)
            && is_passed_over(head)
        {
            let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
            self.input.rest = rest.get(length as usize..).unwrap_or_default();
        }
    }
}

impl Read for Frames<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        loop {
            while self.open {
                let read = self.decoder.read(out)?;
                if read > 0 || out.is_empty() {
                    return Ok(read);
                }
                self.open = !self.decoder.is_finished();
                if self.open {
                    let one = BlockDecodingStrategy::UptoBlocks(1);
                    self.decoder.decode_blocks(&mut self.input, one).map_err(Error::other)?;
                }
            }
            self.pass_over();
            if self.input.rest.is_empty() {
                return Ok(0);
            }
            self.decoder.init(&mut self.input).map_err(Error::other)?;
            self.open = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};

    use super::*;
    use crate::filter::budget::Limit;

    /// `MZ` and a line of text as bzip2 1.0.8, xz 5.4 and zstd 1.5 pack them.
    const PACKED: [(Format, &str); 3] = [
        (Format::Bzip2, "QlpoOTFBWSZTWXsdegwAAAHXgAAQQAAAAgAQLihEgCAAIgBoAgGgAOGjLoXnLpd4u5IpwoSD2OvQYA=="),
        (
            Format::Xz,
            "/Td6WFoAAATm1rRGAgAhARYAAAB0L+WjAQAPTVogcGFja2VkIHR3aWNlCgCgUSrfeUyH7AABKBDlC2xgH7bzfQEAAAAABFla",
        ),
        (Format::Zstd, "KLUv/QRYgQAATVogcGFja2VkIHR3aWNlCvlOWdo="),
    ];
    const CONTENT: &[u8] = b"MZ packed twice\n";

    fn packed(text: &str) -> Vec<u8> {
        BASE64_STANDARD.decode(text).unwrap()
    }

    fn unpacked(format: Format, bytes: &[u8]) -> (Vec<u8>, bool) {
        unpack(format, bytes, 1 << 20, &mut Budget::default())
    }

    #[test]
    fn streams_in_a_row_are_one_file() {
        for (format, text) in PACKED {
            let one = packed(text);
            assert_eq!(super::super::format::format(&one), format);
            assert_eq!(unpacked(format, &one), (CONTENT.to_vec(), true), "{format:?}");
            assert_eq!(unpacked(format, &one.repeat(2)), (CONTENT.repeat(2), true), "{format:?}");
            assert_eq!(unpack(format, &one.repeat(2), 5, &mut Budget::default()).0, &CONTENT[..5], "{format:?}");
        }
    }

    #[test]
    fn what_is_damaged_says_so_and_shows_what_it_can() {
        for (format, text) in PACKED {
            let one = packed(text);
            for cut in 1..one.len() {
                assert!(!unpacked(format, &one[..cut]).1, "{format:?} cut at {cut}");
            }
            assert_eq!(unpacked(format, &[&one, &one[..one.len() - 3]].concat()).0[..CONTENT.len()], *CONTENT);
        }
    }

    #[test]
    fn frames_that_are_passed_over_hide_nothing() {
        let one = packed(PACKED[2].1);
        let hidden = [b"\x5a\x2a\x4d\x18\x03\0\0\0abc\x50\x2a\x4d\x18\0\0\0\0".as_slice(), &one].concat();
        assert_eq!(super::super::format::format(&hidden), Format::Zstd);
        assert_eq!(unpacked(Format::Zstd, &hidden), (CONTENT.to_vec(), true));
    }

    #[test]
    fn memory_that_is_asked_for_is_bounded() {
        // A window of 16 MiB (RFC 8878 §3.1.1.1.2: 2^(10 + 14)), and a dictionary of 96 MiB (the xz format §5.3.1).
        assert!(!unpacked(Format::Zstd, b"\x28\xb5\x2f\xfd\x00\x70\x01\0\0").1);
        let mut xz = packed(PACKED[1].1);
        let dictionary = 12 + 4;
        xz[dictionary] = 29;
        let mut sum = flate2::Crc::new();
        sum.update(&xz[12..20]);
        xz[20..24].copy_from_slice(&sum.sum().to_le_bytes());
        assert_eq!(unpacked(Format::Xz, &xz), (Vec::new(), false));
    }

    #[test]
    fn streams_end_with_their_number_or_the_time() {
        let [(bzip2, text), others @ ..] = PACKED;
        let many = |streams| unpacked(bzip2, &packed(text).repeat(streams));
        assert!(many(BZIP2_STREAMS_MAX).1 && !many(BZIP2_STREAMS_MAX + 1).1);
        for (format, text) in others {
            let mut budget = Budget::default();
            budget.time(|| 1_000_000, 0);
            let (content, whole) = unpack(format, &packed(text).repeat(200), 1 << 20, &mut budget);
            assert!(!whole && content.len() < CONTENT.len() * 200, "{format:?}");
            assert!(budget.exceeded().any(|row| row.limit == Limit::TimeMillis));
        }
    }

    #[test]
    fn names_lose_what_says_how_they_are_packed() {
        let names = ["run.exe.xz", "RUN.EXE.ZST", "a.tgz", "plain.exe", "none"].map(inner_name);
        assert_eq!(names, ["run.exe", "RUN.EXE", "a", "plain.exe", "none"]);
    }
}
