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
    fill::{Fill, FillReader, NotKept, SMALL, Share},
    landing::{Arriving, Landing},
    lookup,
    payload::{Payload, Unreadable},
    sensitive,
    site::Site,
    uncacheable::Known,
};
use crate::{
    entry::{CompleteBody, Draft, Entry, LanguageVariant, Selection},
    field::list,
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

/// A verdict, and the memory that is reserved for the body.
pub type Admitted = (Admission, Share);

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
    (admission, share): Admitted,
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
    let (fill, reader) = Fill::with_reader(expected, ask.limit(), share);
    let arriving = Arc::new(Arriving {
        status: head.status,
        headers: headers.clone(),
        freshness,
        stored: payload.stored(expected),
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
    let Some(end) = read(&ask, body, &fill, flight.as_ref()).await else { return };
    let kept = fill.kept(end.last.as_ref()).map(|chunks| end.complete(chunks, &draft.headers));
    if let (Err(cause), None) = (&kept, fill.not_kept()) {
        ask.note_not_kept(*cause, flight.as_ref());
    }
    let kept = kept.ok().filter(|body| ask.may_store(&fill, body.length()));
    let is_slow = payload.is_slow(kept.as_ref().map_or(0, CompleteBody::length));
    let mut end = Some(end);
    if is_slow && let Some(end) = end.take() {
        end.give_out(&fill, None).await;
    }
    let mut put = None;
    if let Some(body) = kept {
        put = store(&ask, &body, (draft, selection), payload).await;
    }
    // What was stored since does as well for the other nodes.
    let is_stored = matches!(put, Some((Put::Stored | Put::Overtaken, _)));
    flight.as_ref().filter(|_| is_stored).inspect(|flight| flight.stored());
    let stored = put.filter(|(put, _)| *put == Put::Stored).map(|(_, body)| body);
    match end {
        Some(end) => end.give_out(&fill, stored).await,
        None => {
            if let Some(body) = stored {
                fill.hand_over(body);
            }
        }
    }
    fill.let_go();
    // Until now, requests could still join.
    drop((guard, flight));
}

impl<S: Store> Ask<S> {
    /// Whether a body of this length may be stored now. Of one whose length was announced that was decided
    /// before its first byte.
    fn may_store(&self, fill: &Fill, length: usize) -> bool {
        let may = fill.is_announced() || length <= SMALL || !self.pipeline.store.is_crowded();
        if !may {
            self.note_not_kept(NotKept::Budget, None);
        }
        may
    }

    /// Counts a body that was not kept for the store. One that turned out too large is not waited for again.
    fn note_not_kept(&self, cause: NotKept, flight: Option<&Takeoff>) {
        let counter = &self.pipeline.metrics.bodies_not_kept;
        counter.with_label_values(&[cause.as_str()]).inc();
        if cause == NotKept::TooLarge {
            let now = self.pipeline.clock.steady();
            self.send_off(Known::Unstored, now, flight);
        }
    }
}

/// The end of a body, which its readers do not have yet.
struct End {
    last: Option<Bytes>,
    trailers: Option<HeaderMap>,
    proof: Complete,
}

/// Reads a body to its end; none if it breaks off, or if nobody wants it any more.
async fn read<S: Store>(
    ask: &Ask<S>,
    mut body: ResponseBody,
    fill: &Fill,
    flight: Option<&Takeoff>,
) -> Option<End> {
    let (mut last, mut trailers) = (None, None);
    let mut not_kept = None;
    while let Some(frame) = body.frame().await {
        match frame.ok()?.into_data() {
            Ok(chunk) if body.is_end_stream() => last = Some(chunk),
            Ok(chunk) => {
                fill.add(chunk);
                if not_kept.is_none() {
                    not_kept = fill.not_kept().inspect(|cause| ask.note_not_kept(*cause, flight));
                }
                fill.room().await.ok()?;
            }
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

    /// Gives readers the rest: out of the stored body, if there is one.
    async fn give_out(self, fill: &Fill, stored: Option<Bytes>) {
        match (stored, self.last) {
            (Some(body), _) => fill.hand_over(body),
            (None, Some(last)) => drop(fill.push(last).await),
            (None, None) => {}
        }
        fill.complete(self.trailers, self.proof);
    }
}

async fn store<S: Store>(
    ask: &Ask<S>,
    body: &CompleteBody,
    (mut draft, selection): (Draft, Option<Selection>),
    payload: Payload,
) -> Option<(Put, Bytes)> {
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
    Some((put, response.body()))
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
    let mut selection = Selection { set, seen, codings: Vec::new(), languages: Vec::new() };
    if selection.set.is_empty() && rule.cookies.is_empty() {
        selection = learned(ask).await?;
    }
    selection.codings.clear();
    if selection.set.contains(&header::ACCEPT_ENCODING) {
        selection.codings.extend(vary::codings(&ask.request.headers).map(Into::into));
    }
    selection.languages.clear();
    if selection.set.contains(&header::ACCEPT_LANGUAGE) {
        selection.languages.extend(language_variant(&ask.request.headers, response));
    }
    let values = lookup::selecting(&selection.set, rule, &ask.request.headers);
    Some((selection, values))
}

/// Returns the language of a response and the preferences that it was chosen by, if the response names
/// exactly one language.
fn language_variant(request: &HeaderMap, response: &HeaderMap) -> Option<LanguageVariant> {
    let mut named = list::members(response, header::CONTENT_LANGUAGE);
    let language = named.next().filter(|_| named.next().is_none())?;
    let accepted = vary::languages(request)?;
    Some(LanguageVariant { language: language.into(), accepted: accepted.into() })
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
