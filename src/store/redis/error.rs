//! What can go wrong between a command and its answer.

use fred::error::{Error, ErrorKind};

use crate::{redis::is_overdue, telemetry::StoreOperationOutcome};

/// Why a command brought nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CommandError {
    /// Redis was not asked: it is known to be away.
    BreakerOpen,
    /// The answer did not come in time.
    TimedOut,
    /// Redis got to a script only after its deadline, and did not run it.
    Overdue,
    /// The connection is gone, or was never made.
    Disconnected(String),
    /// More commands wait than can be answered.
    QueueFull,
    /// Redis answered that it does not do this.
    Refused(RedisRefusal),
    /// It could not be encrypted, and was not sent.
    EncryptionFailed,
    /// Redis answered with an error, or with something else than was asked for.
    Unexpected(String),
}

/// Why Redis does not do what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RedisRefusal {
    /// `OOM`: its `maxmemory` is reached, and its policy lets nothing go.
    OutOfMemory = 1,
    /// `READONLY`: it is a replica.
    ReadOnly,
    /// `LOADING`: it reads its data from disk.
    Loading,
    /// `MISCONF`: it cannot write to its disk, and was told to refuse writes then.
    Misconfigured,
    /// `NOREPLICAS`: it has too few replicas to take writes.
    NoReplicas,
    /// `NOAUTH`, `WRONGPASS` or `NOPERM`: the user may not do this.
    NotAllowed,
    /// `CLUSTERDOWN`, `MASTERDOWN`: a part of the deployment is missing.
    Incomplete,
    /// `BUSY`: a script of somebody else's runs.
    Busy,
}

impl RedisRefusal {
    /// All there are.
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

    /// The reason as metrics and health checks spell it.
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

    /// The reason in an error that Redis answered with.
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
    /// What an error of fred's means.
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
            // The rest of what fred says comes of a session that has ended.
            ErrorKind::Unknown if !is_from_redis(&text) => Self::Disconnected(text),
            _ => Self::Unexpected(text),
        }
    }

    /// How the metrics call it.
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
            Self::BreakerOpen => formatter.write_str("it is away"),
            Self::TimedOut | Self::Overdue => formatter.write_str("no answer in time"),
            Self::Disconnected(why) | Self::Unexpected(why) => formatter.write_str(why),
            Self::QueueFull => formatter.write_str("too many commands wait"),
            Self::Refused(refusal) => formatter.write_str(refusal.as_str()),
            Self::EncryptionFailed => formatter.write_str("it could not be encrypted"),
        }
    }
}

/// The words of the system in what fred makes of its errors, where there are any.
fn system_message(details: &str) -> String {
    let quoted = details.split_once("message: \"").and_then(|(_, rest)| rest.split_once('"'));
    quoted.map_or(details, |(message, _)| message).to_owned()
}

/// Whether Redis said this itself: its errors begin with a word in capitals.
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
            // The server is well, and did not do it: a miss, and no reason to leave it alone.
            for text in
                ["NOSCRIPT No matching script.", "CROSSSLOT NamespaceKeys in request", "ERR x"]
            {
                let fault = CommandError::from_fred(&Error::new(kind.clone(), text));
                assert!(matches!(fault, CommandError::Unexpected(_)), "{text}: {fault:?}");
            }
        }
    }
}
