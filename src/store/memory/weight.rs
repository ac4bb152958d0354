//! The memory that a stored entry takes.

use quick_cache::Weighter;

use super::shares::SHARE_OVERHEAD;
use crate::entry::{CodedBody, Entry, StoredResponse};

/// Memory overhead of an entry, in bytes: the struct, reference counts, the cache's slot and index,
/// and its share of the ghost list.
pub(super) const OVERHEAD: usize = size_of::<StoredResponse>() + 192;

/// Memory overhead of a form of a body, in bytes: the struct, reference counts and the suffix of its
/// entity tag.
const FORM_OVERHEAD: usize = size_of::<CodedBody>() + 192;

#[derive(Clone)]
pub(super) struct StoredEntryWeighter;

impl Weighter<u128, Entry> for StoredEntryWeighter {
    fn weight(&self, _key: &u128, entry: &Entry) -> u64 {
        weight_of(entry)
    }
}

/// Returns the size of an entry in bytes, including all overhead of the store.
pub(super) fn weight_of(entry: &Entry) -> u64 {
    let bookkeeping = if entry.identity().is_some() { SHARE_OVERHEAD } else { 0 };
    (size_class(entry.heap_size()) + OVERHEAD + bookkeeping + weight_of_forms(entry)) as u64
}

/// Returns the total size of the forms of a response's body, in bytes.
fn weight_of_forms(entry: &Entry) -> usize {
    let Entry::Response(response) = entry else { return 0 };
    let coded = response.forms.iter().map(|form| size_class(form.bytes.len()) + FORM_OVERHEAD);
    let files = response.forms.files().map(|file| file.size() + FORM_OVERHEAD);
    coded.chain(files).sum()
}

/// Returns the size of jemalloc's size class for `size` bytes. There are four classes per doubling.
fn size_class(size: usize) -> usize {
    if size <= 128 {
        return size.next_multiple_of(16);
    }
    let class = (size.next_power_of_two() / 8).max(16);
    size.next_multiple_of(class)
}
