//! An origin with several servers: picks a server for each request, and retries on another.

use std::sync::Arc;

use http::{Response, Uri};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    capacity::ConnectionStats,
    error::{OriginError, RequestDelivery, SendFailure},
    health,
    origin_request::OriginRequest,
    outlier,
    response_body::ResponseBody,
    server::OriginServer,
    settings::{OriginScheme, Settings},
    tls,
};
use crate::server::InterimSender;

/// An origin: a set of servers among which requests are balanced.
pub struct Origin {
    servers: Vec<Arc<OriginServer>>,
    retries: u32,
    tasks: health::BackgroundTasks,
}

/// The reason why an origin cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("an origin needs at least one URL")]
    NoServer,
    #[error(transparent)]
    Tls(#[from] tls::OriginTlsError),
    #[error("the health check path must begin with `/`")]
    HealthPath,
}

impl Origin {
    /// Creates an origin without opening a connection. Health checks run on the current runtime.
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

    /// Converts a request and sends it with [`Self::exchange`].
    pub async fn send(
        &self,
        request: impl Into<OriginRequest>,
        interim: Option<&InterimSender>,
    ) -> Result<Response<ResponseBody>, SendFailure> {
        self.exchange(&mut request.into(), interim, Instant::now()).await
    }

    /// Sends a request and returns the final response once its head has arrived; the body streams.
    ///
    /// The request's target is a path and query, or `*`. 1xx responses are sent to `interim`,
    /// except 100, which starts the upload of the client's body.
    ///
    /// If no byte of the request was sent, the request is retried on other servers, up to `retries`
    /// times. Otherwise, it is retried only if its method is safe and its body is not streamed.
    /// Dropping the future cancels the request.
    ///
    /// Borrows the request: an async function that takes a request by value stores it twice.
    /// `began` is the time now, which the caller has read anyway.
    pub(crate) async fn exchange(
        &self,
        request: &mut OriginRequest,
        interim: Option<&InterimSender>,
        mut began: Instant,
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
            let failed = match server.exchange(request, interim, began).await {
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
            delivery = delivery.merge(failed.delivery);
            is_disconnected &= failed.error.is_disconnected();
            if !may_retry || !failed.may_retry_elsewhere(request.is_safe()) {
                return Err(SendFailure { error: failed.error, delivery, is_disconnected });
            }
            began = Instant::now();
        }
    }

    /// Stops the background tasks and closes idle connections. Requests in flight continue, and new
    /// requests are still possible.
    pub fn retire(&self) {
        self.tasks.stop();
        self.servers.iter().for_each(|server| server.connections.pool.clear());
    }

    /// Returns the number of servers, and how many of them receive requests now.
    pub fn servers(&self) -> (usize, usize) {
        let now = outlier::now();
        let available = self.servers.iter().filter(|server| {
            server.outlier_detector.is_healthy() && server.outlier_detector.is_available(now)
        });
        (self.servers.len(), available.count())
    }

    /// Returns the connection statistics, summed over all servers.
    pub fn load(&self) -> ConnectionStats {
        let loads = self.servers.iter().map(|server| server.connections.capacity.load());
        loads.fold(ConnectionStats::default(), |sum, load| sum + load)
    }

    /// Picks two servers at random and returns the less busy one. Ejected servers are picked only
    /// if every healthy server is ejected.
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

    /// Returns whether the last health check of every server failed to connect.
    fn are_all_disconnected(&self) -> bool {
        self.servers.iter().all(|server| server.outlier_detector.is_disconnected())
    }

    fn less_busy(&self, candidates: &[usize]) -> usize {
        let first = fastrand::usize(..candidates.len());
        let second = fastrand::usize(..candidates.len());
        let busy = |position: usize| {
            candidates
                .get(position)
                .and_then(|index| self.servers.get(*index))
                .map_or(usize::MAX, |server| server.connections.in_flight())
        };
        if busy(second) < busy(first) { second } else { first }
    }
}

fn health_target(path: &str) -> Result<Uri, SetupError> {
    let target = path.starts_with('/').then(|| path.parse().ok()).flatten();
    target.ok_or(SetupError::HealthPath)
}
