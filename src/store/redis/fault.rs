//! What can go wrong between a command and its answer.

use fred::error::{Error, ErrorKind};

use crate::{redis::is_overdue, telemetry::Outcome};

/// Why a command brought nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Redis was not asked: it is known to be away.
    Open,
    /// The answer did not come in time.
    Late,
    /// Redis got to a script only after its deadline, and did not run it.
    Overdue,
    /// The connection is gone, or was never made.
    Gone(String),
    /// More commands wait than can be answered.
    Full,
    /// Redis answered that it does not do this.
    Refused(Refusal),
    /// It could not be encrypted, and was not sent.
    Unsealed,
    /// Redis answered with an error, or with something else than was asked for.
    Strange(String),
}

/// Why Redis does not do what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
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

impl Refusal {
    /// All there are.
    pub const ALL: [Self; 8] = [
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
    pub const fn as_str(self) -> &'static str {
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
    fn of(text: &str) -> Option<Self> {
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

impl Fault {
    /// What an error of fred's means.
    pub(super) fn of(error: &Error) -> Self {
        if let Some(refusal) = Refusal::of(error.details()) {
            return Self::Refused(refusal);
        }
        if is_overdue(error) {
            return Self::Overdue;
        }
        let text = plain(error.details());
        match error.kind() {
            ErrorKind::Timeout => Self::Late,
            ErrorKind::Backpressure => Self::Full,
            ErrorKind::IO
            | ErrorKind::Canceled
            | ErrorKind::Tls
            | ErrorKind::Protocol
            | ErrorKind::Routing
            | ErrorKind::Sentinel => Self::Gone(text),
            // The rest of what fred says comes of a session that has ended.
            ErrorKind::Unknown if !is_of_redis(&text) => Self::Gone(text),
            _ => Self::Strange(text),
        }
    }

    /// How the metrics call it.
    pub(super) const fn outcome(&self) -> Outcome {
        match self {
            Self::Open => Outcome::Open,
            Self::Late | Self::Overdue => Outcome::Late,
            Self::Gone(_) => Outcome::Gone,
            Self::Full => Outcome::Full,
            Self::Refused(_) => Outcome::Refused,
            Self::Strange(_) | Self::Unsealed => Outcome::Error,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open => formatter.write_str("it is away"),
            Self::Late | Self::Overdue => formatter.write_str("no answer in time"),
            Self::Gone(why) | Self::Strange(why) => formatter.write_str(why),
            Self::Full => formatter.write_str("too many commands wait"),
            Self::Refused(refusal) => formatter.write_str(refusal.as_str()),
            Self::Unsealed => formatter.write_str("it could not be encrypted"),
        }
    }
}

/// The words of the system in what fred makes of its errors, where there are any.
fn plain(details: &str) -> String {
    let quoted = details.split_once("message: \"").and_then(|(_, rest)| rest.split_once('"'));
    quoted.map_or(details, |(message, _)| message).to_owned()
}

/// Whether Redis said this itself: its errors begin with a word in capitals.
fn is_of_redis(text: &str) -> bool {
    let word = text.split_whitespace().next().unwrap_or_default();
    word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_answers_is_told_apart_from_what_it_does_not_answer() {
        let fault = |kind, text: &'static str| Fault::of(&Error::new(kind, text));
        let oom = "OOM command not allowed when used memory > 'maxmemory'.";
        assert_eq!(fault(ErrorKind::Unknown, oom), Fault::Refused(Refusal::OutOfMemory));
        let noauth = "NOAUTH Authentication required.";
        assert_eq!(fault(ErrorKind::Auth, noauth), Fault::Refused(Refusal::NotAllowed));
        assert_eq!(fault(ErrorKind::Timeout, "Request timed out."), Fault::Late);
        let overdue = fault(ErrorKind::Unknown, "OVERDUE 1700000000000");
        assert_eq!((overdue.outcome(), overdue), (Outcome::Late, Fault::Overdue));
        let gone = fault(ErrorKind::Canceled, "Connection closed unexpectedly.");
        assert!(matches!(gone, Fault::Gone(_)), "{gone:?}");
        let ended = fault(ErrorKind::Unknown, "Client is not initialized.");
        assert!(matches!(ended, Fault::Gone(_)), "{ended:?}");
        let unknown = fault(ErrorKind::Unknown, "ERR unknown command 'MGET'");
        assert!(matches!(unknown, Fault::Strange(_)), "{unknown:?}");
        let system = r#"Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }"#;
        let refused = fault(ErrorKind::IO, system);
        assert_eq!(refused.to_string(), "Connection refused");
        let wrong = "WRONGTYPE Operation against a key holding the wrong kind of value";
        assert!(matches!(fault(ErrorKind::InvalidArgument, wrong), Fault::Strange(_)));
    }

    #[test]
    fn every_error_of_redis_has_one_meaning() {
        let refused = [
            ("LOADING Redis is loading the dataset in memory", Refusal::Loading),
            ("BUSY Redis is busy running a script", Refusal::Busy),
            ("READONLY You can't write against a read only replica.", Refusal::ReadOnly),
            ("MASTERDOWN Link with MASTER is down", Refusal::Incomplete),
            ("CLUSTERDOWN Hash slot not served", Refusal::Incomplete),
            ("OOM command not allowed", Refusal::OutOfMemory),
            ("MISCONF Redis is configured to save RDB snapshots", Refusal::Misconfigured),
            ("NOREPLICAS Not enough good replicas to write.", Refusal::NoReplicas),
            ("NOPERM this user has no permissions", Refusal::NotAllowed),
        ];
        let kinds = [ErrorKind::Unknown, ErrorKind::InvalidCommand, ErrorKind::Cluster];
        for kind in kinds {
            for (text, refusal) in refused {
                assert_eq!(Fault::of(&Error::new(kind.clone(), text)), Fault::Refused(refusal));
            }
            // The server is well, and did not do it: a miss, and no reason to leave it alone.
            for text in ["NOSCRIPT No matching script.", "CROSSSLOT Keys in request", "ERR x"] {
                let fault = Fault::of(&Error::new(kind.clone(), text));
                assert!(matches!(fault, Fault::Strange(_)), "{text}: {fault:?}");
            }
        }
    }
}
