//! The PROXY protocol, versions 1 and 2: who the client behind a load balancer is. Pure.
//!
//! haproxy's `proxy-protocol.txt` of 2020-03-05, §2.1 (text) and §2.2 (binary). Only hosts that are configured speak it,
//! and those must: there is no guessing. TLVs are skipped; checksums (PP2_TYPE_CRC32C) are not looked at, as TCP has its own.
//! Fails only towards the peer; never panics on its bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest text header, CR LF included (§2.1).
const TEXT_BYTES_MAX: usize = 107;
/// Signature, version and command, family, length (§2.2).
const BINARY_PREFIX_BYTES: usize = 16;
/// The longest binary header that we take, TLVs included; the format would allow 64 KiB, balancers send below 1 KiB.
pub const HEADER_BYTES_MAX: usize = 4096;
/// Starts every binary header (§2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What stands at the start of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A whole header of `bytes` bytes.
    Whole {
        /// Its length.
        bytes: usize,
        /// Client and server address; none if the balancer speaks for itself (LOCAL, UNKNOWN).
        ends: Option<(SocketAddr, SocketAddr)>,
    },
    /// More bytes must come.
    Partial,
    /// No PROXY header; the connection must be closed (§2.1, §2.2).
    Wrong(&'static str),
}

/// Reads a header from the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> Header {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes[..common] == SIGNATURE[..common] {
        return parse_binary(bytes);
    }
    parse_text(bytes)
}

fn parse_text(bytes: &[u8]) -> Header {
    const START: &[u8] = b"PROXY ";
    let common = bytes.len().min(START.len());
    if bytes[..common] != START[..common] {
        return Header::Wrong("no PROXY header");
    }
    let head = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    let Some(end) = head.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < TEXT_BYTES_MAX { Header::Partial } else { Header::Wrong("PROXY line too long") };
    };
    let Ok(line) = std::str::from_utf8(&head[START.len()..end]) else {
        return Header::Wrong("PROXY line is not ASCII");
    };
    match text_ends(line) {
        Ok(ends) => Header::Whole { bytes: end + 2, ends },
        Err(why) => Header::Wrong(why),
    }
}

/// `TCP4 source destination port port`, single spaces (§2.1).
fn text_ends(line: &str) -> Result<Option<(SocketAddr, SocketAddr)>, &'static str> {
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    // "The receiver must ignore anything presented before the CRLF" behind UNKNOWN.
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let fields: Vec<&str> = words.collect();
    let [source, destination, source_port, destination_port] = fields[..] else {
        return Err("PROXY line needs four fields");
    };
    let remote = SocketAddr::new(text_address(family, source)?, text_port(source_port)?);
    let local = SocketAddr::new(text_address(family, destination)?, text_port(destination_port)?);
    Ok(Some((remote, local)))
}

fn text_address(family: &str, text: &str) -> Result<IpAddr, &'static str> {
    let address = match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6),
        _ => return Err("unknown PROXY family"),
    };
    Ok(address.map_err(|_| "bad PROXY address")?.to_canonical())
}

/// Digits without a leading zero (§2.1); `str::parse` alone would take a sign.
fn text_port(text: &str) -> Result<u16, &'static str> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|_| digits && canonical).ok_or("bad PROXY port")
}

fn parse_binary(bytes: &[u8]) -> Header {
    let Some((prefix, rest)) = bytes.split_at_checked(BINARY_PREFIX_BYTES) else { return Header::Partial };
    let body_bytes = usize::from(u16::from_be_bytes([prefix[14], prefix[15]]));
    let whole = BINARY_PREFIX_BYTES + body_bytes;
    if whole > HEADER_BYTES_MAX {
        return Header::Wrong("PROXY header too long");
    }
    // The version is judged first: the rest has no meaning under another one.
    if prefix[12] >> 4 != 2 {
        return Header::Wrong("unknown PROXY version");
    }
    let Some(body) = rest.get(..body_bytes) else { return Header::Partial };
    match prefix[12] & 0x0f {
        0 => Header::Whole { bytes: whole, ends: None },
        1 => match binary_ends(prefix[13], body) {
            Ok(ends) => Header::Whole { bytes: whole, ends },
            Err(why) => Header::Wrong(why),
        },
        _ => Header::Wrong("unknown PROXY command"),
    }
}

/// Addresses of family and transport (§2.2): 0x11 is TCP over IPv4, 0x21 TCP over IPv6.
fn binary_ends(family: u8, body: &[u8]) -> Result<Option<(SocketAddr, SocketAddr)>, &'static str> {
    const TOO_SHORT: &str = "PROXY addresses cut short";
    match family {
        0x11 => {
            let ends = body.first_chunk::<12>().ok_or(TOO_SHORT)?;
            let ip = |at: usize| IpAddr::from([ends[at], ends[at + 1], ends[at + 2], ends[at + 3]]);
            Ok(Some((at_port(ip(0), &ends[8..10]), at_port(ip(4), &ends[10..12]))))
        }
        0x21 => {
            let ends = body.first_chunk::<36>().ok_or(TOO_SHORT)?;
            let ip = |at: usize| {
                let octets: [u8; 16] = ends[at..at + 16].try_into().expect("sixteen bytes were cut out");
                IpAddr::from(octets).to_canonical()
            };
            Ok(Some((at_port(ip(0), &ends[32..34]), at_port(ip(16), &ends[34..36]))))
        }
        // UNSPEC: the real connection's ends are used.
        0x00 => Ok(None),
        _ => Err("PROXY for something else than TCP"),
    }
}

fn at_port(ip: IpAddr, port: &[u8]) -> SocketAddr {
    SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([0x20 | command, family]);
        header.extend((body.len() as u16).to_be_bytes());
        header.extend(body);
        header
    }

    fn ends(remote: &str, local: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((remote.parse().unwrap(), local.parse().unwrap()))
    }

    #[test]
    fn text_headers_as_the_specification_shows_them() {
        let cases: &[(&str, Option<(SocketAddr, SocketAddr)>)] = &[
            ("PROXY TCP4 255.255.255.255 192.0.2.1 65535 25\r\n", ends("255.255.255.255:65535", "192.0.2.1:25")),
            ("PROXY TCP6 2001:db8::1 ::1 1 25\r\n", ends("[2001:db8::1]:1", "[::1]:25")),
            ("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 25\r\n", ends("192.0.2.7:1", "[::1]:25")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
        ];
        for (text, expected) in cases {
            let whole = Header::Whole { bytes: text.len(), ends: *expected };
            assert_eq!(parse(format!("{text}EHLO x\r\n").as_bytes()), whole, "{text}");
            for cut in 0..text.len() {
                assert_eq!(parse(&text.as_bytes()[..cut]), Header::Partial, "{text} at {cut}");
            }
        }
    }

    #[test]
    fn wrong_text_is_refused() {
        for text in [
            "EHLO x\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            "PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
            &format!("PROXY UNKNOWN {}\r\n", "x".repeat(200)),
        ] {
            assert!(matches!(parse(text.as_bytes()), Header::Wrong(_)), "{text}");
        }
    }

    #[test]
    fn binary_headers_with_and_without_addresses() {
        let mut body = vec![192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x34, 0, 25];
        body.extend([0x04, 0, 3, 1, 2, 3]); // a TLV to skip
        let header = binary(1, 0x11, &body);
        let whole = Header::Whole { bytes: header.len(), ends: ends("192.0.2.1:4660", "198.51.100.2:25") };
        assert_eq!(parse(&header), whole);
        for cut in 0..header.len() {
            assert_eq!(parse(&header[..cut]), Header::Partial);
        }
        assert_eq!(parse(&binary(0, 0, &[])), Header::Whole { bytes: 16, ends: None });
        assert!(matches!(parse(&binary(1, 0x11, &body[..11])), Header::Wrong(_)));
        assert!(matches!(parse(&binary(2, 0x11, &body)), Header::Wrong(_)));
        assert!(matches!(parse(&binary(1, 0x31, &[0; 216])), Header::Wrong(_)));
        assert!(matches!(parse(&binary(1, 0x11, &[0; HEADER_BYTES_MAX])), Header::Wrong(_)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), start in 0..4usize) {
            let start: &[u8] = [&b""[..], SIGNATURE, b"PROXY TCP4 ", b"PROXY "][start];
            let all = [start, &bytes].concat();
            if let Header::Whole { bytes, .. } = parse(&all) {
                prop_assert!(bytes <= all.len());
            }
        }

        #[test]
        fn a_header_reads_the_same_with_anything_behind_it(ip: [u8; 32], ports: [u8; 4], tail: Vec<u8>) {
            let header = binary(1, 0x21, &[&ip[..], &ports].concat());
            prop_assert_eq!(parse(&header), parse(&[&header[..], &tail].concat()));
        }
    }
}
