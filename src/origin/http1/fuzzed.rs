//! What fuzz targets see of this room: the readers of what an origin sends, over bytes.

use bytes::BytesMut;
use http::{HeaderMap, StatusCode};

use super::{
    chunked::{ChunkedDecoder, DecodedPart},
    response,
};
pub use response::ResponseLength;

/// The head of a response, as far as it can be told without a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedHead {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, without those that only concern the framing.
    pub headers: HeaderMap,
    /// Where its body ends.
    pub length: ResponseLength,
    /// Whether another response may follow.
    pub persists: bool,
    /// How many bytes it takes.
    pub bytes: usize,
}

/// The head at the beginning of these bytes, none where it is not complete.
///
/// # Errors
/// Why it is refused.
pub fn head(bytes: &[u8], is_head: bool) -> Result<Option<ParsedHead>, &'static str> {
    let mut received = BytesMut::from(bytes);
    let head = response::parse(&mut received, is_head)?;
    if head.is_none() {
        assert_eq!(received, bytes, "what is not taken is kept");
    }
    Ok(head.map(|head| ParsedHead {
        status: head.parts.status,
        headers: head.parts.headers,
        length: head.length,
        persists: head.persists,
        bytes: bytes.len() - head.rest.len(),
    }))
}

/// A chunked body that ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Its data.
    pub data: Vec<u8>,
    /// Its trailers, where it has any.
    pub trailers: Option<HeaderMap>,
    /// How many bytes it takes.
    pub bytes: usize,
}

/// The body that arrives in these parts, none where it does not end.
///
/// # Errors
/// Why it is refused.
pub fn chunked<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Result<Option<Decoded>, &'static str> {
    let (mut reader, mut received) = (ChunkedDecoder::default(), BytesMut::new());
    let (mut data, mut trailers, mut bytes) = (Vec::new(), None, 0);
    for part in parts {
        received.extend_from_slice(part);
        bytes += part.len();
        while let Some(item) = reader.next(&mut received)? {
            match item {
                DecodedPart::Data(item) => data.extend_from_slice(&item),
                DecodedPart::Trailers(fields) => trailers = Some(fields),
                DecodedPart::End => {
                    let bytes = bytes - received.len();
                    return Ok(Some(Decoded { data, trailers, bytes }));
                }
            }
        }
    }
    Ok(None)
}
