//! Admission: a storable response is teed into the store while it goes to those who wait for it.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Body;
use http_body_util::BodyExt;

use super::{
    collapse::Takeoff,
    fetch::{Ask, Fetched},
    fill::Fill,
    landing::{Arriving, Landing, Variant},
    lookup,
};
use crate::{
    entry::{Content, Draft, Entry, Variants},
    key::{
        CacheKey,
        vary::{Vary, VarySet},
    },
    origin::ResponseBody,
    policy::{CacheResult, Freshness, Reason, ResponseDirectives, stored_fields, tag},
    store::Store,
};

/// Variants kept of one target. Beyond it the oldest goes: a `Vary` on something that is different in
/// every request must not fill the store.
const VARIANTS: usize = 64;

/// Starts to store a response, tells those who wait, and gives the asker a reader.
pub async fn admit<S: Store>(
    ask: Ask<S>,
    response: Response<ResponseBody>,
    freshness: Freshness,
    mut flight: Option<Takeoff>,
) -> Fetched {
    let (head, body) = response.into_parts();
    let selecting = selecting_fields(&ask, &head.headers);
    let key = match &selecting {
        Some((set, values)) => place_variant(&ask, set, values).await,
        None => ask.target.clone(),
    };
    if let Some(flight) = flight.as_mut().filter(|_| ask.is_current()) {
        flight.alias(&key);
    }
    let mut headers = stored_fields(&head.headers, &ResponseDirectives::parse(&head.headers));
    let tags = tags(&ask, &mut headers);
    let expected = body.size_hint().exact();
    let fill = Fill::new(expected, ask.limit(), Arc::clone(&ask.pipeline.filling));
    let result = if ask.stored.is_some() { CacheResult::Expired } else { CacheResult::Miss };
    let arriving = Arc::new(Arriving {
        status: head.status,
        headers: headers.clone(),
        freshness,
        fill: Arc::clone(&fill),
        variant: selecting,
        result,
    });
    let Some(reader) = fill.reader() else {
        // Nothing was read yet, so nothing can be gone.
        return Fetched::Alone(Response::from_parts(head, body), Reason::Incomplete);
    };
    if freshness.answers_unasked(freshness.received_at) {
        ask.pipeline.uncacheable.forget(&ask.key);
        flight.as_ref().inspect(|flight| flight.land(Landing::Arriving(Arc::clone(&arriving))));
    } else {
        ask.send_off(flight.as_ref());
    }
    let draft = Draft { key, status: head.status, headers, freshness, tags };
    tokio::spawn(pump(ask, body, fill, draft, flight));
    Fetched::Arriving { arriving, headers: head.headers, reader }
}

/// Moves the body from the origin to its readers, and to the store once all of it is there.
///
/// The entry is in the store before the last byte is given out, so that whoever has read the response
/// finds it stored.
async fn pump<S: Store>(
    ask: Ask<S>,
    mut body: ResponseBody,
    fill: Arc<Fill>,
    draft: Draft,
    flight: Option<Takeoff>,
) {
    let guard = FailUnlessComplete(&fill);
    let mut trailers: Option<HeaderMap> = None;
    let mut last: Option<Bytes> = None;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return };
        match frame.into_data() {
            Ok(chunk) if body.is_end_stream() => last = Some(chunk),
            Ok(chunk) => {
                if fill.push(chunk).await.is_err() {
                    return;
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    if trailers.is_none() {
        store(&ask, &fill, draft, last.as_ref()).await;
    }
    if let Some(last) = last {
        let _abandoned = fill.push(last).await;
    }
    fill.complete(trailers);
    // Until now, requests could still join.
    drop((guard, flight));
}

async fn store<S: Store>(ask: &Ask<S>, fill: &Fill, draft: Draft, last: Option<&Bytes>) {
    let Some(chunks) = fill.kept(last) else { return };
    let key = draft.key.clone();
    if key != ask.target && !still_placed(ask, &key).await {
        return;
    }
    let Some(response) = draft.complete(Content(&chunks)) else { return };
    ask.keep(&key, Arc::new(response)).await;
}

/// A body that is given up, or whose task dies, fails its readers instead of leaving them waiting.
struct FailUnlessComplete<'a>(&'a Fill);

impl Drop for FailUnlessComplete<'_> {
    fn drop(&mut self) {
        self.0.fail();
    }
}

/// The selecting fields of a response: those of its `Vary` and those of its route.
fn selecting_fields<S: Store>(ask: &Ask<S>, response: &HeaderMap) -> Option<Variant> {
    let rule = &ask.site.route(ask.route).vary;
    let mut set = match Vary::parse(response) {
        Vary::By(set) => set,
        Vary::Anything => VarySet::default(),
    };
    rule.headers.iter().for_each(|name| set.insert(name.clone()));
    if set.is_empty() && rule.cookies.is_empty() {
        return None;
    }
    let values = lookup::selecting(&set, rule, &ask.request.headers);
    Some((set, values))
}

/// Gives a variant its place under its target, and the key that goes with it.
async fn place_variant<S: Store>(ask: &Ask<S>, set: &VarySet, values: &[u8]) -> CacheKey {
    let store = &ask.pipeline.store;
    let mut variants = match store.get(&ask.target).await {
        Some(Entry::Variants(variants)) => Arc::unwrap_or_clone(variants),
        _ => Variants::new(&ask.target, next_generation()),
    };
    let key = ask.target.variant(variants.generation, values);
    variants.sets.retain(|known| known != set);
    variants.sets.insert(0, set.clone());
    variants.sets.truncate(SETS);
    variants.recent.retain(|digest| *digest != key.digest());
    variants.recent.push(key.digest());
    if variants.recent.len() > VARIANTS {
        let oldest = variants.recent.remove(0);
        store.remove(oldest).await;
        if let Some(metrics) = ask.site.metrics.get(ask.route) {
            metrics.variants_limited.inc();
        }
    }
    store.put(&ask.target, Entry::Variants(Arc::new(variants))).await;
    key
}

/// Different `Vary` values remembered of one target; each costs a lookup.
const SETS: usize = 4;

/// Whether the variant's place is still there: the target was not invalidated since.
async fn still_placed<S: Store>(ask: &Ask<S>, key: &CacheKey) -> bool {
    match ask.pipeline.store.get(&ask.target).await {
        Some(Entry::Variants(variants)) => variants.recent.contains(&key.digest()),
        _ => false,
    }
}

/// A number that no target of this process, and by all odds of no other, has seen before.
fn next_generation() -> u64 {
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| {
        let mut seed = [0; 8];
        let _without_entropy = aws_lc_rs::rand::fill(&mut seed);
        AtomicU64::new(u64::from_le_bytes(seed))
    });
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The tags of a response: those of its route and those the origin sent, which clients do not see.
fn tags<S: Store>(ask: &Ask<S>, headers: &mut HeaderMap) -> Vec<String> {
    let uri = &ask.request.uri;
    let mut tags = ask.site.route(ask.route).tags_of(uri.path(), uri.query());
    tags.extend(tag::take(headers));
    tags
}
