//! The length of a message body: `Content-Length` and the chunked coding (RFC 9112 §6, §7.1).

/// Parses a `Content-Length`. Returns `None` if it is not a plain decimal number.
pub(crate) fn content_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// A position in a chunked body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ChunkState {
    #[default]
    FirstDigit,
    Size(u64),
    Extension(u64),
    SizeEnd(u64),
    /// Inside the data of a chunk, with this many bytes left; see [`Self::data`].
    Data(u64),
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerEnd,
    End,
}

impl ChunkState {
    /// Returns the state with this many bytes left of a chunk's data.
    pub(crate) fn data(left: u64) -> Self {
        if left == 0 { Self::DataCr } else { Self::Data(left) }
    }

    /// Returns the state after one byte outside of chunk data. The state `End` does not change: the
    /// message has ended.
    ///
    /// # Errors
    /// Returns the reason if the byte is not allowed.
    pub(crate) fn step(self, byte: u8) -> Result<Self, &'static str> {
        Ok(match (self, byte) {
            (Self::FirstDigit, _) => Self::Size(hex(byte).ok_or("missing chunk size")?),
            (Self::Size(size) | Self::Extension(size), b'\r') => Self::SizeEnd(size),
            (Self::Size(size), b' ' | b'\t' | b';') => Self::Extension(size),
            (Self::Size(size), _) => {
                let digit = hex(byte).ok_or("malformed chunk size")?;
                Self::Size(size.checked_mul(16).ok_or("chunk size too large")? | digit)
            }
            (Self::Extension(_), b'\n') => return Err("malformed chunk extension"),
            (Self::Extension(size), _) => Self::Extension(size),
            (Self::SizeEnd(0) | Self::TrailerEnd, b'\n') => Self::TrailerStart,
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::FirstDigit,
            (Self::TrailerStart, b'\r') | (Self::End, b'\n') => Self::End,
            (Self::Trailer, b'\r') => Self::TrailerEnd,
            (Self::TrailerStart | Self::Trailer, byte) if byte != b'\n' => Self::Trailer,
            (Self::TrailerStart | Self::Trailer | Self::TrailerEnd | Self::End, _) => {
                return Err("malformed trailers");
            }
            _ => return Err("malformed end of a chunk"),
        })
    }
}

fn hex(digit: u8) -> Option<u64> {
    char::from(digit).to_digit(16).map(u64::from)
}
