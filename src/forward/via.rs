//! `Via`: marks forwarded messages and detects loops (RFC 9110 §7.6.3).

use http::{HeaderMap, HeaderValue, Version, header};

/// This process's entry in `Via`.
#[derive(Debug, Clone)]
pub struct ViaIdentity {
    id: String,
    requests: [HeaderValue; 3],
    responses: [HeaderValue; 3],
}

impl ViaIdentity {
    /// Creates an identity that no other process has.
    pub fn random() -> Self {
        let mut drawn = [0; 8];
        let _without_entropy = aws_lc_rs::rand::fill(&mut drawn);
        Self::new(&const_hex::encode(drawn))
    }

    /// Creates an identity from an id; drops characters that a comment cannot contain.
    pub fn new(id: &str) -> Self {
        let id: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
        let versions = ["1.0", "1.1", "2"];
        let signed = |text: String| {
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("1.1 larder"))
        };
        Self {
            requests: versions.map(|version| signed(format!("{version} larder ({id})"))),
            responses: versions.map(|version| signed(format!("{version} larder"))),
            id: format!("({id})"),
        }
    }

    pub(super) fn for_request(&self, version: Version) -> &HeaderValue {
        pick(&self.requests, version)
    }

    pub(super) fn for_response(&self, version: Version) -> HeaderValue {
        pick(&self.responses, version).clone()
    }
}

fn pick([http10, http11, http2]: &[HeaderValue; 3], version: Version) -> &HeaderValue {
    match version {
        Version::HTTP_2 => http2,
        Version::HTTP_10 => http10,
        _ => http11,
    }
}

/// Returns whether this process has already forwarded the request, which then gets a 508.
pub(crate) fn is_loop(headers: &HeaderMap, identity: &ViaIdentity) -> bool {
    let id = identity.id.as_bytes();
    let is_ours = |via: &HeaderValue| via.as_bytes().windows(id.len()).any(|part| part == id);
    headers.get_all(header::VIA).into_iter().any(is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_requests_are_recognised() {
        let identity = ViaIdentity::new("3f9c");
        let mut headers = HeaderMap::new();
        headers.append(header::VIA, HeaderValue::from_static("1.1 larder"));
        assert!(!is_loop(&headers, &identity));
        headers.append(header::VIA, identity.for_request(Version::HTTP_11).clone());
        assert!(is_loop(&headers, &identity));
        assert!(!is_loop(&headers, &ViaIdentity::new("3f9")));
    }
}
