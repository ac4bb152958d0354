//! Lua scripts: atomic steps that do not run after their deadline.

use std::time::Instant;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use bytes::Bytes;
use fred::{
    clients::Client,
    error::Error,
    interfaces::LuaInterface as _,
    types::{FromValue, Value},
};

use super::clock::{RoundTrip, ServerClocks};

/// Lua code that aborts a script that starts after its deadline, which is the last argument.
const PRELUDE: &str = include_str!("deadline.lua");
/// Prefix of the error of an expired script. The server's time in milliseconds follows.
const OVERDUE: &str = "OVERDUE ";
/// Script that returns the time of a key's server.
const TIME: &str = "return redis.call('TIME')";
/// Number of retries after a wrong clock estimate.
const MAX_CORRECTIONS: usize = 1;

/// A script and its digest.
///
/// The script is called by digest, and loaded if the server does not have it. All keys of a call
/// share one hash slot.
#[derive(Debug)]
pub(crate) struct Script {
    text: String,
    digest: String,
}

/// The keys and arguments of a script call.
#[derive(Debug, Clone, Default)]
pub(crate) struct ScriptCall {
    /// Keys of one hash slot. The first one selects the clock estimate.
    pub keys: Vec<Bytes>,
    pub arguments: Vec<Value>,
}

impl Script {
    pub(crate) fn new(parts: &[&str]) -> Self {
        let text = [&[PRELUDE], parts].concat().concat();
        let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        Self { text, digest: const_hex::encode(digest) }
    }

    /// Runs the script, unless it would start after `until`.
    ///
    /// A script that would start later has no effect, and the call fails with an
    /// [overdue](is_overdue) error. Costs one round trip, and another one if the server's clock is
    /// unknown or was set.
    pub(crate) async fn run<R: FromValue>(
        &self,
        session: &Client,
        clocks: &ServerClocks,
        call: ScriptCall,
        until: Instant,
    ) -> Result<R, Error> {
        let key = call.keys.first().cloned().unwrap_or_default();
        let mut corrections = MAX_CORRECTIONS;
        loop {
            let deadline = match clocks.deadline(&key, until) {
                Some(deadline) => deadline,
                None => measured(session, clocks, &key, until).await?,
            };
            let sent = Instant::now();
            let result = self.evaluate(session, call.clone(), deadline).await;
            let Some(server_time) = result.as_ref().err().and_then(overdue) else { return result };
            let answered = Instant::now();
            clocks.record(&key, server_time, RoundTrip { sent, answered });
            if corrections == 0 || answered >= until {
                return result;
            }
            corrections -= 1;
        }
    }

    async fn evaluate<R: FromValue>(
        &self,
        session: &Client,
        ScriptCall { keys, mut arguments }: ScriptCall,
        deadline: i64,
    ) -> Result<R, Error> {
        arguments.push(deadline.into());
        // Boxed: the client's futures are large.
        let known =
            Box::pin(session.evalsha(self.digest.as_str(), keys.clone(), arguments.clone())).await;
        match known {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                Box::pin(session.eval(self.text.as_str(), keys, arguments)).await
            }
            result => result,
        }
    }
}

/// Reads the clock of this key's server, in milliseconds, and updates the estimate.
pub(crate) async fn time(
    session: &Client,
    clocks: &ServerClocks,
    key: &Bytes,
) -> Result<i64, Error> {
    let sent = Instant::now();
    let reply = session.eval::<(i64, i64), _, _, _>(TIME, vec![key.clone()], Vec::<Value>::new());
    let (seconds, micros) = Box::pin(reply).await?;
    let server_time = seconds.saturating_mul(1000).saturating_add(micros / 1000);
    clocks.record(key, server_time, RoundTrip { sent, answered: Instant::now() });
    Ok(server_time)
}

/// Returns the deadline by the server's clock, after reading that clock.
async fn measured(
    session: &Client,
    clocks: &ServerClocks,
    key: &Bytes,
    until: Instant,
) -> Result<i64, Error> {
    let server_time = time(session, clocks, key).await?;
    Ok(clocks.deadline(key, until).unwrap_or(server_time))
}

/// Returns whether a script was aborted because it started after its deadline.
pub(crate) fn is_overdue(error: &Error) -> bool {
    overdue(error).is_some()
}

fn overdue(error: &Error) -> Option<i64> {
    let server_time = error.details().strip_prefix(OVERDUE)?;
    server_time.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use fred::error::ErrorKind;

    use super::*;

    #[test]
    fn an_overdue_error_contains_the_servers_time() {
        let of = |text: &'static str| overdue(&Error::new(ErrorKind::Unknown, text));
        assert_eq!(of("OVERDUE 1700000000000"), Some(1_700_000_000_000));
        assert_eq!(of("OVERDUE 12 script: f"), Some(12));
        for other in ["OVERDUE", "OVERDUE ", "OVERDUE soon", "OVERDUE 99999999999999999999", "BUSY"]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
