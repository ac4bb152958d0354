//! Parsers of Redis replies, which are untrusted input.

use fred::types::Value;

use std::time::Duration;

use super::{
    cursor::{StreamView, ViewedEntry},
    membership::{MemberRow, MemberStatus, MembershipSnapshot},
    stream_entry::StreamEntry,
};
use crate::{
    fence::{Fence, LogId},
    purge::{NodeId, identifier::from_hex},
};

/// The reply to `view.lua`: the stream, and the membership if the lease was granted.
pub(super) struct ViewReply {
    pub(super) view: StreamView,
    pub(super) lease: Option<MembershipSnapshot>,
}

/// The reply to `append.lua`: the position of the new or the earlier record, and the membership.
pub(super) struct AppendReply {
    pub(super) fence: Fence,
    pub(super) occurrence: IdempotencyResult,
    pub(super) snapshot: MembershipSnapshot,
}

/// Whether an idempotency key was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdempotencyResult {
    First,
    Repeat,
}

/// Parses the reply to `view.lua`; `None` if malformed.
pub(super) fn view_reply(reply: &Value) -> Option<ViewReply> {
    let [run, first, last, own, granted, age, nodes] = members(reply)? else { return None };
    let run = text(run)?.into();
    let view = StreamView { run, first: seen(first)?, last: seen(last)?, own: seen(own)? };
    let snapshot = snapshot(age, nodes)?;
    let lease = (text(granted)? == "1").then_some(snapshot);
    Some(ViewReply { view, lease })
}

/// Parses the reply to `append.lua`; `None` if malformed.
pub(super) fn append_reply(reply: &Value) -> Option<AppendReply> {
    let [log, seq, occurrence, age, nodes] = members(reply)? else { return None };
    let occurrence = if text(occurrence)? == "again" {
        IdempotencyResult::Repeat
    } else {
        IdempotencyResult::First
    };
    Some(AppendReply { fence: fence(log, seq)?, occurrence, snapshot: snapshot(age, nodes)? })
}

/// Parses a position report: a node and its position. `None` if malformed.
pub(super) fn position_report(message: &Value) -> Option<(NodeId, Fence)> {
    let message = text(message)?;
    let [node, log, seq] = message.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let fence = Fence { log: LogId(from_hex(log)?), seq: seq.parse().ok()? };
    Some((NodeId(from_hex(node)?), fence))
}

fn snapshot(age: &Value, nodes: &Value) -> Option<MembershipSnapshot> {
    let age = Duration::from_millis(text(age)?.parse().ok()?);
    let nodes = members(nodes)?.chunks_exact(6).filter_map(member_row).collect();
    Some(MembershipSnapshot { age, nodes })
}

/// Parses a row of the membership. Returns `None` if Larder did not write the row.
fn member_row(node: &[Value]) -> Option<MemberRow> {
    let [node, left, ttl, status, log, seq] = node else { return None };
    let ttl: u64 = text(ttl)?.parse().ok()?;
    let status =
        if text(status)? == "off" { MemberStatus::SignedOff } else { MemberStatus::Active };
    Some(MemberRow {
        node: NodeId(from_hex(&text(node)?)?),
        left: text(left)?.parse().ok()?,
        ttl: Duration::from_millis(ttl.min(MAX_TTL_MS)),
        status,
        position: fence(log, seq)?,
    })
}

fn fence(log: &Value, seq: &Value) -> Option<Fence> {
    Some(Fence { log: LogId(from_hex(&text(log)?)?), seq: text(seq)?.parse().ok()? })
}

/// Maximum accepted time for which a node serves without a lease: a day, in milliseconds.
const MAX_TTL_MS: u64 = 86_400_000;

/// Parses the reply to `XREAD` of one stream; `None` if malformed. After a timeout, the list of
/// entries is empty.
pub(super) fn xread_entries(reply: &Value) -> Option<Vec<StreamEntry>> {
    let stream = match reply {
        Value::Null => return Some(Vec::new()),
        Value::Map(streams) => streams.values().next()?,
        streams => match members(streams)? {
            [] => return Some(Vec::new()),
            // RESP2: a list with one pair of name and entries; in some versions, only the pair.
            [Value::Array(pair)] => pair.get(1)?,
            [_name, entries] => entries,
            _ => return None,
        },
    };
    members(stream)?.iter().map(entry).collect()
}

/// Parses the reply to `read.lua`; `None` if malformed.
pub(super) fn read_entries(reply: &Value) -> Option<Vec<StreamEntry>> {
    members(reply)?.iter().map(entry).collect()
}

fn seen(brief: &Value) -> Option<ViewedEntry> {
    if members(brief)?.is_empty() {
        return Some(ViewedEntry::Missing);
    }
    Some(entry(brief)?.position().map_or(ViewedEntry::Foreign, ViewedEntry::Known))
}

fn entry(value: &Value) -> Option<StreamEntry> {
    let [id, fields] = members(value)? else { return None };
    let fields = members(fields)?.chunks_exact(2).map(|pair| match pair {
        [name, value] => Some((text(name)?, text(value)?)),
        _ => None,
    });
    Some(StreamEntry { id: text(id)?, fields: fields.collect::<Option<_>>()? })
}

fn members(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(members) => Some(members),
        _ => None,
    }
}

/// Returns a copy of the text, or `None` if the value is not text. A reference would keep the
/// client's read buffer in memory.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(String::from(&**text)),
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Value {
        Value::String(text.into())
    }

    fn array(members: &[Value]) -> Value {
        Value::Array(members.to_vec())
    }

    fn an_entry(id: &str) -> Value {
        array(&[text(id), array(&[text("log"), text("x"), text("nonce"), text("y")])])
    }

    #[test]
    fn entries_are_parsed_in_both_protocols() {
        let pair = [text("key"), array(&[an_entry("1-0"), an_entry("2-0")])];
        let map = Value::Map([("key", pair[1].clone())].try_into().unwrap());
        for reply in [array(&[array(&pair)]), array(&pair), map] {
            let found = xread_entries(&reply).unwrap();
            let ids: Vec<&str> = found.iter().map(|entry| entry.id.as_str()).collect();
            assert_eq!(ids, ["1-0", "2-0"], "{reply:?}");
            assert_eq!(found[0].fields[1], ("nonce".into(), "y".into()));
        }
        assert_eq!(xread_entries(&Value::Null), Some(Vec::new()));
        assert_eq!(xread_entries(&array(&[])), Some(Vec::new()));
    }

    fn a_node() -> [Value; 6] {
        ["00000000000000cc", "-20", "1000", "on", "00000000000000aa", "12"].map(text)
    }

    fn a_look(granted: &str) -> Value {
        let (nothing, nodes) = (array(&[]), [a_node(), ["?"; 6].map(text)].concat());
        let [granted, age] = [granted, "7"].map(text);
        let last = an_entry("5-1");
        array(&[text("run"), nothing.clone(), last, nothing, granted, age, array(&nodes)])
    }

    #[test]
    fn a_view_has_entries_or_none_and_a_lease_or_none() {
        let ViewReply { view, lease } = view_reply(&a_look("1")).unwrap();
        assert_eq!(
            (&*view.run, view.first, view.last),
            ("run", ViewedEntry::Missing, ViewedEntry::Foreign)
        );
        let position = Fence { log: LogId(0xaa), seq: 12 };
        let (ttl, status) = (Duration::from_secs(1), MemberStatus::Active);
        let row = MemberRow { node: NodeId(0xcc), left: -20, ttl, status, position };
        assert_eq!(
            lease,
            Some(MembershipSnapshot { age: Duration::from_millis(7), nodes: vec![row] })
        );
        assert_eq!(view_reply(&a_look("0")).unwrap().lease, None);
    }

    #[test]
    fn a_report_is_parsed_or_ignored() {
        let position = Fence { log: LogId(0xaa), seq: 12 };
        let read = position_report(&text("00000000000000cc 00000000000000aa 12"));
        assert_eq!(read, Some((NodeId(0xcc), position)));
        for strange in ["", "x", "00000000000000cc 00000000000000aa", "00000000000000cc a 12 3"] {
            assert_eq!(position_report(&text(strange)), None, "{strange}");
        }
    }

    #[test]
    fn replies_of_another_shape_are_rejected() {
        let strange = [
            Value::Null,
            Value::Integer(3),
            array(&[]),
            array(&[Value::Null, Value::Null, Value::Null, Value::Null]),
            array(&[text("run"), array(&[text("1-0")]), array(&[]), array(&[])]),
            array(&[text("zz"), text("1")]),
        ];
        for reply in strange {
            assert!(view_reply(&reply).is_none(), "{reply:?}");
            assert!(append_reply(&reply).is_none(), "{reply:?}");
        }
        let headless = array(&[array(&[text("key"), array(&[text("1-0")])])]);
        assert_eq!(xread_entries(&headless), None);
        assert_eq!(xread_entries(&Value::Integer(3)), None);
    }

    #[test]
    fn the_position_of_a_record_is_parsed() {
        let [log, seq, first, age] = ["00000000000000aa", "12", "first", "0"].map(text);
        let reply = array(&[log, seq, first, age, array(&[])]);
        let AppendReply { fence, occurrence, snapshot } = append_reply(&reply).unwrap();
        assert_eq!(
            (fence, occurrence),
            (Fence { log: LogId(0xaa), seq: 12 }, IdempotencyResult::First)
        );
        assert_eq!(snapshot, MembershipSnapshot::default());
    }

    /// Generates replies with wrong types, nils, errors, huge numbers and invalid UTF-8.
    fn any_value() -> impl Strategy<Value = Value> {
        let texts = prop_oneof![
            Just("00000000000000aa".to_owned()),
            Just("1-0".to_owned()),
            Just("on".to_owned()),
            Just("LOADING Redis is loading the dataset in memory".to_owned()),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<u64>().prop_map(|number| format!("{number}-0")),
            "[ -~]{0,24}".prop_map(String::from),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Boolean),
            any::<i64>().prop_map(Value::Integer),
            any::<f64>().prop_map(Value::Double),
            texts.prop_map(|text| Value::String(text.into())),
            proptest::collection::vec(any::<u8>(), 0..24)
                .prop_map(|bytes| Value::Bytes(bytes.into())),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
                ("[a-z]{1,4}", inner).prop_map(|(key, value)| {
                    Value::Map([(key.as_str(), value)].try_into().unwrap())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_answer_of_a_server_is_a_reason_to_end(reply in any_value()) {
            let found = view_reply(&reply).is_some() || append_reply(&reply).is_some();
            let named = matches!(&reply, Value::Array(parts) if parts.len() == 5 || parts.len() == 7);
            prop_assert!(!found || named, "{reply:?}");
            position_report(&reply);
            for entry in xread_entries(&reply).into_iter().chain(read_entries(&reply)).flatten() {
                entry.to_log_entry();
            }
        }

        #[test]
        fn a_look_with_one_strange_part_is_read_or_refused(at in 0_usize..7, strange in any_value()) {
            let Value::Array(mut parts) = a_look("1") else { unreachable!() };
            parts[at] = strange;
            if let Some(ViewReply { lease: Some(snapshot), .. }) = view_reply(&Value::Array(parts)) {
                prop_assert!(snapshot.nodes.len() <= 8);
            }
        }
    }
}
