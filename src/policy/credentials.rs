//! Whether a request says who is asking: `Authorization`, or a cookie that looks like a session.

use http::{HeaderMap, header};

use super::Reason;

/// What a request carries that could make its response somebody's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing that identifies anyone.
    Absent,
    /// `Authorization` (RFC 9111 §3.5).
    Authorization,
    /// A cookie whose name is that of a session, a token or a login.
    SessionCookie,
}

impl Credentials {
    /// Looks for credentials in a request; `Authorization` is named before cookies.
    pub fn of(request: &HeaderMap) -> Self {
        if request.contains_key(header::AUTHORIZATION) {
            return Self::Authorization;
        }
        let has_session = request
            .get_all(header::COOKIE)
            .into_iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
            .any(|pair| is_session_name(cookie_name(pair)));
        if has_session { Self::SessionCookie } else { Self::Absent }
    }

    /// Why a response to such a request is not shared, if it is not.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Absent => None,
            Self::Authorization => Some(Reason::Authorization),
            Self::SessionCookie => Some(Reason::CookieRequest),
        }
    }
}

fn cookie_name(pair: &[u8]) -> &[u8] {
    let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
    pair.get(..end).unwrap_or_default().trim_ascii()
}

/// Parts of names that frameworks give to cookies that identify a user.
///
/// Protects from sharing one user's page with another where the origin forgot to say `private`; a
/// name matched by mistake costs a hit, never privacy.
const SESSION_PARTS: [&[u8]; 11] = [
    b"sess",
    b"auth",
    b"token",
    b"jwt",
    b"login",
    b"logged",
    b"remember",
    b"identity",
    b"credential",
    b"aspnet",
    b"saml",
];

/// Tokens against request forgery say nothing about who is asking.
const FORGERY_PARTS: [&[u8]; 2] = [b"csrf", b"xsrf"];

fn is_session_name(name: &[u8]) -> bool {
    if ends_with(name, b"sid") {
        return true;
    }
    SESSION_PARTS.iter().any(|part| contains(name, part))
        && !FORGERY_PARTS.iter().any(|part| contains(name, part))
}

fn contains(name: &[u8], part: &[u8]) -> bool {
    name.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

fn ends_with(name: &[u8], part: &[u8]) -> bool {
    name.split_at_checked(name.len().wrapping_sub(part.len()))
        .is_some_and(|(_, end)| end.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with_cookie(cookie: &'static str) -> Credentials {
        let mut request = HeaderMap::new();
        request.insert(header::COOKIE, HeaderValue::from_static(cookie));
        Credentials::of(&request)
    }

    #[test]
    fn well_known_session_cookies_are_recognised() {
        for name in [
            "PHPSESSID",
            "JSESSIONID",
            "connect.sid",
            "sid",
            "laravel_session",
            "__Secure-next-auth.session-token",
            "sb-access-token",
            "wordpress_logged_in_x",
            ".AspNetCore.Identity.Application",
            "remember_me",
            "jwt",
        ] {
            let mut request = HeaderMap::new();
            let cookie = format!("theme=dark; {name}=1; a=b");
            request.insert(header::COOKIE, HeaderValue::try_from(cookie).unwrap());
            assert_eq!(Credentials::of(&request), Credentials::SessionCookie, "{name}");
        }
    }

    #[test]
    fn other_cookies_identify_nobody() {
        for cookie in
            ["a=b", "theme=dark; lang=de", "csrftoken=1", "XSRF-TOKEN=2", "", ";;", "=sess"]
        {
            assert_eq!(with_cookie(cookie), Credentials::Absent, "{cookie}");
        }
    }

    #[test]
    fn a_session_word_in_a_value_does_not_count() {
        assert_eq!(with_cookie("page=login"), Credentials::Absent);
    }

    #[test]
    fn authorization_comes_first() {
        let mut request = HeaderMap::new();
        request.insert(header::COOKIE, HeaderValue::from_static("sid=1"));
        request.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        assert_eq!(Credentials::of(&request), Credentials::Authorization);
        assert_eq!(Credentials::Authorization.reason(), Some(Reason::Authorization));
        assert_eq!(Credentials::SessionCookie.reason(), Some(Reason::CookieRequest));
    }
}
