//! Preference lists with quality values: `Accept-Language`, `Accept-Encoding` (RFC 9110 §12.4.2).

use super::list;

/// One member of a preference field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Preference<'a> {
    /// The language range, content coding or `*`, as written.
    pub item: &'a [u8],
    /// The weight in thousandths, from 0 (not acceptable) to 1000.
    pub weight: u16,
}

/// Returns the preferences on one field line, in order.
///
/// A malformed weight is an error for its member, not for the line.
pub(crate) fn preferences(
    line: &[u8],
) -> impl Iterator<Item = Result<Preference<'_>, InvalidWeight>> {
    list::split(line).filter(|member| !member.is_empty()).map(preference)
}

/// The error for a malformed `q` parameter, or for a parameter other than `q`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidWeight;

fn preference(member: &[u8]) -> Result<Preference<'_>, InvalidWeight> {
    let mut parts = member.splitn(2, |byte| *byte == b';').map(list::trim);
    let item = parts.next().unwrap_or_default();
    let weight = parts.next().map_or(Ok(1000), weight_parameter)?;
    Ok(Preference { item, weight })
}

/// Parses `q=0.5`.
fn weight_parameter(text: &[u8]) -> Result<u16, InvalidWeight> {
    match text {
        [b'q' | b'Q', b'=', value @ ..] => quality(value).ok_or(InvalidWeight),
        _ => Err(InvalidWeight),
    }
}

/// Parses a qvalue: `0`, `0.123`, `1`, `1.000`.
fn quality(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let mut thousandths = 0;
    for place in 0..3 {
        let digit = match fraction.get(place) {
            Some(byte) if byte.is_ascii_digit() => u16::from(byte - b'0'),
            Some(_) => return None,
            None => 0,
        };
        thousandths = thousandths * 10 + digit;
    }
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str) -> Vec<Option<(String, u16)>> {
        preferences(line.as_bytes())
            .map(|member| {
                let member = member.ok()?;
                Some((String::from_utf8_lossy(member.item).into_owned(), member.weight))
            })
            .collect()
    }

    #[test]
    fn weights_are_read_in_thousandths() {
        let some = |item: &str, weight| Some((item.to_owned(), weight));
        assert_eq!(
            read("en, de;q=0.5 ,*;q=0, fr ; Q=0.123, it;q=1.000"),
            [some("en", 1000), some("de", 500), some("*", 0), some("fr", 123), some("it", 1000)]
        );
    }

    #[test]
    fn a_broken_weight_spoils_its_member_only() {
        assert_eq!(read("a;q=2, b"), [None, Some(("b".to_owned(), 1000))]);
        for text in ["a;q=", "a;q=1.1", "a;q=0.1234", "a;q=-1", "a;x=1", "a;q=0.5;x=1", "a;q=.5"] {
            assert_eq!(read(text), [None], "{text}");
        }
    }

    proptest! {
        #[test]
        fn weights_stay_in_range(line in "[a*;=q.,0-9 ]{0,24}") {
            for member in preferences(line.as_bytes()).flatten() {
                prop_assert!(member.weight <= 1000);
            }
        }
    }
}
