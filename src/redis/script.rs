//! Scripts: steps that must not be seen half done, nor happen when nobody waits for them any more.

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

/// Ends a script that begins after its deadline, which is the last argument. Whatever else a script takes
/// comes before it.
const PRELUDE: &str = include_str!("deadline.lua");
/// What an error begins with that says so. The server's time follows, in milliseconds.
const OVERDUE: &str = "OVERDUE ";
/// Tells what time it is at the server of a key.
const TIME: &str = "return redis.call('TIME')";
/// How often a deadline is computed again because the server's clock was not what it seemed.
const MAX_CORRECTIONS: usize = 1;

/// A script and the digest by which Redis knows it.
///
/// It is called by its digest, and sent only if the server does not know it yet. All its keys have one
/// hash slot.
#[derive(Debug)]
pub(crate) struct Script {
    text: String,
    digest: String,
}

/// What a script works on.
#[derive(Debug, Clone, Default)]
pub(crate) struct ScriptCall {
    /// All of one hash slot. The first one says whose clock counts.
    pub keys: Vec<Bytes>,
    /// Its arguments.
    pub arguments: Vec<Value>,
}

impl Script {
    /// A script of these parts.
    pub(crate) fn new(parts: &[&str]) -> Self {
        let text = [&[PRELUDE], parts].concat().concat();
        let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        Self { text, digest: const_hex::encode(digest) }
    }

    /// Runs it, unless the server gets to it only after `until`: then it has no effect, and this fails with
    /// an [overdue](is_overdue) error.
    ///
    /// One round trip, and one more if the server's clock is not known yet or was set.
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
        // The client's futures are large.
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

/// Asks the server of this key for its time. Returns it in milliseconds, and notes it.
pub(crate) async fn time(
    session: &Client,
    clocks: &ServerClocks,
    key: &Bytes,
) -> Result<i64, Error> {
    let sent = Instant::now();
    let asked = session.eval::<(i64, i64), _, _, _>(TIME, vec![key.clone()], Vec::<Value>::new());
    let (seconds, micros) = Box::pin(asked).await?;
    let server_time = seconds.saturating_mul(1000).saturating_add(micros / 1000);
    clocks.record(key, server_time, RoundTrip { sent, answered: Instant::now() });
    Ok(server_time)
}

/// The deadline by the clock of the server of this key, which has to be asked for it.
async fn measured(
    session: &Client,
    clocks: &ServerClocks,
    key: &Bytes,
    until: Instant,
) -> Result<i64, Error> {
    let server_time = time(session, clocks, key).await?;
    Ok(clocks.deadline(key, until).unwrap_or(server_time))
}

/// Returns whether an error says that a script began after its deadline, and had no effect.
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
    fn an_overdue_script_tells_the_servers_time() {
        let of = |text: &'static str| overdue(&Error::new(ErrorKind::Unknown, text));
        assert_eq!(of("OVERDUE 1700000000000"), Some(1_700_000_000_000));
        assert_eq!(of("OVERDUE 12 script: f"), Some(12));
        for other in ["OVERDUE", "OVERDUE ", "OVERDUE soon", "OVERDUE 99999999999999999999", "BUSY"]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
