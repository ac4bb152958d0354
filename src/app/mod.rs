//! Wiring: turns a configuration into running listeners, and swaps it on reload.

mod assemble;
mod claims;
mod expected;
mod explain;
mod files;
mod issuers;
mod pressure;
mod reload;
mod sampling;
mod succession;
mod timers;
mod workers;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;

pub use assemble::Sink;
pub use expected::{Failure, run_tests};
pub use explain::Explainer;
pub use files::raise as raise_file_limit;
use issuers::Issuers;
pub use reload::Watch;
use timers::Timers;
pub use workers::Workers;

use crate::{
    admin::{Admin, Readiness, Report},
    config::{Config, ListenAddress},
    feed::{Applied, Caller, Feed},
    forward::Identity,
    key::target::Target,
    parsing::Parsing,
    pipeline::{Clock, Pipeline, Warmer, follow_denials, warm_purged},
    purge::Log,
    server::{Address, Counters, Drain, Listener, tls::Certificates},
    store::Tiered,
    telemetry::{Metrics, Reload},
    trigger::{Front, FrontParts, Further, Purger, Resolver},
};

/// How long what is still to be written to the shared store may hold up the end.
const FLUSH: Duration = Duration::from_secs(1);

/// A running node.
pub struct Node {
    pipeline: Arc<Pipeline<Tiered>>,
    front: Arc<Front<Pipeline<Tiered>>>,
    feed: Arc<Feed>,
    timers: Arc<Timers>,
    admin: Arc<Admin>,
    metrics: Arc<Metrics>,
    certificates: Option<Arc<Certificates>>,
    drain: Drain,
    admin_drain: Drain,
    drain_time: Duration,
    sink: Sink,
    identity: Identity,
    issuers: Issuers,
    version: Arc<str>,
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
        let counters = Arc::<Counters>::default();
        let listeners = bind_all(&config.listen, &counters)?;
        let admin_listener = config.admin.listen.as_ref().map(bind).transpose()?;
        let certificates = assemble::certificates(config)?;
        let settings = Arc::new(assemble::server(config, certificates.clone())?);
        let identity = Identity::random();
        let version = config.store.version.as_str().into();
        let issuers = Issuers::new();
        let own = (&identity, &version, &issuers);
        let site = assemble::site(config, own, &metrics, &sink)?;
        let store = assemble::store(config, &metrics)?;
        let log = Arc::new(assemble::log(config)?);
        let parsing = Parsing::default();
        let pipeline = Pipeline::new(
            site,
            store,
            Arc::clone(&log),
            clock.clone(),
            (Arc::clone(&metrics), parsing.clone()),
        );
        let watched = (Arc::clone(&pipeline), Arc::clone(&counters), settings.pressure.clone());
        tokio::spawn(pressure::watch(config.store.memory, watched.0, watched.1, watched.2));
        let purger = purger(&pipeline, log, &metrics);
        let timers = Timers::start(config, &pipeline, &purger, clock.clone(), &metrics)?;
        let feed = feed(config, (&timers, clock.clone()), &pipeline, &metrics);
        let front = front(config, &pipeline, (&purger, &feed), (clock.clone(), parsing));
        let drain = Drain::new();
        let sampler =
            sampling::Sampler::new(&pipeline, &timers, &metrics, (&counters, &settings.pressure));
        let node = Self {
            front,
            feed,
            timers,
            admin: admin(config, &pipeline, purger, sampler, drain.clone()),
            metrics,
            certificates,
            drain,
            admin_drain: Drain::new(),
            drain_time: config.limits.drain,
            sink,
            identity,
            issuers,
            version,
            addresses: addresses(&listeners)?,
            admin_address: admin_listener.as_ref().map(Listener::local_addr).transpose()?,
            pipeline,
        };
        tokio::spawn(succession::succeed(Arc::clone(&node.pipeline), config.store.clone(), clock));
        let warmer = Arc::new(Warmer::new(Arc::clone(&node.pipeline)));
        tokio::spawn(node.pipeline.warm().clone().run(warmer));
        tokio::spawn(warm_purged(Arc::clone(&node.pipeline)));
        tokio::spawn(follow_denials(Arc::clone(&node.pipeline)));
        let (feed, applied) = (Arc::clone(&node.feed), Applied::of(node.pipeline.log()));
        tokio::spawn(async move { feed.follow(applied).await });
        for listener in listeners {
            let (handler, drain) = (Arc::clone(&node.front), node.drain.clone());
            workers.serve(listener, &handler, &settings, &drain)?;
        }
        if let Some(listener) = admin_listener {
            let (admin, drain) = (Arc::clone(&node.admin), node.admin_drain.clone());
            let settings = Arc::new(assemble::admin_server());
            let serve = crate::server::serve(listener, admin, settings, drain);
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
    /// webhooks, schedules, polls, tokens, access log. The cache is kept, and requests under way end under
    /// the old configuration.
    pub fn reconfigure(&self, config: &Config) -> anyhow::Result<()> {
        if *config.store.version != *self.version {
            tracing::warn!(in_force = &*self.version, "a new `store.version` takes a restart");
        }
        let own = (&self.identity, &self.version, &self.issuers);
        let site = assemble::site(config, own, &self.metrics, &self.sink)?;
        self.timers.replace(config)?;
        self.pipeline.replace(site);
        self.pipeline.log().retain(assemble::retention(config));
        self.front.replace(assemble::front(config));
        self.feed.replace(config.events.clone());
        self.admin.replace(assemble::tokens(config));
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
        self.feed.close();
        let writes = self.pipeline.writes_finished(self.drain_time);
        let (cut, ()) = tokio::join!(self.drain.finished(self.drain_time), writes);
        let flushed = self.pipeline.store().flushed();
        let _written_or_lost = tokio::time::timeout(FLUSH, flushed).await;
        // After the last response: from here on no purge waits for this node.
        self.pipeline.log().leave().await;
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

/// What answers operators.
fn admin(
    config: &Config,
    pipeline: &Arc<Pipeline<Tiered>>,
    purger: Arc<Purger>,
    sampler: sampling::Sampler,
    draining: Drain,
) -> Arc<Admin> {
    let explain = explain::of_node(pipeline);
    let pipeline = Arc::clone(pipeline);
    let readiness = move || {
        let is_draining = draining.is_started();
        let readiness = if is_draining { Readiness::Draining } else { Readiness::Ready };
        Report { readiness, details: details(&pipeline) }
    };
    let tokens = assemble::tokens(config);
    let admin = Admin::new(tokens, purger, readiness, move || sampler.sample());
    Arc::new(admin.explaining(explain))
}

/// How Redis and the purge log are, where there is a Redis.
fn details(pipeline: &Pipeline<Tiered>) -> Vec<String> {
    let Some(redis) = pipeline.store().state_line() else { return Vec::new() };
    let is_synced = pipeline.log().fences().is_synced(Instant::now());
    let log = if is_synced { "purge log: synced" } else { "purge log: unsynced" };
    vec![redis, log.to_owned()]
}

/// What purges by URLs in the form of this pipeline's keys.
fn purger(pipeline: &Arc<Pipeline<Tiered>>, log: Arc<Log>, metrics: &Arc<Metrics>) -> Arc<Purger> {
    let pipeline = Arc::clone(pipeline);
    let of_users = Arc::clone(&pipeline);
    let resolver = Resolver {
        normal: Box::new(move |target: &Target<'_>| pipeline.url(target)),
        owners: Box::new(move |issuer, claim| of_users.owners(issuer, claim)),
    };
    Arc::new(Purger::new(log, Arc::clone(metrics), resolver))
}

/// What clients hear of purges.
fn feed(
    config: &Config,
    (timers, clock): (&Arc<Timers>, Clock),
    pipeline: &Arc<Pipeline<Tiered>>,
    metrics: &Arc<Metrics>,
) -> Arc<Feed> {
    let timers = Arc::clone(timers);
    let (versions, now) = (move || timers.versions(), move || clock.now());
    let feed = Feed::new(config.events.clone(), Arc::clone(metrics), versions, now);
    let pipeline = Arc::clone(pipeline);
    Arc::new(feed.with_users(move |headers, peer| pipeline.identify((headers, peer))))
}

/// What answers clients.
fn front(
    config: &Config,
    pipeline: &Arc<Pipeline<Tiered>>,
    (purger, feed): (&Arc<Purger>, &Arc<Feed>),
    (clock, parsing): (Clock, Parsing),
) -> Arc<Front<Pipeline<Tiered>>> {
    let (feed, of_users) = (Arc::clone(feed), Arc::clone(pipeline));
    let further: Further =
        Box::new(move |request, [peer, client]| feed.answer(request, &Caller { peer, client }));
    let parts = FrontParts {
        purger: Arc::clone(purger),
        further,
        identify: Box::new(move |headers, peer| of_users.identify((headers, peer))),
        now: Box::new(move || clock.now()),
        parsing,
    };
    Front::new(Arc::clone(pipeline), assemble::front(config), parts)
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
