//! Compilation of webhooks: signatures, secrets, and the tags that deliveries purge.

use std::ops::Range;

use http::{HeaderName, header};
use serde_json::Value;
use serde_json_path::JsonPath;

use super::problems::Problems;
use crate::{
    config::{
        file::{Located, Text, Texts, WebhookRule, WebhookSection, When},
        report::Finding,
    },
    route::json_path,
    trigger::webhook::{
        Algorithm, DEFAULT_TOLERANCE, Encoding, EventMapping, Handshake, HmacFormat, MappingRule,
        PayloadCondition, PayloadTemplate, SignatureScheme, SigningTemplate, TimestampHeader,
        ValueLocation, Vendor, Webhook,
    },
};

/// Metric label of requests to unknown webhooks. No webhook may have this name.
const UNKNOWN: &str = "unknown";

/// Compiles the webhooks. Leaves out webhooks with errors.
pub(super) fn compile(
    sections: &[Located<WebhookSection>],
    problems: &mut Problems<'_>,
) -> Vec<Webhook> {
    problems.unique("webhook", sections.iter().map(|section| section.name.as_ref()));
    sections.iter().filter_map(|section| webhook(section, problems)).collect()
}

fn webhook(section: &Located<WebhookSection>, problems: &mut Problems<'_>) -> Option<Webhook> {
    let name = name(section, problems);
    let kind = kind(section, problems);
    let secrets = secrets(section, problems);
    let scheme = kind.and_then(|kind| scheme(kind, section, secrets.as_deref(), problems));
    let vendor = kind.and_then(SchemeKind::vendor);
    let event = value_location(section.event_from.as_ref(), problems);
    let event = event.or_else(|| vendor.and_then(Vendor::event));
    let ids = match value_location(section.id_from.as_ref(), problems) {
        Some(location) => vec![location],
        None => vendor.map(Vendor::ids).unwrap_or_default(),
    };
    let rules = section.on.iter().filter_map(|section| rule(section, problems)).collect();
    if section.on.is_empty() {
        let message = "this webhook purges nothing";
        problems.push(
            Finding::error(Some(section.span.clone()), message)
                .help("add the tags that its deliveries purge in `[[webhook.on]]`")
                .doubtful(),
        );
    }
    if section.event_from.is_none() && event.is_none() {
        require_event_from(&section.on, problems);
    }
    let handshake = match vendor {
        Some(Vendor::Slack) => Handshake::Slack,
        _ => Handshake::None,
    };
    let (mapping, ids) = (EventMapping { event, rules }, ids.into());
    Some(Webhook { name: name?, scheme: scheme?, mapping, ids, handshake })
}

fn name(section: &Located<WebhookSection>, problems: &mut Problems<'_>) -> Option<Box<str>> {
    let name = problems.required(section.name.as_ref(), &section.span, "webhook", "name")?;
    let is_segment = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !name.bytes().all(is_segment) {
        let message =
            "expected a name of letters, digits, `-`, `_` and `.`, since it is part of the URL";
        problems.error(&name.span, message);
        return None;
    }
    if name.value == UNKNOWN {
        problems.error(&name.span, "this name is reserved for unknown webhooks");
        return None;
    }
    Some(name.as_str().into())
}

/// The signature schemes.
#[derive(Clone, Copy)]
enum SchemeKind {
    Bearer,
    Hmac,
    Vendor(Vendor),
}

impl SchemeKind {
    const fn vendor(self) -> Option<Vendor> {
        match self {
            Self::Vendor(vendor) => Some(vendor),
            Self::Bearer | Self::Hmac => None,
        }
    }
}

fn kind(section: &Located<WebhookSection>, problems: &mut Problems<'_>) -> Option<SchemeKind> {
    let text = problems.required(section.scheme.as_ref(), &section.span, "webhook", "scheme")?;
    let vendors = Vendor::ALL.map(|vendor| (vendor.as_str(), SchemeKind::Vendor(vendor)));
    let others = [("hmac", SchemeKind::Hmac), ("bearer", SchemeKind::Bearer)];
    let kinds: Vec<_> = vendors.into_iter().chain(others).collect();
    problems.one_of(Some(text), &kinds)
}

fn scheme(
    kind: SchemeKind,
    section: &Located<WebhookSection>,
    secrets: Option<&[&str]>,
    problems: &mut Problems<'_>,
) -> Option<SignatureScheme> {
    match kind {
        SchemeKind::Hmac => Some(SignatureScheme::hmac(hmac(section, problems)?, secrets?)),
        SchemeKind::Bearer => {
            refuse_keys_of_hmac(section, problems);
            refuse(
                section.tolerance.as_ref(),
                "`tolerance` requires a scheme with a signed timestamp",
                problems,
            );
            let header = match &section.header {
                Some(text) => field(text, problems)?,
                None => header::AUTHORIZATION,
            };
            Some(SignatureScheme::bearer(header, secrets?))
        }
        SchemeKind::Vendor(vendor) => of_vendor(vendor, section, secrets, problems),
    }
}

fn of_vendor(
    vendor: Vendor,
    section: &Located<WebhookSection>,
    secrets: Option<&[&str]>,
    problems: &mut Problems<'_>,
) -> Option<SignatureScheme> {
    refuse_keys_of_hmac(section, problems);
    refuse(section.header.as_ref(), "`header` requires the scheme `hmac` or `bearer`", problems);
    if !vendor.signs_time() {
        refuse(
            section.tolerance.as_ref(),
            "`tolerance` requires a scheme with a signed timestamp",
            problems,
        );
    }
    let tolerance =
        problems.positive_duration(section.tolerance.as_ref()).unwrap_or(DEFAULT_TOLERANCE);
    let scheme = vendor.scheme(secrets?, tolerance);
    if scheme.is_none() {
        let message = "expected a base64 secret such as `whsec_MfKQ9r8GKYqrTwjU`";
        problems.error(&secret_span(section), message);
    }
    scheme
}

/// Returns the span of `secret` or `secrets`, or that of the section if neither is set.
fn secret_span(section: &Located<WebhookSection>) -> Range<usize> {
    let one = section.secret.as_ref().map(|secret| &secret.span);
    let several = section.secrets.as_ref().map(|secrets| &secrets.span);
    one.or(several).unwrap_or(&section.span).clone()
}

/// Returns the values of `secret` or `secrets`; `None` if no secret is set, or a secret is empty.
fn secrets<'a>(
    section: &'a Located<WebhookSection>,
    problems: &mut Problems<'_>,
) -> Option<Vec<&'a str>> {
    let texts: Vec<&Text> = match (&section.secret, &section.secrets) {
        (Some(secret), None) => vec![secret],
        (None, Some(secrets)) => secrets.iter().collect(),
        (Some(_), Some(secrets)) => {
            let message = "`secret` and `secrets` exclude each other";
            problems.error(&secrets.span, message);
            return None;
        }
        (None, None) => Vec::new(),
    };
    if texts.is_empty() {
        let at = section.secrets.as_ref().map_or(&section.span, |secrets| &secrets.span);
        problems.push(
            Finding::error(Some(at.clone()), "this webhook has no secret: anyone could purge")
                .help("set `secret = \"${NAME}\"` and that environment variable")
                .doubtful(),
        );
        return None;
    }
    for text in texts.iter().filter(|text| text.trim().is_empty()) {
        problems.error(&text.span, "empty secret: anyone could purge");
    }
    texts.iter().map(|text| (!text.trim().is_empty()).then_some(text.as_str())).collect()
}

fn hmac(section: &Located<WebhookSection>, problems: &mut Problems<'_>) -> Option<HmacFormat> {
    let encodings = Encoding::ALL.map(|encoding| (encoding.as_str(), encoding));
    let algorithms = Algorithm::ALL.map(|algorithm| (algorithm.as_str(), algorithm));
    let encoding = problems.one_of(section.encoding.as_ref(), &encodings);
    let algorithm = problems.one_of(section.algorithm.as_ref(), &algorithms);
    let tolerance =
        problems.positive_duration(section.tolerance.as_ref()).unwrap_or(DEFAULT_TOLERANCE);
    let time = section
        .timestamp_header
        .as_ref()
        .and_then(|text| field(text, problems).map(|header| TimestampHeader { header, tolerance }));
    if let (Some(text), None) = (&section.tolerance, &section.timestamp_header) {
        let message = "`tolerance` has no effect without `timestamp_header`";
        problems.push(Finding::warning(text.span.clone(), message));
    }
    let signed = signed(section, problems)?;
    let header = problems.required(section.header.as_ref(), &section.span, "webhook", "header")?;
    Some(HmacFormat {
        header: field(header, problems)?,
        prefix: section.prefix.as_ref().map(|text| text.as_str().into()).unwrap_or_default(),
        encoding: encoding.unwrap_or(Encoding::Hex),
        algorithm: algorithm.unwrap_or(Algorithm::Sha256),
        signed,
        time,
    })
}

/// Compiles the signed content. A timestamp must be both sent and signed, or it proves nothing.
fn signed(section: &WebhookSection, problems: &mut Problems<'_>) -> Option<SigningTemplate> {
    let Some(text) = &section.signed else {
        let default_form = match section.timestamp_header {
            Some(_) => "{timestamp}.{body}",
            None => "{body}",
        };
        return SigningTemplate::parse(default_form).ok();
    };
    let signed = SigningTemplate::parse(text)
        .map_err(|error| problems.error(&text.span, error.to_string()))
        .ok()?;
    let message = match (signed.has_timestamp(), &section.timestamp_header) {
        (true, None) => "`{timestamp}` requires `timestamp_header`",
        (false, Some(_)) => "the time in `timestamp_header` is not signed: add `{timestamp}`",
        _ => return Some(signed),
    };
    problems.error(&text.span, message);
    None
}

fn refuse_keys_of_hmac(section: &WebhookSection, problems: &mut Problems<'_>) {
    let keys = [
        ("prefix", &section.prefix),
        ("encoding", &section.encoding),
        ("algorithm", &section.algorithm),
        ("timestamp_header", &section.timestamp_header),
        ("signed", &section.signed),
    ];
    for (key, text) in keys {
        refuse(text.as_ref(), &format!("`{key}` requires the scheme `hmac`"), problems);
    }
}

fn refuse(text: Option<&Text>, message: &str, problems: &mut Problems<'_>) {
    if let Some(text) = text {
        problems.error(&text.span, message);
    }
}

fn field(text: &Text, problems: &mut Problems<'_>) -> Option<HeaderName> {
    problems.read(text, |text| text.parse().map_err(|_| "invalid field name"))
}

fn value_location(text: Option<&Text>, problems: &mut Problems<'_>) -> Option<ValueLocation> {
    let text = text?;
    if text.starts_with('$') {
        return path(text, &text.span, problems).map(ValueLocation::Payload);
    }
    let message = "expected a field name such as `x-event`, or a JSONPath such as `$.type`";
    problems.read(text, |text| text.parse().map(ValueLocation::Header).map_err(|_| message))
}

fn path(text: &str, at: &Range<usize>, problems: &mut Problems<'_>) -> Option<JsonPath> {
    json_path::parse(text).map_err(|error| problems.error(at, error.to_string())).ok()
}

fn require_event_from(rules: &[Located<WebhookRule>], problems: &mut Problems<'_>) {
    for event in rules.iter().filter_map(|rule| rule.event.as_ref()) {
        let message = "the source of the event's name is missing";
        problems.push(
            Finding::error(Some(event.span.clone()), message)
                .help(
                    "set the source, as in `event_from = \"x-event\"` or `event_from = \"$.type\"`",
                )
                .doubtful(),
        );
    }
}

fn rule(section: &Located<WebhookRule>, problems: &mut Problems<'_>) -> Option<MappingRule> {
    let mode = problems.purge_mode(section.mode.as_ref());
    let events = section.event.iter().flat_map(|texts| texts.iter());
    let events = events.map(|text| text.as_str().into()).collect();
    let when = conditions(&section.when, problems);
    let is_empty = |texts: &Option<Texts>| texts.as_ref().is_none_or(|texts| texts.is_empty());
    if is_empty(&section.purge) && is_empty(&section.users) {
        let at = section.purge.as_ref().map_or(&section.span, |texts| &texts.span);
        let message = "`webhook.on.purge` has no tags";
        let finding = Finding::error(Some(at.clone()), message).doubtful();
        problems.push(finding.help("list tags in `purge`, or users in `users`"));
        return None;
    }
    let mut templates = |texts: &Option<Texts>| -> Box<[PayloadTemplate]> {
        let texts = texts.iter().flat_map(|texts| texts.iter());
        texts.filter_map(|text| template(text, problems)).collect()
    };
    let (purge, users) = (templates(&section.purge), templates(&section.users));
    Some(MappingRule { events, when, purge, users, mode, warm: section.warm })
}

fn template(text: &Text, problems: &mut Problems<'_>) -> Option<PayloadTemplate> {
    PayloadTemplate::parse(text)
        .map_err(|error| {
            let at = problems.subspan(text, &error.at);
            problems.error(&at, error.to_string());
        })
        .ok()
}

fn conditions(when: &When, problems: &mut Problems<'_>) -> Box<[PayloadCondition]> {
    let mut compiled = Vec::new();
    for (key, values) in when {
        let path = path(key.get_ref(), &key.span(), problems);
        let values: Box<[Value]> = values.0.iter().filter(|it| !it.is_null()).cloned().collect();
        if values.is_empty() {
            problems.error(&key.span(), "this value can never match");
        }
        compiled.extend(path.map(|path| PayloadCondition { path, values }));
    }
    compiled.into()
}

#[cfg(test)]
mod tests;
