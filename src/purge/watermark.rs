//! Causes of a low watermark raise.

/// Why everything stored earlier is invalid: purges of it may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatermarkRaise {
    /// The log was gone: flushed, evicted, or never there.
    Empty,
    /// The Redis server restarted or failed over, so its last records may be missing.
    Restart,
    /// The log is not the one followed before, or contains foreign entries.
    Foreign,
    /// Records were trimmed before this node had applied them.
    Gap,
    /// The purge table is full.
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

    /// Returns whether the new log continues the numbers of the previous one.
    ///
    /// Nodes that applied a lost record append a loss record.
    pub(super) fn continues(self) -> bool {
        matches!(self, Self::Empty | Self::Restart)
    }

    /// Returns the cause of this name; an unknown name is foreign.
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
