//! What a configuration makes of the pipeline; replaced as a whole on reload, while the cache stays.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ipnet::IpNet;

use crate::{
    fence::OwnedResponseAttributes,
    forward::ViaIdentity,
    key::{digest::CredentialDigests, uri::host},
    origin::{HostHeader, Origin},
    policy::CredentialRules,
    route::{Route, RouteTable},
    server::Connection,
    telemetry::{AccessLog, RouteMetrics},
    user::{Authenticator, PartitionMember},
};

/// The parts of the pipeline that come out of the configuration.
pub(crate) struct ConfigSnapshot {
    /// This configuration and no other.
    pub id: SnapshotId,
    /// Which rule governs a request.
    pub routes: RouteTable,
    /// The routes' metric handles, by the route's index.
    pub metrics: Vec<RouteMetrics>,
    /// The version of the namespace in which responses are stored.
    pub version: Arc<str>,
    /// Who is asked for what is not stored.
    pub origin: Arc<Origin>,
    /// How forwarded messages are signed.
    pub identity: ViaIdentity,
    /// The hosts that are served.
    pub hosts: ServedHosts,
    /// The `Host` that origins are sent.
    pub host: HostHeader,
    /// Whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What counts as a credential.
    pub credentials: CredentialRules,
    /// How credentials enter keys.
    pub digests: CredentialDigests,
    /// The identities that requests prove.
    pub users: Arc<Authenticator>,
    /// Where requests are logged, if they are.
    pub access_log: Option<Arc<AccessLog>>,
    /// What may be stored of one body, in bytes.
    pub max_object: u64,
    /// Whether responses say where their time went (`Server-Timing`).
    pub server_timing: ServerTiming,
}

/// The hosts that requests may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ServedHosts {
    /// In canonical form: `api.example.com`, with or without a port, or `*.example.com`. Empty: all.
    pub patterns: Box<[Box<str>]>,
}

impl ServedHosts {
    /// Whether requests for this host, in canonical form, are answered.
    pub(crate) fn includes(&self, asked: &str) -> bool {
        let fits = |pattern: &str| {
            let name = host::name(asked);
            match pattern.strip_prefix('*') {
                Some(domain) => name.len() > domain.len() && name.ends_with(domain),
                None => pattern == asked || pattern == name,
            }
        };
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| fits(pattern))
    }
}

/// Tells one configuration from every other of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SnapshotId(u64);

impl SnapshotId {
    /// An identity not given out before.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Whether responses carry `Server-Timing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ServerTiming {
    /// They do not.
    #[default]
    Off,
    /// They do.
    On,
}

impl ConfigSnapshot {
    /// Whether what the peer of a connection says about its own clients is believed.
    pub(crate) fn trusts(&self, connection: &Connection) -> bool {
        !self.trusted_proxies.is_empty()
            && connection.peer.is_some_and(|peer| {
                let peer = peer.ip().to_canonical();
                self.trusted_proxies.iter().any(|network| network.contains(&peer))
            })
    }

    /// Whether the peer of a connection is a gateway whose word about its users counts.
    pub(crate) fn is_gateway(&self, connection: &Connection) -> bool {
        self.users.trusts(connection.peer.map(|peer| peer.ip()))
    }

    /// The route with this index.
    pub(crate) fn route(&self, index: usize) -> &Route {
        self.routes.route(index)
    }

    /// The name of the route with this index.
    pub(crate) fn route_name(&self, index: usize) -> &str {
        &self.route(index).name
    }

    /// What a response stored under the route with this index is known by, for a member of its partition.
    pub(crate) fn attributes(
        &self,
        index: usize,
        member: Option<&PartitionMember>,
    ) -> OwnedResponseAttributes {
        let (route, version) = (Arc::clone(&self.route(index).name), Arc::clone(&self.version));
        let user = member.and_then(|member| member.owner.clone());
        OwnedResponseAttributes { user, route: Some(route), version: Some(version) }
    }
}
