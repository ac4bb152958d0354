//! Selection of a content coding by `Accept-Encoding` (RFC 9110 §12.5.3).

use std::cell::RefCell;

use http::{HeaderMap, HeaderValue, header};

use super::ContentCoding;
use crate::field::{coding::is_same_coding, preference::preferences};

/// The content codings that a request accepts.
///
/// If a coding is listed twice, the lower weight counts. Members with invalid weights are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct AcceptedCodings {
    /// Weights in thousandths, by coding; 0 for codings that are not accepted.
    codings: [u16; ContentCoding::ALL.len()],
    /// The weight of a body without a coding; 0 if neither `identity` nor `*` is listed.
    identity: u16,
}

/// The weight of a member without a `q` parameter.
const MAX_WEIGHT: u16 = 1000;

/// Number of `Accept-Encoding` values that each thread remembers. Few different values are common.
const REMEMBERED: usize = 16;

/// Maximum length of a value that is remembered, in bytes.
const MAX_REMEMBERED_LENGTH: usize = 128;

thread_local! {
    static PARSED: RefCell<Vec<(HeaderValue, AcceptedCodings)>> = const { RefCell::new(Vec::new()) };
}

impl AcceptedCodings {
    /// Returns what a request accepts. Parses only values that the thread does not remember.
    pub(crate) fn of(request: &HeaderMap) -> Self {
        let mut lines = request.get_all(header::ACCEPT_ENCODING).into_iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return Self::parse(request) };
        PARSED.with_borrow_mut(|parsed| {
            if let Some((_, known)) = parsed.iter().find(|(known, _)| *known == *line) {
                return *known;
            }
            let accepted = Self::parse(request);
            if line.len() <= MAX_REMEMBERED_LENGTH {
                if parsed.len() >= REMEMBERED {
                    parsed.clear();
                }
                // A copy: the value may share a large buffer.
                if let Ok(line) = HeaderValue::from_bytes(line.as_bytes()) {
                    parsed.push((line, accepted));
                }
            }
            accepted
        })
    }

    fn parse(request: &HeaderMap) -> Self {
        let weights = Weights::of(request);
        Self {
            codings: ContentCoding::ALL.map(|coding| weights.of_coding(coding)),
            identity: weights.of_identity(),
        }
    }

    /// Returns the coding in `codings` that the request prefers, or `None` to send the body
    /// unencoded.
    ///
    /// The highest weight wins; of equal weights, the first in `codings`. A coding also wins over
    /// `identity` of equal weight. If the request mentions neither `identity` nor `*`, any accepted
    /// coding wins.
    #[inline]
    pub(crate) fn preferred(self, codings: &[ContentCoding]) -> Option<ContentCoding> {
        let (mut best, mut least) = (None, self.identity.max(1));
        for coding in codings {
            let weight = self.codings.get(coding.index()).copied().unwrap_or(0);
            if weight >= least {
                (best, least) = (Some(*coding), weight + 1);
            }
            if least > MAX_WEIGHT {
                break;
            }
        }
        best
    }
}

/// The weights that a request names, in thousandths.
#[derive(Default)]
struct Weights {
    codings: [Option<u16>; ContentCoding::ALL.len()],
    identity: Option<u16>,
    star: Option<u16>,
}

impl Weights {
    fn of(request: &HeaderMap) -> Self {
        let mut weights = Self::default();
        for line in request.get_all(header::ACCEPT_ENCODING) {
            for member in preferences(line.as_bytes()).flatten() {
                if let Some(known) = weights.of_name(member.item) {
                    let lower = known.map_or(member.weight, |known| known.min(member.weight));
                    *known = Some(lower);
                }
            }
        }
        weights
    }

    fn of_name(&mut self, name: &[u8]) -> Option<&mut Option<u16>> {
        if name == b"*" {
            return Some(&mut self.star);
        }
        if name.eq_ignore_ascii_case(b"identity") {
            return Some(&mut self.identity);
        }
        let named = |coding: &ContentCoding| is_same_coding(name, coding.as_str().as_bytes());
        let coding = ContentCoding::ALL.into_iter().find(named)?;
        self.codings.get_mut(coding.index())
    }

    fn of_coding(&self, coding: ContentCoding) -> u16 {
        let named = self.codings.get(coding.index()).copied().flatten();
        named.or(self.star).unwrap_or(0)
    }

    fn of_identity(&self) -> u16 {
        self.identity.or(self.star).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::field::coding::accepts;
    use ContentCoding::{Brotli, Gzip, Zstd};

    fn select(codings: &[ContentCoding], request: &HeaderMap) -> Option<ContentCoding> {
        AcceptedCodings::of(request).preferred(codings)
    }

    fn request(lines: &[&str]) -> HeaderMap {
        let mut request = HeaderMap::new();
        for line in lines {
            request.append("accept-encoding", HeaderValue::from_str(line).unwrap());
        }
        request
    }

    #[test]
    fn weights_decide_and_then_the_order_of_the_route() {
        for (lines, expected) in [
            (&[][..], None),
            (&[""], None),
            (&["gzip"], Some(Gzip)),
            (&["GZIP"], Some(Gzip)),
            (&["x-gzip"], Some(Gzip)),
            (&["gzip, deflate, br, zstd"], Some(Brotli)),
            (&["gzip, deflate", "br"], Some(Brotli)),
            (&["gzip;q=0.9, br;q=0.8"], Some(Gzip)),
            (&["zstd;q=0.5, gzip;q=0.5"], Some(Zstd)),
            (&["gzip;q=0.5, identity"], None),
            (&["gzip;q=0.5, identity;q=0.4"], Some(Gzip)),
            (&["gzip;q=0.5, identity;q=0.5"], Some(Gzip)),
            (&["gzip;q=0"], None),
            (&["gzip, gzip;q=0"], None),
            (&["*"], Some(Brotli)),
            (&["*, br;q=0"], Some(Zstd)),
            (&["gzip;q=0.3, *;q=0.5"], Some(Brotli)),
            (&["gzip;q=0.3, *;q=0"], Some(Gzip)),
            (&["gzip, identity;q=0"], Some(Gzip)),
            (&["gzip;q=2, br;x=1"], None),
            (&["deflate, dcb, unknown"], None),
        ] {
            let selected = select(&[Brotli, Zstd, Gzip], &request(lines));
            assert_eq!(selected, expected, "{lines:?}");
        }
        assert_eq!(select(&[Gzip, Brotli], &request(&["br, gzip"])), Some(Gzip));
        assert_eq!(select(&[Gzip], &request(&["br"])), None);
        assert_eq!(select(&[], &request(&["br"])), None);
    }

    proptest! {
        #[test]
        fn what_is_selected_is_accepted(
            line in "((br|gzip|x-gzip|zstd|\\*|identity)(;q=[01](\\.[05])?)?, ?){0,5}",
        ) {
            let request = request(&[&line]);
            let parsed = AcceptedCodings::parse(&request);
            for what in ["new", "remembered"] {
                prop_assert_eq!(AcceptedCodings::of(&request), parsed, "{}", what);
            }
            if let Some(coding) = select(&ContentCoding::ALL, &request) {
                prop_assert!(accepts(&request, Some(coding.as_str().as_bytes())));
            }
        }
    }
}
