//! The properties of a client connection that handlers can use.

use std::{borrow::Cow, net::SocketAddr, sync::OnceLock};

use http::HeaderValue;

use super::{BodyLimits, InterimSender, TunnelLimiter};
use crate::field::RequestFields;

/// One client connection.
#[derive(Debug, Default)]
pub struct Connection {
    /// The client's address; `None` on Unix sockets.
    pub peer: Option<SocketAddr>,
    /// Whether the connection uses TLS, so that its requests are `https`.
    pub secure: bool,
    /// Sends 1xx responses before the final response.
    pub interim: InterimSender,
    /// The limits on request bodies of the connection, see [`super::LimitedBody`].
    pub body: BodyLimits,
    /// Forwarding headers that describe the client. The headers are created for the first forwarded
    /// request.
    pub forwarded: OnceLock<ForwardedHeaders>,
    /// The requested host, cached from the connection's first request.
    pub host: OnceLock<RequestedHost>,
    /// Limits the number of tunnels; gives permits to turn the connection into a tunnel.
    pub tunnels: TunnelLimiter,
}

/// A requested host and its canonical form. It is cached, since most requests on a connection name
/// the same host.
#[derive(Debug, Clone)]
pub struct RequestedHost {
    pub raw: Box<str>,
    /// The host's canonical form under the connection's scheme.
    pub canonical: Box<str>,
}

impl Connection {
    /// Returns the canonical form of this `Host`, from the cache or from `find`. Caches the
    /// connection's first host.
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

/// Fields that describe a client to origins. All requests with the same host on a connection share
/// these fields.
#[derive(Debug, Clone)]
pub struct ForwardedHeaders {
    /// The requested host, in canonical form.
    pub host: Box<str>,
    pub fields: RequestFields,
}
