//! Metrics of finished requests. Each thread counts in a shard of its own, because threads that
//! write to the same memory wait for each other: with two threads, a count took 150 ns instead of 20.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::StatusCode;
use parking_lot::Mutex;
use prometheus::{
    core::{Collector, Desc},
    proto,
};

use super::catalogue::{Catalogue, SECONDS};
use crate::{
    policy::cache_status::CacheResult,
    threads::{core_count, thread_number},
};

/// Status classes. The last class counts requests aborted by the client before a response.
pub(super) const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "aborted"];

/// Returns the index of a status in [`CLASSES`]; `None` is an aborted request.
pub(super) fn class_of(status: Option<StatusCode>) -> usize {
    let Some(status) = status else { return CLASSES.len() - 1 };
    usize::from(status.as_u16() / 100).clamp(1, 5) - 1
}

/// The number of buckets of a duration. The last one is for durations over all bounds.
const BUCKETS: usize = SECONDS.len() + 1;

/// The bounds of the buckets in nanoseconds, which are compared without floating-point numbers.
static BOUNDS: LazyLock<[u64; SECONDS.len()]> = LazyLock::new(|| {
    let nanoseconds = |bound| Duration::from_secs_f64(bound).as_nanos();
    SECONDS.map(|bound| nanoseconds(bound).try_into().unwrap_or(u64::MAX))
});

/// The counters of all finished requests, by route and outcome.
#[derive(Clone)]
pub(super) struct RequestMetrics {
    families: Arc<[Desc; 3]>,
    series: Arc<Mutex<Series>>,
}

/// The counters by route and outcome.
type Series = BTreeMap<(Box<str>, &'static str), Arc<RequestCounters>>;

/// The counters of the requests with one route and outcome.
pub(super) struct RequestCounters(Box<[ThreadCounters]>);

/// The counters of one shard, to which usually a single thread writes. A hit changes the first 64
/// bytes, and a bucket.
#[derive(Default)]
#[repr(C, align(128))] // Two lines of a cache: some processors fetch them in pairs.
struct ThreadCounters {
    classes: [AtomicU64; CLASSES.len()],
    bytes: AtomicU64,
    /// The sum of all durations, in units of 100 ns, so that ten thousand requests in progress can
    /// go on for years before it overflows.
    duration: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl RequestCounters {
    fn new() -> Self {
        Self((0..=core_count()).map(|_| ThreadCounters::default()).collect())
    }

    /// Counts a request with this status (`None` if it was aborted), body length and duration.
    #[inline]
    pub(super) fn count(&self, status: Option<StatusCode>, bytes: u64, duration: Duration) {
        let Some(counters) = self.0.get(thread_number() % self.0.len().max(1)) else { return };
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| nanoseconds <= *bound).unwrap_or(BOUNDS.len());
        let counted = (counters.classes.get(class_of(status)), counters.buckets.get(bucket));
        if let (Some(class), Some(bucket)) = counted {
            class.fetch_add(1, Relaxed);
            bucket.fetch_add(1, Relaxed);
        }
        counters.bytes.fetch_add(bytes, Relaxed);
        counters.duration.fetch_add(nanoseconds.saturating_add(50) / 100, Relaxed);
    }

    /// Returns the sum of a counter over all threads.
    fn sum(&self, counter: impl Fn(&ThreadCounters) -> &AtomicU64) -> u64 {
        self.0.iter().map(|counters| counter(counters).load(Relaxed)).sum()
    }

    #[expect(clippy::cast_precision_loss, reason = "a sum of seconds")]
    #[expect(clippy::indexing_slicing, reason = "indices of arrays of constant length")]
    fn durations(&self) -> proto::Histogram {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(SECONDS.len());
        for (index, bound) in SECONDS.iter().enumerate() {
            count += self.sum(|counters| &counters.buckets[index]);
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(count);
            buckets.push(bucket);
        }
        count += self.sum(|counters| &counters.buckets[SECONDS.len()]);
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count);
        histogram.set_sample_sum(self.sum(|counters| &counters.duration) as f64 / 1e7);
        histogram
    }
}

impl RequestMetrics {
    /// Registers the metrics.
    pub(super) fn new(catalogue: &Catalogue<'_>) -> Self {
        let families = [
            Catalogue::family(
                "larder_requests_total",
                "Finished requests, by route, X-API-Cache outcome and status class; `aborted` if the client disconnected before the response.",
                &["cache", "class", "route"],
            ),
            Catalogue::family(
                "larder_request_duration_seconds",
                "Seconds from a request's head to the end of its response.",
                &["cache", "route"],
            ),
            Catalogue::family(
                "larder_response_bytes_total",
                "Bytes of response bodies sent to clients.",
                &["cache", "route"],
            ),
        ];
        let metrics = Self { families: Arc::new(families), series: Arc::default() };
        catalogue.register(Ok(metrics))
    }

    /// Returns the counters of a route and an outcome. They outlive the configuration.
    pub(super) fn of(&self, route: &str, result: CacheResult) -> Arc<RequestCounters> {
        let mut series = self.series.lock();
        let counters = series.entry((route.into(), result.as_str()));
        Arc::clone(counters.or_insert_with(|| Arc::new(RequestCounters::new())))
    }
}

impl Collector for RequestMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.families.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let (mut requests, mut durations, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for ((route, cache), counters) in &*self.series.lock() {
            for (class, name) in CLASSES.iter().enumerate() {
                #[expect(clippy::indexing_slicing, reason = "one counter for each class")]
                let count = counters.sum(|counters| &counters.classes[class]);
                let labels = &[("cache", *cache), ("class", *name), ("route", route)];
                requests.push(counter(labels, count));
            }
            let labels = &[("cache", *cache), ("route", &**route)];
            bytes.push(counter(labels, counters.sum(|counters| &counters.bytes)));
            let mut duration = labelled(labels);
            duration.set_histogram(counters.durations());
            durations.push(duration);
        }
        let [requests_desc, durations_desc, bytes_desc] = &*self.families;
        vec![
            family(requests_desc, proto::MetricType::COUNTER, requests),
            family(durations_desc, proto::MetricType::HISTOGRAM, durations),
            family(bytes_desc, proto::MetricType::COUNTER, bytes),
        ]
    }
}

fn family(
    desc: &Desc,
    kind: proto::MetricType,
    metrics: Vec<proto::Metric>,
) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn labelled(labels: &[(&str, &str)]) -> proto::Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    proto::Metric::from_label(labels.iter().map(pair).collect())
}

#[expect(clippy::cast_precision_loss, reason = "the text format has floating-point numbers")]
fn counter(labels: &[(&str, &str)], count: u64) -> proto::Metric {
    let (mut metric, mut value) = (labelled(labels), proto::Counter::default());
    value.set_value(count as f64);
    metric.set_counter(value);
    metric
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, Registry, TextEncoder};

    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn counts_of_all_threads_are_added() {
        let registry = Registry::new();
        let metrics = RequestMetrics::new(&Catalogue(&registry));
        let threads: Vec<_> = (0..4 * core_count())
            .map(|_| {
                let counters = metrics.of("shop", CacheResult::Hit);
                std::thread::spawn(move || {
                    counters.count(Some(StatusCode::OK), 10, Duration::from_micros(100));
                    counters.count(
                        Some(StatusCode::NOT_MODIFIED),
                        0,
                        Duration::from_nanos(100_001),
                    );
                    counters.count(None, 5, Duration::from_secs(121));
                })
            })
            .collect();
        let count = u32::try_from(threads.len()).unwrap();
        for thread in threads {
            thread.join().unwrap();
        }
        let text = text(&registry);
        let labels = r#"cache="HIT",route="shop""#;
        let seconds = 121.000_2 * f64::from(count);
        for line in [
            format!(r#"requests_total{{cache="HIT",class="2xx",route="shop"}} {count}"#),
            format!(r#"requests_total{{cache="HIT",class="3xx",route="shop"}} {count}"#),
            r#"requests_total{cache="HIT",class="5xx",route="shop"} 0"#.to_owned(),
            format!(r#"requests_total{{cache="HIT",class="aborted",route="shop"}} {count}"#),
            format!("response_bytes_total{{{labels}}} {}", 15 * count),
            format!(r#"request_duration_seconds_bucket{{{labels},le="0.0001"}} {count}"#),
            format!(r#"request_duration_seconds_bucket{{{labels},le="0.0005"}} {}"#, 2 * count),
            format!(r#"request_duration_seconds_bucket{{{labels},le="120"}} {}"#, 2 * count),
            format!(r#"request_duration_seconds_bucket{{{labels},le="+Inf"}} {}"#, 3 * count),
            format!("request_duration_seconds_count{{{labels}}} {}", 3 * count),
            format!("request_duration_seconds_sum{{{labels}}} {seconds}"),
        ] {
            assert!(
                text.lines().any(|known| known.split_once('_') == Some(("larder", &line))),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn counters_outlive_the_configuration() {
        let metrics = RequestMetrics::new(&Catalogue(&Registry::new()));
        let first = metrics.of("shop", CacheResult::Hit);
        assert!(Arc::ptr_eq(&first, &metrics.of("shop", CacheResult::Hit)));
        assert!(!Arc::ptr_eq(&first, &metrics.of("shop", CacheResult::Miss)));
        assert!(!Arc::ptr_eq(&first, &metrics.of("users", CacheResult::Hit)));
    }
}
