//! What several functions ask of one message: worked out when the first of them asks. Pure.

use std::cell::OnceCell;

use super::body::Difference;
use super::dates::Dates;
use super::mime::{Encoded, Flaws};

/// See the module.
#[derive(Default)]
pub struct Once {
    /// Addresses of Reply-To, in lower case.
    pub answers: OnceCell<Vec<String>>,
    /// Addresses of From, in lower case.
    pub authors: OnceCell<Vec<String>>,
    /// Per cent of capitals.
    pub capitals: OnceCell<f64>,
    /// Dates of the sender and the relays.
    pub dates: OnceCell<Dates>,
    /// A page and its plain alternative.
    pub difference: OnceCell<Difference>,
    /// What is wrong around its boundaries.
    pub flaws: OnceCell<Flaws>,
    /// Hosts of all links, in lower case, in order.
    pub hosts: OnceCell<Vec<String>>,
    /// How each part is encoded and placed, in the order of the parts.
    pub encoded: OnceCell<Vec<Encoded>>,
    /// Who is addressed.
    pub recipients: OnceCell<Vec<String>>,
    /// Received fields in one line.
    pub received: OnceCell<String>,
    /// Content-Type of the message, in lower case.
    pub top_type: OnceCell<String>,
}
