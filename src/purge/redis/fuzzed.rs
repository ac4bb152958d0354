//! Fuzzing entry point for the parsers of Redis replies.

use fred::types::Value;

use super::reply;

/// Maximum nesting of a reply.
const DEPTH: usize = 6;

/// Runs every reply parser on the value that these bytes describe.
pub fn read(bytes: &[u8]) {
    let reply = value(&mut bytes.iter(), DEPTH);
    let _ =
        (reply::view_reply(&reply), reply::append_reply(&reply), reply::position_report(&reply));
    for entry in
        reply::xread_entries(&reply).into_iter().chain(reply::read_entries(&reply)).flatten()
    {
        let _ = (entry.position(), entry.to_log_entry());
    }
}

/// Builds a reply from bytes that encode the kind, length and content of each value.
fn value<'a>(bytes: &mut impl Iterator<Item = &'a u8>, depth: usize) -> Value {
    let Some(kind) = bytes.next() else { return Value::Null };
    let length = usize::from(*bytes.next().unwrap_or(&0));
    match kind % 8 {
        0 => Value::Null,
        1 => Value::Integer(bytes.take(8).fold(0, |number, byte| number << 8 | i64::from(*byte))),
        2 => Value::Bytes(bytes.take(length).copied().collect::<Vec<_>>().into()),
        3 | 4 => String::from_utf8_lossy(&bytes.take(length).copied().collect::<Vec<_>>())
            .into_owned()
            .into(),
        // Numbers and identifiers in the format of the scripts.
        5 => format!("{length:016x}").into(),
        6 => format!("{length}-{}", length / 3).into(),
        _ if depth == 0 => Value::Null,
        _ => Value::Array((0..length % 16).map(|_| value(bytes, depth - 1)).collect()),
    }
}
