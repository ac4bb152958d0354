//! Whether responses depend on the client, and whether they change after writes at other paths.
//!
//! Both are derived from pairs of responses to the same target, sent to one or to two clients.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::{
    log::{LoggedRequest, digest},
    sample::{Sampled, SampledTable},
    templates::TemplateId,
    writes::{LastWrites, ResourceKeys, template_key},
};

/// Maximum number of clients followed for each target. The clients with the lowest digests are
/// followed, so that the set of clients is stable.
const MAX_CLIENTS: usize = 16;

/// How long a client is followed after its last request, in milliseconds.
const FOLLOWED_FOR: i64 = 3_600_000;

/// Maximum time between two compared responses to one client, in milliseconds.
const MAX_GAP: i64 = 600_000;

/// Maximum time between compared responses to two clients, in milliseconds.
const SAME_TIME: i64 = 5_000;

/// Maximum time between two responses compared to find the effect of a write, in milliseconds.
const MAX_WRITE_GAP: i64 = 3_600_000;

/// Maximum number of targets remembered for each template.
const MAX_TARGETS: usize = 2048;

/// Counts of equal and different pairs of responses to reads of one template.
#[derive(Debug)]
pub(super) struct PairSurvey {
    targets: SampledTable<SeenResponses>,
    /// Pairs of consecutive responses to one client.
    same_client: Pairs,
    /// Pairs of responses to two clients at the same time.
    other_client: Pairs,
    /// Pairs of responses to two clients, if one client received the same response before and after
    /// the other client's response.
    between: Pairs,
    /// Pairs for each template with writes at unrelated paths. Indexed by whether the pair is from
    /// one client or from any, and by whether a write fell between the responses.
    writes: BTreeMap<TemplateId, [[Pairs; 2]; 2]>,
}

/// Numbers of equal and of different pairs.
type Pairs = [u64; 2];

/// The last responses to a target. Holds up to 20 responses of 40 bytes each.
#[derive(Debug, Default)]
pub(super) struct SeenResponses {
    latest: SmallVec<[SeenResponse; 1]>,
    clients: SmallVec<[SeenResponse; 1]>,
}

/// A response, reduced to digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SeenResponse {
    at: i64,
    client: Option<u64>,
    variant: u64,
    representation: u64,
}

/// A read, with the writes recorded before it.
pub(super) struct ReadAfterWrites<'a> {
    pub(super) request: &'a LoggedRequest<'a>,
    /// The digest of the target after the proposed query rule is applied.
    pub(super) target: u64,
    /// The keys of writes that concern the read.
    pub(super) keys: ResourceKeys,
    pub(super) writes: &'a LastWrites,
}

impl SeenResponses {
    /// Returns the last response of `now`'s variant.
    fn latest(&self, now: SeenResponse) -> Option<SeenResponse> {
        self.latest.iter().find(|seen| seen.variant == now.variant).copied()
    }

    /// Returns the last response of `now`'s variant to the same client.
    fn own(&self, now: SeenResponse) -> Option<SeenResponse> {
        let is_own =
            |seen: &&SeenResponse| seen.client == now.client && seen.variant == now.variant;
        self.clients.iter().find(is_own).copied()
    }

    /// Returns the last responses of `now`'s variant to other clients.
    fn others(&self, now: SeenResponse) -> impl Iterator<Item = SeenResponse> {
        let others = self.clients.iter().copied();
        others.filter(move |seen| seen.client != now.client && seen.variant == now.variant)
    }

    fn add(&mut self, now: SeenResponse) {
        self.latest.retain(|seen| seen.variant != now.variant);
        self.latest.truncate(3);
        self.latest.push(now);
        if let Some(known) = self.clients.iter_mut().find(|seen| seen.client == now.client) {
            *known = now;
        } else if self.clients.len() < MAX_CLIENTS {
            self.clients.push(now);
        } else {
            let is_old = |seen: &SeenResponse| now.at - seen.at > FOLLOWED_FOR;
            let rank = |seen: &SeenResponse| (is_old(seen), digest(seen.client));
            let last = self.clients.iter_mut().max_by_key(|seen| rank(seen));
            if let Some(last) = last.filter(|last| rank(last) > rank(&now)) {
                *last = now;
            }
        }
    }
}

impl Sampled for PairSurvey {
    type Target = SeenResponses;

    fn targets(&mut self) -> &mut SampledTable<SeenResponses> {
        &mut self.targets
    }
}

impl Default for PairSurvey {
    fn default() -> Self {
        Self {
            targets: SampledTable::new(MAX_TARGETS),
            same_client: [0; 2],
            other_client: [0; 2],
            between: [0; 2],
            writes: BTreeMap::new(),
        }
    }
}

impl PairSurvey {
    /// Adds a read. `elsewhere` lists the templates with writes at unrelated paths.
    pub(super) fn add(&mut self, read: &ReadAfterWrites<'_>, elsewhere: &[TemplateId]) {
        let request = read.request;
        let Some(representation) = request.representation() else { return };
        let (at, client, variant) = (request.at, request.client, request.variant);
        let now = SeenResponse { at, client, variant, representation };
        let Some(seen) = self.targets.entry(read.target) else { return };
        let (latest, own) = (seen.latest(now), seen.own(now));
        if let Some(own) = own.filter(|own| at - own.at <= MAX_GAP) {
            count(&mut self.same_client, own, now);
            let between = seen.others(now).filter(|other| other.at >= own.at);
            if own.representation == representation {
                between.for_each(|other| count(&mut self.between, other, now));
            }
        }
        let same_time = seen.others(now).filter(|other| at - other.at <= SAME_TIME);
        same_time.for_each(|other| count(&mut self.other_client, other, now));
        seen.add(now);
        self.add_writes(read, [latest, own], now, elsewhere);
    }

    /// Counts each pair for every template with writes at other paths.
    fn add_writes(
        &mut self,
        read: &ReadAfterWrites<'_>,
        pairs: [Option<SeenResponse>; 2],
        now: SeenResponse,
        elsewhere: &[TemplateId],
    ) {
        for (side, (before, client)) in pairs.into_iter().zip([None, now.client]).enumerate() {
            let Some(before) = before.filter(|before| now.at - before.at <= MAX_WRITE_GAP) else {
                continue;
            };
            let since =
                |keys: &[u64]| read.writes.last(keys, client).is_some_and(|at| at >= before.at);
            if since(&read.keys) {
                continue;
            }
            let is_different = before.representation != now.representation;
            for template in elsewhere {
                let is_written = since(&[template_key(*template)]);
                let counts = self.writes.entry(*template).or_default();
                let count = counts
                    .get_mut(side)
                    .and_then(|counts| counts.get_mut(usize::from(is_written)))
                    .and_then(|counts| counts.get_mut(usize::from(is_different)));
                *count.unwrap_or(&mut 0) += 1;
            }
        }
    }

    /// Forgets the targets but keeps the counts.
    pub(super) fn forget_targets(&mut self) {
        self.targets = SampledTable::new(MAX_TARGETS);
    }

    /// Returns whether responses depend on the client: between two equal responses to one client,
    /// another client often got a different response.
    pub(super) fn depends_on_client(&self) -> bool {
        if self.between.iter().sum::<u64>() >= 10 {
            // If responses change often, some are equal by chance.
            return share(self.between) >= 0.02 + 0.5 * share(self.same_client);
        }
        let [_, different] = self.other_client;
        different >= 5
            && share(self.other_client) >= 0.5
            && share(self.other_client) > 3.0 * share_at_most(self.same_client)
    }

    /// Returns whether enough pairs of responses to two clients are equal.
    pub(super) fn is_same_for_clients(&self) -> bool {
        self.between.iter().sum::<u64>() >= 30 && !self.depends_on_client()
    }

    /// Returns the numbers of equal and of different pairs of responses to two clients.
    pub(super) fn compared_clients(&self) -> [u64; 2] {
        if self.between.iter().sum::<u64>() >= 10 { self.between } else { self.other_client }
    }

    /// Returns the templates whose writes change this template's responses.
    pub(super) fn changed_by(&self, is_partitioned: bool) -> Vec<TemplateId> {
        let is_cause = |counts: &[[Pairs; 2]; 2]| {
            let [any, own] = counts;
            let [without, with] = if is_partitioned { own } else { any };
            let [_, different] = *with;
            different >= 8
                && without.iter().sum::<u64>() >= 20
                && share(*with) >= 0.5
                && share(*with) > 5.0 * share(*without)
        };
        let causes = self.writes.iter().filter(|(_, counts)| is_cause(counts));
        causes.map(|(template, _)| *template).collect()
    }
}

/// Counts a pair of responses as equal or different.
fn count([equal, different]: &mut Pairs, one: SeenResponse, other: SeenResponse) {
    *if one.representation == other.representation { equal } else { different } += 1;
}

/// Returns the share of different pairs.
#[expect(clippy::cast_precision_loss, reason = "statistics")]
fn share([equal, different]: Pairs) -> f64 {
    different as f64 / (equal + different).max(1) as f64
}

/// Returns an upper estimate of the share of different pairs; 0 if there are fewer than 5 pairs.
#[expect(clippy::cast_precision_loss, reason = "statistics")]
fn share_at_most([equal, different]: Pairs) -> f64 {
    let pairs = (equal + different) as f64;
    if pairs < 5.0 { 0.0 } else { (different as f64 + 0.5) / (pairs + 1.0) }
}
