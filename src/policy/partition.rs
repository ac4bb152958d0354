//! Sharing of a route's stored responses (`partition`).

use std::{fmt, sync::Arc};

/// The set of clients that share the stored responses of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Partition {
    /// Clients without credentials, and other clients if RFC 9111 §3.5 allows it.
    #[default]
    None,
    /// All clients. Credentials are not forwarded to the origin.
    Everyone,
    /// All clients with a valid token of one issuer and the same rights.
    Authenticated,
    /// Clients whose tokens have the same value for each of these claims, and the same rights.
    Claims(Arc<[Box<str>]>),
    /// Requests of one user with the same rights.
    User,
}

impl Partition {
    /// Returns whether requests need an identity.
    pub const fn needs_identity(&self) -> bool {
        matches!(self, Self::Authenticated | Self::Claims(_) | Self::User)
    }

    /// Parses a value of `partition` such as `"user"` or `"claim:tenant,plan"`. Returns `None` if
    /// it is invalid.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "everyone" => Some(Self::Everyone),
            "authenticated" => Some(Self::Authenticated),
            "user" => Some(Self::User),
            _ => {
                let names = text.strip_prefix("claim:")?.split(',').map(str::trim);
                let claims: Arc<[Box<str>]> = names.map(Into::into).collect();
                let is_name = |name: &str| !name.is_empty() && !name.contains(char::is_control);
                claims.iter().all(|name| is_name(name)).then_some(Self::Claims(claims))
            }
        }
    }
}

impl fmt::Display for Partition {
    /// Formats the partition as in the configuration; the default is `none`.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => to.write_str("none"),
            Self::Everyone => to.write_str("everyone"),
            Self::Authenticated => to.write_str("authenticated"),
            Self::User => to.write_str("user"),
            Self::Claims(claims) => write!(to, "claim:{}", claims.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_one_of_four_or_names_claims() {
        let claims = |names: &[&str]| {
            Some(Partition::Claims(names.iter().map(|name| (*name).into()).collect()))
        };
        for (text, expected) in [
            ("everyone", Some(Partition::Everyone)),
            ("authenticated", Some(Partition::Authenticated)),
            ("user", Some(Partition::User)),
            ("claim:tenant", claims(&["tenant"])),
            ("claim:tenant, plan", claims(&["tenant", "plan"])),
            ("claim:", None),
            ("claim:a,,b", None),
            ("User", None),
            ("", None),
        ] {
            assert_eq!(Partition::parse(text), expected, "{text}");
        }
    }
}
