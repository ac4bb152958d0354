//! The closed list of reasons for not comparing two responses.

/// Why two responses were not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SkipReason {
    /// The body exceeds the limit.
    TooLong,
    /// The content coding is not supported, or the content does not match it.
    Coding,
    /// The client or the origin ended the response early.
    Interrupted,
    /// The origin failed.
    OriginError,
    /// The origin's response is not the whole representation: `HEAD`, a range, a `304`.
    Partial,
    /// The stored response was purged meanwhile.
    Purged,
    /// The request would have shared another request's response, but that response was not stored.
    NotStored,
    /// The memory for bodies is used up, or the maximum number of comparisons is running.
    Busy,
}

impl SkipReason {
    /// Returns the name of the reason in metrics and reports.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::Coding => "coding",
            Self::Interrupted => "interrupted",
            Self::OriginError => "origin-error",
            Self::Partial => "partial",
            Self::Purged => "purged",
            Self::NotStored => "not-stored",
            Self::Busy => "busy",
        }
    }
}
