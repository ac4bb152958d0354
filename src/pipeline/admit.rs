//! Admission: a storable response is teed into the store while it goes to those who wait for it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response, header};
use http_body::Body;
use http_body_util::BodyExt;

use super::{
    collapse::Takeoff,
    credentials,
    fetch::Ask,
    fill::{Fill, FillReader},
    landing::{Arriving, Landing},
    lookup,
    payload::{Payload, Unreadable},
    sensitive,
    site::Site,
    uncacheable::Known,
};
use crate::{
    entry::{CompleteBody, Draft, Entry, Selection},
    key::{
        CacheKey, is_selected_by_cookies,
        vary::{self, Vary, VarySet},
    },
    origin::{Complete, ResponseBody},
    policy::{Freshness, ResponseDirectives, freshness::Constraints, stored_fields, tag},
    route::Route,
    store::{Put, Store},
};

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
    let (mut head, body) = response.into_parts();
    let selecting = selecting_fields(&ask, &head.headers).await;
    let (key, selection, selecting) = match selecting {
        Some((selection, values)) => {
            let set = selection.set.clone();
            (ask.target.variant(&values), Some(selection), Some((set, values)))
        }
        None => (ask.target.clone(), None, None),
    };
    if let Some(selection) = &selection {
        // At once: those who wait and want another variant look for what selects theirs.
        place(&ask, selection, &key).await;
    }
    vary::name_all(&mut head.headers, ask.site.route(ask.route).vary.fields());
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
        refusal: None,
    });
    if freshness.answers_unasked(freshness.received_at) {
        ask.pipeline.uncacheable.forget(&ask.key);
        flight.as_ref().inspect(|flight| flight.land(Landing::Arriving(Arc::clone(&arriving))));
    } else {
        ask.send_off(Known::Unshared, freshness.received_at, flight.as_ref());
    }
    let (stamp, asked_at) = (ask.stamp, ask.asked_at);
    let (status, facets) = (head.status, ask.facets());
    let draft = Draft { key, status, headers, freshness, tags, facets, stamp, asked_at };
    tokio::spawn(pump(ask, body, fill, (draft, selection, payload), flight));
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
    (draft, selection, payload): (Draft, Option<Selection>, Payload),
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
        put = store(&ask, &body, (draft, selection), payload).await;
    }
    // What was stored since does as well for the other nodes.
    let is_stored = matches!(put, Some(Put::Stored | Put::Overtaken));
    flight.as_ref().filter(|_| is_stored).inspect(|flight| flight.stored());
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
        let kept = |fields| stored_fields(fields, &ResponseDirectives::parse(head));
        let trailers = self.trailers.as_ref().map(kept);
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
    (mut draft, selection): (Draft, Option<Selection>),
    payload: Payload,
) -> Option<Put> {
    let further = ask.read_body(payload, body.chunks()).await;
    if let Err(cause) = further.and_then(|further| add_tags(&mut draft.tags, further)) {
        ask.count_unreadable(cause);
        return None;
    }
    if !ask.is_alive(&draft.tags) {
        return None;
    }
    let key = draft.key.clone();
    let response = Arc::new(draft.complete(body)?);
    let put = ask.pipeline.store.put(&key, Entry::Response(Arc::clone(&response))).await;
    if put == Put::Stored {
        ask.note_popular(&key, &response);
        if let Some(selection) = selection.filter(|_| has_lost_its_place(ask, &key)) {
            place(ask, &selection, &key).await;
        }
    }
    Some(put)
}

/// Whether a variant was one too many while it arrived.
fn has_lost_its_place<S: Store>(ask: &Ask<S>, key: &CacheKey) -> bool {
    match ask.pipeline.store.peek(&ask.target) {
        Some(Entry::Variants(variants)) => !variants.recent.contains(&key.digest()),
        _ => false,
    }
}

/// Gives a variant its place under its target.
async fn place<S: Store>(ask: &Ask<S>, selection: &Selection, key: &CacheKey) {
    let lost = ask.pipeline.store.place(&ask.target, selection.clone(), key.digest()).await;
    if let Some(metrics) = ask.site.metrics.get(ask.route) {
        metrics.variants_limited.inc_by(lost as u64);
    }
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
pub struct FailUnlessComplete<'a>(pub &'a Fill);

impl Drop for FailUnlessComplete<'_> {
    fn drop(&mut self) {
        self.0.fail();
    }
}

/// The selecting fields of a response: those of its `Vary` and those of its route, or, where these are
/// none, those that other responses of its target named lately. And a request's values for them.
async fn selecting_fields<S: Store>(
    ask: &Ask<S>,
    response: &HeaderMap,
) -> Option<(Selection, Vec<u8>)> {
    let (rule, seen) = (&ask.site.route(ask.route).vary, ask.asked_at);
    let set = selecting_set(&ask.site, ask.site.route(ask.route), response);
    let mut selection = Selection { set, seen, codings: Vec::new() };
    if selection.set.is_empty() && rule.cookies.is_empty() {
        selection = learned(ask).await?;
    }
    selection.codings.clear();
    if selection.set.contains(&header::ACCEPT_ENCODING) {
        selection.codings.extend(vary::codings(&ask.request.headers).map(Into::into));
    }
    let values = lookup::selecting(&selection.set, rule, &ask.request.headers);
    Some((selection, values))
}

/// What selects among the variants of a target, as far as that is known.
async fn learned<S: Store>(ask: &Ask<S>) -> Option<Selection> {
    let store = &ask.pipeline.store;
    let known = match store.peek(&ask.target) {
        // The lookup found an index, and there may be no memory to find it in.
        None if ask.key != ask.target => store.get(&ask.target).await,
        known => known,
    };
    match known? {
        Entry::Variants(variants) => variants.learned(ask.asked_at).cloned(),
        Entry::Response(_) => None,
    }
}

/// Whether cookies chose the response with this key, and the origin did not make it fresh: then it has to
/// tell caches behind this one that others may get another.
pub fn is_chosen_by_cookies(key: &[u8], freshness: &Freshness) -> bool {
    !freshness.constraints.has_any(Constraints::FRESH_BY_ORIGIN) && is_selected_by_cookies(key)
}

/// The names of the fields that select among the responses of a route like this one. Those that its partition
/// is made of select nothing more.
pub fn selecting_set(site: &Site, route: &Route, response: &HeaderMap) -> VarySet {
    let mut set = match Vary::parse(response) {
        Vary::By(set) => unsatisfied(site, route, set),
        Vary::Anything => VarySet::default(),
    };
    route.vary.headers.iter().for_each(|name| set.insert(name.clone()));
    set
}

/// The selecting fields without those that the partition of the route is made of.
pub fn unsatisfied(site: &Site, route: &Route, set: VarySet) -> VarySet {
    if !route.rule.partition.needs_identity() {
        return set;
    }
    let names = set.iter().filter(|name| !credentials::is_partitioned_by(site, route, name));
    names.cloned().collect()
}

/// The tags in the head of a response: those of its route and those the origin sent, which clients do not see.
pub fn tags<S: Store>(ask: &Ask<S>, headers: &mut HeaderMap) -> Vec<String> {
    let query = ask.request.uri.query();
    let mut tags = ask.site.route(ask.route).tags_of(&ask.readings, query, ask.user());
    tags.extend(tag::take(headers, &ask.host()));
    tags.extend(sensitive::tag(&ask.site, ask.site.route(ask.route), &ask.url));
    tags
}
