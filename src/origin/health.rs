//! Background tasks of an origin: health checks, and the closing of idle connections.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use http::Uri;
use tokio::{
    task::AbortHandle,
    time::{Instant, timeout},
};

use super::{origin_request::OriginRequest, outlier::CheckResult, server::OriginServer, settings};

/// Background tasks that are aborted when dropped.
pub(super) struct BackgroundTasks(Vec<AbortHandle>);

impl BackgroundTasks {
    pub(super) fn stop(&self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Drop for BackgroundTasks {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts the background tasks on the current runtime; without a runtime, starts no tasks.
pub(super) fn start(
    servers: &[Arc<OriginServer>],
    health: Option<&(&settings::HealthCheck, Uri)>,
    idle: Duration,
) -> BackgroundTasks {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return BackgroundTasks(Vec::new());
    };
    let mut tasks = Vec::new();
    for server in servers {
        let reaping = runtime.spawn(reap(Arc::downgrade(server), idle));
        tasks.push(reaping.abort_handle());
        if let Some((health, target)) = health {
            let checking = check(Arc::downgrade(server), target.clone(), health.interval);
            tasks.push(runtime.spawn(checking).abort_handle());
        }
    }
    BackgroundTasks(tasks)
}

async fn reap(server: Weak<OriginServer>, idle: Duration) {
    loop {
        tokio::time::sleep((idle / 2).clamp(Duration::from_millis(100), Duration::from_secs(10)))
            .await;
        let Some(server) = server.upgrade() else {
            return;
        };
        server.connections.pool.reap();
    }
}

async fn check(server: Weak<OriginServer>, target: Uri, interval: Duration) {
    loop {
        {
            let Some(server) = server.upgrade() else {
                return;
            };
            let health = probe(&server, &target, interval).await;
            let is_healthy = health == CheckResult::Healthy;
            if server.outlier_detector.record_check(health) {
                tracing::warn!(server = %server.connections.name(), is_healthy, "origin server health changed");
            }
        }
        tokio::time::sleep(interval).await;
    }
}

async fn probe(server: &Arc<OriginServer>, target: &Uri, interval: Duration) -> CheckResult {
    let mut request = OriginRequest { target: target.clone(), ..OriginRequest::default() };
    match timeout(interval, server.exchange(&mut request, None, Instant::now())).await {
        Ok(Ok(response)) if response.status().as_u16() < 400 => CheckResult::Healthy,
        Ok(Err(failed)) if failed.error.is_disconnected() => CheckResult::Disconnected,
        _ => CheckResult::Failing,
    }
}
