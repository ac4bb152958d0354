//! Causes of a low watermark raise.

/// A reason for invalidating all responses stored earlier, such as purges that may have been
/// missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatermarkRaise {
    /// The log was missing: flushed, evicted, or not created yet.
    Empty,
    /// The Redis server restarted or failed over, so its last records may be missing.
    Restart,
    /// The log is not the one that this node followed before, or contains foreign entries.
    Foreign,
    /// Records were trimmed before this node had applied them.
    Gap,
    /// The purge table was full.
    Capacity,
}

impl WatermarkRaise {
    /// All causes, in declaration order.
    pub const ALL: [Self; 5] =
        [Self::Empty, Self::Restart, Self::Foreign, Self::Gap, Self::Capacity];

    /// Returns the name used in metrics, log events and the stream.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Restart => "restart",
            Self::Foreign => "foreign",
            Self::Gap => "gap",
            Self::Capacity => "capacity",
        }
    }

    /// Returns whether the new log continues the sequence numbers of the previous one.
    ///
    /// The sequence can continue even if records of the previous log are lost, because a node that
    /// had applied such a record appends a loss record to the new log.
    pub(super) fn continues(self) -> bool {
        matches!(self, Self::Empty | Self::Restart)
    }

    /// Returns the cause with this name, or `Foreign` if the name is unknown.
    pub(super) fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|raise| raise.as_str() == name).unwrap_or(Self::Foreign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_index_and_name() {
        for (index, raise) in WatermarkRaise::ALL.into_iter().enumerate() {
            assert_eq!(raise as usize, index);
            assert_eq!(WatermarkRaise::from_name(raise.as_str()), raise);
        }
        assert_eq!(WatermarkRaise::from_name("whatever"), WatermarkRaise::Foreign);
    }
}
