//! The fields of an origin's last response, remembered by each thread: the next response mostly has the
//! same names in the same order, and many of the same values. What is the same need not be checked or
//! looked up again.

use std::cell::RefCell;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use httparse::Header;

use crate::field::common;

/// Lines remembered, and how long a name or a value may be: at most 10 KiB a thread.
const LINES: usize = 32;
const LONGEST: usize = 128;

/// A value that came so often in a row is likely to stay.
const OFTEN: u8 = 8;

thread_local! {
    static USUAL: RefCell<Usual> = const { RefCell::new(Usual { lines: Vec::new() }) };
}

/// The lines of the last head, by their place in it.
pub(super) struct Usual {
    lines: Vec<Line>,
}

struct Line {
    /// The name as it was written.
    written: Box<[u8]>,
    name: HeaderName,
    /// The last value, where the field mostly has the same one.
    value: Option<HeaderValue>,
    /// How often that came in a row.
    times: u8,
}

type Field = (HeaderName, HeaderValue);

/// Why a line is no field.
pub(super) const MALFORMED: &str = "a field is malformed";

impl Usual {
    /// Gives what this thread remembers. `read` must not ask for it again.
    pub(super) fn with<R>(read: impl FnOnce(&mut Self) -> R) -> R {
        USUAL.with_borrow_mut(read)
    }

    /// The field in the line at this place of a head, which is a part of `head`.
    pub(super) fn field(
        &mut self,
        place: usize,
        line: &Header<'_>,
        head: &Bytes,
    ) -> Result<Field, &'static str> {
        match self.lines.get_mut(place) {
            Some(known) if *known.written == *line.name.as_bytes() => known.next(line, head),
            _ => self.learn(place, line, head),
        }
    }

    fn learn(
        &mut self,
        place: usize,
        line: &Header<'_>,
        head: &Bytes,
    ) -> Result<Field, &'static str> {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| MALFORMED)?;
        let mut learnt = Line {
            written: line.name.as_bytes().into(),
            value: repeats(&name).then_some(HeaderValue::from_static("")),
            name,
            times: 0,
        };
        let field = learnt.next(line, head)?;
        if place < LINES && line.name.len() <= LONGEST {
            if self.lines.len() == place {
                self.lines.push(learnt);
            } else if let Some(line) = self.lines.get_mut(place) {
                *line = learnt;
            }
        }
        Ok(field)
    }
}

impl Line {
    /// The field in a line of this name.
    fn next(&mut self, line: &Header<'_>, head: &Bytes) -> Result<Field, &'static str> {
        let Some(last) = &mut self.value else {
            return Ok((self.name.clone(), value(line, head)?));
        };
        if last.as_bytes() != line.value {
            let value = value(line, head)?;
            self.times = 0;
            if value.len() <= LONGEST {
                // Copied, so that it does not keep the whole head.
                *last = HeaderValue::from_bytes(line.value).map_err(|_| MALFORMED)?;
            }
            return Ok((self.name.clone(), value));
        }
        if self.times < OFTEN {
            self.times += 1;
            if self.times == OFTEN {
                *last = common::interned(&self.name, last.clone());
            }
        }
        Ok((self.name.clone(), last.clone()))
    }
}

/// Whether fields of this name mostly have the same value, for a second at least.
fn repeats(name: &HeaderName) -> bool {
    *name == header::DATE || common::is_common(name)
}

fn value(line: &Header<'_>, head: &Bytes) -> Result<HeaderValue, &'static str> {
    HeaderValue::from_maybe_shared(head.slice_ref(line.value)).map_err(|_| MALFORMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(usual: &mut Usual, fields: &[(&str, &str)]) -> Result<Vec<Field>, &'static str> {
        let parts = fields.iter().flat_map(|(name, value)| [*name, ": ", *value, "\n"]);
        let head = Bytes::from(parts.collect::<String>());
        let mut start = 0;
        let lines = fields.iter().enumerate().map(|(place, (name, value))| {
            let value_at = start + name.len() + 2;
            start = value_at + value.len() + 1;
            let line = Header { name, value: &head[value_at..value_at + value.len()] };
            usual.field(place, &line, &head)
        });
        lines.collect()
    }

    fn told(fields: &[Field]) -> Vec<(&str, &[u8])> {
        fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }

    #[test]
    fn each_head_is_read_as_if_it_were_the_first() {
        let mut usual = Usual { lines: Vec::new() };
        let long = "x".repeat(LONGEST + 1);
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
            for _ in 0..=u16::from(OFTEN) {
                let read = read(&mut usual, fields).unwrap();
                let expected: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| (name.to_ascii_lowercase(), value.as_bytes()))
                    .collect();
                let expected: Vec<_> =
                    expected.iter().map(|(name, value)| (name.as_str(), *value)).collect();
                assert_eq!(told(&read), expected);
            }
        }
        assert!(read(&mut usual, &[("Server", "b\0")]).is_err());
        assert!(read(&mut usual, &[("Ser ver", "b")]).is_err());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut usual = Usual { lines: Vec::new() };
        let names: Vec<_> = (0..2 * LINES).map(|number| format!("x-{number}")).collect();
        let fields: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
        assert_eq!(read(&mut usual, &fields).unwrap().len(), 2 * LINES);
        assert_eq!(usual.lines.len(), LINES);
        let long = "x".repeat(LONGEST + 1);
        read(&mut usual, &[(&long, "1"), ("Server", &long)]).unwrap();
        assert!(usual.lines.iter().all(|line| line.written.len() <= LONGEST));
    }
}
