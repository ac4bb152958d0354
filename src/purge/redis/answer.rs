//! What Redis answers, out of the client's types and into ours. Nothing here trusts it.

use fred::types::Value;

use std::time::Duration;

use super::{
    entry::{Entry, hexadecimal},
    place::{Seen, Sight},
    roster::{Census, Presence, Told},
};
use crate::{
    fence::{Fence, LogId},
    purge::NodeId,
};

/// What a node sees of the stream and, where it has its lease, of the nodes.
pub(super) struct Look {
    pub(super) sight: Sight,
    pub(super) lease: Option<Census>,
}

/// Where a record is.
pub(super) struct Entered {
    pub(super) fence: Fence,
    pub(super) turn: Turn,
    pub(super) census: Census,
}

/// Whether something was asked for before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    First,
    Again,
}

/// The answer to `look.lua`.
pub(super) fn look(answer: &Value) -> Option<Look> {
    let [run, first, last, own, granted, age, nodes] = members(answer)? else { return None };
    let run = text(run)?.into();
    let sight = Sight { run, first: seen(first)?, last: seen(last)?, own: seen(own)? };
    let census = census(age, nodes)?;
    let lease = (text(granted)? == "1").then_some(census);
    Some(Look { sight, lease })
}

/// The answer to `append.lua`.
pub(super) fn entered(answer: &Value) -> Option<Entered> {
    let [log, seq, turn, age, nodes] = members(answer)? else { return None };
    let turn = if text(turn)? == "again" { Turn::Again } else { Turn::First };
    Some(Entered { fence: fence(log, seq)?, turn, census: census(age, nodes)? })
}

/// What a node told of itself: which it is, and how far it has come.
pub(super) fn report(message: &Value) -> Option<(NodeId, Fence)> {
    let message = text(message)?;
    let [node, log, seq] = message.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let fence = Fence { log: LogId(hexadecimal(log)?), seq: seq.parse().ok()? };
    Some((NodeId(hexadecimal(node)?), fence))
}

fn census(age: &Value, nodes: &Value) -> Option<Census> {
    let age = Duration::from_millis(text(age)?.parse().ok()?);
    let nodes = members(nodes)?.chunks_exact(6).filter_map(told).collect();
    Some(Census { age, nodes })
}

/// A node that cannot be read was not put there by Larder.
fn told(node: &[Value]) -> Option<Told> {
    let [node, left, ttl, presence, log, seq] = node else { return None };
    let ttl: u64 = text(ttl)?.parse().ok()?;
    let presence = if text(presence)? == "off" { Presence::Off } else { Presence::On };
    Some(Told {
        node: NodeId(hexadecimal(&text(node)?)?),
        left: text(left)?.parse().ok()?,
        ttl: Duration::from_millis(ttl.min(LONGEST)),
        presence,
        place: fence(log, seq)?,
    })
}

fn fence(log: &Value, seq: &Value) -> Option<Fence> {
    Some(Fence { log: LogId(hexadecimal(&text(log)?)?), seq: text(seq)?.parse().ok()? })
}

/// The longest time without a lease that is believed: a day, in milliseconds.
const LONGEST: u64 = 86_400_000;

/// The answer to `XREAD` of one stream; no entries where it waited in vain.
pub(super) fn entries(answer: &Value) -> Option<Vec<Entry>> {
    let stream = match answer {
        Value::Null => return Some(Vec::new()),
        Value::Map(streams) => streams.values().next()?,
        streams => match members(streams)? {
            [] => return Some(Vec::new()),
            // RESP2: pairs of a name and its entries; flat in some versions.
            [Value::Array(pair)] => pair.get(1)?,
            [_name, entries] => entries,
            _ => return None,
        },
    };
    members(stream)?.iter().map(entry).collect()
}

/// The answer to `read.lua`.
pub(super) fn batch(answer: &Value) -> Option<Vec<Entry>> {
    members(answer)?.iter().map(entry).collect()
}

fn seen(brief: &Value) -> Option<Seen> {
    if members(brief)?.is_empty() {
        return Some(Seen::Nothing);
    }
    Some(entry(brief)?.mark().map_or(Seen::Strange, Seen::Mark))
}

fn entry(value: &Value) -> Option<Entry> {
    let [id, fields] = members(value)? else { return None };
    let fields = members(fields)?.chunks_exact(2).map(|pair| match pair {
        [name, value] => Some((text(name)?, text(value)?)),
        _ => None,
    });
    Some(Entry { id: text(id)?, fields: fields.collect::<Option<_>>()? })
}

fn members(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(members) => Some(members),
        _ => None,
    }
}

/// A copy of its text: the client's own pins the buffer it was read into.
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
    fn entries_come_in_any_protocol() {
        let pair = [text("key"), array(&[an_entry("1-0"), an_entry("2-0")])];
        let map = Value::Map([("key", pair[1].clone())].try_into().unwrap());
        for answer in [array(&[array(&pair)]), array(&pair), map] {
            let found = entries(&answer).unwrap();
            let ids: Vec<&str> = found.iter().map(|entry| entry.id.as_str()).collect();
            assert_eq!(ids, ["1-0", "2-0"], "{answer:?}");
            assert_eq!(found[0].fields[1], ("nonce".into(), "y".into()));
        }
        assert_eq!(entries(&Value::Null), Some(Vec::new()));
        assert_eq!(entries(&array(&[])), Some(Vec::new()));
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
    fn a_look_has_entries_or_none_and_a_lease_or_none() {
        let Look { sight, lease } = look(&a_look("1")).unwrap();
        assert_eq!((&*sight.run, sight.first, sight.last), ("run", Seen::Nothing, Seen::Strange));
        let place = Fence { log: LogId(0xaa), seq: 12 };
        let (ttl, presence) = (Duration::from_secs(1), Presence::On);
        let told = Told { node: NodeId(0xcc), left: -20, ttl, presence, place };
        assert_eq!(lease, Some(Census { age: Duration::from_millis(7), nodes: vec![told] }));
        assert_eq!(look(&a_look("0")).unwrap().lease, None);
    }

    #[test]
    fn a_report_is_read_or_ignored() {
        let place = Fence { log: LogId(0xaa), seq: 12 };
        let read = report(&text("00000000000000cc 00000000000000aa 12"));
        assert_eq!(read, Some((NodeId(0xcc), place)));
        for strange in ["", "x", "00000000000000cc 00000000000000aa", "00000000000000cc a 12 3"] {
            assert_eq!(report(&text(strange)), None, "{strange}");
        }
    }

    #[test]
    fn answers_of_another_shape_are_no_answers() {
        let strange = [
            Value::Null,
            Value::Integer(3),
            array(&[]),
            array(&[Value::Null, Value::Null, Value::Null, Value::Null]),
            array(&[text("run"), array(&[text("1-0")]), array(&[]), array(&[])]),
            array(&[text("zz"), text("1")]),
        ];
        for answer in strange {
            assert!(look(&answer).is_none(), "{answer:?}");
            assert!(entered(&answer).is_none(), "{answer:?}");
        }
        let headless = array(&[array(&[text("key"), array(&[text("1-0")])])]);
        assert_eq!(entries(&headless), None);
        assert_eq!(entries(&Value::Integer(3)), None);
    }

    #[test]
    fn the_place_of_a_record_is_read() {
        let [log, seq, first, age] = ["00000000000000aa", "12", "first", "0"].map(text);
        let answer = array(&[log, seq, first, age, array(&[])]);
        let Entered { fence, turn, census } = entered(&answer).unwrap();
        assert_eq!((fence, turn), (Fence { log: LogId(0xaa), seq: 12 }, Turn::First));
        assert_eq!(census, Census::default());
    }

    /// Whatever a server may answer, of this depth: wrong kinds, nothing, errors' texts, numbers beyond all
    /// bounds, text that is none.
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
        fn no_answer_of_a_server_is_a_reason_to_end(answer in any_value()) {
            let found = look(&answer).is_some() || entered(&answer).is_some();
            let named = matches!(&answer, Value::Array(parts) if parts.len() == 5 || parts.len() == 7);
            prop_assert!(!found || named, "{answer:?}");
            report(&answer);
            for entry in entries(&answer).into_iter().chain(batch(&answer)).flatten() {
                entry.line();
            }
        }

        #[test]
        fn a_look_with_one_strange_part_is_read_or_refused(at in 0_usize..7, strange in any_value()) {
            let Value::Array(mut parts) = a_look("1") else { unreachable!() };
            parts[at] = strange;
            if let Some(Look { lease: Some(census), .. }) = look(&Value::Array(parts)) {
                prop_assert!(census.nodes.len() <= 8);
            }
        }
    }
}
