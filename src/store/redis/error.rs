//! Errors of Redis commands.

use fred::error::{Error, ErrorKind};

use crate::{redis::is_overdue, telemetry::StoreOperationOutcome};

/// The reason why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CommandError {
    /// The breaker is open: the command was not sent.
    BreakerOpen,
    TimedOut,
    /// Redis received a script after the script's deadline and did not run it.
    Overdue,
    /// The connection is closed, or could not be opened.
    Disconnected(String),
    QueueFull,
    Refused(RedisRefusal),
    /// Encryption failed, so the command was not sent.
    EncryptionFailed,
    /// Redis replied with an error of another kind, or with an unexpected type.
    Unexpected(String),
}

/// The reason why Redis refuses commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RedisRefusal {
    /// `OOM`: Redis has reached `maxmemory`, and its policy evicts nothing.
    OutOfMemory = 1,
    /// `READONLY`: the server is a replica.
    ReadOnly,
    /// `LOADING`: Redis is loading its data from disk.
    Loading,
    /// `MISCONF`: Redis cannot write to its disk, and is configured to refuse writes in that case.
    Misconfigured,
    /// `NOREPLICAS`: Redis has too few replicas to accept writes.
    NoReplicas,
    /// `NOAUTH`, `WRONGPASS` or `NOPERM`: the user lacks permission.
    NotAllowed,
    /// `CLUSTERDOWN`, `MASTERDOWN`: a part of the deployment is down.
    Incomplete,
    /// `BUSY`: another client's script is running.
    Busy,
}

impl RedisRefusal {
    pub(crate) const ALL: [Self; 8] = [
        Self::OutOfMemory,
        Self::ReadOnly,
        Self::Loading,
        Self::Misconfigured,
        Self::NoReplicas,
        Self::NotAllowed,
        Self::Incomplete,
        Self::Busy,
    ];

    /// Returns the reason as written in metrics and health checks.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::OutOfMemory => "out-of-memory",
            Self::ReadOnly => "read-only",
            Self::Loading => "loading",
            Self::Misconfigured => "disk",
            Self::NoReplicas => "no-replicas",
            Self::NotAllowed => "not-allowed",
            Self::Incomplete => "incomplete",
            Self::Busy => "busy",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Some(match text.split_whitespace().next()? {
            "OOM" => Self::OutOfMemory,
            "READONLY" => Self::ReadOnly,
            "LOADING" => Self::Loading,
            "MISCONF" => Self::Misconfigured,
            "NOREPLICAS" => Self::NoReplicas,
            "NOAUTH" | "WRONGPASS" | "NOPERM" => Self::NotAllowed,
            "CLUSTERDOWN" | "MASTERDOWN" => Self::Incomplete,
            "BUSY" => Self::Busy,
            _ => return None,
        })
    }
}

impl CommandError {
    /// Classifies an error from the Redis client fred.
    pub(super) fn from_fred(error: &Error) -> Self {
        if let Some(refusal) = RedisRefusal::parse(error.details()) {
            return Self::Refused(refusal);
        }
        if is_overdue(error) {
            return Self::Overdue;
        }
        let text = system_message(error.details());
        match error.kind() {
            ErrorKind::Timeout => Self::TimedOut,
            ErrorKind::Backpressure => Self::QueueFull,
            ErrorKind::IO
            | ErrorKind::Canceled
            | ErrorKind::Tls
            | ErrorKind::Protocol
            | ErrorKind::Routing
            | ErrorKind::Sentinel => Self::Disconnected(text),
            // Any other error of fred means that its session has ended.
            ErrorKind::Unknown if !is_from_redis(&text) => Self::Disconnected(text),
            _ => Self::Unexpected(text),
        }
    }

    /// Returns the outcome under which metrics count this error.
    pub(super) const fn outcome(&self) -> StoreOperationOutcome {
        match self {
            Self::BreakerOpen => StoreOperationOutcome::Open,
            Self::TimedOut | Self::Overdue => StoreOperationOutcome::TimedOut,
            Self::Disconnected(_) => StoreOperationOutcome::Disconnected,
            Self::QueueFull => StoreOperationOutcome::Full,
            Self::Refused(_) => StoreOperationOutcome::Refused,
            Self::Unexpected(_) | Self::EncryptionFailed => StoreOperationOutcome::Error,
        }
    }
}

impl std::fmt::Display for CommandError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BreakerOpen => formatter.write_str("the circuit breaker is open"),
            Self::TimedOut | Self::Overdue => formatter.write_str("no reply in time"),
            Self::Disconnected(why) | Self::Unexpected(why) => formatter.write_str(why),
            Self::QueueFull => formatter.write_str("too many commands are waiting"),
            Self::Refused(refusal) => formatter.write_str(refusal.as_str()),
            Self::EncryptionFailed => formatter.write_str("encryption failed"),
        }
    }
}

/// Returns the operating system's message in an error from fred, or the whole text if it has none.
fn system_message(details: &str) -> String {
    let quoted = details.split_once("message: \"").and_then(|(_, rest)| rest.split_once('"'));
    quoted.map_or(details, |(message, _)| message).to_owned()
}

/// Returns whether an error is a reply from Redis, which begins with a word in capitals.
fn is_from_redis(text: &str) -> bool {
    let word = text.split_whitespace().next().unwrap_or_default();
    word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_answers_is_told_apart_from_what_it_does_not_answer() {
        let fault = |kind, text: &'static str| CommandError::from_fred(&Error::new(kind, text));
        let oom = "OOM command not allowed when used memory > 'maxmemory'.";
        assert_eq!(
            fault(ErrorKind::Unknown, oom),
            CommandError::Refused(RedisRefusal::OutOfMemory)
        );
        let noauth = "NOAUTH Authentication required.";
        assert_eq!(fault(ErrorKind::Auth, noauth), CommandError::Refused(RedisRefusal::NotAllowed));
        assert_eq!(fault(ErrorKind::Timeout, "Request timed out."), CommandError::TimedOut);
        let overdue = fault(ErrorKind::Unknown, "OVERDUE 1700000000000");
        assert_eq!(
            (overdue.outcome(), overdue),
            (StoreOperationOutcome::TimedOut, CommandError::Overdue)
        );
        let gone = fault(ErrorKind::Canceled, "Connection closed unexpectedly.");
        assert!(matches!(gone, CommandError::Disconnected(_)), "{gone:?}");
        let ended = fault(ErrorKind::Unknown, "Client is not initialized.");
        assert!(matches!(ended, CommandError::Disconnected(_)), "{ended:?}");
        let unknown = fault(ErrorKind::Unknown, "ERR unknown command 'MGET'");
        assert!(matches!(unknown, CommandError::Unexpected(_)), "{unknown:?}");
        let system = r#"Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }"#;
        let refused = fault(ErrorKind::IO, system);
        assert_eq!(refused.to_string(), "Connection refused");
        let wrong = "WRONGTYPE Operation against a key holding the wrong kind of value";
        assert!(matches!(fault(ErrorKind::InvalidArgument, wrong), CommandError::Unexpected(_)));
    }

    #[test]
    fn every_error_of_redis_has_one_meaning() {
        let refused = [
            ("LOADING Redis is loading the dataset in memory", RedisRefusal::Loading),
            ("BUSY Redis is busy running a script", RedisRefusal::Busy),
            ("READONLY You can't write against a read only replica.", RedisRefusal::ReadOnly),
            ("MASTERDOWN Link with MASTER is down", RedisRefusal::Incomplete),
            ("CLUSTERDOWN Hash slot not served", RedisRefusal::Incomplete),
            ("OOM command not allowed", RedisRefusal::OutOfMemory),
            ("MISCONF Redis is configured to save RDB snapshots", RedisRefusal::Misconfigured),
            ("NOREPLICAS Not enough good replicas to write.", RedisRefusal::NoReplicas),
            ("NOPERM this user has no permissions", RedisRefusal::NotAllowed),
        ];
        let kinds = [ErrorKind::Unknown, ErrorKind::InvalidCommand, ErrorKind::Cluster];
        for kind in kinds {
            for (text, refusal) in refused {
                assert_eq!(
                    CommandError::from_fred(&Error::new(kind.clone(), text)),
                    CommandError::Refused(refusal)
                );
            }
            // The server is healthy and refused the command: a miss, which does not open the
            // breaker.
            for text in
                ["NOSCRIPT No matching script.", "CROSSSLOT NamespaceKeys in request", "ERR x"]
            {
                let fault = CommandError::from_fred(&Error::new(kind.clone(), text));
                assert!(matches!(fault, CommandError::Unexpected(_)), "{text}: {fault:?}");
            }
        }
    }
}
