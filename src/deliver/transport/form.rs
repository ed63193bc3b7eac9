//! In which form a message goes to a server: as it is, or as lines of 8 or 7 bits where the server takes no others. Pure. RFC 6152 §3,
//! RFC 3030 §3.

use std::borrow::Cow;

use crate::base::content::Content;
use crate::config::settings::EightBit;
use crate::smtp::client::capabilities::Capabilities;
use crate::smtp::client::content::ContentNeeds;
use crate::wire::downgrade::{self, Piece, Step};
use crate::wire::envelope::BodyType;
use crate::wire::reply::{Enhanced, Reply};

const NOT_EIGHT_BIT: Reply = Reply::fixed(
    554,
    Enhanced(5, 6, 3),
    "The content has 8-bit bytes, which the next hop does not take (8BITMIME), and was not converted",
);

const NOT_BINARY: Reply = Reply::fixed(
    554,
    Enhanced(5, 6, 3),
    "The content is binary, which the next hop does not take (BINARYMIME), and was not converted",
);

/// The form.
pub struct Form<'a> {
    /// The content in other bytes; nothing: as it is.
    pub converted: Option<Vec<Piece>>,
    /// What it asks of the server.
    pub needs: ContentNeeds,
    /// Its size in bytes, as sent.
    pub bytes: u64,
    /// What the server offers, as far as it is made use of.
    pub offers: Cow<'a, Capabilities>,
}

impl<'a> Form<'a> {
    /// The form of `content`, which its sender called `body`, for a server with these `offers`.
    /// # Errors
    /// What its sender hears if there is none.
    pub fn of(content: &Content, body: BodyType, offers: &'a Capabilities, wanted: EightBit) -> Result<Self, Reply> {
        let (mut needs, bytes) = (ContentNeeds::of(content), content.len() as u64);
        needs.binary = needs.nul || body == BodyType::BinaryMime;
        let Some((step, unfit)) = step(needs, offers, wanted) else {
            return Ok(Form { converted: None, needs, bytes, offers: Cow::Borrowed(offers) });
        };
        let pieces = if wanted == EightBit::Convert { downgrade::plan(content, step) } else { None };
        let pieces = pieces.ok_or(unfit)?;
        (needs.binary, needs.nul) = (false, false);
        needs.eight_bit &= needs.utf8_header || step == Step::BinaryToEight;
        let blocks = pieces.iter().flat_map(|piece| piece.blocks(content));
        let bytes = blocks.map(|block| block.len() as u64).sum();
        // The size of a chunk would have to hold to the byte, and lines are only repaired in DATA.
        let offers = Capabilities { chunking: false, binary_mime: false, ..offers.clone() };
        Ok(Form { converted: Some(pieces), needs, bytes, offers: Cow::Owned(offers) })
    }
}

/// What must be done to content of these needs, and what is said if it can't be; nothing: it may go as it is.
fn step(needs: ContentNeeds, offers: &Capabilities, wanted: EightBit) -> Option<(Step, Reply)> {
    match (needs.binary && !offers.binary_mime, needs.eight_bit && !offers.eight_bit_mime) {
        (true, _) if offers.eight_bit_mime => Some((Step::BinaryToEight, NOT_BINARY)),
        (true, _) => Some((Step::BinaryToSeven, NOT_BINARY)),
        // BINARYMIME takes them too.
        (false, true) if !needs.binary && wanted != EightBit::Send => Some((Step::EightToSeven, NOT_EIGHT_BIT)),
        _ => None,
    }
}
