//! In which form a message goes to a server: as it is, or in 7 bits where the server takes no others. Pure. RFC 6152 §3.

use std::borrow::Cow;

use crate::base::content::Content;
use crate::config::settings::EightBit;
use crate::smtp::client::capabilities::Capabilities;
use crate::smtp::client::content::ContentNeeds;
use crate::wire::downgrade::{self, Piece};
use crate::wire::reply::{Enhanced, Reply};

const NOT_EIGHT_BIT: Reply = Reply::fixed(
    554,
    Enhanced(5, 6, 3),
    "The content has 8-bit bytes, which the next hop does not take (8BITMIME), and was not converted",
);

/// The form.
pub struct Form<'a> {
    /// The content in 7 bits; nothing: as it is.
    pub converted: Option<Vec<Piece>>,
    /// What it asks of the server.
    pub needs: ContentNeeds,
    /// Its size in bytes, as sent.
    pub bytes: u64,
    /// What the server offers, as far as it is made use of.
    pub offers: Cow<'a, Capabilities>,
}

impl<'a> Form<'a> {
    /// The form of `content` for a server with these `offers`.
    /// # Errors
    /// What its sender hears if there is none.
    pub fn of(content: &Content, offers: &'a Capabilities, wanted: EightBit) -> Result<Self, Reply> {
        let (mut needs, bytes) = (ContentNeeds::of(content), content.len() as u64);
        let as_it_is = |needs| Form { converted: None, needs, bytes, offers: Cow::Borrowed(offers) };
        if !needs.eight_bit || offers.eight_bit_mime || wanted == EightBit::Send {
            return Ok(as_it_is(needs));
        }
        let pieces = if wanted == EightBit::Convert { downgrade::plan(content) } else { None };
        let pieces = pieces.ok_or(NOT_EIGHT_BIT)?;
        needs.eight_bit = needs.utf8_header;
        let blocks = pieces.iter().flat_map(|piece| piece.blocks(content));
        let bytes = blocks.map(|block| block.len() as u64).sum();
        // The size of a chunk would have to hold to the byte, and lines are only repaired in DATA.
        let offers = Capabilities { chunking: false, binary_mime: false, ..offers.clone() };
        Ok(Form { converted: Some(pieces), needs, bytes, offers: Cow::Owned(offers) })
    }
}
