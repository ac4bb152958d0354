//! Classification of cookies: sessions, harmless cookies, cookies that select content.

use http::HeaderMap;
use smallvec::SmallVec;

use super::{
    CredentialRules, Credentials,
    lists::{
        FORGERY_PARTS, HARMLESS_COOKIES, SELECTING_COOKIES, SESSION_COOKIES, SESSION_ENDS,
        SESSION_PARTS,
    },
};
use crate::field::{
    cookie::{self, Cookie, CookieForm},
    name::{folded, is_same},
};

/// Maximum number of a request's cookies, not counting harmless ones, that are checked for repeated
/// names. A request with more cookies is ambiguous. Browsers send fewer than 200 in total.
const MAX_COOKIES: usize = 128;

/// Cookies in the form `name=value`.
pub(crate) type CookiePairs<'a> = SmallVec<[&'a [u8]; 4]>;

/// The purpose of a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieKind {
    /// Identifies a user or a session.
    Session,
    /// Carries the token that proves the client's identity.
    Token,
    /// Selects content, such as a language or a currency.
    Selecting,
    /// Has no influence on responses: analytics, consent.
    Harmless,
    /// A cookie that is in no list, and has a name that reveals nothing.
    Unknown,
}

/// Properties of all cookies of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CookieFindings(u8);

impl CookieFindings {
    const SESSION: Self = Self(1);
    const UNKNOWN: Self = Self(1 << 1);
    const SELECTING: Self = Self(1 << 2);
    const VARIED: Self = Self(1 << 3);
    const LOOSE: Self = Self(1 << 4);
    /// Servers may parse the cookies differently, whatever the route varies by.
    pub const AMBIGUOUS: Self = Self(1 << 5);
    const TOKEN: Self = Self(1 << 6);

    fn has(self, any_of: Self) -> bool {
        self.0 & any_of.0 != 0
    }

    fn add(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// Returns whether a difference between cookie parsers could change the response. `has_ttl`
    /// states whether the route has a `ttl`, which makes selecting cookies relevant.
    pub fn are_ambiguous(self, has_ttl: bool) -> bool {
        let is_relevant = self.has(Self::VARIED) || (has_ttl && self.has(Self::SELECTING));
        self.has(Self::AMBIGUOUS) || (is_relevant && self.has(Self::LOOSE))
    }

    /// Returns whether the request has selecting cookies that the route does not vary by.
    pub fn has_selecting(self) -> bool {
        self.has(Self::SELECTING)
    }

    /// Returns the credentials that the cookies carry.
    pub fn credentials(self) -> Credentials {
        let token =
            if self.has(Self::TOKEN) { Credentials::SESSION_COOKIE } else { Credentials::NONE };
        self.credentials_without_token().with(token)
    }

    /// Returns the credentials that the cookies carry, except the token of the client's identity.
    pub fn credentials_without_token(self) -> Credentials {
        let of = |these, credentials| {
            if self.has(these) { credentials } else { Credentials::NONE }
        };
        of(Self::SESSION, Credentials::SESSION_COOKIE)
            .with(of(Self::UNKNOWN, Credentials::UNKNOWN_COOKIE))
    }
}

impl CredentialRules {
    /// Classifies the cookies in all field lines of a request. `vary_cookies` are the cookies that
    /// the route varies by.
    pub fn inspect_cookies(
        &self,
        request: &HeaderMap,
        vary_cookies: &[Box<str>],
    ) -> CookieFindings {
        let mut findings = CookieFindings::default();
        let mut names: SmallVec<[&[u8]; 16]> = SmallVec::new();
        for cookie in cookie::cookies(request) {
            let kind = self.kind_on_route(cookie.name, vary_cookies);
            findings.add(findings_of(&cookie, kind));
            if kind == Some(CookieKind::Harmless) {
                continue;
            }
            if names.len() == MAX_COOKIES || names.iter().any(|name| is_same(name, cookie.name)) {
                findings.add(CookieFindings::AMBIGUOUS);
                break;
            }
            names.push(cookie.name);
        }
        findings
    }

    /// Returns the selecting cookies of a request, unchanged and sorted by bytes. The key contains
    /// them if a `ttl` makes the response fresh. Excludes cookies that the route varies by.
    pub fn selecting_cookies<'a>(
        &self,
        request: &'a HeaderMap,
        vary_cookies: &[Box<str>],
    ) -> CookiePairs<'a> {
        self.cookies_of_kind(request, vary_cookies, |kind| kind == Some(CookieKind::Selecting))
    }

    /// Returns the cookies whose kind `is_wanted` accepts, unchanged and sorted by bytes. Cookies
    /// that the route varies by have the kind `None`.
    pub fn cookies_of_kind<'a>(
        &self,
        request: &'a HeaderMap,
        vary_cookies: &[Box<str>],
        is_wanted: impl Fn(Option<CookieKind>) -> bool,
    ) -> CookiePairs<'a> {
        let wanted = cookie::cookies(request)
            .filter(|cookie| is_wanted(self.kind_on_route(cookie.name, vary_cookies)));
        let mut pairs: CookiePairs<'a> = wanted.map(|cookie| cookie.pair).collect();
        pairs.sort_unstable();
        pairs
    }

    /// Returns the purpose of a cookie, or `None` if the route varies by it. A cookie in the
    /// operator's list of sessions is always a session.
    pub fn kind_on_route(&self, name: &[u8], vary_cookies: &[Box<str>]) -> Option<CookieKind> {
        let is_varied = vary_cookies.iter().any(|known| is_same(known.as_bytes(), name));
        let is_session = || self.session_cookies.has(without_prefix(name));
        if is_varied && !is_session() { None } else { Some(self.cookie_kind(name)) }
    }

    /// Returns the purpose of a cookie by its name.
    ///
    /// The operator's lists come first, then the built-in lists, then a guess by parts of the name.
    /// Within each, sessions take precedence over selecting cookies, and both over harmless ones.
    pub fn cookie_kind(&self, name: &[u8]) -> CookieKind {
        if self.token_cookie.as_ref().is_some_and(|token| is_same(token.as_bytes(), name)) {
            return CookieKind::Token;
        }
        let name = without_prefix(name);
        if self.session_cookies.has(name) {
            CookieKind::Session
        } else if self.selecting_cookies.has(name) {
            CookieKind::Selecting
        } else if self.harmless_cookies.has(name) {
            CookieKind::Harmless
        } else if SESSION_COOKIES.match_name(name) {
            CookieKind::Session
        } else if SELECTING_COOKIES.match_name(name) {
            CookieKind::Selecting
        } else if HARMLESS_COOKIES.match_name(name) {
            CookieKind::Harmless
        } else {
            guess_kind(name)
        }
    }
}

fn findings_of(cookie: &Cookie<'_>, kind: Option<CookieKind>) -> CookieFindings {
    let mut found = match kind {
        None => CookieFindings::VARIED,
        Some(CookieKind::Session) => CookieFindings::SESSION,
        Some(CookieKind::Token) => CookieFindings::TOKEN,
        Some(CookieKind::Selecting) => CookieFindings::SELECTING,
        Some(CookieKind::Unknown) => CookieFindings::UNKNOWN,
        Some(CookieKind::Harmless) => CookieFindings::default(),
    };
    match cookie.form {
        CookieForm::Plain => {}
        CookieForm::Loose => found.add(CookieFindings::LOOSE),
        // The name may be ambiguous, but cookies of these kinds prevent sharing or are ignored.
        CookieForm::OddName
            if matches!(
                kind,
                Some(CookieKind::Session | CookieKind::Token | CookieKind::Harmless)
            ) =>
        {
            found.add(CookieFindings::LOOSE);
        }
        CookieForm::OddName | CookieForm::Hidden => found.add(CookieFindings::AMBIGUOUS),
    }
    found
}

/// Removes a prefix by which browsers restrict a cookie, such as `__Host-` (RFC 6265bis §4.1.3).
fn without_prefix(name: &[u8]) -> &[u8] {
    ["__Secure-", "__Host-Http-", "__Host-", "__Http-"]
        .iter()
        .find_map(|prefix| {
            let (start, rest) = name.split_at_checked(prefix.len())?;
            start.eq_ignore_ascii_case(prefix.as_bytes()).then_some(rest)
        })
        .unwrap_or(name)
}

/// Guesses the purpose of a cookie that is in no list.
fn guess_kind(name: &[u8]) -> CookieKind {
    let folded: SmallVec<[u8; 64]> = name.iter().map(|byte| folded(*byte)).collect();
    let holds = |part: &&str| folded.windows(part.len()).any(|window| window == part.as_bytes());
    let is_against_forgery = FORGERY_PARTS.iter().any(holds);
    if is_against_forgery {
        return if holds(&"sess") { CookieKind::Session } else { CookieKind::Harmless };
    }
    let ends = SESSION_ENDS.iter().any(|end| folded.ends_with(end.as_bytes()));
    if ends || SESSION_PARTS.iter().any(holds) { CookieKind::Session } else { CookieKind::Unknown }
}
