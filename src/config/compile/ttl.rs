//! Compilation of `ttl`: one time, or one for each status.

use std::{ops::Range, time::Duration};

use http::StatusCode;

use super::problems::Problems;
use crate::{
    config::{
        file::{Located, Text, TtlValue},
        report::Finding,
        suggest::{did_you_mean, nearest},
        value,
    },
    policy::{
        Ttl,
        storable::{TtlRefusal, check_ttl_status},
    },
};

/// Compiles the times by status. Leaves out invalid times.
pub(super) fn compile(ttl: Option<&Located<TtlValue>>, problems: &mut Problems<'_>) -> Ttl {
    let Some(Located { value, span }) = ttl else { return Ttl::default() };
    match value {
        TtlValue::ForSuccesses(text) => {
            time(text, span, problems).map(Ttl::for_successes).unwrap_or_default()
        }
        TtlValue::ByStatus(times) => {
            let times = times.iter().filter_map(|(code, text)| {
                let time = time(text, &text.span, problems);
                Some((status(code, problems)?, time?))
            });
            times.collect()
        }
    }
}

fn time(text: &str, at: &Range<usize>, problems: &mut Problems<'_>) -> Option<Duration> {
    value::duration(text).map_err(|problem| problems.error(at, problem)).ok()
}

fn status(code: &Text, problems: &mut Problems<'_>) -> Option<StatusCode> {
    let Some(status) = parse_code(code) else {
        let finding = Finding::error(Some(code.span.clone()), "invalid status code");
        let help = did_you_mean(nearest(code, COMMON_STATUSES))
            .unwrap_or_else(|| "list each status by its code, as in `\"404\" = \"10s\"`".into());
        problems.push(finding.help(help));
        return None;
    };
    let (message, help) = match check_ttl_status(status) {
        Ok(()) => return Some(status),
        Err(TtlRefusal::NeverStored) => {
            (format!("responses with status {} are never stored", status.as_u16()), "remove it")
        }
        Err(TtlRefusal::ByAnyClient) => (
            format!("status {} cannot have a `ttl`: any client can cause it", status.as_u16()),
            "remove it, or this response would be served to all other clients; it is stored if the \
             origin's own `Cache-Control` allows it",
        ),
    };
    problems.push(Finding::error(Some(code.span.clone()), message).help(help));
    None
}

fn parse_code(code: &str) -> Option<StatusCode> {
    let is_code = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    let status = code.parse().ok().filter(|_| is_code)?;
    (status < StatusCode::from_u16(600).ok()?).then_some(status)
}

/// Statuses that are suggested in messages.
const COMMON_STATUSES: [&str; 8] = ["200", "203", "204", "301", "302", "308", "404", "410"];
