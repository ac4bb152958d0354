//! Wiring: turns a configuration into running listeners, and swaps it on reload.

mod assemble;
mod reload;
mod sampling;
mod workers;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;

pub use assemble::Sink;
pub use reload::Watch;
pub use workers::Workers;

use crate::{
    admin::{Admin, Readiness},
    config::{Config, ListenAddress},
    origin::rewrite::Identity,
    pipeline::{Clock, Pipeline},
    server::{Address, Counters, Drain, Listener, tls::Certificates},
    store::Memory,
    telemetry::{Metrics, Reload},
};

/// A running node.
pub struct Node {
    pipeline: Arc<Pipeline<Memory>>,
    metrics: Arc<Metrics>,
    certificates: Option<Arc<Certificates>>,
    drain: Drain,
    admin_drain: Drain,
    drain_time: Duration,
    sink: Sink,
    identity: Identity,
    addresses: Vec<Address>,
    admin_address: Option<Address>,
}

/// What a node is given besides its configuration.
pub struct Surroundings {
    /// The clock.
    pub clock: Clock,
    /// Where the access log goes.
    pub sink: Sink,
    /// Whose threads serve connections.
    pub workers: Workers,
}

impl Node {
    /// Binds every listener of `config` and starts to serve on the current runtime or on threads of
    /// its own. Nothing is left behind where it fails.
    pub fn start(config: &Config, surroundings: Surroundings) -> anyhow::Result<Self> {
        let Surroundings { clock, sink, workers } = surroundings;
        let metrics = Metrics::new();
        let counters = Arc::default();
        let listeners = bind_all(&config.listen, &counters)?;
        let admin_listener = config.admin.listen.as_ref().map(bind).transpose()?;
        let certificates = assemble::certificates(config)?;
        let settings = Arc::new(assemble::server(config, certificates.clone())?);
        let identity = Identity::random();
        let site = assemble::site(config, &identity, &metrics, &sink)?;
        let memory = Memory::new(config.store.memory, config.store.max_object);
        let pipeline = Pipeline::new(site, memory, clock, Arc::clone(&metrics));
        let node = Self {
            metrics: Arc::clone(&metrics),
            certificates,
            drain: Drain::new(),
            admin_drain: Drain::new(),
            drain_time: config.limits.drain,
            sink,
            identity,
            addresses: addresses(&listeners)?,
            admin_address: admin_listener.as_ref().map(Listener::local_addr).transpose()?,
            pipeline,
        };
        let sampler = sampling::Sampler::new(&node.pipeline, &metrics, &counters);
        for listener in listeners {
            let (handler, drain) = (Arc::clone(&node.pipeline), node.drain.clone());
            workers.serve(listener, &handler, &settings, &drain)?;
        }
        if let Some(listener) = admin_listener {
            let draining = node.drain.clone();
            let readiness = move || {
                if draining.is_started() { Readiness::Draining } else { Readiness::Ready }
            };
            let tokens = assemble::tokens(config);
            let admin = Admin::new(tokens, metrics, readiness, move || sampler.sample());
            let settings = Arc::new(crate::server::Settings::default());
            let serve =
                crate::server::serve(listener, Arc::new(admin), settings, node.admin_drain.clone());
            tokio::spawn(serve);
        }
        Ok(node)
    }

    /// Where clients reach it, with the ports that the system chose.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The first TCP address that clients reach it at.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.addresses.iter().find_map(|address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        })
    }

    /// Where operators reach it.
    pub fn admin_address(&self) -> Option<&Address> {
        self.admin_address.as_ref()
    }

    /// Puts another configuration in force, as far as that goes without a restart: routes, origin,
    /// access log. The cache is kept, and requests under way end under the old configuration.
    pub fn reconfigure(&self, config: &Config) -> anyhow::Result<()> {
        let site = assemble::site(config, &self.identity, &self.metrics, &self.sink)?;
        self.pipeline.replace(site);
        self.metrics.reloaded(Reload::Succeeded);
        Ok(())
    }

    /// Notes that a new configuration was refused.
    pub fn reload_failed(&self) {
        self.metrics.reloaded(Reload::Failed);
    }

    /// Reads the listeners' certificates anew; keeps the old ones where that fails.
    pub fn reload_certificates(&self) -> anyhow::Result<()> {
        if let Some(certificates) = &self.certificates {
            certificates.reload().context("the certificate was not reloaded")?;
        }
        Ok(())
    }

    /// Stops accepting, fails readiness, lets requests under way end for as long as configured, and
    /// gives the number of connections that have to be cut.
    pub async fn drained(&self) -> usize {
        self.drain.start();
        let cut = self.drain.finished(self.drain_time).await;
        self.admin_drain.start();
        cut
    }

    /// Writes out what the access log still holds. Blocks, for a second at most.
    pub fn flush_log(&self) {
        self.pipeline.flush_log(Duration::from_secs(1));
    }

    /// Client connections open now.
    pub fn open_connections(&self) -> usize {
        self.drain.open()
    }
}

/// The public listeners, which share one limit on connections.
fn bind_all(listen: &[ListenAddress], counters: &Arc<Counters>) -> anyhow::Result<Vec<Listener>> {
    listen.iter().map(|address| Ok(bind(address)?.sharing(counters))).collect()
}

fn bind(listen: &ListenAddress) -> anyhow::Result<Listener> {
    let address = match listen {
        ListenAddress::Tcp(address) => Address::Tcp(*address),
        ListenAddress::Unix(path) => Address::Unix(path.clone()),
    };
    Listener::bind(&address).with_context(|| {
        format!("cannot listen on {address}: stop what listens there, or choose another address")
    })
}

fn addresses(listeners: &[Listener]) -> anyhow::Result<Vec<Address>> {
    listeners.iter().map(|listener| Ok(listener.local_addr()?)).collect()
}
