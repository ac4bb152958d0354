//! What is known of a client's connection while its requests are answered.

use std::{borrow::Cow, net::SocketAddr, sync::OnceLock};

use http::HeaderValue;

use super::{BodyLimits, InterimSender, TunnelLimiter};

/// One client connection.
#[derive(Debug, Default)]
pub struct Connection {
    /// The other end; absent on Unix sockets.
    pub peer: Option<SocketAddr>,
    /// Whether the connection is TLS, that is, whether its requests are `https`.
    pub secure: bool,
    /// Sends 1xx responses ahead of the final one.
    pub interim: InterimSender,
    /// What its request bodies have to be held to while they are read, see [`super::LimitedBody`].
    pub body: BodyLimits,
    /// How its client is introduced to origins; made with its first request that goes to one.
    pub forwarded: OnceLock<ForwardedHeaders>,
    /// The host that its first request asked for.
    pub host: OnceLock<RequestedHost>,
    /// Lets it become a tunnel.
    pub tunnels: TunnelLimiter,
}

/// A host as a connection's requests ask for it: nearly always the same.
#[derive(Debug, Clone)]
pub struct RequestedHost {
    /// The value of `Host`.
    pub raw: Box<str>,
    /// Its canonical form under the connection's own scheme.
    pub canonical: Box<str>,
}

impl Connection {
    /// The canonical form of this `Host`, if it is the one that is remembered; else what `find` says, which
    /// is remembered if nothing is yet.
    pub fn canonical_host<'a>(
        &'a self,
        given: &'a HeaderValue,
        find: impl FnOnce(&'a str) -> Cow<'a, str>,
    ) -> Cow<'a, str> {
        if let Some(known) = self.host.get()
            && known.raw.as_bytes() == given.as_bytes()
        {
            return Cow::Borrowed(&known.canonical);
        }
        let given = given.to_str().unwrap_or_default();
        let canonical = find(given);
        if self.host.get().is_none() {
            let (raw, canonical) = (given.into(), canonical.as_ref().into());
            let _ = self.host.set(RequestedHost { raw, canonical });
        }
        canonical
    }
}

/// How a client is introduced to origins: the same for all its requests on one connection that ask for
/// the same host.
#[derive(Debug, Clone)]
pub struct ForwardedHeaders {
    /// The `Host` that it asks for.
    pub host: Option<HeaderValue>,
    /// The element of `Forwarded` that tells of it.
    pub element: Option<HeaderValue>,
    /// Its address as `X-Forwarded-For` has it.
    pub address: Option<HeaderValue>,
}
