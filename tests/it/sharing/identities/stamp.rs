//! Whom the origin takes for the asker, and with which rights: what it stamps its answers with. The judge
//! works out the same for the request that a client sent.

use std::fmt::Write as _;

use serde_json::Value;

use super::token;
use crate::support::wire::{header, headers};

/// For whom the resources under a path are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    User,
    Tenant,
    Member,
    Everyone,
    /// No partition: what RFC 9111 allows.
    Plain,
}

/// What the origin says about storing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    /// Nothing: a `ttl` of the route holds.
    Silent,
    /// A lifetime.
    Fresh,
    /// A lifetime, for one user.
    Private,
    /// A lifetime, and that anyone may have it: there is no identity in it.
    Public,
    /// Not to be stored.
    NoStore,
    /// A `Vary` on the language.
    Language,
    /// A `Vary` on a credential.
    VaryCredential,
}

impl Kind {
    pub(super) const ALL: [Self; 5] =
        [Self::User, Self::Tenant, Self::Member, Self::Everyone, Self::Plain];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Tenant => "tenant",
            Self::Member => "member",
            Self::Everyone => "everyone",
            Self::Plain => "plain",
        }
    }

    /// Whether only a known user gets an answer.
    pub(super) const fn is_protected(self) -> bool {
        matches!(self, Self::User | Self::Tenant | Self::Member)
    }
}

impl Mode {
    pub(super) const ALL: [Self; 7] = [
        Self::Silent,
        Self::Fresh,
        Self::Private,
        Self::Public,
        Self::NoStore,
        Self::Language,
        Self::VaryCredential,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Fresh => "fresh",
            Self::Private => "private",
            Self::Public => "public",
            Self::NoStore => "no-store",
            Self::Language => "language",
            Self::VaryCredential => "vary-credential",
        }
    }

    /// Whether nothing but a `ttl` makes the answers fresh, so that any cookie may be in them.
    const fn has_no_lifetime(self) -> bool {
        matches!(self, Self::Silent | Self::Language | Self::NoStore | Self::VaryCredential)
    }
}

/// Reads `/kind/mode/…`.
pub(super) fn parse(path: &str) -> Option<(Kind, Mode)> {
    let mut segments = path.split('/').skip(1);
    let (kind, mode) = (segments.next()?, segments.next()?);
    let kind = Kind::ALL.into_iter().find(|each| each.as_str() == kind)?;
    Some((kind, Mode::ALL.into_iter().find(|each| each.as_str() == mode)?))
}

/// What a request says about who asks.
#[derive(Debug, Clone, Default)]
pub(super) struct Asker {
    /// The token after `Bearer`, of the first such field.
    pub(super) token: Option<String>,
    /// Credentials that this origin ignores and another might read, so that they are part of exact
    /// credentials: further `Authorization` lines, and an API key in a field with underscores.
    pub(super) ignored: Vec<String>,
    pub(super) session: Option<String>,
    /// An API key, as a field or a parameter.
    pub(super) key: Option<String>,
    /// The key where it is a parameter, which is part of the target.
    key_of_query: Option<String>,
    /// Cookies that nobody knows, and those that select.
    unknown: Option<String>,
    selecting: Option<String>,
    language: Option<String>,
}

impl Asker {
    pub(super) fn of(head: &str) -> Self {
        let target = head.split(' ').nth(1).unwrap_or_default();
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let in_query = query.split('&').find_map(|pair| pair.strip_prefix("api_key="));
        let cookies: Vec<(&str, &str)> = headers(head, "cookie")
            .flat_map(|line| line.split("; "))
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let cookie = |wanted: &str| {
            let found = cookies.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        };
        let bearer = header(head, "authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.to_owned())
        });
        Self {
            token: bearer,
            ignored: headers(head, "authorization")
                .skip(1)
                .chain(headers(head, "x_api_key"))
                .map(str::to_owned)
                .collect(),
            session: cookie("session"),
            key: header(head, "x-api-key").or(in_query).map(str::to_owned),
            key_of_query: in_query.map(str::to_owned),
            unknown: cookie("desk"),
            selecting: cookie("theme"),
            language: header(head, "accept-language").map(str::to_owned),
        }
    }

    /// The same without credentials, as a resource for everyone is to be asked for.
    pub(super) fn unknown_person(&self) -> Self {
        Self {
            key: self.key_of_query.clone(),
            selecting: self.selecting.clone(),
            language: self.language.clone(),
            ..Self::default()
        }
    }

    pub(super) fn has_credentials(&self) -> bool {
        self.token.is_some() || self.session.is_some() || self.key.is_some()
    }

    /// What each of its credentials is called, for what is remembered of it.
    pub(super) fn credentials(&self) -> impl Iterator<Item = &String> {
        [&self.token, &self.session, &self.key].into_iter().flatten()
    }

    /// Returns the name under which a denial is noted: the credential and, for a user's own responses,
    /// the unknown cookies, which are part of the identity there.
    pub(super) fn denied(&self, credential: &str, kind: Kind) -> String {
        let unknown = self.unknown.as_deref().filter(|_| kind == Kind::User);
        format!("{credential} {}", unknown.unwrap_or_default())
    }

    /// What the token claims; nothing where it is none of the issuer's kind.
    pub(super) fn claims(&self) -> Option<Value> {
        self.token.as_deref().and_then(token::claimed)
    }

    /// Identity and rights, as far as an answer of this kind depends on them.
    pub(super) fn stamp(&self, kind: Kind, mode: Mode) -> String {
        if mode == Mode::Public {
            return "public".to_owned();
        }
        // What is said to be private, or to depend on credentials, may say all about them.
        let is_own = matches!(mode, Mode::Private | Mode::VaryCredential);
        let kind = if is_own { Kind::User } else { kind };
        let mut text = String::new();
        if let Some(token) = &self.token {
            match self.claims() {
                Some(claims) => text.push_str(&of_claims(&claims, kind)),
                None => write!(text, "opaque={token};").unwrap(),
            }
        }
        let mut add = |name: &str, value: &Option<String>| {
            if let Some(value) = value {
                write!(text, "{name}={value};").unwrap();
            }
        };
        add("session", &self.session);
        add("key", &self.key);
        if kind == Kind::User || mode.has_no_lifetime() {
            add("desk", &self.unknown);
        }
        if mode.has_no_lifetime() {
            add("theme", &self.selecting);
        }
        if mode == Mode::Language {
            add("language", &self.language);
        }
        if text.is_empty() { "anonymous".to_owned() } else { text }
    }
}

fn of_claims(claims: &Value, kind: Kind) -> String {
    let names: &[&str] = match kind {
        Kind::Tenant => &["iss", "tenant", "aud", "scope", "roles"],
        Kind::Member => &["iss", "aud", "scope", "roles"],
        Kind::User | Kind::Everyone | Kind::Plain => &["iss", "sub", "aud", "scope", "roles"],
    };
    names.iter().fold(String::new(), |mut text, name| {
        write!(text, "{name}={};", claims[name]).unwrap();
        text
    })
}

/// An entity tag for a stamp.
pub(super) fn entity_tag(stamp: &str) -> String {
    let digest = stamp.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{digest:016x}")
}
