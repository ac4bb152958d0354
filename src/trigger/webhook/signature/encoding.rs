//! Text encodings of digests and secrets.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

/// The encoding of a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Two hexadecimal digits per byte, in either case.
    Hex,
    /// Base64 or base64url (RFC 4648 §4 and §5), with or without padding.
    Base64,
}

impl Encoding {
    pub const ALL: [Self; 2] = [Self::Hex, Self::Base64];

    /// Returns the name of the encoding in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hex => "hex",
            Self::Base64 => "base64",
        }
    }

    /// Decodes a digest. `None` if the text is empty or not in this encoding.
    pub(super) fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            // `const_hex::decode` would accept a `0x` prefix.
            Self::Hex => const_hex::decode(text).ok().filter(|bytes| 2 * bytes.len() == text.len()),
            Self::Base64 => decode_base64(text),
        }
        .filter(|bytes| !bytes.is_empty())
    }
}

pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let standard = text.trim_end_matches('=').replace('-', "+").replace('_', "/");
    STANDARD_NO_PAD.decode(standard).ok()
}
