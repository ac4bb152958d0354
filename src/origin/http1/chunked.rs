//! The chunked coding of a response (RFC 9112 §7.1).

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::response;
use crate::server::message_length::ChunkState;

/// Maximum total size of the chunk extensions in a body, in bytes. Extensions are ignored.
const EXTENSION_BYTES: usize = 16 * 1024;
/// Maximum size of a trailer section, in bytes.
const TRAILER_BYTES: usize = 16 * 1024;

/// Decodes one chunked body.
#[derive(Debug, Default)]
pub(super) struct ChunkedDecoder {
    state: ChunkState,
    extensions: usize,
    trailers: BytesMut,
}

/// A decoded piece of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DecodedPart {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

impl ChunkedDecoder {
    /// Returns the next part of the body; `None` if more bytes are needed.
    pub(super) fn next(
        &mut self,
        received: &mut BytesMut,
    ) -> Result<Option<DecodedPart>, &'static str> {
        loop {
            match self.state {
                ChunkState::End => return Ok(Some(DecodedPart::End)),
                _ if received.is_empty() => return Ok(None),
                ChunkState::Data(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(received.len());
                    self.state = ChunkState::data(left.saturating_sub(here as u64));
                    return Ok(Some(DecodedPart::Data(received.split_to(here).freeze())));
                }
                ChunkState::TrailerStart => return self.take_trailers(received),
                state => self.step(state, received.get_u8())?,
            }
        }
    }

    fn step(&mut self, state: ChunkState, byte: u8) -> Result<(), &'static str> {
        self.state = state.step(byte)?;
        if let ChunkState::Extension(_) = self.state {
            self.extensions += 1;
            if self.extensions > EXTENSION_BYTES {
                return Err("chunk extensions exceed 16 KiB");
            }
        }
        Ok(())
    }

    fn take_trailers(
        &mut self,
        received: &mut BytesMut,
    ) -> Result<Option<DecodedPart>, &'static str> {
        while !received.is_empty() {
            self.trailers.extend_from_slice(&[received.get_u8()]);
            if self.trailers.len() > TRAILER_BYTES {
                return Err("trailers exceed 16 KiB");
            }
            if self.trailers == b"\r\n"[..] {
                self.state = ChunkState::End;
                return Ok(Some(DecodedPart::End));
            }
            if self.trailers.ends_with(b"\r\n\r\n") {
                self.state = ChunkState::End;
                let section = std::mem::take(&mut self.trailers).freeze();
                return Ok(Some(DecodedPart::Trailers(response::trailers(&section)?)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the data, the trailers and the number of unread bytes. Asserts that the result does
    /// not depend on how the input is split.
    fn decoded(text: &str) -> Result<(String, Option<HeaderMap>, usize), &'static str> {
        let mut whole = decode(text.as_bytes().chunks(text.len().max(1)));
        let dribbled = decode(text.as_bytes().chunks(1));
        if let (Ok((data, trailers, rest)), Ok((also, same, _))) = (&mut whole, &dribbled) {
            assert_eq!((&*data, &*trailers), (also, same));
            return Ok((data.clone(), trailers.clone(), *rest));
        }
        assert_eq!(whole.is_err(), dribbled.is_err(), "{text}");
        whole
    }

    fn decode<'a>(
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(String, Option<HeaderMap>, usize), &'static str> {
        let (mut chunked, mut received) = (ChunkedDecoder::default(), BytesMut::new());
        let (mut data, mut trailers) = (Vec::new(), None);
        for part in parts {
            received.extend_from_slice(part);
            while let Some(item) = chunked.next(&mut received)? {
                match item {
                    DecodedPart::Data(bytes) => data.extend_from_slice(&bytes),
                    DecodedPart::Trailers(fields) => trailers = Some(fields),
                    DecodedPart::End => {
                        return Ok((String::from_utf8(data).unwrap(), trailers, received.len()));
                    }
                }
            }
        }
        Err("no end")
    }

    #[test]
    fn chunks_are_put_together() {
        let (data, trailers, rest) =
            decoded("2\r\nok\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\n").unwrap();
        assert_eq!((data.as_str(), trailers, rest), ("ok0123456789", None, 0));
        let (data, trailers, _) = decoded("1 \r\na\r\n000\r\nX-Sum: 7\r\nY: z\r\n\r\n").unwrap();
        assert_eq!((data.as_str(), &trailers.unwrap()["x-sum"]), ("a", &"7".parse().unwrap()));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for text in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "2\nok",
            "2\r\nokk\r\n",
            "2\r\nok\n0\r\n\r\n",
            "2;a\nb\r\nok\r\n",
            "10000000000000000\r\n",
            "0\r\nno field\r\n\r\n",
        ] {
            assert_ne!(decoded(text), Err("no end"), "{text}");
            assert!(decoded(text).is_err(), "{text}");
        }
        assert_eq!(decoded("2\r\nok\r\n"), Err("no end"));
        let endless = format!("1;{}", "x".repeat(EXTENSION_BYTES + 1));
        assert_ne!(decoded(&endless), Err("no end"));
    }
}
