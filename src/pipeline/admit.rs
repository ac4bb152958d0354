//! Admission: tees a cacheable response into the store while the client and followers read it.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    cacheability::StoreDecision,
    collapse::FlightLeader,
    fetch_context::FetchContext,
    flight_result::{FlightResult, StreamingResponse, Variant},
    hit_for_miss::HitForMissReason,
    payload::{self, Payload, PayloadError},
    selecting_fields::{is_chosen_by_cookies, selecting_set, selecting_values},
    tee::{BudgetShare, NotKeptReason, SMALL_BODY, TeeBody, TeeReader},
};
use crate::{
    entry::{CompleteBody, Entry, LanguageVariant, ResponseDraft, StoredResponse, VarySelection},
    fence::PurgeVerdict,
    field::list,
    key::{CacheKey, vary},
    origin::{CompletionProof, ResponseBody},
    policy::{CacheResult, ResponseDirectives, cache_status::StoredStatus, stored_fields, tag},
    store::{PutOutcome, Store},
};

/// How often a fetch with a lease checks whether its response has been purged.
const PURGE_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// A response to store, and the request that it was fetched for.
pub(super) struct Admission<S> {
    /// The request, its key and its fence stamp.
    pub context: FetchContext<S>,
    /// The terms on which the response is stored.
    pub terms: StoreDecision,
    /// The memory reserved for the response's body.
    pub share: BudgetShare,
    /// The tags in the response's body; empty if the body has not been read.
    pub tags: Vec<String>,
    /// The value of `X-API-Cache` for readers of the response.
    pub result: CacheResult,
}

/// A response that is being stored, as one requester receives it.
pub(super) struct TeedResponse {
    /// The parts of the response that all readers share.
    pub streaming: Arc<StreamingResponse>,
    /// The complete header section, including fields for this requester only.
    pub headers: HeaderMap,
    /// Reads the body from its first byte.
    pub reader: TeeReader,
}

impl TeedResponse {
    /// Returns a shared response as a follower receives it.
    pub(super) fn of_follower(streaming: Arc<StreamingResponse>, reader: TeeReader) -> Self {
        Self { headers: streaming.headers.clone(), streaming, reader }
    }
}

/// Starts to store a response, publishes it to followers, and returns it with a reader for the
/// requester.
pub(super) async fn admit<S: Store>(
    admission: Admission<S>,
    response: Response<ResponseBody>,
    mut flight: Option<FlightLeader>,
) -> TeedResponse {
    let Admission { context, terms, share, tags: in_body, result } = admission;
    let (freshness, payload) = (terms.freshness, terms.payload);
    let (mut head, body) = response.into_parts();
    let (mut draft, variant) = draft(&context, &terms, head.status, &mut head.headers).await;
    let is_within_limit = add_tags(&mut draft.tags, in_body).is_ok();
    let (selection, selecting) = variant.unzip();
    let (headers, tags, key) = (&draft.headers, &draft.tags, &draft.key);
    if let Some(flight) = flight.as_mut().filter(|_| context.outlives_purges(tags)) {
        flight.alias(key);
    }
    let expected = body.size_hint().exact();
    let (tee, reader) = TeeBody::with_reader(expected, context.max_body_bytes(), share);
    let streaming = Arc::new(StreamingResponse {
        status: head.status,
        headers: headers.clone(),
        freshness,
        stored: if is_within_limit { payload.stored(expected) } else { StoredStatus::No },
        tags: (payload == Payload::Unused).then(|| tags.clone().into()),
        tee: Arc::clone(&tee),
        variant: selecting,
        by_cookies: is_chosen_by_cookies(context.target.text(), &freshness),
        result,
        refusal: None,
    });
    if freshness.is_reusable_unvalidated(freshness.received_at) {
        context.pipeline.hit_for_miss.forget(&context.key);
        flight
            .as_ref()
            .inspect(|flight| flight.publish(FlightResult::Streaming(Arc::clone(&streaming))));
    } else {
        context.mark_hit_for_miss(
            HitForMissReason::Unshared,
            freshness.received_at,
            flight.as_ref(),
        );
    }
    // Boxed, since the runtime copies a task several times.
    tokio::spawn(Box::pin(pump(context, body, tee, (draft, selection, payload), flight)));
    TeedResponse { streaming, headers: head.headers, reader }
}

/// Drafts the response to store from its head, and adds the draft to the variants of its target.
///
/// Adds the route's fields to the `Vary` of the head.
async fn draft<S: Store>(
    context: &FetchContext<S>,
    terms: &StoreDecision,
    status: StatusCode,
    head: &mut HeaderMap,
) -> (ResponseDraft, Option<(VarySelection, Variant)>) {
    let (key, variant) = match selecting_fields(context, head).await {
        Some((selection, values)) => {
            let key = context.target.variant(&values);
            // Before publishing, since followers that want another variant look it up in the index.
            Box::pin(list_variant(context, &selection, &key)).await;
            let set = selection.set.clone();
            (key, Some((selection, (set, values))))
        }
        None => (context.target.clone(), None),
    };
    vary::add_to_vary(head, context.matched_route().vary.fields());
    let mut headers = stored_fields(head, &terms.directives);
    let draft = ResponseDraft {
        key,
        status,
        tags: context.tags(&mut headers),
        headers,
        freshness: terms.freshness,
        attributes: context.attributes(),
        stamp: context.stamp,
        requested_at: context.requested_at,
    };
    (draft, variant)
}

/// Stores a complete response. Returns the stored response; `None` if no lookup can find it.
pub(super) async fn store_complete<S: Store>(
    context: &FetchContext<S>,
    terms: &StoreDecision,
    (status, mut head): (StatusCode, HeaderMap),
    body: &CompleteBody,
) -> Option<Arc<StoredResponse>> {
    let (draft, variant) = draft(context, terms, status, &mut head).await;
    let selection = variant.map(|(selection, _)| selection);
    let (put, response) = store(context, body, (draft, selection), terms.payload).await?;
    (put == PutOutcome::Stored).then_some(response)
}

/// Moves the body from the origin to its readers. Stores the body once it is complete.
///
/// The entry is stored before the last byte is delivered, so that a client that has read the
/// response finds it stored. Slow tag extraction does not delay the readers.
async fn pump<S: Store>(
    context: FetchContext<S>,
    body: ResponseBody,
    tee: Arc<TeeBody>,
    (draft, selection, payload): (ResponseDraft, Option<VarySelection>, Payload),
    flight: Option<FlightLeader>,
) {
    let guard = TeeFailGuard(&tee);
    let reading = read(&context, body, &tee, flight.as_ref());
    let end = hold_lease_until_purged(&context, &draft.tags, flight.as_ref(), reading).await;
    let Some(end) = end else { return };
    let kept = tee.kept(end.last.as_ref()).map(|chunks| end.complete(chunks, &draft.headers));
    if let (Err(cause), None) = (&kept, tee.not_kept()) {
        context.note_not_kept(*cause, flight.as_ref());
    }
    let kept = kept.ok().filter(|body| context.may_store(&tee, body.length()));
    let is_slow = payload.is_read_after_delivery(kept.as_ref().map_or(0, CompleteBody::length));
    let mut end = Some(end);
    if is_slow && let Some(end) = end.take() {
        end.deliver(&tee, None).await;
    }
    let mut put = None;
    if let Some(body) = kept {
        put = store(&context, &body, (draft, selection), payload).await;
    }
    // A superseding entry serves the other nodes as well.
    let is_stored = matches!(put, Some((PutOutcome::Stored | PutOutcome::Superseded, _)));
    flight.as_ref().filter(|_| is_stored).inspect(|flight| flight.mark_stored());
    let stored = put.filter(|(put, _)| *put == PutOutcome::Stored);
    let stored = stored.map(|(_, response)| response.body());
    match end {
        Some(end) => end.deliver(&tee, stored).await,
        None => {
            if let Some(body) = stored {
                tee.switch_to_stored(body);
            }
        }
    }
    tee.stop_retaining();
    // Requests could join the flight until now.
    drop((guard, flight));
}

impl<S: Store> FetchContext<S> {
    /// Returns whether a body of this length may be stored. A body with an announced length may
    /// always be stored, because its length was checked before the first byte.
    fn may_store(&self, tee: &TeeBody, length: usize) -> bool {
        let may = tee.has_known_length()
            || length <= SMALL_BODY
            || !self.pipeline.store.is_over_pinned_limit();
        if !may {
            self.note_not_kept(NotKeptReason::Budget, None);
        }
        may
    }

    /// Counts a body that was not retained for the store. If it is too large, marks its key
    /// hit-for-miss.
    fn note_not_kept(&self, cause: NotKeptReason, flight: Option<&FlightLeader>) {
        let counter = &self.pipeline.metrics.bodies_not_kept;
        counter.with_label_values(&[cause.as_str()]).inc();
        if cause == NotKeptReason::TooLarge {
            let now = self.pipeline.clock.steady();
            self.mark_hit_for_miss(HitForMissReason::Unstored, now, flight);
        }
    }
}

/// The last chunk, the trailers and the completion proof of a body, held back from its readers.
struct BodyEnd {
    last: Option<Bytes>,
    trailers: Option<HeaderMap>,
    proof: CompletionProof,
}

/// Waits for `reading`. If a purge selects the response meanwhile, releases the lease of its fetch:
/// otherwise the requests after the purge would wait for the whole body, on every node.
///
/// Tags in the body are unknown until its end, so that their purges release no lease.
async fn hold_lease_until_purged<S: Store, T>(
    context: &FetchContext<S>,
    tags: &[String],
    flight: Option<&FlightLeader>,
    reading: impl Future<Output = T>,
) -> T {
    let Some(flight) = flight.filter(|flight| flight.has_lease()) else { return reading.await };
    let mut reading = pin!(reading);
    let mut checks = interval(PURGE_CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            end = &mut reading => return end,
            _ = checks.tick() => {}
        }
        if context.purge_verdict(tags) != PurgeVerdict::Alive {
            flight.yield_lease();
            return reading.await;
        }
    }
}

/// Reads a body to its end. Returns `None` if it is truncated, or if it has no readers and is not
/// retained.
async fn read<S: Store>(
    context: &FetchContext<S>,
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
                    not_kept =
                        tee.not_kept().inspect(|cause| context.note_not_kept(*cause, flight));
                }
                tee.capacity().await.ok()?;
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Some(BodyEnd { last, trailers, proof: body.completion()? })
}

impl BodyEnd {
    /// Returns the complete body. Keeps only those trailers that may be stored with this head.
    fn complete(&self, chunks: Vec<Bytes>, head: &HeaderMap) -> CompleteBody {
        let kept = |fields| stored_fields(fields, &ResponseDirectives::parse(head));
        let trailers = self.trailers.as_ref().map(kept);
        CompleteBody::new(chunks, trailers.unwrap_or_default(), self.proof)
    }

    /// Delivers the rest of the body to the readers, from the stored copy if there is one.
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
    context: &FetchContext<S>,
    body: &CompleteBody,
    (mut draft, selection): (ResponseDraft, Option<VarySelection>),
    payload: Payload,
) -> Option<(PutOutcome, Arc<StoredResponse>)> {
    let (parsing, request) = (&context.pipeline.parsing, context.payload_request());
    let further = payload::read(parsing, &request, (payload, body.chunks())).await;
    if let Err(cause) = further.and_then(|further| add_tags(&mut draft.tags, further)) {
        context.count_unreadable(cause);
        return None;
    }
    if !context.outlives_purges(&draft.tags) {
        return None;
    }
    let key = draft.key.clone();
    if let Some(probe) = &context.probe {
        context.pipeline.note_fetch(probe, &key, (&draft.headers, body.chunks()));
    }
    let response = Arc::new(draft.complete(body)?);
    let put = context.pipeline.store.put(&key, Entry::Response(Arc::clone(&response))).await;
    if put == PutOutcome::Stored {
        context.note_recent_target(&key, &response);
        if let Some(selection) = selection.filter(|_| was_delisted(context, &key)) {
            Box::pin(list_variant(context, &selection, &key)).await;
        }
    }
    Some((put, response))
}

/// Returns whether a variant was evicted from its target's index while its body arrived.
fn was_delisted<S: Store>(context: &FetchContext<S>, key: &CacheKey) -> bool {
    match context.pipeline.store.peek(&context.target) {
        Some(Entry::Variants(variants)) => !variants.recent.contains(&key.digest()),
        _ => false,
    }
}

/// Adds a variant to its target's index.
async fn list_variant<S: Store>(
    context: &FetchContext<S>,
    selection: &VarySelection,
    key: &CacheKey,
) {
    let lost =
        context.pipeline.store.add_variant(&context.target, selection.clone(), key.digest()).await;
    if let Some(metrics) = context.config.metrics.get(context.route) {
        metrics.variants_limited.inc_by(lost as u64);
    }
}

/// Adds tags from the body to the tags from the head. Fails if the response then has too many tags.
fn add_tags(tags: &mut Vec<String>, further: Vec<String>) -> Result<(), PayloadError> {
    if !further.is_empty() {
        tags.extend(further);
        tags.sort_unstable();
        tags.dedup();
    }
    if tags.len() > tag::MAX_COUNT { Err(PayloadError::Tags) } else { Ok(()) }
}

/// Fails the readers of a body if the task that fills it ends early, so that no reader hangs.
pub(super) struct TeeFailGuard<'a>(pub &'a TeeBody);

impl Drop for TeeFailGuard<'_> {
    fn drop(&mut self) {
        self.0.fail();
    }
}

/// Returns the selecting fields of a response and the request's values for them.
///
/// Uses the fields in the response's `Vary` and the route's `vary`. If there are none, uses the
/// fields by which recent responses for the target vary; `None` if the target has no variants.
async fn selecting_fields<S: Store>(
    context: &FetchContext<S>,
    response: &HeaderMap,
) -> Option<(VarySelection, Vec<u8>)> {
    let (rule, seen) = (&context.matched_route().vary, context.requested_at);
    let set = selecting_set(&context.config, context.matched_route(), response);
    let mut selection = VarySelection { set, seen, codings: Vec::new(), languages: Vec::new() };
    if selection.set.is_empty() && rule.cookies.is_empty() {
        selection = known_selection(context).await?;
    }
    selection.codings.clear();
    if selection.set.contains(&header::ACCEPT_ENCODING) {
        selection.codings.extend(vary::canonical_codings(&context.request.headers).map(Into::into));
    }
    selection.languages.clear();
    if selection.set.contains(&header::ACCEPT_LANGUAGE) {
        selection.languages.extend(language_variant(&context.request.headers, response));
    }
    let values = selecting_values(&selection.set, rule, &context.request.headers);
    Some((selection, values))
}

/// Returns the language of a response and the request's preferences. `None` unless the response
/// names exactly one language.
fn language_variant(request: &HeaderMap, response: &HeaderMap) -> Option<LanguageVariant> {
    let mut named = list::members(response, header::CONTENT_LANGUAGE);
    let language = named.next().filter(|_| named.next().is_none())?;
    let accepted = vary::languages(request)?;
    Some(LanguageVariant { language: language.into(), accepted: accepted.into() })
}

/// Returns the fields that currently select among a target's variants; `None` if it has none.
async fn known_selection<S: Store>(context: &FetchContext<S>) -> Option<VarySelection> {
    let store = &context.pipeline.store;
    let known = match store.peek(&context.target) {
        // The lookup found an index, which may not fit into memory.
        None if context.key != context.target => Box::pin(store.get(&context.target)).await,
        known => known,
    };
    match known? {
        Entry::Variants(variants) => variants.current_selection(context.requested_at).cloned(),
        Entry::Response(_) => None,
    }
}
