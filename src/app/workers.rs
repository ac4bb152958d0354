//! The threads that serve connections.

use std::sync::Arc;

use anyhow::Context as _;

use crate::{
    server::{self, Drain, Handler, Listener, Settings},
    threads::core_count,
};

/// The threads that serve connections.
///
/// One runtime per core keeps a connection, its wake-ups and its origin connections on that core.
/// The hot path wakes no other thread and steals no work.
pub enum Workers {
    /// The runtime that starts the node, for tests and demos.
    CurrentRuntime,
    /// This many threads, each with a single-threaded runtime.
    Threads(usize),
}

impl Workers {
    /// Returns one thread for each core.
    pub fn per_core() -> Self {
        Self::Threads(core_count())
    }

    /// Serves a listener until the drain begins.
    pub fn serve<H: Handler>(
        &self,
        listener: Listener,
        handler: &Arc<H>,
        settings: &Arc<Settings>,
        drain: &Drain,
    ) -> anyhow::Result<()> {
        match self {
            Self::CurrentRuntime => {
                let (handler, settings) = (Arc::clone(handler), Arc::clone(settings));
                tokio::spawn(server::serve(listener, handler, settings, drain.clone()));
            }
            Self::Threads(count) => {
                for number in 0..*count {
                    let listener = listener.try_clone().context("cannot duplicate the listener")?;
                    let (handler, settings) = (Arc::clone(handler), Arc::clone(settings));
                    spawn(number, listener, handler, settings, drain.clone())?;
                }
            }
        }
        Ok(())
    }
}

fn spawn<H: Handler>(
    number: usize,
    listener: Listener,
    handler: Arc<H>,
    settings: Arc<Settings>,
    drain: Drain,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move || {
        runtime.block_on(async {
            if let Err(error) = server::serve(listener, handler, settings, drain.clone()).await {
                tracing::error!(%error, "cannot serve a listener on a worker thread");
            }
            // Accepted connections continue. The process ends when all of them have ended.
            std::future::pending::<()>().await;
        });
    };
    std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(serve)
        .context("cannot start a worker thread")?;
    Ok(())
}
