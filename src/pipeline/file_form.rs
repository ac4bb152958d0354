//! Files of large bodies, from which the fast path sends hits without a copy.

use std::sync::Arc;

use super::{representation::Representation, state::Pipeline};
use crate::{
    body_file::FileTurn,
    coding::ContentCoding,
    entry::{ContentId, Entry},
    key::CacheKey,
    server::ResponseBatch,
    store::Store,
};

/// Shorter bodies are sent from memory: copying them costs less than a second call and the handling of
/// pages (bench/NOTES.md).
const MIN_FILE_BYTES: usize = 1 << 20;

impl<S: Store> Pipeline<S> {
    /// Appends a body behind its head: from its file, if the body is long and has one.
    ///
    /// The second hit on a long body makes its file, in the background.
    pub(super) fn push_body(self: &Arc<Self>, form: Representation<'_>, batch: &mut ResponseBatch) {
        let body = form.body_bytes();
        if body.len() >= MIN_FILE_BYTES && batch.sends_files() {
            let coding = form.coding();
            if let Some(file) = form.stored.forms.file(coding) {
                return batch.push_file(form.body(), file);
            }
            if form.stored.forms.note_large_hit(coding)
                && let Some(turn) = self.store.body_files().and_then(|files| files.turn(body.len()))
            {
                self.make_file(form, turn);
            }
        }
        batch.push_body(body, || form.body());
    }

    /// Makes the file of a body in the background.
    fn make_file(self: &Arc<Self>, form: Representation<'_>, turn: FileTurn) {
        let pipeline = Arc::clone(self);
        let key = CacheKey::from_text(form.stored.key_text());
        let (content, coding) = (form.stored.forms.content(), form.coding());
        tokio::task::spawn_blocking(move || pipeline.keep_file((&key, content), coding, &turn));
    }

    /// Makes the file of a body, and adds it to the stored response.
    fn keep_file(
        &self,
        (key, content): (&CacheKey, ContentId),
        coding: Option<ContentCoding>,
        turn: &FileTurn,
    ) {
        let Some(Entry::Response(known)) = self.store.peek(key) else { return };
        if known.forms.content() != content || known.forms.file(coding).is_some() {
            return;
        }
        let Some(form) = Representation::of(&known, coding) else { return };
        match turn.create(form.body_bytes()) {
            Ok(file) => self.store.add_file(key, content, coding, file),
            Err(error) => {
                known.forms.exclude_file(coding);
                tracing::debug!(%error, "cannot make a file of a body: sending it from memory");
            }
        }
    }
}
