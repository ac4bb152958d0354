//! Admission: a storable response is teed into the store while it goes to those who wait for it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response, header};
use http_body::Body;
use http_body_util::BodyExt;

use super::{
    collapse::FlightLeader,
    config_snapshot::ConfigSnapshot,
    credentials,
    fetch::OriginFetch,
    flight_result::{FlightResult, StreamingResponse},
    hit_for_miss::HitForMissReason,
    lookup,
    payload::{Payload, PayloadError},
    sensitive,
    tee::{BudgetShare, NotKeptReason, SMALL_BODY, TeeBody, TeeReader},
};
use crate::{
    entry::{CompleteBody, Entry, LanguageVariant, ResponseDraft, VarySelection},
    field::list,
    key::{
        CacheKey, is_selected_by_cookies,
        vary::{self, Vary, VarySet},
    },
    origin::{CompletionProof, ResponseBody},
    policy::{Freshness, ResponseDirectives, freshness::Constraints, stored_fields, tag},
    route::Route,
    store::{PutOutcome, Store},
};

/// What was decided about a response that may be stored.
pub(super) struct Admission {
    /// How old it is, and for how long it is of use.
    pub freshness: Freshness,
    /// Its cache directives.
    pub directives: ResponseDirectives,
    /// What its body has a say in.
    pub payload: Payload,
}

/// A verdict, and the memory that is reserved for the body.
pub(super) type ReservedAdmission = (Admission, BudgetShare);

/// A response that is being stored, for the one who asked.
pub(super) struct TeedResponse {
    /// As all see it.
    pub streaming: Arc<StreamingResponse>,
    /// The whole header section, with what belongs to the asker alone.
    pub headers: HeaderMap,
    /// Its body from the first byte.
    pub reader: TeeReader,
}

/// Starts to store a response, tells those who wait, and gives the asker a reader.
pub(super) async fn admit<S: Store>(
    fetch: OriginFetch<S>,
    response: Response<ResponseBody>,
    (admission, share): ReservedAdmission,
    mut flight: Option<FlightLeader>,
) -> TeedResponse {
    let Admission { freshness, directives, payload } = admission;
    let (mut head, body) = response.into_parts();
    let selecting = selecting_fields(&fetch, &head.headers).await;
    let (key, selection, selecting) = match selecting {
        Some((selection, values)) => {
            let set = selection.set.clone();
            (fetch.target.variant(&values), Some(selection), Some((set, values)))
        }
        None => (fetch.target.clone(), None, None),
    };
    if let Some(selection) = &selection {
        // At once: those who wait and want another variant look for what selects theirs.
        list_variant(&fetch, selection, &key).await;
    }
    vary::add_to_vary(&mut head.headers, fetch.config.route(fetch.route).vary.fields());
    let mut headers = stored_fields(&head.headers, &directives);
    let tags = tags(&fetch, &mut headers);
    if let Some(flight) = flight.as_mut().filter(|_| fetch.outlives_purges(&tags)) {
        flight.alias(&key);
    }
    let expected = body.size_hint().exact();
    let (tee, reader) = TeeBody::with_reader(expected, fetch.max_body_bytes(), share);
    let streaming = Arc::new(StreamingResponse {
        status: head.status,
        headers: headers.clone(),
        freshness,
        stored: payload.stored(expected),
        tags: (payload == Payload::Unused).then(|| tags.clone().into()),
        tee: Arc::clone(&tee),
        variant: selecting,
        by_cookies: is_chosen_by_cookies(fetch.target.text(), &freshness),
        result: fetch.cache_result(),
        refusal: None,
    });
    if freshness.is_reusable_unvalidated(freshness.received_at) {
        fetch.pipeline.hit_for_miss.forget(&fetch.key);
        flight
            .as_ref()
            .inspect(|flight| flight.publish(FlightResult::Streaming(Arc::clone(&streaming))));
    } else {
        fetch.mark_hit_for_miss(HitForMissReason::Unshared, freshness.received_at, flight.as_ref());
    }
    let (stamp, requested_at) = (fetch.stamp, fetch.requested_at);
    let (status, attributes) = (head.status, fetch.attributes());
    let draft =
        ResponseDraft { key, status, headers, freshness, tags, attributes, stamp, requested_at };
    tokio::spawn(pump(fetch, body, tee, (draft, selection, payload), flight));
    TeedResponse { streaming, headers: head.headers, reader }
}

/// Moves the body from the origin to its readers, and to the store once all of it is there.
///
/// The entry is in the store before the last byte is given out, so that whoever has read the response
/// finds it stored; but readers do not wait for tags that take long to read.
async fn pump<S: Store>(
    fetch: OriginFetch<S>,
    body: ResponseBody,
    tee: Arc<TeeBody>,
    (draft, selection, payload): (ResponseDraft, Option<VarySelection>, Payload),
    flight: Option<FlightLeader>,
) {
    let guard = FailUnlessComplete(&tee);
    let Some(end) = read(&fetch, body, &tee, flight.as_ref()).await else { return };
    let kept = tee.kept(end.last.as_ref()).map(|chunks| end.complete(chunks, &draft.headers));
    if let (Err(cause), None) = (&kept, tee.not_kept()) {
        fetch.note_not_kept(*cause, flight.as_ref());
    }
    let kept = kept.ok().filter(|body| fetch.may_store(&tee, body.length()));
    let is_slow = payload.is_read_after_delivery(kept.as_ref().map_or(0, CompleteBody::length));
    let mut end = Some(end);
    if is_slow && let Some(end) = end.take() {
        end.deliver(&tee, None).await;
    }
    let mut put = None;
    if let Some(body) = kept {
        put = store(&fetch, &body, (draft, selection), payload).await;
    }
    // What was stored since does as well for the other nodes.
    let is_stored = matches!(put, Some((PutOutcome::Stored | PutOutcome::Superseded, _)));
    flight.as_ref().filter(|_| is_stored).inspect(|flight| flight.mark_stored());
    let stored = put.filter(|(put, _)| *put == PutOutcome::Stored).map(|(_, body)| body);
    match end {
        Some(end) => end.deliver(&tee, stored).await,
        None => {
            if let Some(body) = stored {
                tee.switch_to_stored(body);
            }
        }
    }
    tee.stop_retaining();
    // Until now, requests could still join.
    drop((guard, flight));
}

impl<S: Store> OriginFetch<S> {
    /// Whether a body of this length may be stored now. Of one whose length was announced that was decided
    /// before its first byte.
    fn may_store(&self, tee: &TeeBody, length: usize) -> bool {
        let may = tee.has_known_length()
            || length <= SMALL_BODY
            || !self.pipeline.store.is_over_pinned_limit();
        if !may {
            self.note_not_kept(NotKeptReason::Budget, None);
        }
        may
    }

    /// Counts a body that was not kept for the store. One that turned out too large is not waited for again.
    fn note_not_kept(&self, cause: NotKeptReason, flight: Option<&FlightLeader>) {
        let counter = &self.pipeline.metrics.bodies_not_kept;
        counter.with_label_values(&[cause.as_str()]).inc();
        if cause == NotKeptReason::TooLarge {
            let now = self.pipeline.clock.steady();
            self.mark_hit_for_miss(HitForMissReason::Unstored, now, flight);
        }
    }
}

/// The end of a body, which its readers do not have yet.
struct BodyEnd {
    last: Option<Bytes>,
    trailers: Option<HeaderMap>,
    proof: CompletionProof,
}

/// Reads a body to its end; none if it breaks off, or if nobody wants it any more.
async fn read<S: Store>(
    fetch: &OriginFetch<S>,
    mut body: ResponseBody,
    tee: &TeeBody,
    flight: Option<&FlightLeader>,
) -> Option<BodyEnd> {
    let (mut last, mut trailers) = (None, None);
    let mut not_kept = None;
    while let Some(frame) = body.frame().await {
        match frame.ok()?.into_data() {
            Ok(chunk) if body.is_end_stream() => last = Some(chunk),
            Ok(chunk) => {
                tee.add(chunk);
                if not_kept.is_none() {
                    not_kept = tee.not_kept().inspect(|cause| fetch.note_not_kept(*cause, flight));
                }
                tee.capacity().await.ok()?;
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Some(BodyEnd { last, trailers, proof: body.completion()? })
}

impl BodyEnd {
    /// The body that ends so, with those of its trailers that may be stored beside such a head.
    fn complete(&self, chunks: Vec<Bytes>, head: &HeaderMap) -> CompleteBody {
        let kept = |fields| stored_fields(fields, &ResponseDirectives::parse(head));
        let trailers = self.trailers.as_ref().map(kept);
        CompleteBody::new(chunks, trailers.unwrap_or_default(), self.proof)
    }

    /// Gives readers the rest: out of the stored body, if there is one.
    async fn deliver(self, tee: &TeeBody, stored: Option<Bytes>) {
        match (stored, self.last) {
            (Some(body), _) => tee.switch_to_stored(body),
            (None, Some(last)) => drop(tee.push(last).await),
            (None, None) => {}
        }
        tee.complete(self.trailers, self.proof);
    }
}

async fn store<S: Store>(
    fetch: &OriginFetch<S>,
    body: &CompleteBody,
    (mut draft, selection): (ResponseDraft, Option<VarySelection>),
    payload: Payload,
) -> Option<(PutOutcome, Bytes)> {
    let further = fetch.read_body(payload, body.chunks()).await;
    if let Err(cause) = further.and_then(|further| add_tags(&mut draft.tags, further)) {
        fetch.count_unreadable(cause);
        return None;
    }
    if !fetch.outlives_purges(&draft.tags) {
        return None;
    }
    let key = draft.key.clone();
    let response = Arc::new(draft.complete(body)?);
    let put = fetch.pipeline.store.put(&key, Entry::Response(Arc::clone(&response))).await;
    if put == PutOutcome::Stored {
        fetch.note_recent_target(&key, &response);
        if let Some(selection) = selection.filter(|_| was_delisted(fetch, &key)) {
            list_variant(fetch, &selection, &key).await;
        }
    }
    Some((put, response.body()))
}

/// Whether a variant was one too many while it arrived.
fn was_delisted<S: Store>(fetch: &OriginFetch<S>, key: &CacheKey) -> bool {
    match fetch.pipeline.store.peek(&fetch.target) {
        Some(Entry::Variants(variants)) => !variants.recent.contains(&key.digest()),
        _ => false,
    }
}

/// Gives a variant its place under its target.
async fn list_variant<S: Store>(fetch: &OriginFetch<S>, selection: &VarySelection, key: &CacheKey) {
    let lost =
        fetch.pipeline.store.add_variant(&fetch.target, selection.clone(), key.digest()).await;
    if let Some(metrics) = fetch.config.metrics.get(fetch.route) {
        metrics.variants_limited.inc_by(lost as u64);
    }
}

/// Adds the tags of a body to those of its head, unless that is too many.
fn add_tags(tags: &mut Vec<String>, further: Vec<String>) -> Result<(), PayloadError> {
    if further.is_empty() {
        return Ok(());
    }
    tags.extend(further);
    tags.sort_unstable();
    tags.dedup();
    if tags.len() > tag::MAX_COUNT { Err(PayloadError::Tags) } else { Ok(()) }
}

/// A body that is given up, or whose task dies, fails its readers instead of leaving them waiting.
pub(super) struct FailUnlessComplete<'a>(pub &'a TeeBody);

impl Drop for FailUnlessComplete<'_> {
    fn drop(&mut self) {
        self.0.fail();
    }
}

/// The selecting fields of a response: those of its `Vary` and those of its route, or, where these are
/// none, those that other responses of its target named lately. And a request's values for them.
async fn selecting_fields<S: Store>(
    fetch: &OriginFetch<S>,
    response: &HeaderMap,
) -> Option<(VarySelection, Vec<u8>)> {
    let (rule, seen) = (&fetch.config.route(fetch.route).vary, fetch.requested_at);
    let set = selecting_set(&fetch.config, fetch.config.route(fetch.route), response);
    let mut selection = VarySelection { set, seen, codings: Vec::new(), languages: Vec::new() };
    if selection.set.is_empty() && rule.cookies.is_empty() {
        selection = known_selection(fetch).await?;
    }
    selection.codings.clear();
    if selection.set.contains(&header::ACCEPT_ENCODING) {
        selection.codings.extend(vary::canonical_codings(&fetch.request.headers).map(Into::into));
    }
    selection.languages.clear();
    if selection.set.contains(&header::ACCEPT_LANGUAGE) {
        selection.languages.extend(language_variant(&fetch.request.headers, response));
    }
    let values = lookup::selecting_values(&selection.set, rule, &fetch.request.headers);
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
async fn known_selection<S: Store>(fetch: &OriginFetch<S>) -> Option<VarySelection> {
    let store = &fetch.pipeline.store;
    let known = match store.peek(&fetch.target) {
        // The lookup found an index, and there may be no memory to find it in.
        None if fetch.key != fetch.target => store.get(&fetch.target).await,
        known => known,
    };
    match known? {
        Entry::Variants(variants) => variants.current_selection(fetch.requested_at).cloned(),
        Entry::Response(_) => None,
    }
}

/// Whether cookies chose the response with this key, and the origin did not make it fresh: then it has to
/// tell caches behind this one that others may get another.
pub(super) fn is_chosen_by_cookies(key: &[u8], freshness: &Freshness) -> bool {
    !freshness.constraints.has_any(Constraints::FRESH_BY_ORIGIN) && is_selected_by_cookies(key)
}

/// The names of the fields that select among the responses of a route like this one. Those that its partition
/// is made of select nothing more.
pub(super) fn selecting_set(
    config: &ConfigSnapshot,
    route: &Route,
    response: &HeaderMap,
) -> VarySet {
    let mut set = match Vary::parse(response) {
        Vary::Fields(set) => without_partition_fields(config, route, set),
        Vary::Star => VarySet::default(),
    };
    route.vary.headers.iter().for_each(|name| set.insert(name.clone()));
    set
}

/// The selecting fields without those that the partition of the route is made of.
pub(super) fn without_partition_fields(
    config: &ConfigSnapshot,
    route: &Route,
    set: VarySet,
) -> VarySet {
    if !route.rule.partition.needs_identity() {
        return set;
    }
    let names = set.iter().filter(|name| !credentials::is_partitioned_by(config, route, name));
    names.cloned().collect()
}

/// The tags in the head of a response: those of its route and those the origin sent, which clients do not see.
pub(super) fn tags<S: Store>(fetch: &OriginFetch<S>, headers: &mut HeaderMap) -> Vec<String> {
    let query = fetch.request.uri.query();
    let mut tags = fetch.config.route(fetch.route).tags_of(&fetch.readings, query, fetch.user());
    tags.extend(tag::extract(headers, &fetch.host()));
    tags.extend(sensitive::tag(&fetch.config, fetch.config.route(fetch.route), &fetch.url));
    tags
}
