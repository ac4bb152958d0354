//! Admission: a storable response is teed into the store while it goes to those who wait for it.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Body;
use http_body_util::BodyExt;

use super::{
    collapse::Takeoff,
    fetch::Ask,
    fill::{Fill, FillReader},
    landing::{Arriving, Landing, Variant},
    lookup,
    payload::{Payload, Unreadable},
    uncacheable::Known,
};
use crate::{
    entry::{CompleteBody, Draft, Entry, Variants},
    fence::Verdict,
    key::{
        CacheKey, is_selected_by_cookies,
        vary::{Vary, VarySet},
    },
    origin::{Complete, ResponseBody},
    policy::{Freshness, ResponseDirectives, freshness::Constraints, stored_fields, tag},
    route::VaryRule,
    store::{Put, Store},
};

/// Variants kept of one target. Beyond it the oldest goes: a `Vary` on something that is different in
/// every request must not fill the store.
const VARIANTS: usize = 64;

/// What was decided about a response that may be stored.
pub struct Admission {
    /// How old it is, and for how long it is of use.
    pub freshness: Freshness,
    /// Its cache directives.
    pub directives: ResponseDirectives,
    /// What its body has a say in.
    pub payload: Payload,
}

/// A response that is being stored, for the one who asked.
pub struct Arrival {
    /// As all see it.
    pub arriving: Arc<Arriving>,
    /// The whole header section, with what belongs to the asker alone.
    pub headers: HeaderMap,
    /// Its body from the first byte.
    pub reader: FillReader,
}

/// Starts to store a response, tells those who wait, and gives the asker a reader.
pub async fn admit<S: Store>(
    ask: Ask<S>,
    response: Response<ResponseBody>,
    admission: Admission,
    mut flight: Option<Takeoff>,
) -> Arrival {
    let Admission { freshness, directives, payload } = admission;
    let (head, body) = response.into_parts();
    let selecting = selecting_fields(&ask, &head.headers);
    let key = match &selecting {
        Some((set, values)) => place_variant(&ask, set, values).await,
        None => ask.target.clone(),
    };
    let mut headers = stored_fields(&head.headers, &directives);
    let tags = tags(&ask, &mut headers);
    if let Some(flight) = flight.as_mut().filter(|_| ask.is_alive(&tags)) {
        flight.alias(&key);
    }
    let expected = body.size_hint().exact();
    let filling = Arc::clone(&ask.pipeline.filling);
    let (fill, reader) = Fill::with_reader(expected, ask.limit(), filling);
    let arriving = Arc::new(Arriving {
        status: head.status,
        headers: headers.clone(),
        freshness,
        stored: payload.stored(),
        tags: (payload == Payload::Irrelevant).then(|| tags.clone().into()),
        fill: Arc::clone(&fill),
        variant: selecting,
        by_cookies: is_chosen_by_cookies(ask.target.text(), &freshness),
        result: ask.fetched(),
    });
    if freshness.answers_unasked(freshness.received_at) {
        ask.pipeline.uncacheable.forget(&ask.key);
        flight.as_ref().inspect(|flight| flight.land(Landing::Arriving(Arc::clone(&arriving))));
    } else {
        ask.send_off(Known::Unshared, freshness.received_at, flight.as_ref());
    }
    let stamp = ask.stamp;
    let (status, facets) = (head.status, ask.site.facets(ask.route));
    let draft = Draft { key, status, headers, freshness, tags, facets, stamp };
    tokio::spawn(pump(ask, body, fill, (draft, payload), flight));
    Arrival { arriving, headers: head.headers, reader }
}

/// Moves the body from the origin to its readers, and to the store once all of it is there.
///
/// The entry is in the store before the last byte is given out, so that whoever has read the response
/// finds it stored; but readers do not wait for tags that take long to read.
async fn pump<S: Store>(
    ask: Ask<S>,
    body: ResponseBody,
    fill: Arc<Fill>,
    (draft, payload): (Draft, Payload),
    flight: Option<Takeoff>,
) {
    let guard = FailUnlessComplete(&fill);
    let Some(end) = read(body, &fill).await else { return };
    let kept = fill.kept(end.last.as_ref()).map(|chunks| end.complete(chunks, &draft.headers));
    let is_slow = payload.is_slow(kept.as_ref().map_or(0, CompleteBody::length));
    let mut end = Some(end);
    if is_slow && let Some(end) = end.take() {
        end.give_out(&fill).await;
    }
    let mut put = None;
    if let Some(body) = kept {
        put = store(&ask, &body, draft, payload).await;
    }
    flight.as_ref().filter(|_| put == Some(Put::Stored)).inspect(|flight| flight.stored());
    if let Some(end) = end {
        end.give_out(&fill).await;
    }
    // Until now, requests could still join.
    drop((guard, flight));
}

/// The end of a body, which its readers do not have yet.
struct End {
    last: Option<Bytes>,
    trailers: Option<HeaderMap>,
    proof: Complete,
}

/// Reads a body to its end; none if it breaks off, or if nobody wants it any more.
async fn read(mut body: ResponseBody, fill: &Fill) -> Option<End> {
    let (mut last, mut trailers) = (None, None);
    while let Some(frame) = body.frame().await {
        match frame.ok()?.into_data() {
            Ok(chunk) if body.is_end_stream() => last = Some(chunk),
            Ok(chunk) => fill.push(chunk).await.ok()?,
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Some(End { last, trailers, proof: body.completion()? })
}

impl End {
    /// The body that ends so, with those of its trailers that may be stored beside such a head.
    fn complete(&self, chunks: Vec<Bytes>, head: &HeaderMap) -> CompleteBody {
        let directives = ResponseDirectives::parse(head);
        let trailers = self.trailers.as_ref().map(|fields| stored_fields(fields, &directives));
        CompleteBody::new(chunks, trailers.unwrap_or_default(), self.proof)
    }

    async fn give_out(self, fill: &Fill) {
        if let Some(last) = self.last {
            let _abandoned = fill.push(last).await;
        }
        fill.complete(self.trailers, self.proof);
    }
}

async fn store<S: Store>(
    ask: &Ask<S>,
    body: &CompleteBody,
    mut draft: Draft,
    payload: Payload,
) -> Option<Put> {
    let further = ask.read_body(payload, body.chunks()).await;
    if let Err(cause) = further.and_then(|further| add_tags(&mut draft.tags, further)) {
        ask.count_unreadable(cause);
        return None;
    }
    let key = draft.key.clone();
    if is_overtaken(ask, &draft) || !ask.is_alive(&draft.tags) {
        return None;
    }
    if key != ask.target && !still_placed(ask, &key).await {
        return None;
    }
    let response = Arc::new(draft.complete(body)?);
    ask.note_popular(&key, &response);
    Some(ask.pipeline.store.put(&key, Entry::Response(response)).await)
}

/// Whether what is stored was asked for later, and is alive.
fn is_overtaken<S: Store>(ask: &Ask<S>, draft: &Draft) -> bool {
    let Some(Entry::Response(stored)) = ask.pipeline.store.peek(&draft.key) else { return false };
    let fences = ask.pipeline.log.fences();
    stored.began() > draft.stamp.began && fences.judge(&stored, Instant::now()) == Verdict::Alive
}

/// Adds the tags of a body to those of its head, unless that is too many.
fn add_tags(tags: &mut Vec<String>, further: Vec<String>) -> Result<(), Unreadable> {
    if further.is_empty() {
        return Ok(());
    }
    tags.extend(further);
    tags.sort_unstable();
    tags.dedup();
    if tags.len() > tag::MOST { Err(Unreadable::Tags) } else { Ok(()) }
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
    let set = selecting_set(rule, response);
    if set.is_empty() && rule.cookies.is_empty() {
        return None;
    }
    let values = lookup::selecting(&set, rule, &ask.request.headers);
    Some((set, values))
}

/// Whether cookies chose the response with this key, and the origin did not make it fresh: then it has to
/// tell caches behind this one that others may get another.
pub fn is_chosen_by_cookies(key: &[u8], freshness: &Freshness) -> bool {
    !freshness.constraints.has_any(Constraints::FRESH_BY_ORIGIN) && is_selected_by_cookies(key)
}

/// The names of the fields that select among the responses of a route like this one.
pub fn selecting_set(rule: &VaryRule, response: &HeaderMap) -> VarySet {
    let mut set = match Vary::parse(response) {
        Vary::By(set) => set,
        Vary::Anything => VarySet::default(),
    };
    rule.headers.iter().for_each(|name| set.insert(name.clone()));
    set
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

/// Whether the variant still has its place: it was not one too many.
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

/// The tags in the head of a response: those of its route and those the origin sent, which clients do not see.
pub fn tags<S: Store>(ask: &Ask<S>, headers: &mut HeaderMap) -> Vec<String> {
    let query = ask.request.uri.query();
    let mut tags = ask.site.route(ask.route).tags_of(&ask.readings, query);
    tags.extend(tag::take(headers, &ask.host()));
    tags
}
