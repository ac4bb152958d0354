//! Users known by signed tokens.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{
    keys::{KeySet, Keys},
    member::{self, Member},
    narrow,
    refusal::Refusal,
    remembered::{Remembered, Verified},
    scalar::Scalar,
    settings::{Carrier, TokenRules},
    token::{
        self, Token,
        json::{self, Object},
    },
};
use crate::{
    field::{Timestamp, cookie, name::is_same},
    key::DigestKey,
    policy::Partition,
};

/// Fields of requests that are signed, or whose token is bound to a key (RFC 9421, RFC 9449).
const BINDING_FIELDS: [HeaderName; 3] = [
    HeaderName::from_static("dpop"),
    HeaderName::from_static("signature"),
    HeaderName::from_static("signature-input"),
];

/// The tokens that count under one configuration.
pub(super) struct Tokens {
    rules: TokenRules,
    keys: Arc<Keys>,
    remembered: Remembered,
}

/// What identities come to: the key of digests, and the partitions that routes use.
#[derive(Clone, Copy)]
pub(super) struct Roles<'a> {
    pub(super) digests: &'a DigestKey,
    pub(super) partitions: &'a [Partition],
}

impl Tokens {
    pub(super) fn new(mut rules: TokenRules, keys: Arc<Keys>) -> Self {
        rules.narrows.sort_unstable();
        Self { rules, keys, remembered: Remembered::new() }
    }

    /// Where the token stands.
    pub(super) fn carrier(&self) -> &Carrier {
        &self.rules.carrier
    }

    /// The claim that tells users apart.
    pub(super) fn claim(&self) -> &str {
        &self.rules.claim
    }

    /// The issuers that count; if there are none, any.
    pub(super) fn issuers(&self) -> &[Box<str>] {
        &self.rules.issuers
    }

    /// Returns who asks. Verifies a signature only if the token is not remembered: a remembered one of
    /// 300 bytes costs about 1,100 instructions, a third of them to hash and compare it (`bench/count.mjs`).
    pub(super) fn verified(
        &self,
        headers: &HeaderMap,
        roles: Roles<'_>,
        now: Timestamp,
    ) -> Result<Arc<Verified>, Refusal> {
        let credentials = self.credentials(headers)?;
        if BINDING_FIELDS.iter().any(|name| headers.contains_key(name)) {
            return Err(Refusal::Bound);
        }
        let keys = self.keys.current();
        if let Some(verified) = self.remembered.get(credentials) {
            if verified.expires.is_some_and(|expires| expires <= now) {
                self.remembered.remove(credentials);
                return Err(Refusal::Expired);
            }
            if is_still_signed(&verified, &keys) {
                return Ok(verified);
            }
            self.remembered.remove(credentials);
        }
        if self.remembered.are_forged(credentials, keys.generation) {
            return Err(Refusal::Signature);
        }
        let token = self.token(credentials)?;
        let verified = self.verify(token, (&keys, roles), now).map(Arc::new);
        match &verified {
            Ok(verified) => self.remembered.insert(credentials, Arc::clone(verified)),
            Err(Refusal::Signature) => self.remembered.note_forged(credentials, keys.generation),
            Err(Refusal::UnknownKey) => self.keys.request_fetch(),
            Err(_) => {}
        }
        verified
    }

    /// The value that holds the token: of a field, or of a cookie.
    fn credentials<'a>(&self, headers: &'a HeaderMap) -> Result<&'a [u8], Refusal> {
        match &self.rules.carrier {
            Carrier::Field(name) => only_line(headers, name).map(HeaderValue::as_bytes),
            Carrier::Cookie(name) => {
                let line = only_line(headers, &header::COOKIE)?;
                let mut found = cookie::in_line(line.as_bytes())
                    .filter(|cookie| is_same(cookie.name, name.as_bytes()));
                match (found.next(), found.next()) {
                    (Some(one), None) if one.name == name.as_bytes() => {
                        let value = one.pair.get(name.len() + 1..).unwrap_or_default();
                        Ok(value.trim_ascii_end())
                    }
                    (Some(_), Some(_)) => Err(Refusal::Twice),
                    _ => Err(Refusal::NoToken),
                }
            }
        }
    }

    /// The token in a value: behind `Bearer` (RFC 6750 §2.1), which other fields than `Authorization` may
    /// leave out.
    fn token<'a>(&self, credentials: &'a [u8]) -> Result<&'a [u8], Refusal> {
        const SCHEME: &[u8] = b"bearer ";
        let is_bare = self.rules.carrier != Carrier::Field(header::AUTHORIZATION);
        match credentials.split_at_checked(SCHEME.len()) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => {
                Ok(token.trim_ascii_start())
            }
            _ if is_bare => Ok(credentials),
            _ => Err(Refusal::Scheme),
        }
    }

    fn verify(
        &self,
        token: &[u8],
        (keys, roles): (&KeySet, Roles<'_>),
        now: Timestamp,
    ) -> Result<Verified, Refusal> {
        let token = Token::parse(token)?;
        let counts = |algorithms: &[_]| algorithms.contains(&token.algorithm);
        if !self.rules.algorithms.as_deref().is_none_or(counts) {
            return Err(Refusal::Algorithm);
        }
        let key = keys.signer_of(&token)?;
        let claims = token.claims()?;
        let expires = token::check_times(&claims, now)?;
        let issuer = self.check_parties(&claims)?;
        let claimant = Claimant {
            claims: &claims,
            issuer: &issuer,
            rules: &self.rules,
            digests: roles.digests,
            credential: credential(roles.digests, token.signed),
            expires,
        };
        let members = roles.partitions.iter().map(|partition| claimant.member(partition));
        Ok(Verified::new(expires, Some((key, keys.generation)), members.collect()))
    }

    /// Checks issuer and audience. Returns the issuer; empty if the token names none.
    fn check_parties(&self, claims: &Object<'_>) -> Result<String, Refusal> {
        let issuer = match claims.get("iss") {
            Some(raw) => json::string(raw).ok_or(Refusal::Claims)?,
            None => String::new(),
        };
        let issuers = &self.rules.issuers;
        if !issuers.is_empty() && !issuers.iter().any(|known| **known == *issuer) {
            return Err(Refusal::Issuer);
        }
        let audiences = &self.rules.audiences;
        if !audiences.is_empty() {
            let named = claims.get("aud").map(|raw| json::strings(raw).ok_or(Refusal::Claims));
            let named = named.transpose()?.unwrap_or_default();
            if !named.iter().any(|name| audiences.iter().any(|known| **known == **name)) {
                return Err(Refusal::Audience);
            }
        }
        Ok(issuer)
    }
}

/// Whether the key that verified a token is still there: it is looked for when the keys have changed.
fn is_still_signed(verified: &Verified, keys: &KeySet) -> bool {
    if verified.is_of(keys.generation) {
        return true;
    }
    let is_there = verified.key.is_some_and(|key| keys.has(key));
    if is_there {
        verified.renew(keys.generation);
    }
    is_there
}

/// A digest of what is signed: the same for every spelling of a signature.
fn credential(digests: &DigestKey, signed: &[u8]) -> u128 {
    u128::from_be_bytes(member::digest(digests, [member::CREDENTIAL, signed]))
}

/// The only line of a field.
pub(super) fn only_line<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<&'a HeaderValue, Refusal> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Err(Refusal::NoToken),
        (Some(line), None) => Ok(line),
        (Some(_), Some(_)) => Err(Refusal::Twice),
    }
}

/// Whose claims are verified.
struct Claimant<'a> {
    claims: &'a Object<'a>,
    issuer: &'a str,
    rules: &'a TokenRules,
    digests: &'a DigestKey,
    credential: u128,
    expires: Option<Timestamp>,
}

impl Claimant<'_> {
    fn member(&self, partition: &Partition) -> Result<Arc<Member>, Refusal> {
        let user = self.claim(&self.rules.claim);
        let (kind, named) = match partition {
            Partition::Claims(names) => {
                let values = names.iter().map(|name| Ok((&**name, self.claim(name)?)));
                (member::CLAIM, values.collect::<Result<Vec<_>, Refusal>>()?)
            }
            Partition::User => (member::USER, vec![("", user.clone()?)]),
            Partition::Authenticated => (member::AUTHENTICATED, Vec::new()),
            Partition::None | Partition::Everyone => return Err(Refusal::NoClaim),
        };
        let mut narrowing = Vec::new();
        narrow::write(self.claims, &self.rules.narrows, &mut narrowing);
        let issuer = self.issuer.as_bytes();
        let typed = named
            .iter()
            .flat_map(|(name, value)| [name.as_bytes(), value.kind(), value.text().as_bytes()]);
        let part = [kind, issuer].into_iter().chain(typed).chain([&*narrowing]);
        Ok(Arc::new(Member {
            part: member::digest(self.digests, part),
            owner: (kind != member::AUTHENTICATED).then(|| self.owner(kind, &named)),
            user: user.ok().map(|user| user.text().into()),
            issuer: self.issuer.into(),
            credential: self.credential,
            expires: self.expires,
        }))
    }

    /// The owner goes by texts alone, as purges do: `42` is the owner of a number and of a text. Where the
    /// operator names no issuer, purges know none.
    fn owner(&self, kind: &[u8], named: &[(&str, Scalar)]) -> Arc<str> {
        let is_known = !self.rules.issuers.is_empty();
        let issuer = [if is_known { self.issuer.as_bytes() } else { b"" }];
        let values = named.iter().flat_map(|(name, value)| {
            let name = (kind == member::CLAIM).then_some(name.as_bytes());
            name.into_iter().chain([value.text().as_bytes()])
        });
        member::owner(self.digests, kind, issuer.into_iter().chain(values))
    }

    fn claim(&self, name: &str) -> Result<Scalar, Refusal> {
        self.claims.get(name).and_then(Scalar::parse).ok_or(Refusal::NoClaim)
    }
}
