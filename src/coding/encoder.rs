//! The encoders. Each body is encoded once and served many times, so all favour size over speed.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::ContentCoding;

/// The quality of Brotli. Higher qualities take several times as long and save only a few percent.
const BROTLI_QUALITY: i32 = 5;

/// The window of Brotli: 4 MiB.
const BROTLI_WINDOW: i32 = 22;

/// The Zstandard compression level. At this level, the window is at most 4 MiB.
const ZSTD_LEVEL: i32 = 6;

const GZIP_LEVEL: u32 = 6;

/// Encodes a body. Returns `None` if this saves less than a tenth.
///
/// Takes 10 to 40 ms for 1 MiB of JSON. The result depends on the versions of the encoders, and for
/// gzip on the processor.
pub(crate) fn encode(coding: ContentCoding, body: &[u8]) -> Option<Vec<u8>> {
    let mut encoded = match coding {
        ContentCoding::Brotli => brotli(body),
        ContentCoding::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL).ok(),
        ContentCoding::Gzip => gzip(body),
    }?;
    encoded.shrink_to_fit();
    (encoded.len() <= body.len() - body.len() / 10).then_some(encoded)
}

fn brotli(body: &[u8]) -> Option<Vec<u8>> {
    let parameters = brotli::enc::BrotliEncoderParams {
        quality: BROTLI_QUALITY,
        lgwin: BROTLI_WINDOW,
        size_hint: body.len(),
        ..brotli::enc::BrotliEncoderParams::default()
    };
    let mut encoded = Vec::with_capacity(body.len() / 4);
    brotli::BrotliCompress(&mut &*body, &mut encoded, &parameters).ok()?;
    Some(encoded)
}

fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let room = Vec::with_capacity(body.len() / 4);
    let mut encoder = GzEncoder::new(room, Compression::new(GZIP_LEVEL));
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn decode(coding: ContentCoding, encoded: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        match coding {
            ContentCoding::Brotli => {
                brotli::BrotliDecompress(&mut &*encoded, &mut body).unwrap();
            }
            ContentCoding::Zstd => body = zstd::stream::decode_all(encoded).unwrap(),
            ContentCoding::Gzip => {
                flate2::read::GzDecoder::new(encoded).read_to_end(&mut body).unwrap();
            }
        }
        body
    }

    #[test]
    fn what_does_not_become_smaller_is_left_as_it_is() {
        let step = |it: &u64| Some(it.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        let numbers = std::iter::successors(Some(1_u64), step);
        let noise: Vec<u8> = numbers.take(4096).map(|it| it.to_be_bytes()[0]).collect();
        for coding in ContentCoding::ALL {
            assert_eq!(encode(coding, &noise), None, "{coding:?}");
            assert_eq!(encode(coding, b""), None, "{coding:?}");
            assert!(encode(coding, &[b'a'; 4096]).unwrap().len() < 100, "{coding:?}");
        }
    }

    /// Browsers reject frames with a window of more than 8 MiB (RFC 9659).
    #[test]
    fn the_window_of_a_large_zstandard_frame_is_small() {
        let line =
            |at: u32| format!("{{\"id\":{at},\"hash\":{}}}\n", at.wrapping_mul(2_654_435_761));
        let body: String = (0..600_000).map(line).collect();
        assert!(body.len() > 16 << 20);
        let encoded = encode(ContentCoding::Zstd, body.as_bytes()).unwrap();
        let mut decoder = zstd::stream::Decoder::new(&*encoded).unwrap();
        decoder.window_log_max(23).unwrap();
        let mut read = Vec::new();
        decoder.read_to_end(&mut read).unwrap();
        assert!(read == body.as_bytes());
    }

    proptest! {
        #[test]
        fn a_coded_body_decodes_to_the_same_bytes(
            pattern in proptest::collection::vec(any::<u8>(), 1..64),
            times in 64..200_usize,
        ) {
            let body = pattern.repeat(times);
            for coding in ContentCoding::ALL {
                let encoded = encode(coding, &body).unwrap();
                prop_assert_eq!(decode(coding, &encoded), body.clone());
            }
        }
    }
}
