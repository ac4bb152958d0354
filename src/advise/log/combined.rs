//! Lines in nginx's `combined` format, which Apache and other servers also write.

use super::{
    record::{
        LineError, LoggedQuery, LoggedRequest, LoggedResponse, digest, split_request, split_target,
    },
    time,
};

/// Parses a line in the `combined` format. Of the fields after the user agent, only a response time
/// is read.
pub(super) fn parse(line: &str) -> Result<LoggedRequest<'_>, LineError> {
    let (client, rest) = line.split_once(' ').ok_or(LineError::Format)?;
    let (owner, rest) = rest.split_once(" [").ok_or(LineError::Format)?;
    let (time, rest) = rest.split_once("] \"").ok_or(LineError::Format)?;
    let (request, rest) = quoted(rest).ok_or(LineError::Format)?;
    let at = time::parse(time).ok_or(LineError::Time)?;
    let (method, target) = split_request(request).ok_or(LineError::Request)?;
    let (path, query) = split_target(target.into()).ok_or(LineError::Request)?;
    let mut fields = rest.trim_start().splitn(3, ' ');
    let status = fields.next().and_then(|status| status.parse().ok()).ok_or(LineError::Format)?;
    let bytes = fields.next().and_then(|bytes| bytes.parse().ok());
    let (agent, rest) = user_agent(fields.next().unwrap_or_default());
    let user = owner.rsplit_once(' ').map_or("-", |(_, user)| user);
    let has_user = !matches!(user, "-" | "");
    Ok(LoggedRequest {
        at,
        method: method.into(),
        path,
        query: LoggedQuery::Logged(query),
        host: None,
        status,
        bytes,
        duration: duration(rest),
        client: Some(if has_user { digest(user) } else { digest(client) }),
        variant: digest(agent),
        validator: None,
        has_credentials: has_user,
        is_from_cache: false,
        response: LoggedResponse::default(),
    })
}

/// Returns the text up to the closing quote, and the rest after the quote. `None` if there is no
/// closing quote. `text` begins after the opening quote.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Some((text.get(..at)?, text.get(at + 1..)?)),
            _ => {}
        }
    }
    None
}

/// Returns the user agent, and the rest of the line after it.
fn user_agent(text: &str) -> (&str, &str) {
    let after_referer = text.strip_prefix('"').and_then(quoted).map(|(_, rest)| rest.trim_start());
    let agent = after_referer.and_then(|rest| rest.strip_prefix('"')).and_then(quoted);
    agent.unwrap_or(("", text))
}

/// Returns the response time in milliseconds, from `rt=0.123` or a bare `0.123` as written by
/// `$request_time`.
fn duration(rest: &str) -> Option<f64> {
    let named = |word: &str| {
        let (name, value) = word.split_once('=')?;
        let is_time = matches!(name, "rt" | "request_time" | "urt" | "upstream_response_time");
        is_time.then(|| value.trim_matches('"').parse::<f64>().ok())?
    };
    let bare = |word: &str| {
        let (whole, part) = word.split_once('.')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        (digits(whole) && digits(part) && part.len() == 3).then(|| word.parse::<f64>().ok())?
    };
    let words = rest.split_ascii_whitespace();
    let seconds = words.clone().find_map(named).or_else(|| words.clone().find_map(bare))?;
    (0.0..86_400.0).contains(&seconds).then_some(seconds * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"203.0.113.9 - - [28/Feb/2024:23:59:59 +0000] "GET /tiles/a?days=30&_=1 HTTP/1.1" 200 512 "-" "Mozilla/5.0 (X11; \x22q\x22)" 0.042"#;

    #[test]
    fn a_line_is_read() {
        let request = parse(LINE).unwrap();
        assert_eq!((&*request.method, &*request.path), ("GET", "/tiles/a"));
        assert_eq!(request.query(), Some("days=30&_=1"));
        assert_eq!((request.status, request.bytes), (200, Some(512)));
        assert_eq!(request.duration, Some(42.0));
        assert!(!request.has_credentials);
    }

    #[test]
    fn a_user_is_a_credential_and_tells_clients_apart() {
        let of = |user: &str| {
            let line = LINE.replacen("- - [", &format!("- {user} ["), 1);
            let request = parse(&line).unwrap();
            (request.has_credentials, request.client)
        };
        assert!(of("ada").0 && of("ada").1 != of("eve").1);
    }

    #[test]
    fn broken_lines_are_told_apart() {
        assert_eq!(parse("").unwrap_err(), LineError::Format);
        assert_eq!(parse("a b c").unwrap_err(), LineError::Format);
        let handshake = LINE.replacen("GET /tiles/a?days=30&_=1 HTTP/1.1", r"\x16\x03\x01", 1);
        assert_eq!(parse(&handshake).unwrap_err(), LineError::Request);
        let undated = LINE.replacen("28/Feb/2024", "x", 1);
        assert_eq!(parse(&undated).unwrap_err(), LineError::Time);
    }

    #[test]
    fn a_line_without_referer_and_agent_is_read() {
        let line = LINE.split(" \"-\"").next().unwrap();
        assert_eq!(parse(line).unwrap().bytes, Some(512));
    }
}
