//! Values in configuration syntax: durations, sizes, addresses.

use std::{fmt::Write as _, net::IpAddr, time::Duration};

use ipnet::IpNet;
use url::Url;

use crate::{
    key::uri::{Scheme, host},
    user::DocumentUrl,
};

/// Parses `30s`, `250ms`, `1h30m`, `7d` or `0`.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    const PROBLEM: &str = "expected a number with `ms`, `s`, `m`, `h` or `d`, such as `30s`";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = leading_number(rest).ok_or(PROBLEM)?;
        let unit_end = after.find(|character: char| character.is_ascii_digit());
        let (unit, after) = after.split_at(unit_end.unwrap_or(after.len()));
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(PROBLEM),
        };
        total = number
            .checked_mul(millis)
            .and_then(|part| total.checked_add(part))
            .ok_or("the duration is too long")?;
        rest = after;
    }
    if text.is_empty() { Err(PROBLEM) } else { Ok(Duration::from_millis(total)) }
}

/// Formats a duration as [`duration`] parses it, in as few units as possible.
pub(crate) fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, millis) in
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)]
    {
        if rest >= millis {
            let _ = write!(text, "{}{unit}", rest / millis);
            rest %= millis;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Parses `64KiB`, `256MiB`, `1GB`, `512B` or `0` as bytes.
pub(super) fn size(text: &str) -> Result<u64, &'static str> {
    const PROBLEM: &str = "expected a number with `B`, `KiB`, `MiB` or `GiB`, such as `64KiB`";
    let (number, unit) = leading_number(text).ok_or(PROBLEM)?;
    let bytes = match unit.trim_start() {
        "" if number == 0 => 1,
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(PROBLEM),
    };
    number.checked_mul(bytes).ok_or("the size is too large")
}

/// Parses the URL of a key set. Accepts `http` only if the host is this machine.
pub(super) fn jwks_url(text: &str) -> Result<DocumentUrl, &'static str> {
    const EXPECTED: &str =
        "expected a URL such as `https://issuer.example.com/.well-known/jwks.json`";
    let url = Url::parse(text).map_err(|_| EXPECTED)?;
    let is_local = match url.host().ok_or(EXPECTED)? {
        url::Host::Domain(name) => name == "localhost",
        url::Host::Ipv4(address) => address.is_loopback(),
        url::Host::Ipv6(address) => address.is_loopback(),
    };
    if url.scheme() == "http" && !is_local {
        return Err("expected `https`: keys over http could be forged in transit");
    }
    let source = DocumentUrl::parse(text).map_err(|_| EXPECTED)?;
    if source.authorization.is_some() {
        return Err("expected a URL without user name and password");
    }
    Ok(source)
}

/// Parses an admin host: a name, or `*.` and a domain. Rejects a port.
pub(super) fn admin_host(text: &str) -> Result<Box<str>, &'static str> {
    let host = served_host(text)?;
    if host.contains(':') {
        return Err("expected a name without a port, such as `larder.internal.example`");
    }
    Ok(host)
}

/// Parses a served host in canonical form: a name with optional port, or `*.` and a domain.
pub(super) fn served_host(text: &str) -> Result<Box<str>, &'static str> {
    const EXPECTED: &str =
        "expected a host such as `api.example.com`, `api.example.com:8443` or `*.example.com`";
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    let is_host = !name.is_empty() && name.bytes().all(is_plain);
    if !is_host || name.parse::<http::uri::Authority>().is_err() {
        return Err(EXPECTED);
    }
    Ok(host::canonical(text, Scheme::Http).into())
}

/// Parses a network such as `10.0.0.0/8`, or a single address.
pub(super) fn network(text: &str) -> Result<IpNet, &'static str> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse()
        .ok()
        .or_else(address)
        .ok_or("expected a network such as `10.0.0.0/8` or an IP address")
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        let cases = [
            ("0", 0, "0s"),
            ("250ms", 250, "250ms"),
            ("90s", 90_000, "1m30s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("7d", 604_800_000, "7d"),
        ];
        for (text, millis, written) in cases {
            let read = duration(text).unwrap();
            assert_eq!(read, Duration::from_millis(millis), "{text}");
            assert_eq!(format_duration(read), written);
        }
        for text in ["", "5", "s", "5 s", "-5s", "5sec", "1.5h", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read() {
        let cases = [("0", 0), ("512B", 512), ("64KiB", 65_536), ("1 MiB", 1_048_576)];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "64", "64k", "KiB", "-1B", "99999999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
