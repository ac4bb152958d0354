//! Maps payloads to purges: matching rules and their selectors. Pure.

use std::{collections::BTreeSet, sync::Arc};

use http::{HeaderMap, HeaderName};
use serde_json::Value;
use serde_json_path::JsonPath;

use super::template::{PayloadTemplate, TooManyTags};
use crate::{
    fence::{Purge, PurgeMode, PurgeSource, Selector},
    policy::tag,
    trigger::selector::OwnerLookup,
};

/// The limits of one delivery: the number of tags, and their total size in bytes.
const LIMITS: (usize, usize) = (10_000, 1 << 20);

/// The mapping rules of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventMapping {
    /// The location of the event name, if rules depend on it.
    pub event: Option<ValueLocation>,
    /// The rules. All matching rules apply.
    pub rules: Box<[MappingRule]>,
}

/// The location of a value, such as the event name or the delivery id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueLocation {
    /// In a request field.
    Header(HeaderName),
    /// In the payload.
    Payload(JsonPath),
}

/// A rule that maps matching deliveries to purges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingRule {
    /// The events that the rule matches. An empty list matches all events.
    pub events: Box<[Box<str>]>,
    /// Conditions on the payload. All of them have to hold.
    pub when: Box<[PayloadCondition]>,
    /// The tags to purge.
    pub purge: Box<[PayloadTemplate]>,
    /// The users whose responses to purge, named by their claim or gateway field. Without tags, all
    /// responses of these users are purged.
    pub users: Box<[PayloadTemplate]>,
    /// The mode of the purge.
    pub mode: PurgeMode,
    /// Whether to fetch recently requested responses again after the purge.
    pub warm: bool,
}

/// A condition on a value of the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadCondition {
    /// The location of the value. If the path selects several values, one match suffices.
    pub path: JsonPath,
    /// The accepted values.
    pub values: Box<[Value]>,
}

/// The purges of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedPurges {
    /// The purges, at most one for each mode.
    pub purges: Vec<Purge>,
    /// The number of rules that matched.
    pub rules: usize,
    /// The number of templates that found no value in the payload.
    pub unfilled: usize,
}

/// A tag, an owner, or both. If both are present, they select the owner's responses with the tag.
type TagAndOwner = (Option<String>, Option<Arc<str>>);

impl EventMapping {
    /// Returns the purges of a delivery to the webhook `name`.
    pub fn apply(
        &self,
        name: &str,
        (headers, payload): (&HeaderMap, &Value),
        owners: &OwnerLookup,
    ) -> Result<MappedPurges, TooManyTags> {
        let event = self.event.as_ref().and_then(|from| from.read(headers, payload));
        let applying = |rule: &&MappingRule| rule.applies(event.as_deref(), payload);
        let rules: Vec<&MappingRule> = self.rules.iter().filter(applying).collect();
        let (mut hard, mut soft) = (BTreeSet::new(), BTreeSet::new());
        let mut unfilled = 0;
        for rule in &rules {
            let selected = match rule.mode {
                PurgeMode::Hard => &mut hard,
                PurgeMode::Soft => &mut soft,
            };
            unfilled += rule.select(payload, owners, selected)?;
        }
        soft.retain(|selected| !hard.contains(selected));
        let count = hard.len() + soft.len();
        let bytes: usize = hard.iter().chain(&soft).map(size).sum();
        if count > LIMITS.0 || bytes > LIMITS.1 {
            return Err(TooManyTags);
        }
        let purges = [(PurgeMode::Hard, hard), (PurgeMode::Soft, soft)];
        let purges = purges.into_iter().filter(|(_, selected)| !selected.is_empty());
        let warms = |mode| rules.iter().any(|rule| rule.warm && rule.mode == mode);
        let purges = purges.map(|(mode, selected)| {
            let selectors = selected.into_iter().filter_map(selector).collect();
            let source = PurgeSource::Webhook(name.into());
            Purge { mode, selectors, source, reason: None, warm: warms(mode) }
        });
        let purges = purges.collect();
        Ok(MappedPurges { purges, rules: rules.len(), unfilled })
    }
}

impl ValueLocation {
    /// Returns the value as text; `None` if it is neither a string nor a number.
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

impl MappingRule {
    /// Adds the rule's selectors, and returns the number of templates that found no value.
    ///
    /// A rule with users never selects other users' responses. If the payload names no user, the
    /// rule selects nothing.
    fn select(
        &self,
        payload: &Value,
        owners: &OwnerLookup,
        into: &mut BTreeSet<TagAndOwner>,
    ) -> Result<usize, TooManyTags> {
        let (tags, without_tag) = rendered(&self.purge, payload)?;
        let (users, without_user) = rendered(&self.users, payload)?;
        let owners = users.iter().flat_map(|user| owners(None, user)).map(Some);
        let owners: Vec<_> = if self.users.is_empty() { vec![None] } else { owners.collect() };
        let tags: Vec<_> =
            if self.purge.is_empty() { vec![None] } else { tags.into_iter().map(Some).collect() };
        if tags.len().saturating_mul(owners.len()) > LIMITS.0 {
            return Err(TooManyTags);
        }
        let pairs = tags.iter().flat_map(|tag| owners.iter().map(move |owner| (tag, owner)));
        into.extend(pairs.map(|(tag, owner)| (tag.clone(), owner.clone())));
        Ok(without_tag + without_user)
    }

    fn applies(&self, event: Option<&str>, payload: &Value) -> bool {
        let is_meant = self.events.is_empty()
            || event.is_some_and(|event| self.events.iter().any(|name| **name == *event));
        is_meant && self.when.iter().all(|condition| condition.matches(payload))
    }
}

impl PayloadCondition {
    fn matches(&self, payload: &Value) -> bool {
        let nodes = self.path.query(payload);
        nodes.iter().any(|node| self.values.iter().any(|value| is_same(node, value)))
    }
}

/// Renders templates, and returns the texts and the number of templates that found no value.
fn rendered(
    templates: &[PayloadTemplate],
    payload: &Value,
) -> Result<(BTreeSet<String>, usize), TooManyTags> {
    let (mut texts, mut unfilled) = (BTreeSet::new(), 0);
    for template in templates {
        let rendered = template.render(payload, LIMITS.0)?;
        unfilled += usize::from(rendered.is_empty());
        // Tags of stored responses and names of users are never longer.
        texts.extend(rendered.into_iter().filter(|text| text.len() <= tag::MAX_LENGTH));
    }
    Ok((texts, unfilled))
}

fn selector((tag, owner): TagAndOwner) -> Option<Selector> {
    let tag = tag.map(|tag| Selector::Tag(tag.into()));
    let owner = owner.map(|owner| Selector::User((*owner).into()));
    match (tag, owner) {
        (Some(tag), Some(owner)) => Some(Selector::All([tag, owner].into())),
        (tag, owner) => tag.or(owner),
    }
}

fn size((tag, owner): &TagAndOwner) -> usize {
    tag.as_ref().map_or(0, String::len) + owner.as_ref().map_or(0, |owner| owner.len())
}

/// Returns whether two values are equal. Numbers are compared by value, not by notation.
fn is_same(one: &Value, other: &Value) -> bool {
    one == other || one.as_f64().is_some_and(|number| Some(number) == other.as_f64())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn rule(
        events: &[&str],
        when: &[(&str, Value)],
        purge: &[&str],
        mode: PurgeMode,
    ) -> MappingRule {
        let condition = |(path, value): &(&str, Value)| PayloadCondition {
            path: JsonPath::parse(path).unwrap(),
            values: Box::new([value.clone()]),
        };
        MappingRule {
            events: events.iter().map(|event| (*event).into()).collect(),
            when: when.iter().map(condition).collect(),
            purge: templates(purge),
            users: Box::default(),
            mode,
            warm: false,
        }
    }

    fn templates(texts: &[&str]) -> Box<[PayloadTemplate]> {
        texts.iter().map(|text| PayloadTemplate::parse(text).unwrap()).collect()
    }

    /// Returns a fake owner that contains only the length of the claim.
    fn owners(issuer: Option<&str>, claim: &str) -> Vec<Arc<str>> {
        assert_eq!(issuer, None);
        vec![format!("owner-{}", claim.len()).into()]
    }

    fn map(rules: Vec<MappingRule>) -> EventMapping {
        let event = Some(ValueLocation::Header(HeaderName::from_static("x-event")));
        EventMapping { event, rules: rules.into() }
    }

    fn apply(map: &EventMapping, event: &'static str, payload: &Value) -> MappedPurges {
        let mut headers = HeaderMap::new();
        headers.insert("x-event", HeaderValue::from_static(event));
        map.apply("shop", (&headers, payload), &owners).unwrap()
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
            rule(&["created", "updated"], &[], &["order:{$.id}"], PurgeMode::Hard),
            rule(&[], &[], &["orders"], PurgeMode::Hard),
            rule(&["deleted"], &[], &["gone"], PurgeMode::Hard),
        ]);
        let mapped = apply(&map, "created", &json!({ "id": 1 }));
        assert_eq!((mapped.rules, mapped.unfilled), (2, 0));
        assert_eq!(mapped.purges[0].source, PurgeSource::Webhook("shop".into()));
        assert_eq!(tags(&mapped.purges[0]), ["order:1", "orders"]);
        let other = apply(&map, "other", &json!({}));
        assert_eq!(tags(&other.purges[0]), ["orders"]);
    }

    #[test]
    fn the_event_may_stand_in_the_payload() {
        let event = Some(ValueLocation::Payload(JsonPath::parse("$.type").unwrap()));
        let rules = [rule(&["order.created"], &[], &["orders"], PurgeMode::Hard)].into();
        let map = EventMapping { event, rules };
        let rules =
            |payload| map.apply("shop", (&HeaderMap::new(), &payload), &owners).unwrap().rules;
        assert_eq!(rules(json!({ "type": "order.created" })), 1);
        assert_eq!(rules(json!({ "type": "order.deleted" })), 0);
        assert_eq!(rules(json!({ "type": 1 })), 0);
        assert_eq!(rules(json!([])), 0);
    }

    #[test]
    fn conditions_narrow_a_rule() {
        let when = [("$.status", json!("breached")), ("$.items[*].count", json!(2))];
        let map = map(vec![rule(&[], &when, &["sla"], PurgeMode::Hard)]);
        let count = |payload| apply(&map, "any", &payload).rules;
        assert_eq!(count(json!({ "status": "breached", "items": [{ "count": 2.0 }] })), 1);
        assert_eq!(count(json!({ "status": "breached", "items": [{ "count": "2" }] })), 0);
        assert_eq!(count(json!({ "status": "met", "items": [{ "count": 2 }] })), 0);
        assert_eq!(count(json!({ "items": [{ "count": 2 }] })), 0);
    }

    #[test]
    fn hard_and_soft_are_two_purges_and_hard_wins() {
        let map = map(vec![
            rule(&[], &[], &["a", "b"], PurgeMode::Soft),
            rule(&[], &[], &["b", "c"], PurgeMode::Hard),
        ]);
        let mapped = apply(&map, "any", &json!({}));
        let modes: Vec<PurgeMode> = mapped.purges.iter().map(|purge| purge.mode).collect();
        assert_eq!(modes, [PurgeMode::Hard, PurgeMode::Soft]);
        assert_eq!(tags(&mapped.purges[0]), ["b", "c"]);
        assert_eq!(tags(&mapped.purges[1]), ["a"]);
    }

    #[test]
    fn rules_with_warm_fetch_again_after_the_purge() {
        let warm = MappingRule { warm: true, ..rule(&["a"], &[], &["x"], PurgeMode::Soft) };
        let map = map(vec![warm, rule(&[], &[], &["y"], PurgeMode::Hard)]);
        let warms = |event| -> Vec<(PurgeMode, bool)> {
            let purges = apply(&map, event, &json!({})).purges;
            purges.iter().map(|purge| (purge.mode, purge.warm)).collect()
        };
        assert_eq!(warms("a"), [(PurgeMode::Hard, false), (PurgeMode::Soft, true)]);
        assert_eq!(warms("b"), [(PurgeMode::Hard, false)]);
    }

    #[test]
    fn templates_without_a_value_are_counted() {
        let map = map(vec![rule(&[], &[], &["a:{$.a}", "b:{$.b}"], PurgeMode::Hard)]);
        let mapped = apply(&map, "any", &json!({ "b": 1 }));
        assert_eq!((mapped.purges.len(), mapped.unfilled), (1, 1));
        let mapped = apply(&map, "any", &json!({}));
        assert_eq!((mapped.purges.len(), mapped.rules, mapped.unfilled), (0, 1, 2));
    }

    #[test]
    fn a_tag_that_no_response_can_have_is_left_out() {
        let map = map(vec![rule(&[], &[], &["{$.a}"], PurgeMode::Hard)]);
        let long = "x".repeat(tag::MAX_LENGTH + 1);
        assert_eq!(apply(&map, "any", &json!({ "a": long })).purges, []);
    }

    #[test]
    fn users_are_purged_by_their_owners_alone_or_within_tags() {
        let rule = |purge: &[&str]| {
            let users = templates(&["{$.customers[*].id}"]);
            MappingRule { users, ..rule(&[], &[], purge, PurgeMode::Hard) }
        };
        let selectors = |rule: MappingRule, payload: Value| {
            let purges = apply(&map(vec![rule]), "any", &payload).purges;
            purges.first().map(|purge| serde_json::to_string(&purge.selectors).unwrap())
        };
        let payload = || json!({ "customers": [{ "id": "4" }, { "id": 12 }], "tag": "stocks" });
        let all = r#"[{"user":"owner-1"},{"user":"owner-2"}]"#;
        assert_eq!(selectors(rule(&[]), payload()).as_deref(), Some(all));
        let within = r#"[{"all":[{"tag":"stocks"},{"user":"owner-1"}]},{"all":[{"tag":"stocks"},{"user":"owner-2"}]}]"#;
        assert_eq!(selectors(rule(&["{$.tag}"]), payload()).as_deref(), Some(within));
        assert_eq!(selectors(rule(&["stocks"]), json!({})), None, "nobody is named: not all are");
        assert_eq!(
            selectors(rule(&["{$.none}"]), payload()),
            None,
            "no tag: not all of the user's"
        );
        let many = json!({ "customers": (0..200).map(|id| json!({ "id": "x".repeat(id + 1) })).collect::<Vec<_>>(), "tags": (0..100).collect::<Vec<_>>() });
        let rule = rule(&["{$.tags[*]}"]);
        let mapped = map(vec![rule]).apply("shop", (&HeaderMap::new(), &many), &owners);
        assert_eq!(mapped, Err(TooManyTags));
    }

    #[test]
    fn too_many_tags_are_refused_as_a_whole() {
        let map = map(vec![rule(&[], &[], &["{$[*]}"], PurgeMode::Hard)]);
        let payload = json!((0..=LIMITS.0).collect::<Vec<_>>());
        assert_eq!(map.apply("shop", (&HeaderMap::new(), &payload), &owners), Err(TooManyTags));
        let long: Vec<String> = (0..1100).map(|number| format!("{number:01024}")).collect();
        assert_eq!(map.apply("shop", (&HeaderMap::new(), &json!(long)), &owners), Err(TooManyTags));
    }
}
