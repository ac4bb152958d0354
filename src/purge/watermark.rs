//! Why the low watermark rises.

/// Why everything stored before is given up: nobody can say any more what of it was purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatermarkRaise {
    /// The log was gone: flushed, evicted, or never there.
    Empty,
    /// The server that keeps the log restarted, or another took over: its last records may be missing.
    Restart,
    /// It is another log than the one that was followed, or somebody else has written into it.
    Foreign,
    /// Records were trimmed before this node had applied them.
    Gap,
    /// More was purged than the table holds.
    Capacity,
}

impl WatermarkRaise {
    /// Each of them, in the order of their declaration.
    pub const ALL: [Self; 5] =
        [Self::Empty, Self::Restart, Self::Foreign, Self::Gap, Self::Capacity];

    /// As metrics, logs and the stream itself spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Restart => "restart",
            Self::Foreign => "foreign",
            Self::Gap => "gap",
            Self::Capacity => "capacity",
        }
    }

    /// Whether the log that begins continues the one before, where its numbers do: what was lost, if
    /// anything was, is told by those who had it.
    pub(super) fn continues(self) -> bool {
        matches!(self, Self::Empty | Self::Restart)
    }

    /// The cause of this name; a name nobody knows is foreign.
    pub(super) fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|raise| raise.as_str() == name).unwrap_or(Self::Foreign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_place_and_its_name() {
        for (index, raise) in WatermarkRaise::ALL.into_iter().enumerate() {
            assert_eq!(raise as usize, index);
            assert_eq!(WatermarkRaise::from_name(raise.as_str()), raise);
        }
        assert_eq!(WatermarkRaise::from_name("whatever"), WatermarkRaise::Foreign);
    }
}
