//! Authentication of users by signed tokens.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{
    claim_value::ClaimValue,
    credential_cache::{CredentialCache, VerifiedIdentity},
    error::IdentityError,
    jwt::{
        self, Jwt,
        json::{self, JsonObject},
    },
    keys::{KeySet, TokenKeys},
    member::{self, PartitionMember},
    narrow,
    settings::{TokenLocation, TokenRules},
};
use crate::{
    field::{Timestamp, cookie, name::is_same},
    key::DigestKey,
    policy::Partition,
};

/// Fields of signed requests and of key-bound tokens (RFC 9421, RFC 9449).
const BINDING_FIELDS: [HeaderName; 3] = [
    HeaderName::from_static("dpop"),
    HeaderName::from_static("signature"),
    HeaderName::from_static("signature-input"),
];

/// Verifies tokens by the rules of one configuration.
pub(super) struct TokenVerifier {
    rules: TokenRules,
    keys: Arc<TokenKeys>,
    cache: CredentialCache,
}

/// The digest key and the partitions that routes use, from which partition members are computed.
#[derive(Clone, Copy)]
pub(super) struct PartitionInputs<'a> {
    pub(super) digests: &'a DigestKey,
    pub(super) partitions: &'a [Partition],
}

impl TokenVerifier {
    pub(super) fn new(mut rules: TokenRules, keys: Arc<TokenKeys>) -> Self {
        rules.narrows.sort_unstable();
        Self { rules, keys, cache: CredentialCache::new() }
    }

    /// Returns the part of a request that carries the token.
    pub(super) fn location(&self) -> &TokenLocation {
        &self.rules.location
    }

    /// Returns the claim that identifies users.
    pub(super) fn claim(&self) -> &str {
        &self.rules.claim
    }

    /// Returns the accepted issuers; empty if any is accepted.
    pub(super) fn issuers(&self) -> &[Box<str>] {
        &self.rules.issuers
    }

    /// Returns the identity of a request. Verifies a signature only if the token is not cached.
    ///
    /// A cached token of 300 bytes costs about 1,100 instructions, a third of them to hash and
    /// compare it (`bench/count.mjs`).
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        context: PartitionInputs<'_>,
        now: Timestamp,
    ) -> Result<Arc<VerifiedIdentity>, IdentityError> {
        let credentials = self.credentials(headers)?;
        if BINDING_FIELDS.iter().any(|name| headers.contains_key(name)) {
            return Err(IdentityError::Bound);
        }
        let keys = self.keys.current();
        if let Some(verified) = self.cache.get(credentials) {
            if verified.expires.is_some_and(|expires| expires <= now) {
                self.cache.remove(credentials);
                return Err(IdentityError::Expired);
            }
            if has_current_key(&verified, &keys) {
                return Ok(verified);
            }
            self.cache.remove(credentials);
        }
        if self.cache.is_forged(credentials, keys.generation) {
            return Err(IdentityError::Signature);
        }
        let token = self.token(credentials)?;
        let verified = self.verify(token, (&keys, context), now).map(Arc::new);
        match &verified {
            Ok(verified) => self.cache.insert(credentials, Arc::clone(verified)),
            Err(IdentityError::Signature) => self.cache.insert_forged(credentials, keys.generation),
            Err(IdentityError::UnknownKey) => self.keys.request_fetch(),
            Err(_) => {}
        }
        verified
    }

    /// Returns the value of the field or cookie that carries the token.
    fn credentials<'a>(&self, headers: &'a HeaderMap) -> Result<&'a [u8], IdentityError> {
        match &self.rules.location {
            TokenLocation::Field(name) => single_value(headers, name).map(HeaderValue::as_bytes),
            TokenLocation::Cookie(name) => {
                let line = single_value(headers, &header::COOKIE)?;
                let mut found = cookie::in_line(line.as_bytes())
                    .filter(|cookie| is_same(cookie.name, name.as_bytes()));
                match (found.next(), found.next()) {
                    (Some(one), None) if one.name == name.as_bytes() => {
                        let value = one.pair.get(name.len() + 1..).unwrap_or_default();
                        Ok(value.trim_ascii_end())
                    }
                    (Some(_), Some(_)) => Err(IdentityError::Twice),
                    _ => Err(IdentityError::NoToken),
                }
            }
        }
    }

    /// Returns the token in a field or cookie value. `Bearer` (RFC 6750 §2.1) precedes the token,
    /// and is required only in `Authorization`.
    fn token<'a>(&self, credentials: &'a [u8]) -> Result<&'a [u8], IdentityError> {
        const SCHEME: &[u8] = b"bearer ";
        let is_bare = self.rules.location != TokenLocation::Field(header::AUTHORIZATION);
        match credentials.split_at_checked(SCHEME.len()) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => {
                Ok(token.trim_ascii_start())
            }
            _ if is_bare => Ok(credentials),
            _ => Err(IdentityError::Scheme),
        }
    }

    fn verify(
        &self,
        token: &[u8],
        (keys, context): (&KeySet, PartitionInputs<'_>),
        now: Timestamp,
    ) -> Result<VerifiedIdentity, IdentityError> {
        let token = Jwt::parse(token)?;
        let counts = |algorithms: &[_]| algorithms.contains(&token.algorithm);
        if !self.rules.algorithms.as_deref().is_none_or(counts) {
            return Err(IdentityError::Algorithm);
        }
        let key = keys.find_signer(&token)?;
        let claims = token.claims()?;
        let expires = jwt::check_times(&claims, now)?;
        let issuer = self.check_issuer_and_audience(&claims)?;
        let identity = TokenIdentity {
            claims: &claims,
            issuer: &issuer,
            rules: &self.rules,
            digests: context.digests,
            credential: credential(context.digests, token.signed),
            expires,
        };
        let members = context.partitions.iter().map(|partition| identity.member(partition));
        Ok(VerifiedIdentity::new(expires, Some((key, keys.generation)), members.collect()))
    }

    /// Checks issuer and audience. Returns the issuer; empty if the token names none.
    fn check_issuer_and_audience(&self, claims: &JsonObject<'_>) -> Result<String, IdentityError> {
        let issuer = match claims.get("iss") {
            Some(raw) => json::string(raw).ok_or(IdentityError::Claims)?,
            None => String::new(),
        };
        let issuers = &self.rules.issuers;
        if !issuers.is_empty() && !issuers.iter().any(|known| **known == *issuer) {
            return Err(IdentityError::Issuer);
        }
        let audiences = &self.rules.audiences;
        if !audiences.is_empty() {
            let named =
                claims.get("aud").map(|raw| json::strings(raw).ok_or(IdentityError::Claims));
            let named = named.transpose()?.unwrap_or_default();
            if !named.iter().any(|name| audiences.iter().any(|known| **known == **name)) {
                return Err(IdentityError::Audience);
            }
        }
        Ok(issuer)
    }
}

/// Returns whether the key that verified a token is still in use. Searches only after a key change.
fn has_current_key(verified: &VerifiedIdentity, keys: &KeySet) -> bool {
    if verified.has_generation(keys.generation) {
        return true;
    }
    let is_there = verified.key.is_some_and(|key| keys.has(key));
    if is_there {
        verified.set_generation(keys.generation);
    }
    is_there
}

/// Returns a digest of the signed bytes. It does not depend on how the signature is encoded.
fn credential(digests: &DigestKey, signed: &[u8]) -> u128 {
    u128::from_be_bytes(member::digest(digests, [member::CREDENTIAL, signed]))
}

/// Returns the value of a field, or an error if the field is missing or repeated.
pub(super) fn single_value<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<&'a HeaderValue, IdentityError> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Err(IdentityError::NoToken),
        (Some(line), None) => Ok(line),
        (Some(_), Some(_)) => Err(IdentityError::Twice),
    }
}

/// The verified claims of a token.
struct TokenIdentity<'a> {
    claims: &'a JsonObject<'a>,
    issuer: &'a str,
    rules: &'a TokenRules,
    digests: &'a DigestKey,
    credential: u128,
    expires: Option<Timestamp>,
}

impl TokenIdentity<'_> {
    fn member(&self, partition: &Partition) -> Result<Arc<PartitionMember>, IdentityError> {
        let user = self.claim(&self.rules.claim);
        let (kind, named) = match partition {
            Partition::Claims(names) => {
                let values = names.iter().map(|name| Ok((&**name, self.claim(name)?)));
                (member::CLAIM, values.collect::<Result<Vec<_>, IdentityError>>()?)
            }
            Partition::User => (member::USER, vec![("", user.clone()?)]),
            Partition::Authenticated => (member::AUTHENTICATED, Vec::new()),
            Partition::None | Partition::Everyone => return Err(IdentityError::NoClaim),
        };
        let mut narrowing = Vec::new();
        narrow::write(self.claims, &self.rules.narrows, &mut narrowing);
        let issuer = self.issuer.as_bytes();
        let typed = named
            .iter()
            .flat_map(|(name, value)| [name.as_bytes(), value.kind(), value.text().as_bytes()]);
        let part = [kind, issuer].into_iter().chain(typed).chain([&*narrowing]);
        Ok(Arc::new(PartitionMember {
            partition_digest: member::digest(self.digests, part),
            owner: (kind != member::AUTHENTICATED).then(|| self.owner(kind, &named)),
            user: user.ok().map(|user| user.text().into()),
            issuer: self.issuer.into(),
            credential: self.credential,
            expires: self.expires,
        }))
    }

    /// Computes the owner from texts alone, as purges do: the number `42` and the string `"42"` are
    /// one owner. Without configured issuers, the issuer is left out.
    fn owner(&self, kind: &[u8], named: &[(&str, ClaimValue)]) -> Arc<str> {
        let is_known = !self.rules.issuers.is_empty();
        let issuer = [if is_known { self.issuer.as_bytes() } else { b"" }];
        let values = named.iter().flat_map(|(name, value)| {
            let name = (kind == member::CLAIM).then_some(name.as_bytes());
            name.into_iter().chain([value.text().as_bytes()])
        });
        member::owner(self.digests, kind, issuer.into_iter().chain(values))
    }

    fn claim(&self, name: &str) -> Result<ClaimValue, IdentityError> {
        self.claims.get(name).and_then(ClaimValue::parse).ok_or(IdentityError::NoClaim)
    }
}
