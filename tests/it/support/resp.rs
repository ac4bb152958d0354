//! The part of RESP2 that tests need to talk to a Redis server.

use super::wire::Wire;

/// A reply of a Redis server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Array(Vec<Value>),
    Null,
}

impl Value {
    /// Returns its text, an integer's digits, or an empty string.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Simple(text) | Self::Error(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Array(_) | Self::Null => String::new(),
        }
    }

    /// Returns the members of an array, or an empty slice.
    pub(crate) fn members(&self) -> &[Value] {
        match self {
            Self::Array(members) => members,
            _ => &[],
        }
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}

/// A connection to a Redis server.
pub(crate) struct Resp(Wire);

impl Resp {
    pub(crate) fn over(wire: Wire) -> Self {
        Self(wire)
    }

    /// Returns the reply to a command, or `None` if the connection ends first.
    pub(crate) async fn command(&mut self, words: &[impl AsRef<[u8]>]) -> Option<Value> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n", word.as_ref().len()).into_bytes());
            bytes.extend(word.as_ref());
            bytes.extend(b"\r\n");
        }
        if !self.0.try_write(bytes).await {
            return None;
        }
        self.value().await
    }

    async fn value(&mut self) -> Option<Value> {
        let line = self.0.try_read_until(b"\r\n").await?;
        let (kind, rest) = line.trim_end().split_at(1);
        let number = || rest.parse::<i64>().unwrap();
        Some(match kind {
            "+" => Value::Simple(rest.to_owned()),
            "-" => Value::Error(rest.to_owned()),
            ":" => Value::Integer(number()),
            "$" | "*" if number() < 0 => Value::Null,
            "$" => {
                let length = usize::try_from(number()).unwrap();
                let mut bytes = self.0.try_read_exact_bytes(length + 2).await?;
                bytes.truncate(length);
                Value::Bulk(bytes)
            }
            "*" => {
                let mut members = Vec::new();
                for _ in 0..number() {
                    members.push(Box::pin(self.value()).await?);
                }
                Value::Array(members)
            }
            _ => panic!("not RESP2: {line:?}"),
        })
    }
}
