//! What a configuration makes of the pipeline; replaced as a whole on reload, while the cache stays.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ipnet::IpNet;

use crate::{
    fence::OwnFacets,
    origin::{Origin, rewrite::Identity},
    route::{Route, RouteTable},
    telemetry::{AccessLog, RouteMetrics},
};

/// The parts of the pipeline that come out of the configuration.
pub struct Site {
    /// This configuration and no other.
    pub id: SiteId,
    /// Which rule governs a request.
    pub routes: RouteTable,
    /// The routes' metric handles, by the route's index.
    pub metrics: Vec<RouteMetrics>,
    /// The version of the namespace in which responses are stored.
    pub version: Arc<str>,
    /// Who is asked for what is not stored.
    pub origin: Arc<Origin>,
    /// How forwarded messages are signed.
    pub identity: Identity,
    /// Whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Where requests are logged, if they are.
    pub access_log: Option<Arc<AccessLog>>,
    /// What may be stored of one body, in bytes.
    pub max_object: u64,
    /// Whether responses say where their time went (`Server-Timing`).
    pub server_timing: ServerTiming,
}

/// Tells one configuration from every other of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SiteId(u64);

impl SiteId {
    /// An identity not given out before.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Whether responses carry `Server-Timing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerTiming {
    /// They do not.
    #[default]
    Off,
    /// They do.
    On,
}

impl Site {
    /// The route with this index.
    pub fn route(&self, index: usize) -> &Route {
        self.routes.route(index)
    }

    /// The name of the route with this index.
    pub fn route_name(&self, index: usize) -> &str {
        &self.route(index).name
    }

    /// What a response stored under the route with this index is known by.
    pub fn facets(&self, index: usize) -> OwnFacets {
        let (route, version) = (Arc::clone(&self.route(index).name), Arc::clone(&self.version));
        OwnFacets { user: None, route: Some(route), version: Some(version) }
    }
}
