//! `ttl`: one time, or one for each status.

use std::{ops::Range, time::Duration};

use http::StatusCode;

use super::problems::Problems;
use crate::{
    config::{
        file::{At, Text, TtlValue},
        report::Finding,
        suggest::{did_you_mean, nearest},
        value,
    },
    policy::{
        Ttl,
        storable::{NoTtl, may_have_ttl},
    },
};

/// The times by status; those that are not understood are left out.
pub(super) fn compile(ttl: Option<&At<TtlValue>>, problems: &mut Problems<'_>) -> Ttl {
    let Some(At { value, span }) = ttl else { return Ttl::default() };
    match value {
        TtlValue::OfSuccesses(text) => {
            time(text, span, problems).map(Ttl::of_successes).unwrap_or_default()
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
    let Some(status) = read(code) else {
        let finding = Finding::error(Some(code.span.clone()), "this is no status code");
        let help = did_you_mean(nearest(code, USUAL))
            .unwrap_or_else(|| "name each status by its code, as in `\"404\" = \"10s\"`".into());
        problems.push(finding.help(help));
        return None;
    };
    let (message, help) = match may_have_ttl(status) {
        Ok(()) => return Some(status),
        Err(NoTtl::NeverStored) => {
            (format!("responses with status {} are never stored", status.as_u16()), "leave it out")
        }
        Err(NoTtl::ByAnyClient) => (
            format!("status {} has no `ttl`: any client can cause it", status.as_u16()),
            "leave it out: such an answer would be given to everybody else as well; it is stored where \
             the origin's own `Cache-Control` says so",
        ),
    };
    problems.push(Finding::error(Some(code.span.clone()), message).help(help));
    None
}

fn read(code: &str) -> Option<StatusCode> {
    let is_code = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    let status = code.parse().ok().filter(|_| is_code)?;
    (status < StatusCode::from_u16(600).ok()?).then_some(status)
}

/// Statuses that are often meant.
const USUAL: [&str; 8] = ["200", "203", "204", "301", "302", "308", "404", "410"];
