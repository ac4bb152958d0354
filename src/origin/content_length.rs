//! The declared length of a response.

use http::{HeaderMap, header};

use crate::server::message_length::content_length;

/// Returns the length that a response declares, if any. Merges repeated `Content-Length` fields, or
/// removes them if they disagree.
pub(super) fn normalize(headers: &mut HeaderMap) -> Option<u64> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).into_iter();
    let first = lines.next()?;
    if lines.next().is_none()
        && let Some(length) = content_length(first.as_bytes())
    {
        return Some(length);
    }
    let length = common_length(headers);
    match length {
        Some(length) => drop(headers.insert(header::CONTENT_LENGTH, length.into())),
        None => drop(headers.remove(header::CONTENT_LENGTH)),
    }
    length
}

/// Returns the length if all members of all `Content-Length` lines agree, else `None`.
fn common_length(headers: &HeaderMap) -> Option<u64> {
    let lines = headers.get_all(header::CONTENT_LENGTH).into_iter();
    let members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let mut lengths = members.map(|member| content_length(member.trim_ascii()));
    let first = lengths.next()??;
    lengths.all(|length| length == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_length_is_stated_once() {
        for (lines, expected) in [
            (&["5"][..], Some(5)),
            (&["5, 5", "5"], Some(5)),
            (&["5", "6"], None),
            (&["5", "x"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::CONTENT_LENGTH, HeaderValue::from_static(line));
            }
            assert_eq!(normalize(&mut headers), expected, "{lines:?}");
            let left = headers.get_all(header::CONTENT_LENGTH).iter().count();
            assert_eq!(left, usize::from(expected.is_some()));
        }
    }
}
