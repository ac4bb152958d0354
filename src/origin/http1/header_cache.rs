//! Each thread caches the fields of the last response. The next response usually has the same names
//! in the same order, and many of the same values, which need no validation and no lookup.

use std::cell::RefCell;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use httparse::Header;

use crate::field::common;

/// Maximum number of cached lines. If all names and values have [`MAX_CACHED_BYTES`], a thread
/// caches 10 KiB.
const MAX_CACHED_LINES: usize = 32;
const MAX_CACHED_BYTES: usize = 128;

/// A value that is repeated this many times in a row is interned.
const STABLE_AFTER: u8 = 8;

thread_local! {
    static CACHE: RefCell<HeaderBlockCache> = const { RefCell::new(HeaderBlockCache { lines: Vec::new() }) };
}

/// The lines of the last response head, by position.
pub(super) struct HeaderBlockCache {
    lines: Vec<CachedLine>,
}

struct CachedLine {
    /// The name as received.
    written: Box<[u8]>,
    name: HeaderName,
    /// The last value; `None` if the values of this field are rarely repeated.
    value: Option<HeaderValue>,
    /// Number of times the value was repeated in a row.
    repeats: u8,
}

type HeaderField = (HeaderName, HeaderValue);

/// The error for a line that is not a valid field.
pub(super) const MALFORMED: &str = "malformed header field";

impl HeaderBlockCache {
    /// Calls `read` with this thread's cache. `read` must not call `with` again.
    pub(super) fn with<R>(read: impl FnOnce(&mut Self) -> R) -> R {
        CACHE.with_borrow_mut(read)
    }

    /// Returns the field in the line at this position of `head`.
    pub(super) fn field(
        &mut self,
        index: usize,
        line: &Header<'_>,
        head: &Bytes,
    ) -> Result<HeaderField, &'static str> {
        match self.lines.get_mut(index) {
            Some(known) if *known.written == *line.name.as_bytes() => known.next(line, head),
            _ => self.insert(index, line, head),
        }
    }

    fn insert(
        &mut self,
        index: usize,
        line: &Header<'_>,
        head: &Bytes,
    ) -> Result<HeaderField, &'static str> {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| MALFORMED)?;
        let mut cached = CachedLine {
            written: line.name.as_bytes().into(),
            value: is_repetitive(&name).then_some(HeaderValue::from_static("")),
            name,
            repeats: 0,
        };
        let field = cached.next(line, head)?;
        if index < MAX_CACHED_LINES && line.name.len() <= MAX_CACHED_BYTES {
            if self.lines.len() == index {
                self.lines.push(cached);
            } else if let Some(line) = self.lines.get_mut(index) {
                *line = cached;
            }
        }
        Ok(field)
    }
}

impl CachedLine {
    /// Returns the field in a line whose name equals the cached name.
    fn next(&mut self, line: &Header<'_>, head: &Bytes) -> Result<HeaderField, &'static str> {
        let Some(last) = &mut self.value else {
            return Ok((self.name.clone(), value(line, head)?));
        };
        if last.as_bytes() != line.value {
            let value = value(line, head)?;
            self.repeats = 0;
            if value.len() <= MAX_CACHED_BYTES {
                // A copy, since a slice would keep the whole head in memory.
                *last = HeaderValue::from_bytes(line.value).map_err(|_| MALFORMED)?;
            }
            return Ok((self.name.clone(), value));
        }
        if self.repeats < STABLE_AFTER {
            self.repeats += 1;
            if self.repeats == STABLE_AFTER {
                *last = common::interned(&self.name, last.clone());
            }
        }
        Ok((self.name.clone(), last.clone()))
    }
}

/// Returns whether the value of this field usually stays the same for at least a second.
fn is_repetitive(name: &HeaderName) -> bool {
    *name == header::DATE || common::is_common(name)
}

fn value(line: &Header<'_>, head: &Bytes) -> Result<HeaderValue, &'static str> {
    HeaderValue::from_maybe_shared(head.slice_ref(line.value)).map_err(|_| MALFORMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        cache: &mut HeaderBlockCache,
        fields: &[(&str, &str)],
    ) -> Result<Vec<HeaderField>, &'static str> {
        let parts = fields.iter().flat_map(|(name, value)| [*name, ": ", *value, "\n"]);
        let head = Bytes::from(parts.collect::<String>());
        let mut start = 0;
        let lines = fields.iter().enumerate().map(|(index, (name, value))| {
            let value_at = start + name.len() + 2;
            start = value_at + value.len() + 1;
            let line = Header { name, value: &head[value_at..value_at + value.len()] };
            cache.field(index, &line, &head)
        });
        lines.collect()
    }

    fn shown(fields: &[HeaderField]) -> Vec<(&str, &[u8])> {
        fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }

    #[test]
    fn each_head_is_read_as_if_it_were_the_first() {
        let mut cache = HeaderBlockCache { lines: Vec::new() };
        let long = "x".repeat(MAX_CACHED_BYTES + 1);
        let heads: [&[(&str, &str)]; 7] = [
            &[("Server", "a"), ("X-One", "1"), ("ETag", "\"1\"")],
            &[("Server", "a"), ("X-One", "2"), ("ETag", "\"2\"")],
            &[("server", "b"), ("X-One", ""), ("Vary", "")],
            &[("Server", "b")],
            &[("Date", "now"), ("Server", "a"), ("Server", &long)],
            &[("Date", "then"), ("Server", "a"), ("Server", &long)],
            &[("Server", "b"), ("Vary", "a"), ("X-One", "1"), ("ETag", "\"1\"")],
        ];
        for fields in heads {
            for _ in 0..=u16::from(STABLE_AFTER) {
                let read = read(&mut cache, fields).unwrap();
                let expected: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| (name.to_ascii_lowercase(), value.as_bytes()))
                    .collect();
                let expected: Vec<_> =
                    expected.iter().map(|(name, value)| (name.as_str(), *value)).collect();
                assert_eq!(shown(&read), expected);
            }
        }
        assert!(read(&mut cache, &[("Server", "b\0")]).is_err());
        assert!(read(&mut cache, &[("Ser ver", "b")]).is_err());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut cache = HeaderBlockCache { lines: Vec::new() };
        let names: Vec<_> = (0..2 * MAX_CACHED_LINES).map(|number| format!("x-{number}")).collect();
        let fields: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
        assert_eq!(read(&mut cache, &fields).unwrap().len(), 2 * MAX_CACHED_LINES);
        assert_eq!(cache.lines.len(), MAX_CACHED_LINES);
        let long = "x".repeat(MAX_CACHED_BYTES + 1);
        read(&mut cache, &[(&long, "1"), ("Server", &long)]).unwrap();
        assert!(cache.lines.iter().all(|line| line.written.len() <= MAX_CACHED_BYTES));
    }
}
