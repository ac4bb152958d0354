//! Targets of the clients, and the selectors that match them.

use crate::support::random::Random;

/// Number of tags shared by all kinds of targets.
const SHARED: usize = 12;
/// Number of frequently requested targets.
const HOT: usize = 12;

/// The kind of response, which determines its way through the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Fresh for longer than any test.
    Plain,
    /// Stale after a second, and usually confirmed by the origin.
    Revalidated,
    /// Stale after a second, and then refreshed in the background.
    Refreshed,
    /// Stale after a second, from an origin that sometimes fails.
    Rescued,
    /// With variants.
    Varied,
    /// With a group (RFC 9875) that some writes invalidate.
    Grouped,
    /// With a tag in its JSON.
    Described,
    /// Large enough for several parts.
    Large,
    /// Written through the proxy.
    Written,
    /// Purged by tag only when a data version changes.
    Polled,
    /// Purged by tag only by a schedule.
    Scheduled,
}

#[derive(Debug)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) path: String,
    /// Tags sent by the origin.
    pub(super) sent: Vec<String>,
    /// All its tags.
    tags: Vec<String>,
}

/// A selector used in purges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selector {
    Tag(String),
    Url(String),
    Prefix(String),
    Everything,
}

const KINDS: [(Kind, &str, usize); 11] = [
    (Kind::Plain, "p", 40),
    (Kind::Revalidated, "r", 10),
    (Kind::Refreshed, "s", 10),
    (Kind::Rescued, "e", 10),
    (Kind::Varied, "v", 8),
    (Kind::Grouped, "g", 8),
    (Kind::Described, "j", 8),
    (Kind::Large, "l", 3),
    (Kind::Written, "w", 16),
    (Kind::Polled, "o", 4),
    (Kind::Scheduled, "c", 4),
];

/// Returns all targets.
pub(super) fn all() -> Vec<Target> {
    let mut targets = Vec::new();
    for (kind, letter, count) in KINDS {
        for number in 0..count {
            targets.push(Target::new(kind, letter, number, targets.len()));
        }
    }
    targets
}

impl Target {
    fn new(kind: Kind, letter: &str, number: usize, index: usize) -> Self {
        let shared = format!("t{}", index % SHARED);
        let quarter = number % 4;
        let (sent, further) = match kind {
            Kind::Grouped => (vec![shared], vec![format!("g{quarter}")]),
            Kind::Described => (vec![shared], vec![format!("json:j{quarter}")]),
            Kind::Written => (vec![shared], vec![format!("w:{}", number / 4)]),
            Kind::Polled => (vec!["polled".to_owned()], Vec::new()),
            Kind::Scheduled => (vec!["scheduled".to_owned()], Vec::new()),
            _ => (vec![shared], Vec::new()),
        };
        let path = match kind {
            Kind::Written => format!("/w/{}/{quarter}", number / 4),
            _ => format!("/{letter}/{number}"),
        };
        let tags = [sent.clone(), further].concat();
        Self { kind, path, sent, tags }
    }

    /// Returns the number in its group, tag or path.
    pub(super) fn quarter(&self) -> usize {
        let (_, number) = self.path.rsplit_once('/').unwrap();
        number.parse::<usize>().unwrap() % 4
    }

    /// Returns whether any purge may select it by tag or URL.
    ///
    /// Other targets are purged by one trigger only, and by purges of everything.
    fn is_common(&self) -> bool {
        !matches!(self.kind, Kind::Polled | Kind::Scheduled)
    }
}

impl Selector {
    pub(super) fn selects(&self, target: &Target) -> bool {
        match self {
            Self::Tag(tag) => target.tags.contains(tag),
            Self::Url(path) => target.path == *path,
            Self::Prefix(prefix) => target.path.starts_with(prefix),
            Self::Everything => true,
        }
    }

    /// Returns a random selector of one of these kinds.
    pub(super) fn any(random: &mut Random, targets: &[Target], wanted: &[SelectorKind]) -> Self {
        match random.pick(wanted) {
            SelectorKind::Url => {
                let common: Vec<_> = targets.iter().filter(|target| target.is_common()).collect();
                Self::Url(random.pick(&common).path.clone())
            }
            SelectorKind::Tag => Self::Tag(match random.below(6) {
                0 => format!("g{}", random.below(4)),
                1 => format!("json:j{}", random.below(4)),
                2 => format!("w:{}", random.below(4)),
                _ => format!("t{}", random.below(SHARED)),
            }),
            SelectorKind::Wide if random.one_in(4) => Self::Everything,
            SelectorKind::Wide => {
                let prefixes = ["/p/1", "/p/2", "/r/", "/s/", "/e/", "/v/", "/w/1", "/l/"];
                Self::Prefix((*random.pick(&prefixes)).to_owned())
            }
        }
    }
}

/// The kind of a selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SelectorKind {
    Url,
    Tag,
    /// Selects many URLs.
    Wide,
}

/// Returns the next target of a client: hot ones often, others occasionally.
pub(super) fn next(random: &mut Random, targets: &[Target]) -> usize {
    match random.below(5) {
        0..3 => (random.below(HOT) * 7 + 3) % targets.len(),
        _ => random.below(targets.len()),
    }
}
