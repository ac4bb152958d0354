//! Counts for each template: methods, statuses, sizes, times, credentials and parameters.

use std::collections::BTreeMap;

use super::{
    histogram::Histogram,
    log::LoggedRequest,
    parameters::{ParameterSurvey, QueryAdvice},
};

/// The counts of one template.
#[derive(Debug, Default)]
pub(super) struct TemplateSurvey {
    /// Number of reads, with any status.
    pub(super) reads: u64,
    /// Number of reads with status 200, 203, 204 or 304.
    pub(super) usable: u64,
    pub(super) partial: u64,
    pub(super) not_found: u64,
    pub(super) refused: u64,
    pub(super) failed: u64,
    /// Number of successful writes by method.
    pub(super) writes: BTreeMap<String, u64>,
    pub(super) with_credentials: u64,
    pub(super) no_store: u64,
    pub(super) private: u64,
    pub(super) sets_cookie: u64,
    pub(super) streams: u64,
    pub(super) with_lifetime: u64,
    /// Response times of the origin for reads, in milliseconds.
    pub(super) durations: Histogram,
    /// Body lengths of the responses to reads, in bytes.
    pub(super) sizes: Histogram,
    pub(super) parameters: ParameterSurvey,
    /// Whether any parameter is a credential; set by [`Self::take_query`].
    has_query_credentials: bool,
}

impl TemplateSurvey {
    /// Adds a request.
    pub(super) fn add(&mut self, request: &LoggedRequest<'_>) {
        self.refused += u64::from(request.status == 401);
        if request.is_write() {
            if request.is_success() {
                *self.writes.entry(request.method.to_string()).or_default() += 1;
            }
        } else if request.is_read() {
            self.add_read(request);
        }
    }

    fn add_read(&mut self, request: &LoggedRequest<'_>) {
        let response = request.response;
        self.reads += 1;
        for (count, holds) in [
            (&mut self.usable, matches!(request.status, 200 | 203 | 204 | 304)),
            (&mut self.partial, request.status == 206),
            (&mut self.not_found, matches!(request.status, 404 | 410)),
            (&mut self.failed, request.status >= 500),
            (&mut self.with_credentials, request.has_credentials),
            (&mut self.no_store, response.is_no_store),
            (&mut self.private, response.is_private),
            (&mut self.sets_cookie, response.sets_cookie),
            (&mut self.streams, response.is_stream || request.status == 101),
            (&mut self.with_lifetime, response.has_lifetime),
        ] {
            *count += u64::from(holds);
        }
        if !matches!(request.status, 200 | 203 | 204 | 304) {
            return;
        }
        if let Some(duration) = request.duration.filter(|_| !request.is_from_cache) {
            self.durations.add(duration);
        }
        #[expect(clippy::cast_precision_loss, reason = "statistics")]
        if let Some(bytes) = request.bytes.filter(|_| request.status == 200) {
            self.sizes.add(bytes as f64);
        }
        self.parameters.add(request);
    }

    /// Returns what to do with the query, and forgets the parameters.
    ///
    /// `has_clients` is whether the log distinguishes clients.
    pub(super) fn take_query(&mut self, has_clients: bool) -> QueryAdvice {
        let parameters = std::mem::take(&mut self.parameters);
        self.has_query_credentials = parameters.has_credentials;
        parameters.advice(has_clients)
    }

    /// Returns the number of successful writes.
    pub(super) fn all_writes(&self) -> u64 {
        self.writes.values().sum()
    }

    /// Returns whether the log shows that requests carry credentials.
    pub(super) fn has_credentials(&self) -> bool {
        self.with_credentials * 100 > self.reads || self.has_query_credentials
    }

    /// Returns whether the origin sometimes responds with 401.
    pub(super) fn is_behind_login(&self) -> bool {
        self.refused >= 3 && self.refused * 2000 >= self.reads
    }
}
