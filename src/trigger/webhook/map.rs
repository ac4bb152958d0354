//! From a payload to purges: which rules apply to a delivery, and what they select. Pure.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName};
use serde_json::Value;
use serde_json_path::JsonPath;

use super::template::{PayloadTemplate, TooMany};
use crate::{
    fence::{Mode, Purge, Selector, Source},
    policy::tag,
};

/// How many tags one delivery may purge, and how many bytes they may have together.
const MOST: (usize, usize) = (10_000, 1 << 20);

/// What a webhook's deliveries mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// Where the event's name stands.
    pub event: Option<ToldIn>,
    /// The rules; each that applies does.
    pub rules: Box<[Rule]>,
}

/// Where a delivery tells something about itself: what happened, which delivery it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToldIn {
    /// In a field of the request.
    Header(HeaderName),
    /// In the payload.
    Payload(JsonPath),
}

/// What some deliveries purge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The events it is for; every one where there are none.
    pub events: Box<[Box<str>]>,
    /// What else has to hold.
    pub when: Box<[Condition]>,
    /// The tags.
    pub purge: Box<[PayloadTemplate]>,
    /// Whether what they select is gone or stale.
    pub mode: Mode,
    /// Whether what they select is fetched again where it was lately asked for.
    pub warm: bool,
}

/// A value of the payload that has to be one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Where it stands; where there are several, one of them suffices.
    pub path: JsonPath,
    /// What it may be.
    pub values: Box<[Value]>,
}

/// What a delivery comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// What to purge: nothing, the tags of one mode, or those of both.
    pub purges: Vec<Purge>,
    /// How many rules applied.
    pub rules: usize,
    /// How many of their templates found no value in the payload.
    pub unfilled: usize,
}

impl Map {
    /// What a delivery to the webhook of this name comes to.
    pub fn apply(
        &self,
        name: &str,
        headers: &HeaderMap,
        payload: &Value,
    ) -> Result<Mapped, TooMany> {
        let event = self.event.as_ref().and_then(|from| from.read(headers, payload));
        let applying = |rule: &&Rule| rule.applies(event.as_deref(), payload);
        let rules: Vec<&Rule> = self.rules.iter().filter(applying).collect();
        let (mut hard, mut soft) = (BTreeSet::new(), BTreeSet::new());
        let mut unfilled = 0;
        for rule in &rules {
            let tags = match rule.mode {
                Mode::Hard => &mut hard,
                Mode::Soft => &mut soft,
            };
            for template in &rule.purge {
                let rendered = template.render(payload, MOST.0)?;
                unfilled += usize::from(rendered.is_empty());
                // No stored response has a longer tag.
                tags.extend(rendered.into_iter().filter(|tag| tag.len() <= tag::LONGEST));
            }
        }
        soft.retain(|tag| !hard.contains(tag));
        let count = hard.len() + soft.len();
        let bytes: usize = hard.iter().chain(&soft).map(String::len).sum();
        if count > MOST.0 || bytes > MOST.1 {
            return Err(TooMany);
        }
        let purges = [(Mode::Hard, hard), (Mode::Soft, soft)];
        let purges = purges.into_iter().filter(|(_, tags)| !tags.is_empty());
        let warms = |mode| rules.iter().any(|rule| rule.warm && rule.mode == mode);
        let purges = purges.map(|(mode, tags)| {
            let selectors = tags.into_iter().map(|tag| Selector::Tag(tag.into())).collect();
            let source = Source::Webhook(name.into());
            Purge { mode, selectors, source, reason: None, warm: warms(mode) }
        });
        let purges = purges.collect();
        Ok(Mapped { purges, rules: rules.len(), unfilled })
    }
}

impl ToldIn {
    /// What it tells: a text, or a number as it is written.
    pub fn read(&self, headers: &HeaderMap, payload: &Value) -> Option<String> {
        match self {
            Self::Header(name) => headers.get(name)?.to_str().ok().map(str::to_owned),
            Self::Payload(path) => match path.query(payload).first()? {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            },
        }
    }
}

impl Rule {
    fn applies(&self, event: Option<&str>, payload: &Value) -> bool {
        let is_meant = self.events.is_empty()
            || event.is_some_and(|event| self.events.iter().any(|name| **name == *event));
        is_meant && self.when.iter().all(|condition| condition.holds(payload))
    }
}

impl Condition {
    fn holds(&self, payload: &Value) -> bool {
        let nodes = self.path.query(payload);
        nodes.iter().any(|node| self.values.iter().any(|value| is_same(node, value)))
    }
}

/// Equal, numbers by their value however they are written.
fn is_same(one: &Value, other: &Value) -> bool {
    one == other || one.as_f64().is_some_and(|number| Some(number) == other.as_f64())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn rule(events: &[&str], when: &[(&str, Value)], purge: &[&str], mode: Mode) -> Rule {
        let condition = |(path, value): &(&str, Value)| Condition {
            path: JsonPath::parse(path).unwrap(),
            values: Box::new([value.clone()]),
        };
        Rule {
            events: events.iter().map(|event| (*event).into()).collect(),
            when: when.iter().map(condition).collect(),
            purge: purge.iter().map(|text| PayloadTemplate::parse(text).unwrap()).collect(),
            mode,
            warm: false,
        }
    }

    fn map(rules: Vec<Rule>) -> Map {
        let event = Some(ToldIn::Header(HeaderName::from_static("x-event")));
        Map { event, rules: rules.into() }
    }

    fn apply(map: &Map, event: &'static str, payload: &Value) -> Mapped {
        let mut headers = HeaderMap::new();
        headers.insert("x-event", HeaderValue::from_static(event));
        map.apply("shop", &headers, payload).unwrap()
    }

    fn tags(purge: &Purge) -> Vec<&str> {
        purge.selectors.iter().map(text).collect()
    }

    fn text(selector: &Selector) -> &str {
        match selector {
            Selector::Tag(tag) => tag,
            _ => "not a tag",
        }
    }

    #[test]
    fn every_rule_for_the_event_applies() {
        let map = map(vec![
            rule(&["created", "updated"], &[], &["order:{$.id}"], Mode::Hard),
            rule(&[], &[], &["orders"], Mode::Hard),
            rule(&["deleted"], &[], &["gone"], Mode::Hard),
        ]);
        let mapped = apply(&map, "created", &json!({ "id": 1 }));
        assert_eq!((mapped.rules, mapped.unfilled), (2, 0));
        assert_eq!(mapped.purges[0].source, Source::Webhook("shop".into()));
        assert_eq!(tags(&mapped.purges[0]), ["order:1", "orders"]);
        let other = apply(&map, "other", &json!({}));
        assert_eq!(tags(&other.purges[0]), ["orders"]);
    }

    #[test]
    fn the_event_may_stand_in_the_payload() {
        let event = Some(ToldIn::Payload(JsonPath::parse("$.type").unwrap()));
        let rules = [rule(&["order.created"], &[], &["orders"], Mode::Hard)].into();
        let map = Map { event, rules };
        let rules = |payload| map.apply("shop", &HeaderMap::new(), &payload).unwrap().rules;
        assert_eq!(rules(json!({ "type": "order.created" })), 1);
        assert_eq!(rules(json!({ "type": "order.deleted" })), 0);
        assert_eq!(rules(json!({ "type": 1 })), 0);
        assert_eq!(rules(json!([])), 0);
    }

    #[test]
    fn conditions_narrow_a_rule() {
        let when = [("$.status", json!("breached")), ("$.items[*].count", json!(2))];
        let map = map(vec![rule(&[], &when, &["sla"], Mode::Hard)]);
        let count = |payload| apply(&map, "any", &payload).rules;
        assert_eq!(count(json!({ "status": "breached", "items": [{ "count": 2.0 }] })), 1);
        assert_eq!(count(json!({ "status": "breached", "items": [{ "count": "2" }] })), 0);
        assert_eq!(count(json!({ "status": "met", "items": [{ "count": 2 }] })), 0);
        assert_eq!(count(json!({ "items": [{ "count": 2 }] })), 0);
    }

    #[test]
    fn hard_and_soft_are_two_purges_and_hard_wins() {
        let map = map(vec![
            rule(&[], &[], &["a", "b"], Mode::Soft),
            rule(&[], &[], &["b", "c"], Mode::Hard),
        ]);
        let mapped = apply(&map, "any", &json!({}));
        let modes: Vec<Mode> = mapped.purges.iter().map(|purge| purge.mode).collect();
        assert_eq!(modes, [Mode::Hard, Mode::Soft]);
        assert_eq!(tags(&mapped.purges[0]), ["b", "c"]);
        assert_eq!(tags(&mapped.purges[1]), ["a"]);
    }

    #[test]
    fn what_a_rule_purges_is_fetched_again_where_it_says_so() {
        let warm = Rule { warm: true, ..rule(&["a"], &[], &["x"], Mode::Soft) };
        let map = map(vec![warm, rule(&[], &[], &["y"], Mode::Hard)]);
        let warms = |event| -> Vec<(Mode, bool)> {
            let purges = apply(&map, event, &json!({})).purges;
            purges.iter().map(|purge| (purge.mode, purge.warm)).collect()
        };
        assert_eq!(warms("a"), [(Mode::Hard, false), (Mode::Soft, true)]);
        assert_eq!(warms("b"), [(Mode::Hard, false)]);
    }

    #[test]
    fn templates_without_a_value_are_counted() {
        let map = map(vec![rule(&[], &[], &["a:{$.a}", "b:{$.b}"], Mode::Hard)]);
        let mapped = apply(&map, "any", &json!({ "b": 1 }));
        assert_eq!((mapped.purges.len(), mapped.unfilled), (1, 1));
        let mapped = apply(&map, "any", &json!({}));
        assert_eq!((mapped.purges.len(), mapped.rules, mapped.unfilled), (0, 1, 2));
    }

    #[test]
    fn a_tag_that_no_response_can_have_is_left_out() {
        let map = map(vec![rule(&[], &[], &["{$.a}"], Mode::Hard)]);
        let long = "x".repeat(tag::LONGEST + 1);
        assert_eq!(apply(&map, "any", &json!({ "a": long })).purges, []);
    }

    #[test]
    fn too_many_tags_are_refused_as_a_whole() {
        let map = map(vec![rule(&[], &[], &["{$[*]}"], Mode::Hard)]);
        let payload = json!((0..=MOST.0).collect::<Vec<_>>());
        assert_eq!(map.apply("shop", &HeaderMap::new(), &payload), Err(TooMany));
        let long: Vec<String> = (0..1100).map(|number| format!("{number:01024}")).collect();
        assert_eq!(map.apply("shop", &HeaderMap::new(), &json!(long)), Err(TooMany));
    }
}
