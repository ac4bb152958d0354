//! What an origin does in the background: health checks, and closing idle connections.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use http::{Request, Uri};
use tokio::{task::AbortHandle, time::timeout};

use super::{body::RequestBody, server::Server, settings, standing::Health};

/// Background work that ends when this is dropped.
pub(super) struct Tasks(Vec<AbortHandle>);

impl Tasks {
    /// Ends it now.
    pub(super) fn stop(&self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts the work on the current runtime; without one there is none.
pub(super) fn start(
    servers: &[Arc<Server>],
    health: Option<&(&settings::Health, Uri)>,
    idle: Duration,
) -> Tasks {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return Tasks(Vec::new());
    };
    let mut tasks = Vec::new();
    for server in servers {
        let reaping = runtime.spawn(reap(Arc::downgrade(server), idle));
        tasks.push(reaping.abort_handle());
        if let Some((health, target)) = health {
            let checking = check(Arc::downgrade(server), target.clone(), health.every);
            tasks.push(runtime.spawn(checking).abort_handle());
        }
    }
    Tasks(tasks)
}

async fn reap(server: Weak<Server>, idle: Duration) {
    loop {
        tokio::time::sleep((idle / 2).clamp(Duration::from_millis(100), Duration::from_secs(10)))
            .await;
        let Some(server) = server.upgrade() else {
            return;
        };
        server.pool.reap();
    }
}

async fn check(server: Weak<Server>, target: Uri, every: Duration) {
    loop {
        {
            let Some(server) = server.upgrade() else {
                return;
            };
            let health = ask(&server, &target, every).await;
            let is_healthy = health == Health::Healthy;
            if server.standing.note_health(health) {
                tracing::warn!(server = %server.name(), is_healthy, "a server's health has changed");
            }
        }
        tokio::time::sleep(every).await;
    }
}

async fn ask(server: &Arc<Server>, target: &Uri, every: Duration) -> Health {
    let mut request = Request::new(RequestBody::Empty);
    *request.uri_mut() = target.clone();
    match timeout(every, server.exchange(&mut request, None)).await {
        Ok(Ok(response)) if response.status().as_u16() < 400 => Health::Healthy,
        Ok(Err(failed)) if failed.error.is_disconnected() => Health::Disconnected,
        _ => Health::Failing,
    }
}
