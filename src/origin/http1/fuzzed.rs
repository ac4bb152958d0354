//! Entry points for fuzz targets: the parsers of origin responses.

use bytes::BytesMut;
use http::{HeaderMap, StatusCode};

use super::{
    chunked::{ChunkedDecoder, DecodedPart},
    response,
};
pub use response::ResponseLength;

/// A response head, parsed without a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedHead {
    pub status: StatusCode,
    /// The head's fields, except those that only concern framing.
    pub headers: HeaderMap,
    /// The way in which the end of the response's body is marked.
    pub length: ResponseLength,
    /// Whether another response may follow on the connection.
    pub persists: bool,
    /// The length of the head in bytes.
    pub bytes: usize,
}

/// Parses the head at the beginning of these bytes. Returns `None` if the head is incomplete.
///
/// # Errors
/// Returns the reason if the head is invalid.
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

/// A decoded chunked body.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    pub data: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// The length of the encoded body in bytes.
    pub bytes: usize,
}

/// Decodes a body that arrives in these parts. Returns `None` if the body does not end.
///
/// # Errors
/// Returns the reason if the body is invalid.
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
