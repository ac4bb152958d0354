//! Verification: whether and how stored responses are compared with the origin's responses.

use std::{fmt, sync::Arc};

use serde_json_path::JsonPath;

/// Whether the stored responses of a route are compared with the origin's responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verification {
    /// Stored responses are not compared.
    #[default]
    Off,
    /// Clients get the origin's responses, and each is compared with what the cache would have
    /// served.
    Shadow,
    /// Clients get stored responses, and a share of the hits is compared in the background.
    Audit(SampleRate),
}

impl Verification {
    /// Returns the share of hits to compare; `None` if hits are not compared.
    pub fn audit(self) -> Option<SampleRate> {
        if let Self::Audit(rate) = self { Some(rate) } else { None }
    }
}

/// A share of requests, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRate(u32);

/// All requests, in millionths.
const WHOLE: u32 = 1_000_000;

impl SampleRate {
    /// Parses a percentage such as `1%`, `0.05%` or `100%`, with up to four decimals.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = match text.strip_suffix('%')?.split_once('.') {
            Some((whole, decimals)) if !decimals.is_empty() => (whole, decimals),
            Some(_) => return None,
            None => (text.strip_suffix('%')?, ""),
        };
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_number(whole) || !is_number(decimals) || decimals.len() > 4 {
            return None;
        }
        let millionths: u32 = format!("{whole}{decimals:0<4}").parse().ok()?;
        (millionths <= WHOLE).then_some(Self(millionths))
    }

    /// Returns whether no request is sampled.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Returns whether a request is sampled. `random` is evenly distributed.
    pub fn draws(self, random: u32) -> bool {
        random % WHOLE < self.0
    }
}

impl fmt::Display for SampleRate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, decimals) = (self.0 / 10_000, self.0 % 10_000);
        if decimals == 0 {
            return write!(formatter, "{whole}%");
        }
        let decimals = format!("{decimals:04}");
        write!(formatter, "{whole}.{}%", decimals.trim_end_matches('0'))
    }
}

/// The parts of a response that comparisons ignore.
#[derive(Debug, Clone, Default)]
pub struct ComparisonRule {
    /// Paths to the ignored parts in a response's JSON.
    pub ignore: Arc<[JsonPath]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages_with_up_to_four_decimals() {
        for (text, shown, sampled) in [
            ("0%", "0%", 0),
            ("1%", "1%", 10_000),
            ("0.05%", "0.05%", 500),
            ("2.50%", "2.5%", 25_000),
            ("0.0001%", "0.0001%", 1),
            ("100%", "100%", WHOLE),
        ] {
            let rate = SampleRate::parse(text).expect(text);
            assert_eq!((rate.to_string().as_str(), rate.0), (shown, sampled), "{text}");
            assert!(!rate.draws(sampled) || sampled == WHOLE, "{text}");
            assert!(sampled == 0 || rate.draws(sampled - 1), "{text}");
        }
        for text in
            ["", "1", "%", "-1%", "101%", "1.%", ".5%", "0.00001%", "1e1%", "1 %", "99999999999%"]
        {
            assert_eq!(SampleRate::parse(text), None, "{text}");
        }
    }
}
