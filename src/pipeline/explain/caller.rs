//! Explains the credentials of a request and the partition that it belongs to.

use http::{HeaderName, header};

use super::{
    explanation::{ExplainedCredential, ExplainedIdentity, ExplainedPartition},
    request::PlannedRequest,
};
use crate::{
    field::{
        Timestamp,
        cookie::{self, CookieForm},
        identity::IdentityFieldKind,
    },
    policy::{
        Partition,
        credentials::{CookieKind, ParameterKind},
    },
};

impl PlannedRequest<'_> {
    pub(super) fn credentials(&self) -> Vec<ExplainedCredential> {
        let mut found: Vec<ExplainedCredential> =
            self.received.headers().keys().filter_map(|name| self.field(name)).collect();
        let settled = &self.matched_route().vary.cookies;
        for cookie in cookie::cookies(self.received.headers()) {
            let kind = self.config.credentials.kind_on_route(cookie.name, settled);
            let is_clear = matches!(cookie.form, CookieForm::Plain | CookieForm::Loose);
            let name =
                if is_clear { String::from_utf8_lossy(cookie.name) } else { "(unclear)".into() };
            let (kind, why) = cookie_kind(kind, cookie.form, self.matched_route().rule.has_ttl());
            let (place, name, why) = ("cookie", name.into_owned(), why.to_owned());
            found.push(ExplainedCredential { place, name, kind, why });
        }
        found.extend(self.parameters());
        found
    }

    fn field(&self, name: &HeaderName) -> Option<ExplainedCredential> {
        let rules = &self.config.credentials;
        let is_listed = rules.fields.has(name.as_str().as_bytes());
        let (kind, why) = if self.config.users.uses_field(name) && *name != header::COOKIE {
            ("identity", "`[user]` identifies users by it")
        } else if *name == header::AUTHORIZATION {
            ("credential", "the standard field for credentials (RFC 9110 §11.6.2)")
        } else {
            match rules.field_kind(name.as_str())? {
                IdentityFieldKind::Credential if is_listed => {
                    ("credential", "listed in `user.credentials`")
                }
                IdentityFieldKind::Credential => {
                    ("credential", "headers with such names carry keys, tokens or users")
                }
                IdentityFieldKind::Tenant if self.matched_route().vary.headers.contains(name) => {
                    ("separated", "the route's `vary.headers` separates responses by it")
                }
                IdentityFieldKind::Tenant => {
                    ("credential", "names the tenant that the request is made for")
                }
            }
        };
        let (place, name, why) = ("header", name.to_string(), why.to_owned());
        Some(ExplainedCredential { place, name, kind, why })
    }

    fn parameters(&self) -> Vec<ExplainedCredential> {
        let query = self.query().unwrap_or_default();
        let found = self.config.credentials.credential_parameters(query).map(|parameter| {
            let (kind, why) = match parameter.kind {
                ParameterKind::Secret => {
                    ("credential", "parameters with such names carry keys or tokens; the key contains a digest of it")
                }
                ParameterKind::Signature => {
                    ("signature", "signatures expire: stored only if the origin sets a lifetime")
                }
            };
            let name = parameter.name.split(';').next().unwrap_or_default().to_owned();
            ExplainedCredential { place: "parameter", name, kind, why: why.to_owned() }
        });
        found.collect()
    }

    pub(super) fn partition(&self) -> ExplainedPartition {
        let partition = &self.matched_route().rule.partition;
        ExplainedPartition {
            kind: partition.to_string(),
            means: partition_means(partition),
            identity: self.identity(),
        }
    }

    /// Returns the user's name if stored responses belong to that user, else `None`.
    pub(super) fn user(&self) -> Option<&str> {
        let is_own = self.matched_route().rule.partition == Partition::User;
        self.lookup()?.member.as_deref().filter(|_| is_own)?.user.as_deref()
    }

    /// Returns the placeholder for the user's name in displayed tags; `None` if responses belong to
    /// no user.
    pub(super) fn placeholder(&self) -> Option<&'static str> {
        self.user().map(|_| "{user}")
    }

    /// Returns the identity that the partition requires; `None` if it requires none.
    fn identity(&self) -> Option<ExplainedIdentity> {
        let (users, partition) = (&self.config.users, &self.matched_route().rule.partition);
        if !partition.needs_identity() {
            return None;
        }
        let found = |made_of: String, issuer: &str, expires| ExplainedIdentity {
            made_of,
            issuer: issuer.to_owned(),
            expires,
        };
        if !users.is_configured() {
            let made_of = match partition {
                Partition::User if self.lookup().is_none() => {
                    "unknown: nothing above identifies the user with certainty"
                }
                Partition::User => {
                    "these exact credentials: all headers, cookies and parameters above except harmless ones"
                }
                _ => "unknown: `[user]` has no token settings",
            };
            return Some(found(made_of.to_owned(), "", None));
        }
        let identity_inputs = self.identity_inputs();
        match users.identify_with_cause(
            partition,
            (identity_inputs.headers, identity_inputs.peer),
            identity_inputs.now,
        ) {
            Err(refusal) => Some(found(format!("unknown: {refusal}"), "", None)),
            Ok(member) => {
                let made_of = match (partition, users.claim()) {
                    (Partition::User, Some(claim)) => format!("claim `{claim}`"),
                    (Partition::User, None) => "the header of the gateway".to_owned(),
                    (Partition::Claims(claims), _) => format!("claims {}", claims.join(", ")),
                    _ => "the issuer".to_owned(),
                };
                let made_of =
                    format!("{made_of}, and the claims that narrow it (values are not shown)");
                let expires = member.expires.map(Timestamp::seconds);
                Some(found(made_of, &member.issuer, expires))
            }
        }
    }
}

fn cookie_kind(
    kind: Option<CookieKind>,
    form: CookieForm,
    by_ttl: bool,
) -> (&'static str, &'static str) {
    match (form, kind) {
        (CookieForm::OddName | CookieForm::Hidden, kind) if kind != Some(CookieKind::Harmless) => {
            ("unclear", "servers parse it differently: the request is passed")
        }
        (_, None) => ("separated", "the route's `vary.cookies` separates responses by it"),
        (_, Some(CookieKind::Session)) => {
            ("session", "cookies with such names are sessions or tokens")
        }
        (_, Some(CookieKind::Token)) => ("token", "contains the token for `user.jwt`"),
        (_, Some(CookieKind::Harmless)) => ("harmless", "analytics, consent or similar: ignored"),
        (_, Some(CookieKind::Selecting)) if by_ttl => {
            ("selecting", "selects the content: each value has its own response")
        }
        (_, Some(CookieKind::Selecting)) => (
            "selecting",
            "selects the content: responses vary by it if the origin's `Vary` says so",
        ),
        (_, Some(CookieKind::Unknown)) => (
            "unknown",
            "may identify the user: responses are shared only if the origin sets a lifetime",
        ),
    }
}

const fn partition_means(partition: &Partition) -> &'static str {
    match partition {
        Partition::None => {
            "requests without credentials share responses; others share only responses that the origin declares shareable"
        }
        Partition::Everyone => {
            "all requests share responses; credentials are removed before the origin request"
        }
        Partition::Authenticated => {
            "requests with valid tokens of one issuer and equal rights share responses"
        }
        Partition::User => "each user has separate responses",
        Partition::Claims(_) => {
            "requests with the same values for these claims and the same rights share responses"
        }
    }
}
