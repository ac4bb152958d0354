//! Compares two requesters: repeats their requests until it is clear whether responses depend on
//! the requester.

use std::{
    hash::{DefaultHasher, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::{sleep, timeout};

use super::{
    detector::SweepTask, probe::ProbeRequest, repeat::NotComparable, sightings::Sighting,
    watch::RouteSampler,
};
use crate::{
    key::CacheKey,
    leak::{ComparedRequester, MAX_BODY, RequesterComparison, Verdict},
    pipeline::{payload, state::Pipeline},
    store::Store,
};

/// Maximum duration of a comparison.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Maximum length of a response that is read inline, in bytes.
const INLINE_BYTES: usize = 16 << 10;

/// Interval at which requests that have waited too long are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Whether a comparison has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ComparisonStart {
    Begun,
    NotNow,
}

impl<S: Store> Pipeline<S> {
    /// Records a response that was fetched for this request and stored under `key`. If the previous
    /// response with this key was for another requester and differs, compares the two requesters.
    pub(in crate::pipeline) fn note_fetch(
        self: &Arc<Self>,
        request: &Arc<ProbeRequest>,
        key: &CacheKey,
        (headers, chunks): (&HeaderMap, &[Bytes]),
    ) {
        if chunks.iter().map(Bytes::len).sum::<usize>() > MAX_BODY {
            return;
        }
        let mut hasher = DefaultHasher::new();
        for chunk in chunks {
            hasher.write(chunk);
        }
        let is_named = !request.names.is_empty()
            && payload::plain(headers, chunks).is_some_and(|body| request.names.stand_in(&body));
        let sighting = Sighting::new(Arc::clone(request), (hasher.finish(), is_named));
        let (previous, sweeper) = self.leaks.add_fetch(key.digest(), sighting);
        if sweeper == SweepTask::IsNeeded {
            tokio::spawn(Arc::clone(self).sweep_fetches());
        }
        if let Some(previous) = previous
            && self.compare_soon([previous, Arc::clone(request)]) == ComparisonStart::Begun
        {
            self.leaks.pause(key.digest(), Instant::now());
        }
    }

    /// Removes fetches that have waited too long. Returns when no fetches are left.
    async fn sweep_fetches(self: Arc<Self>) {
        let mut are_any_left = true;
        while are_any_left {
            sleep(SWEEP_INTERVAL).await;
            are_any_left = self.leaks.sweep(Instant::now());
        }
    }

    /// Compares two requests in the background, unless a requester has logged out, the route is
    /// being compared or recently was, too many comparisons run, or the origin is busy.
    pub(super) fn compare_soon(self: &Arc<Self>, pair: [Arc<ProbeRequest>; 2]) -> ComparisonStart {
        let [first, _] = &pair;
        let Some(watch) = first.config.watch(first.route) else { return ComparisonStart::NotNow };
        let applied_purges = self.log.applied_purges();
        let may_repeat = pair.iter().all(|request| request.may_be_repeated(applied_purges));
        let is_busy = first.config.origin.load().pending > 0;
        let Some(turn) = self.leaks.take_turn().filter(|_| may_repeat && !is_busy) else {
            return ComparisonStart::NotNow;
        };
        let Some(running) = watch.begin_comparing(Instant::now()) else {
            return ComparisonStart::NotNow;
        };
        let (pipeline, watch) = (Arc::clone(self), Arc::clone(watch));
        tokio::spawn(async move {
            let verdict = timeout(TIMEOUT, pipeline.compare(&pair)).await;
            let verdict = verdict.unwrap_or(Err(NotComparable));
            pipeline.count_comparison(&pair, verdict.as_ref());
            let [first, _] = &pair;
            match verdict {
                // Quarantines only if no reload has changed the route since the comparison began.
                Ok(Verdict::Leak(evidence)) if pipeline.is_watched_by(first.route, &watch) => {
                    let name = first.config.route_name(first.route);
                    pipeline.quarantine(name, (&evidence, &first.shown_path()));
                }
                Ok(_) | Err(NotComparable) => watch.note_nothing_found(Instant::now()),
            }
            drop((running, turn));
        });
        ComparisonStart::Begun
    }

    /// Returns whether `watch` is the current watch of the route.
    fn is_watched_by(&self, route: usize, watch: &Arc<RouteSampler>) -> bool {
        let is_same = |current: &Arc<RouteSampler>| Arc::ptr_eq(current, watch);
        self.config.with(|config| config.watch(route).is_some_and(is_same))
    }

    /// Repeats the requests in turn until there is a verdict.
    async fn compare(&self, pair: &[Arc<ProbeRequest>; 2]) -> Result<Verdict, NotComparable> {
        let [first, second] = pair;
        let mut comparison = RequesterComparison::new([first.names.clone(), second.names.clone()]);
        let (mut status, mut is_storable, mut asked) = (None, false, 0);
        while let Some(requester) = comparison.next() {
            let request = match requester {
                ComparedRequester::First => first,
                ComparedRequester::Second => second,
            };
            let response = request.repeat(self, first).await?;
            asked += 1;
            is_storable |= response.is_storable;
            let is_same_kind = *status.get_or_insert(response.status) == response.status;
            if !response.status.is_success()
                || !is_same_kind
                || !response.is_shared_by([first, second])
                || (asked == 2 && !is_storable)
            {
                return Err(NotComparable);
            }
            let verdict;
            (comparison, verdict) = self.add_response(comparison, response.body).await?;
            if verdict != Verdict::Undecided {
                return Ok(verdict);
            }
        }
        Ok(Verdict::Volatile)
    }

    /// Adds a response to the comparison. A long response is read on another thread, so that it
    /// delays no other request.
    async fn add_response(
        &self,
        mut comparison: RequesterComparison,
        body: Bytes,
    ) -> Result<(RequesterComparison, Verdict), NotComparable> {
        let is_short = body.len() <= INLINE_BYTES;
        let add = move || {
            let verdict = comparison.add(&body);
            (comparison, verdict)
        };
        if is_short { Ok(add()) } else { self.parsing.run(add).await.ok_or(NotComparable) }
    }

    fn count_comparison(
        &self,
        [first, _]: &[Arc<ProbeRequest>; 2],
        verdict: Result<&Verdict, &NotComparable>,
    ) {
        let result = match verdict {
            Ok(Verdict::Same) => "same",
            Ok(Verdict::Leak(_)) => "leak",
            Ok(Verdict::Volatile | Verdict::Undecided) => "volatile",
            Err(NotComparable) => "failed",
        };
        let labels = [first.config.route_name(first.route), result];
        self.metrics.leaks.comparisons.with_label_values(&labels).inc();
    }
}
