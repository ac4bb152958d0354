//! A snapshot of the configuration. A reload replaces it as a whole, and keeps the cache.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ipnet::IpNet;

use super::{content::RecentRequests, leaks::RouteSampler, verification::FiguresByRoute};
use crate::{
    fence::OwnedResponseAttributes,
    forward::ViaIdentity,
    key::{digest::CredentialDigester, uri::host},
    origin::{HostHeader, Origin},
    policy::CredentialRules,
    route::{GraphqlRule, QuarantineState, Route, RouteTable},
    server::Connection,
    telemetry::{AccessLog, Metrics, RouteMetrics},
    user::{Authenticator, PartitionMember},
};

/// The parts of the pipeline that come from the configuration.
#[derive(Clone)]
pub(crate) struct ConfigSnapshot {
    /// Identifies this configuration.
    pub id: SnapshotId,
    pub routes: RouteTable,
    /// Metric handles by route index.
    pub metrics: Arc<[RouteMetrics]>,
    /// The leak watches by route index; `None` for routes that are not watched for leaks.
    pub watches: Arc<[Option<Arc<RouteSampler>>]>,
    /// The verification figures, by route.
    pub figures: FiguresByRoute,
    /// The version of the namespace that responses are stored in.
    pub version: Arc<str>,
    pub origin: Arc<Origin>,
    /// This proxy's name in `Via`.
    pub identity: ViaIdentity,
    pub hosts: ServedHosts,
    /// The `Host` of requests to the origin.
    pub host: HostHeader,
    /// The proxies whose forwarding fields are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// The rules that classify credentials.
    pub credentials: CredentialRules,
    /// How credentials are digested into keys.
    pub digests: CredentialDigester,
    /// The authenticator, which identifies users.
    pub users: Arc<Authenticator>,
    /// The access log, if enabled.
    pub access_log: Option<Arc<AccessLog>>,
    /// The maximum body size that is stored, in bytes.
    pub max_object: u64,
    /// Whether responses carry `Server-Timing`.
    pub server_timing: ServerTiming,
    /// The recently read GraphQL requests; `None` if no route is GraphQL.
    pub recent_requests: Option<Arc<RecentRequests>>,
}

/// The hosts for which requests are served.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ServedHosts {
    /// Patterns in canonical form: `api.example.com`, with or without a port, or `*.example.com`.
    /// Empty means all hosts.
    pub patterns: Box<[Box<str>]>,
}

impl ServedHosts {
    /// Returns whether requests for this host (in canonical form) are served.
    pub(crate) fn includes(&self, requested: &str) -> bool {
        let fits = |pattern: &str| {
            let name = host::name(requested);
            match pattern.strip_prefix('*') {
                Some(domain) => name.len() > domain.len() && name.ends_with(domain),
                None => pattern == requested || pattern == name,
            }
        };
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| fits(pattern))
    }
}

/// The id of a configuration, unique within the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SnapshotId(u64);

impl SnapshotId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Whether responses carry `Server-Timing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ServerTiming {
    #[default]
    Off,
    On,
}

impl ConfigSnapshot {
    /// Returns whether the peer is a trusted proxy, so that its forwarding fields count.
    pub(crate) fn trusts(&self, connection: &Connection) -> bool {
        !self.trusted_proxies.is_empty()
            && connection.peer.is_some_and(|peer| {
                let peer = peer.ip().to_canonical();
                self.trusted_proxies.iter().any(|network| network.contains(&peer))
            })
    }

    /// Returns whether the peer is a gateway that may name users.
    pub(crate) fn is_gateway(&self, connection: &Connection) -> bool {
        self.users.trusts(connection.peer.map(|peer| peer.ip()))
    }

    pub(crate) fn route(&self, index: usize) -> &Route {
        self.routes.route(index)
    }

    /// Returns the leak watch of a route; `None` if the route is not watched for leaks.
    pub(super) fn watch(&self, index: usize) -> Option<&Arc<RouteSampler>> {
        self.watches.get(index)?.as_ref()
    }

    /// Returns the same configuration with new leak watches.
    pub(super) fn watched(self) -> Self {
        let watches =
            self.routes.each().map(|route| route.is_watched().then(RouteSampler::new)).collect();
        Self { watches, ..self }
    }

    /// Returns the same configuration with verification figures that continue those in `previous`.
    pub(super) fn measured(self, previous: &FiguresByRoute, metrics: &Arc<Metrics>) -> Self {
        let figures = FiguresByRoute::following(previous, &self.routes, metrics);
        Self { figures, ..self }
    }

    /// Returns the same configuration, with the state of quarantine that `state_of` returns for each
    /// route.
    pub(super) fn with_quarantine(&self, state_of: impl Fn(&Route) -> QuarantineState) -> Self {
        let routes = self.routes.with_quarantine(state_of);
        Self { id: SnapshotId::next(), routes, ..self.clone() }
    }

    /// Returns the GraphQL route at an index; `None` if the route is not GraphQL.
    pub(super) fn graphql_route(&self, index: usize) -> Option<(usize, &GraphqlRule)> {
        Some((index, self.route(index).graphql.as_deref()?))
    }

    /// Returns all routes in order, with the route for unmatched requests at the end.
    pub(crate) fn all_routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.routes().iter().chain([self.routes.unmatched()]).map(AsRef::as_ref)
    }

    pub(crate) fn route_name(&self, index: usize) -> &str {
        &self.route(index).name
    }

    /// Returns the attributes of a response stored for a route and a member of its partition.
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
