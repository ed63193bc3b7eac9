//! One Received field, as mail servers write it. Pure. RFC 5321 §4.4, and what Sendmail, Postfix, Exim, qmail and Exchange make of it.
//!
//! Between `from` and `by` stands what the client said, what its address is and what its name is, in an order that depends
//! on the program. Fields that name no client (a hand-over within a host, by file, by HTTP) are told from those that can't be read.

use std::net::IpAddr;

use super::Relay;

/// What a field says.
pub enum Parsed {
    /// It was not handed over by a client with an address.
    NoClient,
    /// A hop.
    Relay(Box<Relay>),
    /// It should name a client.
    Unreadable,
}

/// What stands before and behind a mark. Fields are short and marks many, so this must begin quickly.
fn cut<'t>(text: &'t str, mark: &str) -> Option<(&'t str, &'t str)> {
    // Blanks are everywhere and letters are many; of the letters, one behind a blank will do.
    let telling = mark.bytes().position(|byte| byte != b' ' && !byte.is_ascii_lowercase());
    let ahead = telling.unwrap_or(usize::from(mark.starts_with(' ')));
    let bytes = text.as_bytes();
    let places = memchr::memchr_iter(mark.as_bytes()[ahead], bytes.get(ahead..)?);
    let at = places.into_iter().find(|&at| bytes[at..].starts_with(mark.as_bytes()))?;
    Some((&text[..at], &text[at + mark.len()..]))
}

fn has(text: &str, mark: &str) -> bool {
    cut(text, mark).is_some()
}

/// Reads the field's value, unfolded.
pub fn parse(value: &str) -> Parsed {
    let mut text = String::with_capacity(value.len() + 1);
    for word in value.split_ascii_whitespace() {
        text.push_str(word);
        text.push(' ');
    }
    text.pop();
    let envfrom = sender(&text);
    // The date says nothing here, and its `;` is no part of a name.
    let text = text.rsplit_once(';').map_or(text.as_str(), |(text, _)| text).trim_end_matches([' ', ';']);
    let text = text.strip_prefix('(').filter(|rest| starts_with(rest, "from ")).unwrap_or(text);
    if !starts_with(text, "from ") || has(text, " with local for") {
        return Parsed::NoClient;
    }
    let rest = &text["from ".len()..];
    let (client, _) = cut(rest, " by ").or_else(|| cut(rest, " BY ")).unwrap_or((rest, ""));
    let mut field = Field { text, client, relay: Relay { envfrom, ..Relay::default() } };
    field.common();
    if field.is_local() {
        return Parsed::NoClient;
    }
    if !field.client() {
        return if field.names_no_client() { Parsed::NoClient } else { Parsed::Unreadable };
    }
    if field.relay.by.is_empty() {
        return Parsed::Unreadable;
    }
    Parsed::Relay(Box::new(field.finished()))
}

struct Field<'t> {
    /// All of it, without the date.
    text: &'t str,
    /// What stands between `from` and `by`.
    client: &'t str,
    relay: Relay,
}

impl<'t> Field<'t> {
    /// What all programs write alike.
    fn common(&mut self) {
        let relay = &mut self.relay;
        let word = |mark: &str| cut(self.text, mark).map(|(_, rest)| rest.split(' ').next().unwrap_or(rest));
        relay.by = word(" by ").or_else(|| word(" BY ")).unwrap_or_default().to_owned();
        let id = word(" id ").or_else(|| word(" ID ")).unwrap_or_default();
        let id = id.trim_start_matches('<').split(['<', '>', ';']).next().unwrap_or_default();
        // Shorter ones are words of a sentence.
        relay.id = if id.len() >= 3 { id.to_owned() } else { String::new() };
        relay.helo = said(self.text).unwrap_or_default().to_owned();
        relay.auth = authentication(self.text).unwrap_or_default().to_owned();
    }

    /// A hand-over within a host or from a mailbox.
    fn is_local(&self) -> bool {
        let whole = self.client.split(' ').count() == 1 && !self.client.starts_with('[');
        let ends = || self.text.rsplit_once(" by ").is_none_or(|(_, by)| !by.contains(' '));
        whole && ends() && address(self.client).is_none()
            || ["with POP3", "with IMAP", " with BSMTP"].iter().any(|mark| has(self.text, mark))
            || has(self.text, "Exim") && has(self.text, " with local")
            || self.client.starts_with("mail pickup service")
    }

    /// True for the forms in which programs write down a hand-over that had no client.
    fn names_no_client(&self) -> bool {
        let mut words = self.client.split(' ');
        let first = words.next().unwrap_or_default();
        let second = words.next();
        let by = cut(self.text, " by ").is_some_and(|(_, rest)| rest.contains(' '));
        match second {
            None => by,
            Some("with" | "via" | "for" | "(unverified)" | "named") => true,
            Some("id") => words.next().is_some() && words.next().is_none(),
            Some(second) => {
                first.starts_with("Unknown/Local")
                    || first == "(AUTH:"
                    || second.contains("localhost")
                    || has(self.text, "(Content Technologies ")
                    || has(self.client, "[unix socket]")
                    || has(self.client, "[local]")
                    || has(self.text, " with local")
            }
        }
    }

    /// Finds the client's address, and sorts the words around it; false if there is none.
    fn client(&mut self) -> bool {
        let (first, rest) = self.client.split_once(' ').unwrap_or((self.client, ""));
        let said = rest.starts_with("([") || rest.starts_with('(') && rest.contains(" [");
        if first.starts_with(['[', '(']) || !said && address(first).is_some() {
            return self.unnamed();
        }
        if let Some((name, ip)) = first.split_once('(').and_then(|(name, ip)| Some((name, address(ip)?))) {
            self.relay.ip = ip;
            self.relay.rdns = name.to_owned();
            return true;
        }
        match rest.strip_prefix('(') {
            Some(inner) => self.commented(first, inner),
            None => self.bracketed(first, rest),
        }
    }

    /// `[192.0.2.1] (helo=x)`, `([192.0.2.1])`, `192.0.2.1 (HELO x)`: an address in the name's place.
    fn unnamed(&mut self) -> bool {
        let bare = self.client.split(' ').count() == 1 && !self.client.starts_with(['[', '(']);
        // A bare address counts only where the protocol follows.
        let behind = cut(self.text, " by ").and_then(|(_, rest)| rest.split(' ').nth(1));
        if bare && behind != Some("with") {
            return false;
        }
        let found = self.client.split(' ').find_map(address);
        self.relay.ident = self.noted("ident=");
        self.found(found)
    }

    /// `name [192.0.2.1]`.
    fn bracketed(&mut self, first: &str, rest: &str) -> bool {
        let found = rest.split(' ').next().filter(|word| word.starts_with('[')).and_then(address);
        self.relay.helo = first.to_owned();
        if has(self.text, "Exim") {
            self.relay.rdns = first.to_owned();
        }
        self.found(found)
    }

    /// `name (…)`, where the address is in the comment or in the one behind it.
    fn commented(&mut self, first: &str, inner: &str) -> bool {
        let (comment, behind) = inner.split_once(')').unwrap_or((inner, ""));
        let comment = comment.trim_start();
        let (word, others) = comment.split_once(' ').unwrap_or((comment, ""));
        if matches!(word, "HELO" | "EHLO" | "LHLO") {
            return self.greeted(first, others, behind);
        }
        if word.starts_with('[') && address(word).is_some() {
            return self.alone(first, word, others);
        }
        if let Some(ip) = others.split(' ').find(|word| word.starts_with('[')).and_then(address) {
            return self.looked_up(first, word, ip);
        }
        match word.split_once('[') {
            Some((name, ip)) => self.glued(first, name, address(ip)),
            None => self.bare(first, word),
        }
    }

    /// qmail and its kin: `rdns (HELO x) (ident@192.0.2.1)`.
    fn greeted(&mut self, first: &str, helo: &str, behind: &str) -> bool {
        let place = behind.trim_start().trim_start_matches('(').split([' ', ')']).next().unwrap_or_default();
        let (ident, ip) = place.rsplit_once('@').unwrap_or(("", place));
        self.relay.helo = helo.to_owned();
        self.relay.ident = ident.to_owned();
        self.name(first);
        // qmail writes so where it did not look.
        self.relay.nameless &= !self.is_qmail();
        self.found(address(ip))
    }

    /// `name ([192.0.2.1] …)`: the name is what was said, unless the program is known to look it up.
    fn alone(&mut self, first: &str, ip: &str, others: &str) -> bool {
        let helo = self.noted("helo=");
        if !helo.is_empty() {
            (self.relay.rdns, self.relay.helo) = (first.to_owned(), helo);
        } else if has(self.text, "Exim") || others == "verified" || self.is_qmail() {
            self.relay.helo = first.to_owned();
            self.name(first);
        } else {
            self.relay.helo = first.to_owned();
            self.relay.nameless = !has(self.text, "Lotus Domino") && !has(self.text, "SMTPSVC");
        }
        self.relay.ident = self.noted("ident=");
        self.found(address(ip))
    }

    /// Sendmail, Postfix: `helo (rdns [192.0.2.1])`.
    fn looked_up(&mut self, first: &str, name: &str, ip: String) -> bool {
        let (ident, name) = name.rsplit_once('@').unwrap_or(("", name));
        self.relay.ident = ident.strip_prefix("IDENT:").unwrap_or(ident).to_owned();
        self.relay.helo = first.to_owned();
        match name {
            "softdnserr" | "unverified" => {}
            name => self.name(name),
        }
        self.found(Some(ip))
    }

    /// `helo (rdns[192.0.2.1])`, `helo (ident@[192.0.2.1])`.
    fn glued(&mut self, first: &str, name: &str, ip: Option<String>) -> bool {
        self.relay.helo = first.to_owned();
        match name.strip_suffix('@') {
            Some(ident) => {
                self.relay.ident = ident.to_owned();
                self.relay.nameless = true;
            }
            None if name.starts_with("<unknown") => {}
            None => self.name(name),
        }
        self.found(ip)
    }

    /// `name (192.0.2.1)`, `name (ident@192.0.2.1)`.
    fn bare(&mut self, first: &str, word: &str) -> bool {
        let (ident, ip) = word.rsplit_once('@').unwrap_or(("", word));
        let Some(ip) = address(ip) else { return self.found(None) };
        self.relay.helo = first.to_owned();
        if self.is_old_exchange() {
            // Its ids are the same for all.
            self.relay.id.clear();
        } else {
            self.relay.ident = ident.to_owned();
            self.name(first);
        }
        self.found(Some(ip))
    }

    /// A name that the program looked up.
    fn name(&mut self, name: &str) {
        self.relay.nameless = name.eq_ignore_ascii_case("unknown");
        self.relay.rdns = if self.relay.nameless { String::new() } else { name.to_owned() };
    }

    /// The address; any in brackets if there is none in its place.
    fn found(&mut self, ip: Option<String>) -> bool {
        let any = || self.text.split(' ').filter(|word| word.contains('[')).find_map(address);
        match ip.or_else(any) {
            Some(ip) => {
                self.relay.ip = ip;
                true
            }
            None => false,
        }
    }

    fn noted(&self, mark: &str) -> String {
        let word = cut(self.client, mark).map(|(_, rest)| rest.split([' ', ')']).next().unwrap_or(rest));
        word.unwrap_or_default().to_owned()
    }

    /// Exchange before 2013 wrote its version in the place of the id, and only what was said.
    fn is_old_exchange(&self) -> bool {
        [" with Microsoft SMTP Server ", " with mapi id "].iter().filter_map(|mark| cut(self.text, mark)).any(
            |(_, rest)| {
                let rest =
                    if rest.starts_with('(') { rest.split_once(") ").map_or(rest, |(_, rest)| rest) } else { rest };
                let version = rest.split(' ').next().unwrap_or(rest);
                version.split('.').count() == 4
                    && version.split('.').all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
            },
        )
    }

    /// qmail writes no id behind `with SMTP`.
    fn is_qmail(&self) -> bool {
        [" with SMTP", " with QMQP"].iter().any(|mark| {
            cut(self.text, mark).is_some_and(|(_, rest)| !rest.starts_with(" id ") && !rest.starts_with("SVC"))
        })
    }

    fn finished(self) -> Relay {
        let mut relay = self.relay;
        if relay.rdns.starts_with('[') || relay.rdns.eq_ignore_ascii_case("unknown") {
            relay.rdns.clear();
        }
        relay.rdns.truncate(relay.rdns.trim_end_matches('.').len());
        for word in [&mut relay.rdns, &mut relay.helo, &mut relay.by, &mut relay.ident] {
            word.truncate(word.trim_end_matches(';').len());
            clean(word);
        }
        clean(&mut relay.id);
        relay.envfrom.iter_mut().for_each(clean);
        relay
    }
}

/// What the client said, where the field says that it is that.
fn said(text: &str) -> Option<&str> {
    let behind = ["helo=", "HELO ", "EHLO "].iter().find_map(|mark| cut(text, mark))?.1;
    let word = behind.split([' ', ')', '(', '[', ']']).next()?;
    Some(word).filter(|word| !word.is_empty())
}

/// The sender that some programs note, behind the date even.
fn sender(text: &str) -> Option<String> {
    const MARKS: [&str; 5] =
        ["envelope-from ", "envelope-from=", "envelope-sender ", "envelope-sender=", "return-path: "];
    let word = MARKS.iter().find_map(|mark| cut(text, mark))?.1.split(' ').next()?;
    Some(word.trim_matches(['<', '>', ')', '(', '"', ';']).to_owned())
}

/// How the client authenticated.
fn authentication(text: &str) -> Option<&str> {
    let protocols = text.split(" with ").skip(1).filter_map(|rest| rest.split([' ', ';']).next());
    let mut protocols = protocols.filter(|word| {
        let upper = word.to_ascii_uppercase();
        let secured = ["ESMTP", "LMTP", "UTF8SMTP", "UTF8LMTP"]
            .iter()
            .any(|protocol| upper.strip_prefix(protocol).is_some_and(|letters| matches!(letters, "A" | "SA")));
        secured || matches!(upper.as_str(), "ASMTP" | "HTTP" | "HTTPS" | "HTTPU")
    });
    if let Some(word) = protocols.next() {
        return Some(word);
    }
    if has(text, ") (Authenticated sender: ") {
        return Some("Postfix");
    }
    let (client, _) = cut(text, " by ")?;
    if has(client, "authenticated") && client.contains('(') && client.contains(']') {
        return Some("Sendmail");
    }
    (has(text, "CommuniGate Pro ") && has(text, " (account ")).then_some("Communigate")
}

/// An address in any of its spellings: in brackets, with a prefix, with a port, mapped.
fn address(word: &str) -> Option<String> {
    let word = word.trim_matches(['(', ')', '[', ',', ';']);
    let (word, _) = word.split_once(']').unwrap_or((word, ""));
    let word = word.get(..5).filter(|head| head.eq_ignore_ascii_case("ipv6:")).map_or(word, |_| &word[5..]);
    let word = word.split('%').next().unwrap_or(word);
    let ip = word.parse::<IpAddr>().ok().or_else(|| word.rsplit_once(':')?.0.parse().ok());
    ip.map(|ip| ip.to_canonical().to_string())
}

/// Longest word of the notation.
const WORD_CHARS_MAX: usize = 255;

/// Without what means something in the notation.
fn clean(word: &mut String) {
    let is_special = |c: char| c.is_whitespace() || matches!(c, '#' | '[' | ']' | '(' | ')' | '<' | '>' | '|' | '\0');
    if word.len() > WORD_CHARS_MAX || word.contains(is_special) {
        *word = word.chars().map(|c| if is_special(c) { '!' } else { c }).take(WORD_CHARS_MAX).collect();
    }
}

fn starts_with(text: &str, head: &str) -> bool {
    text.get(..head.len()).is_some_and(|start| start.eq_ignore_ascii_case(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ip rdns helo by auth`.
    fn read(text: &str) -> String {
        match parse(text) {
            Parsed::Relay(relay) => {
                format!("{} {} {} {} {}", relay.ip, relay.rdns, relay.helo, relay.by, relay.auth).trim_end().to_owned()
            }
            Parsed::NoClient => "none".to_owned(),
            Parsed::Unreadable => "unreadable".to_owned(),
        }
    }

    #[test]
    fn programs_write_what_they_know_in_their_own_order() {
        let cases = [
            (
                "from h.example (r.example [192.0.2.1]) by b.example (Postfix) with ESMTP id 4X; now",
                "192.0.2.1 r.example h.example b.example",
            ),
            ("from h (unknown [192.0.2.1]) by b (Postfix) with ESMTPSA id 4X; now", "192.0.2.1  h b ESMTPSA"),
            ("from h ([192.0.2.1]) by b (8.11.6/8.11.6) with ESMTP id g; now", "192.0.2.1  h b"),
            (
                "from h (IDENT:me@r.example [192.0.2.1]) by b (8.9.3/8.9.3) with ESMTP id Y; now",
                "192.0.2.1 r.example h b",
            ),
            ("from unknown (HELO h) (192.0.2.1) by b with SMTP; 1 Jan", "192.0.2.1  h b"),
            ("from r.example (HELO h) (me@192.0.2.1) by b with SMTP; 1 Jan", "192.0.2.1 r.example h b"),
            ("from r.example (192.0.2.1) by b with SMTP; 1 Jan", "192.0.2.1 r.example r.example b"),
            ("from r.example ([192.0.2.1] helo=h) by b with esmtp (Exim 4.94) id 1a-2; now", "192.0.2.1 r.example h b"),
            ("from [192.0.2.1] (helo=h) by b with esmtp (Exim 4.94) id 1a-2; now", "192.0.2.1  h b"),
            (
                "from r.example ([192.0.2.1]) by b with esmtp (Exim 4.94) id 1a-2; now",
                "192.0.2.1 r.example r.example b",
            ),
            ("from h (2001:db8::1) by b (2001:db8::2) with Microsoft SMTP Server id 15.1; now", "2001:db8::1 h h b"),
            ("from h (192.0.2.1) by b (192.0.2.2) with Microsoft SMTP Server (TLS) 8.1.358.0; now", "192.0.2.1  h b"),
            ("from 192.0.2.7 ([192.0.2.1]) by b (8.1/8.1) with SMTP id q; now", "192.0.2.1  192.0.2.7 b"),
            ("from [192.0.2.1] by b via HTTP; now", "192.0.2.1   b"),
            ("from h ([192.0.2.1]) by b with Microsoft SMTPSVC(6.0); now", "192.0.2.1  h b"),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_names_no_client_is_told_from_what_cannot_be_read() {
        for text in [
            "by b.example with SMTP id q",
            "(qmail 27981 invoked by uid 225); 14 Mar 2003 07:24:34 -0000",
            "from a.example by b.example ; now",
            "from a by b (Postfix, from userid 7) id 4; now",
            "from www by b with local (Exim 4.94) id 1a-2; now",
            "from pop.example [192.0.2.1] by localhost with POP3 (fetchmail-6.2); now",
        ] {
            assert_eq!(read(text), "none", "{text}");
        }
        assert_eq!(read("from nobody (nowhere at all) somehow; now"), "unreadable");
    }
}
