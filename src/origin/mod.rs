//! The origin: connections, balancing, health, retries, and what is rewritten on the way.

mod acquire;
pub(crate) mod body;
mod capacity;
mod connect;
pub(crate) mod document;
pub(crate) mod document_url;
pub(crate) mod error;
mod health;
mod http1;
mod http2;
mod outlier;
mod pool;
pub(crate) mod random;
mod resolve;
mod response_guard;
mod server;
pub(crate) mod settings;
pub(crate) mod tls;
pub(crate) mod upgrade;
mod waiters;

use std::sync::{Arc, atomic::Ordering::Relaxed};

use http::{Request, Response, Uri};
use smallvec::SmallVec;

pub use capacity::OriginLoad;
#[cfg(fuzzing)]
pub use http1::fuzzed;
pub(crate) use settings::HostHeader;
pub use settings::{ConnectionLimits, Endpoint, Settings};
pub(crate) use {body::CompletionProof, body::ResponseBodyError, body::UploadProgress};
pub use {body::RequestBody, body::ResponseBody};
pub use {error::OriginError, error::UploadFailure};
pub(crate) use {error::RequestDelivery, error::SendFailure};

use crate::{field::forwarding::is_overridden, server::InterimSender};
use server::OriginServer;
use settings::OriginScheme;

/// The servers behind Larder, as one.
pub struct Origin {
    servers: Vec<Arc<OriginServer>>,
    retries: u32,
    tasks: health::BackgroundTasks,
}

/// Why an origin cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// There is no server.
    #[error("an origin needs at least one URL")]
    NoServer,
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] tls::OriginTlsError),
    /// The path of the health checks is no path.
    #[error("the path of health checks must begin with `/`")]
    HealthPath,
}

impl Origin {
    /// Sets the origin up; opens no connection yet. Health checks run on the runtime that this is called on.
    pub fn new(settings: &Settings) -> Result<Arc<Self>, SetupError> {
        if settings.urls.is_empty() {
            return Err(SetupError::NoServer);
        }
        let is_secure = settings.urls.iter().any(|url| url.scheme == OriginScheme::Https);
        let tls = is_secure.then(|| tls::ClientConfigs::new(&settings.tls)).transpose()?;
        let servers: Vec<_> = settings
            .urls
            .iter()
            .map(|url| OriginServer::new(url, settings, tls.as_ref()).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let health = match &settings.health {
            Some(health) => Some((health, health_target(&health.path)?)),
            None => None,
        };
        let tasks = health::start(&servers, health.as_ref(), settings.keep_alive);
        Ok(Arc::new(Self { servers, retries: settings.retries, tasks }))
    }

    /// Sends a request whose target is a path and query (or `*`) and gives the final response's head; its body
    /// streams. 1xx responses go to `interim`, except 100, which releases the client's body.
    ///
    /// A request of which nothing was sent goes to another server, up to `retries` times; also one that was
    /// sent, where its method is safe and it has no streamed body. Dropping the future gives the request up.
    pub async fn send(
        &self,
        mut request: Request<RequestBody>,
        interim: Option<&InterimSender>,
    ) -> Result<Response<ResponseBody>, SendFailure> {
        let mut tried = SmallVec::<[usize; 4]>::new();
        let (mut delivery, mut is_disconnected) = (RequestDelivery::Unsent, true);
        loop {
            let is_away = is_disconnected && (!tried.is_empty() || self.are_all_disconnected());
            let none = |error| SendFailure { error, delivery, is_disconnected: is_away };
            let index = self.pick(&tried).map_err(none)?;
            let server =
                self.servers.get(index).ok_or_else(|| none(OriginError::NoHealthyServer))?;
            tried.push(index);
            let may_retry =
                tried.len() <= self.retries as usize && tried.len() < self.servers.len();
            let failed = match server.exchange(&mut request, interim).await {
                Ok(response) => {
                    server.outlier_detector.record_success();
                    return Ok(response);
                }
                Err(failed) => failed,
            };
            if failed.error.is_server_fault() {
                server.outlier_detector.record_failure(outlier::now());
            }
            tracing::debug!(error = %failed.error, "no response from an origin server");
            let is_safe = request.method().is_safe() && !is_overridden(request.headers());
            delivery = delivery.merge(failed.delivery);
            is_disconnected &= failed.error.is_disconnected();
            if !may_retry || !failed.may_retry_elsewhere(is_safe) {
                return Err(SendFailure { error: failed.error, delivery, is_disconnected });
            }
        }
    }

    /// Ends what works in the background, and closes idle connections. Requests under way go on, and
    /// new ones may still be sent.
    pub fn retire(&self) {
        self.tasks.stop();
        self.servers.iter().for_each(|server| server.pool.clear());
    }

    /// How many servers there are, and how many of them get requests now.
    pub fn servers(&self) -> (usize, usize) {
        let now = outlier::now();
        let available = self.servers.iter().filter(|server| {
            server.outlier_detector.is_healthy() && server.outlier_detector.is_available(now)
        });
        (self.servers.len(), available.count())
    }

    /// How busy the connections to all servers are.
    pub fn load(&self) -> OriginLoad {
        let loads = self.servers.iter().map(|server| server.capacity.load());
        loads.fold(OriginLoad::default(), |sum, load| sum + load)
    }

    /// Of two servers picked at random, the less busy one. Ejected ones only if nothing else is left; then
    /// they share the requests.
    fn pick(&self, tried: &[usize]) -> Result<usize, OriginError> {
        let healthy = |index: usize| {
            !tried.contains(&index)
                && self
                    .servers
                    .get(index)
                    .is_some_and(|server| server.outlier_detector.is_healthy())
        };
        if self.servers.len() == 1 {
            return if healthy(0) { Ok(0) } else { Err(OriginError::NoHealthyServer) };
        }
        let now = outlier::now();
        let mut candidates: SmallVec<[usize; 16]> =
            (0..self.servers.len()).filter(|index| healthy(*index)).collect();
        let last_resort = candidates.get(self.less_busy(&candidates)).copied();
        let last_resort = last_resort.ok_or(OriginError::NoHealthyServer)?;
        candidates.retain(|index| {
            self.servers.get(*index).is_some_and(|server| server.outlier_detector.is_available(now))
        });
        while !candidates.is_empty() {
            let position = self.less_busy(&candidates);
            let index = candidates.swap_remove(position);
            if self.servers.get(index).is_some_and(|server| server.outlier_detector.try_admit(now))
            {
                return Ok(index);
            }
        }
        Ok(last_resort)
    }

    /// Whether health checks could reach none of the servers.
    fn are_all_disconnected(&self) -> bool {
        self.servers.iter().all(|server| server.outlier_detector.is_disconnected())
    }

    fn less_busy(&self, candidates: &[usize]) -> usize {
        let first = random::below(candidates.len());
        let second = random::below(candidates.len());
        let busy = |position: usize| {
            candidates
                .get(position)
                .and_then(|index| self.servers.get(*index))
                .map_or(usize::MAX, |server| server.in_flight.load(Relaxed))
        };
        if busy(second) < busy(first) { second } else { first }
    }
}

fn health_target(path: &str) -> Result<Uri, SetupError> {
    let target = path.starts_with('/').then(|| path.parse().ok()).flatten();
    target.ok_or(SetupError::HealthPath)
}
