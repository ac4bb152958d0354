//! Wiring: starts listeners from a configuration, and replaces it on reload.

mod assemble;
mod claims;
mod config_tests;
mod explain;
mod files;
mod issuers;
mod namespace;
mod pressure;
mod reload;
mod sampling;
mod task_supervisor;
mod workers;

use std::{
    io::Write,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::FutureExt as _;
use parking_lot::Mutex;

pub use config_tests::run_tests;
pub use explain::Explainer;
pub(crate) use files::raise_file_limit;
use issuers::IssuerKeys;
pub(crate) use reload::ConfigWatcher;
use task_supervisor::TaskSupervisor;
pub use workers::Workers;

use crate::{
    admin::{Admin, AdminServices, QuarantineService, Readiness, ReadinessReport},
    config::{Config, ListenAddress},
    feed::{AppliedRecords, Caller, Feed},
    forward::{ViaIdentity, request_id},
    key::uri::TargetUri,
    parsing::ParseQueue,
    pipeline::{
        Clock, LocalResponse, Pipeline, VerificationReport, Warmer, follow_denials,
        follow_quarantine, warm_purged,
    },
    purge::PurgeLog,
    server::{
        self, BoundAddress, Drain, FastPathMode, Listener, ListenerCounters, RefusedRequest,
        TcpOptions, tls::Certificates,
    },
    store::TieredStore,
    telemetry::{AccessLog, Metrics, ReloadResult, log::LogQueue},
    trigger::{
        AccessRecord, EndpointRouter, ExtraEndpoints, Purger, RouterDependencies, SelectorResolver,
    },
};

/// The time limit at shutdown for pending writes to the shared store.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The time limit at shutdown for pending admin calls.
const ADMIN_DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// The permissions of public Unix sockets: any local user may connect, as to a loopback port.
const PUBLIC_SOCKET_MODE: u32 = 0o666;
/// The permissions of the admin Unix socket: only the node's own user may connect.
const ADMIN_SOCKET_MODE: u32 = 0o600;

/// A running node.
pub struct Node {
    pipeline: Arc<Pipeline<TieredStore>>,
    router: Arc<EndpointRouter<Pipeline<TieredStore>>>,
    feed: Arc<Feed>,
    task_supervisor: Arc<TaskSupervisor>,
    admin: Arc<Admin>,
    metrics: Arc<Metrics>,
    certificates: Option<Arc<Certificates>>,
    drain: Drain,
    admin_drain: Drain,
    drain_times: Mutex<DrainTimes>,
    initial_config: Box<Config>,
    log_queue: Arc<LogQueue>,
    identity: ViaIdentity,
    issuers: IssuerKeys,
    version: Arc<str>,
    addresses: Vec<BoundAddress>,
    admin_address: Option<BoundAddress>,
}

/// The time limits of a shutdown.
#[derive(Debug, Clone, Copy)]
struct DrainTimes {
    delay: Duration,
    time: Duration,
}

impl DrainTimes {
    fn of(config: &Config) -> Self {
        Self { delay: config.limits.drain_delay, time: config.limits.drain }
    }
}

/// The parts of a node that do not come from the configuration.
pub struct NodeDependencies {
    /// The source of wall-clock time.
    pub clock: Clock,
    /// The output of the access log, written by a dedicated thread.
    pub access_log: Box<dyn Write + Send>,
    /// The threads that serve connections.
    pub workers: Workers,
    /// The requests whose hits are sent without hyper. Only tests change the default.
    pub fast_path: FastPathMode,
}

impl Node {
    /// Binds every listener of `config` and starts to serve.
    ///
    /// Connections are served on the current runtime or on dedicated threads. If starting fails,
    /// everything that was started is stopped.
    pub fn start(config: &Config, options: NodeDependencies) -> anyhow::Result<Self> {
        let NodeDependencies { clock, access_log, workers, fast_path } = options;
        let metrics = Metrics::new();
        let log_queue = AccessLog::queue(access_log, metrics.access_log_dropped.clone());
        let log_queue = log_queue.context("cannot start the access log")?;
        let counters = Arc::<ListenerCounters>::default();
        let listeners = bind_all(config, &counters)?;
        let admin_listener = config.admin.listen.as_ref().map(bind_admin).transpose()?;
        let certificates = assemble::certificates(config)?;
        let identity = ViaIdentity::random();
        let version = config.store.version.as_str().into();
        let issuers = IssuerKeys::new();
        let own = (&identity, &version, &issuers);
        let site = assemble::site(config, own, &metrics, Some(&log_queue))?;
        let store = assemble::store(config, &metrics)?;
        let log = Arc::new(assemble::log(config)?);
        let parsing = ParseQueue::default();
        let pipeline = Pipeline::new(
            site,
            store,
            Arc::clone(&log),
            clock.clone(),
            (Arc::clone(&metrics), parsing.clone()),
        );
        let settings = server::Settings {
            on_refusal: Some(log_refusals(&pipeline)),
            fast_path,
            ..assemble::server(config, certificates.clone())?
        };
        let settings = Arc::new(settings);
        let watched = (Arc::clone(&pipeline), Arc::clone(&counters), settings.pressure.clone());
        tokio::spawn(pressure::watch(config.store.memory, watched.0, watched.1, watched.2));
        let purger = purger(&pipeline, log, &metrics);
        let task_supervisor =
            TaskSupervisor::start(config, &pipeline, &purger, clock.clone(), &metrics)?;
        let feed = feed(config, (&task_supervisor, clock.clone()), &pipeline, &metrics);
        let router =
            router(config, &pipeline, (&purger, &feed, &metrics), (clock.clone(), parsing));
        let drain = Drain::new();
        let sampler = sampling::Sampler::new(
            &pipeline,
            &task_supervisor,
            &metrics,
            (&counters, &settings.pressure),
        );
        let node = Self {
            router,
            feed,
            task_supervisor,
            admin: admin(config, &pipeline, purger, sampler, drain.clone()),
            metrics,
            certificates,
            drain,
            admin_drain: Drain::new(),
            drain_times: Mutex::new(DrainTimes::of(config)),
            initial_config: Box::new(config.clone()),
            log_queue,
            identity,
            issuers,
            version,
            addresses: addresses(&listeners)?,
            admin_address: admin_listener.as_ref().map(Listener::local_addr).transpose()?,
            pipeline,
        };
        tokio::spawn(namespace::adopt_previous_version(
            Arc::clone(&node.pipeline),
            config.store.clone(),
            clock,
        ));
        let warmer = Arc::new(Warmer::new(Arc::clone(&node.pipeline)));
        tokio::spawn(node.pipeline.warm_queue().clone().run(warmer));
        tokio::spawn(warm_purged(Arc::clone(&node.pipeline)));
        tokio::spawn(follow_denials(Arc::clone(&node.pipeline)));
        tokio::spawn(follow_quarantine(Arc::clone(&node.pipeline)));
        let (feed, applied) = (Arc::clone(&node.feed), AppliedRecords::of(node.pipeline.log()));
        tokio::spawn(async move { feed.follow(applied).await });
        for listener in listeners {
            let (handler, drain) = (Arc::clone(&node.router), node.drain.clone());
            workers.serve(listener, &handler, &settings, &drain)?;
        }
        if let Some(listener) = admin_listener {
            let (admin, drain) = (Arc::clone(&node.admin), node.admin_drain.clone());
            let settings = Arc::new(assemble::admin_server());
            let serve = server::serve(listener, admin, settings, drain);
            tokio::spawn(serve);
        }
        Ok(node)
    }

    /// Returns the public addresses, with the ports that the system chose.
    pub fn addresses(&self) -> &[BoundAddress] {
        &self.addresses
    }

    /// Returns the first public TCP address.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.addresses.iter().find_map(|address| match address {
            BoundAddress::Tcp(address) => Some(*address),
            BoundAddress::Unix(_) => None,
        })
    }

    /// Returns the address of the admin listener.
    pub fn admin_address(&self) -> Option<&BoundAddress> {
        self.admin_address.as_ref()
    }

    /// Applies the parts of a new configuration that do not need a restart.
    ///
    /// These are the routes, the origin, webhooks, schedules, polls, tokens and the access log. The
    /// cache is kept, and requests in progress finish under the old configuration.
    pub fn reconfigure(&self, config: &Config) -> anyhow::Result<()> {
        let own = (&self.identity, &self.version, &self.issuers);
        let site = assemble::site(config, own, &self.metrics, Some(&self.log_queue))?;
        // The step that can fail comes first, before anything is replaced.
        self.reload_certificates(config)?;
        for setting in config.needs_restart(&self.initial_config) {
            tracing::warn!(setting, "a changed setting takes effect only after a restart");
        }
        *self.drain_times.lock() = DrainTimes::of(config);
        self.task_supervisor.replace(config)?;
        self.pipeline.replace(site);
        self.pipeline.log().set_retention(assemble::retention(config));
        self.pipeline.store().set_stale_for(assemble::stale_for(config));
        self.router.replace(assemble::endpoints(config));
        self.feed.replace(config.events.clone());
        self.admin.replace(assemble::admin(config));
        self.metrics.record_reload(ReloadResult::Succeeded);
        Ok(())
    }

    /// Records that a new configuration was rejected.
    pub fn reload_failed(&self) {
        self.metrics.record_reload(ReloadResult::Failed);
    }

    /// Reloads the listeners' certificates. Keeps the old certificates on failure.
    fn reload_certificates(&self, config: &Config) -> anyhow::Result<()> {
        if let (Some(certificates), Some(files)) = (&self.certificates, &config.tls) {
            let reloaded = certificates.reload(&files.cert, &files.key);
            reloaded.context("cannot reload the certificate")?;
        }
        Ok(())
    }

    /// Drains the node, and returns the number of connections that remain open.
    ///
    /// Readiness fails at once. After the configured delay the node stops accepting, and waits for
    /// active requests and tunnels up to the configured time limits.
    pub async fn drain(&self) -> usize {
        let DrainTimes { delay, time } = *self.drain_times.lock();
        self.drain.leave();
        tokio::time::sleep(delay).await;
        self.drain.start();
        self.feed.close();
        let writes = self.pipeline.drain_writes(time);
        let (cut, ()) = tokio::join!(self.drain.finished(time), writes);
        let flushed = self.pipeline.store().flush();
        let _written_or_lost = tokio::time::timeout(FLUSH_TIMEOUT, flushed).await;
        // All responses are complete, so purges no longer have to wait for this node.
        self.pipeline.log().leave().await;
        self.admin_drain.start();
        self.admin_drain.finished(ADMIN_DRAIN_TIMEOUT).await;
        cut
    }

    /// Flushes the access log. Blocks for up to a second.
    pub fn flush_log(&self) {
        self.log_queue.flush(Duration::from_secs(1));
    }

    /// Returns the number of open client connections.
    pub fn open_connections(&self) -> usize {
        self.drain.open()
    }
}

/// Creates the handler of the admin listener.
fn admin(
    config: &Config,
    pipeline: &Arc<Pipeline<TieredStore>>,
    purger: Arc<Purger>,
    sampler: sampling::Sampler,
    draining: Drain,
) -> Arc<Admin> {
    let explain = explain::for_node(pipeline);
    let quarantine = quarantine(pipeline);
    let verified = Arc::clone(pipeline);
    let verification = move || {
        let report: VerificationReport = verified.verification_report();
        serde_json::to_vec(&report).unwrap_or_default()
    };
    let pipeline = Arc::clone(pipeline);
    let readiness = move || {
        let is_draining = draining.is_leaving();
        let readiness = if is_draining { Readiness::Draining } else { Readiness::Ready };
        ReadinessReport { readiness, details: details(&pipeline) }
    };
    let services = AdminServices {
        purger,
        readiness: Box::new(readiness),
        refresh: Box::new(move || sampler.sample()),
        explain,
        quarantine,
        verification: Box::new(verification),
    };
    Arc::new(Admin::new(assemble::admin(config), services))
}

/// Returns the quarantine of a pipeline's routes, for the admin API.
fn quarantine(pipeline: &Arc<Pipeline<TieredStore>>) -> QuarantineService {
    let (listed, cleared) = (Arc::clone(pipeline), Arc::clone(pipeline));
    QuarantineService {
        list: Box::new(move || listed.quarantined_routes()),
        clear: Box::new(move |route| {
            let pipeline = Arc::clone(&cleared);
            async move { pipeline.clear_quarantine(&route).await }.boxed()
        }),
    }
}

/// Returns the state of Redis and the purge log, if Redis is configured.
fn details(pipeline: &Pipeline<TieredStore>) -> Vec<String> {
    let Some(redis) = pipeline.store().health_line() else { return Vec::new() };
    let is_synced = pipeline.log().applied_purges().is_synced(Instant::now());
    let log = if is_synced { "purge log: synced" } else { "purge log: unsynced" };
    vec![redis, log.to_owned()]
}

/// Creates a purger that normalizes URLs as this pipeline's keys do.
fn purger(
    pipeline: &Arc<Pipeline<TieredStore>>,
    log: Arc<PurgeLog>,
    metrics: &Arc<Metrics>,
) -> Arc<Purger> {
    let pipeline = Arc::clone(pipeline);
    let of_users = Arc::clone(&pipeline);
    let resolver = SelectorResolver {
        normalize: Box::new(move |target: &TargetUri<'_>| pipeline.purge_selectors(target)),
        owners: Box::new(move |issuer, claim| of_users.owners(issuer, claim)),
    };
    Arc::new(Purger::new(log, Arc::clone(metrics), resolver))
}

/// Creates the event feed.
fn feed(
    config: &Config,
    (task_supervisor, clock): (&Arc<TaskSupervisor>, Clock),
    pipeline: &Arc<Pipeline<TieredStore>>,
    metrics: &Arc<Metrics>,
) -> Arc<Feed> {
    let task_supervisor = Arc::clone(task_supervisor);
    let (versions, now) = (move || task_supervisor.versions(), move || clock.now());
    let feed = Feed::new(config.events.clone(), Arc::clone(metrics), versions, now);
    let pipeline = Arc::clone(pipeline);
    Arc::new(feed.with_users(move |headers, peer| pipeline.identify((headers, peer))))
}

/// Returns an observer that logs requests rejected by the server.
fn log_refusals(pipeline: &Arc<Pipeline<TieredStore>>) -> server::RefusalObserver {
    let pipeline = Arc::clone(pipeline);
    Arc::new(move |refused: &RefusedRequest<'_>| {
        pipeline.log_local_response(&LocalResponse {
            request_id: refused.headers.and_then(request_id::from_headers),
            method: refused.method,
            host: refused.host(),
            path: refused.path,
            route: "",
            status: refused.status,
            bytes: refused.bytes,
            duration: Duration::ZERO,
            reason: Some(refused.refusal.as_str()),
        });
    })
}

/// Returns an observer that counts and logs responses of Larder's own endpoints.
fn log_local_responses(
    pipeline: &Arc<Pipeline<TieredStore>>,
    metrics: &Arc<Metrics>,
) -> Box<dyn Fn(&AccessRecord) + Send + Sync> {
    let (pipeline, metrics) = (Arc::clone(pipeline), Arc::clone(metrics));
    Box::new(move |record| {
        metrics.count_local_response(record.endpoint, record.status);
        pipeline.log_local_response(&LocalResponse {
            request_id: request_id::from_headers(&record.headers),
            method: Some(&record.method),
            host: record.host(),
            path: record.uri.path(),
            route: "larder",
            status: record.status,
            bytes: record.bytes,
            duration: record.started.elapsed(),
            reason: None,
        });
    })
}

/// Creates the handler of the public listeners.
fn router(
    config: &Config,
    pipeline: &Arc<Pipeline<TieredStore>>,
    (purger, feed, metrics): (&Arc<Purger>, &Arc<Feed>, &Arc<Metrics>),
    (clock, parsing): (Clock, ParseQueue),
) -> Arc<EndpointRouter<Pipeline<TieredStore>>> {
    let (feed, of_users) = (Arc::clone(feed), Arc::clone(pipeline));
    let extra: ExtraEndpoints =
        Box::new(move |request, [peer, client]| feed.respond(request, &Caller { peer, client }));
    let parts = RouterDependencies {
        purger: Arc::clone(purger),
        extra,
        identify: Box::new(move |headers, peer| of_users.identify((headers, peer))),
        now: Box::new(move || clock.now()),
        parsing,
        on_response: log_local_responses(pipeline, metrics),
    };
    EndpointRouter::new(Arc::clone(pipeline), assemble::endpoints(config), parts)
}

/// Binds the admin listener, which other processes cannot share, because health is checked per
/// node.
fn bind_admin(listen: &ListenAddress) -> anyhow::Result<Listener> {
    bind(listen, |_| TcpOptions::default(), ADMIN_SOCKET_MODE)
}

/// Binds the public listeners, which share one connection limit.
fn bind_all(config: &Config, counters: &Arc<ListenerCounters>) -> anyhow::Result<Vec<Listener>> {
    let options = |address: &SocketAddr| TcpOptions {
        only_v6: has_v4_twin(address, &config.listen),
        reuse_port: config.reuse_port,
    };
    let listen = config.listen.iter();
    listen.map(|each| Ok(bind(each, options, PUBLIC_SOCKET_MODE)?.sharing(counters))).collect()
}

/// Returns whether the port of an IPv6 address is also listed with an IPv4 address. Otherwise the
/// IPv6 socket accepts both families.
fn has_v4_twin(address: &SocketAddr, listen: &[ListenAddress]) -> bool {
    let mut others = listen.iter().filter_map(|other| match other {
        ListenAddress::Tcp(other) => Some(other),
        ListenAddress::Unix(_) => None,
    });
    address.is_ipv6() && others.any(|other| other.is_ipv4() && other.port() == address.port())
}

fn bind(
    listen: &ListenAddress,
    options: impl Fn(&SocketAddr) -> TcpOptions,
    default_mode: u32,
) -> anyhow::Result<Listener> {
    let bound = match listen {
        ListenAddress::Tcp(address) => Listener::bind_tcp_with(*address, options(address)),
        ListenAddress::Unix(socket) => {
            Listener::bind_unix(&socket.path, socket.mode.unwrap_or(default_mode))
        }
    };
    bound.with_context(|| {
        format!("cannot listen on {listen}: stop the process that listens there, or choose another address")
    })
}

fn addresses(listeners: &[Listener]) -> anyhow::Result<Vec<BoundAddress>> {
    listeners.iter().map(|listener| Ok(listener.local_addr()?)).collect()
}
