//! A header section packed into bytes: a third of the size of a `HeaderMap`, and quick to unpack.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// A packed header section.
///
/// Each field line is a name length (`u16`), a value length (`u32`), both little-endian, the name
/// and the value. Unpacking copies no value: all share the block's allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackedFields {
    block: Bytes,
}

const LENGTHS: usize = 6;

impl PackedFields {
    /// Appends `headers` to `block` in packed form.
    ///
    /// Omits a name over 64 KiB or a value over 4 GiB, which no sane HTTP parser produces.
    pub fn pack(headers: &HeaderMap, block: &mut Vec<u8>) {
        for (name, value) in headers {
            let (Ok(name_length), Ok(value_length)) =
                (u16::try_from(name.as_str().len()), u32::try_from(value.len()))
            else {
                continue;
            };
            block.extend_from_slice(&name_length.to_le_bytes());
            block.extend_from_slice(&value_length.to_le_bytes());
            block.extend_from_slice(name.as_str().as_bytes());
            block.extend_from_slice(value.as_bytes());
        }
    }

    /// Returns the number of bytes that `headers` take in packed form.
    pub fn packed_size(headers: &HeaderMap) -> usize {
        headers.iter().map(|(name, value)| LENGTHS + name.as_str().len() + value.len()).sum()
    }

    /// Wraps packed bytes without checking them. Damage shows as missing fields.
    pub fn from_block(block: Bytes) -> Self {
        Self { block }
    }

    /// Unpacks the header section, with capacity for `spare` more fields.
    pub fn unpack(&self, spare: usize) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(self.iter().count() + spare);
        for (name, value) in self.iter() {
            let Ok(name) = HeaderName::from_lowercase(name) else { continue };
            let Ok(value) = HeaderValue::from_maybe_shared(self.block.slice_ref(value)) else {
                continue;
            };
            headers.append(name, value);
        }
        headers
    }

    /// Unpacks only the fields with these names, which are in lower case.
    pub fn unpack_only(&self, names: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in self.iter() {
            if let Some(name) = names.iter().find(|wanted| wanted.as_bytes() == name)
                && let Ok(name) = HeaderName::from_bytes(name.as_bytes())
                && let Ok(value) = HeaderValue::from_maybe_shared(self.block.slice_ref(value))
            {
                headers.append(name, value);
            }
        }
        headers
    }

    /// Returns the value of the first line of this field. `name` is in lower case.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(field, _)| *field == name.as_bytes()).map(|(_, value)| value)
    }

    /// Returns name and value of each line, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest: &[u8] = &self.block;
        std::iter::from_fn(move || {
            let (line, after) = split_line(rest)?;
            rest = after;
            Some(line)
        })
    }
}

type Line<'a> = (&'a [u8], &'a [u8]);

fn split_line(block: &[u8]) -> Option<(Line<'_>, &[u8])> {
    let (name_length, rest) = block.split_first_chunk::<2>()?;
    let (value_length, rest) = rest.split_first_chunk::<4>()?;
    let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*name_length).into())?;
    let value_length = usize::try_from(u32::from_le_bytes(*value_length)).ok()?;
    let (value, rest) = rest.split_at_checked(value_length)?;
    Some(((name, value), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(headers: &HeaderMap) -> PackedFields {
        let mut block = Vec::new();
        PackedFields::pack(headers, &mut block);
        assert_eq!(block.len(), PackedFields::packed_size(headers));
        PackedFields::from_block(block.into())
    }

    #[test]
    fn a_header_section_survives_packing_with_repeated_lines_in_order() {
        let mut headers = HeaderMap::new();
        headers.append("link", HeaderValue::from_static("</a>"));
        headers.append("content-type", HeaderValue::from_static("text/plain"));
        headers.append("link", HeaderValue::from_bytes(b"</b\xe9>").unwrap());
        assert_eq!(packed(&headers).unpack(0), headers);
    }

    #[test]
    fn the_first_line_of_a_field_is_found() {
        let mut headers = HeaderMap::new();
        headers.append("etag", HeaderValue::from_static("\"x\""));
        let fields = packed(&headers);
        assert_eq!(fields.first("etag"), Some(&b"\"x\""[..]));
        assert_eq!(fields.first("date"), None);
    }

    #[test]
    fn some_fields_are_unpacked_with_all_their_lines() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("vary", "a"), ("age", "1"), ("vary", "b"), ("etag", "\"x\"")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let mut expected = headers.clone();
        expected.remove("age");
        assert_eq!(packed(&headers).unpack_only(&["etag", "vary", "via"]), expected);
        assert!(packed(&headers).unpack_only(&[]).is_empty());
    }

    #[test]
    fn truncated_bytes_end_the_section_instead_of_failing() {
        let mut headers = HeaderMap::new();
        headers.append("a", HeaderValue::from_static("1"));
        headers.append("b", HeaderValue::from_static("2"));
        let mut block = Vec::new();
        PackedFields::pack(&headers, &mut block);
        block.truncate(block.len() - 1);
        assert_eq!(PackedFields::from_block(block.into()).unpack(0).len(), 1);
    }
}
