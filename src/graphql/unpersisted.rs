//! Automatic persisted queries that no client has persisted here yet.

/// A request by the hash of an unknown document, or a batch with such a request.
///
/// Only the client can tell whether the document is a query. The client receives the error that
/// servers send in this case, and then sends the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnpersistedRequest {
    Single,
    /// A batch of this many requests, all of them by hash.
    Batch(usize),
}

/// The error that clients of automatic persisted queries expect. Some read the message, others the
/// code.
const NOT_FOUND: &str = r#"{"errors":[{"message":"PersistedQueryNotFound","extensions":{"code":"PERSISTED_QUERY_NOT_FOUND"}}]}"#;

impl UnpersistedRequest {
    /// Returns the JSON of the response: one error, or one for each request of the batch.
    pub(crate) fn response(self) -> String {
        match self {
            Self::Single => NOT_FOUND.to_owned(),
            Self::Batch(requests) => format!("[{}]", vec![NOT_FOUND; requests].join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn each_request_gets_the_error_that_its_client_expects() {
        let parsed =
            |it: UnpersistedRequest| serde_json::from_str::<Value>(&it.response()).unwrap();
        let one = parsed(UnpersistedRequest::Single);
        assert_eq!(one["errors"][0]["message"], "PersistedQueryNotFound");
        assert_eq!(one["errors"][0]["extensions"]["code"], "PERSISTED_QUERY_NOT_FOUND");
        assert_eq!(parsed(UnpersistedRequest::Batch(2)), Value::from(vec![one.clone(), one]));
    }
}
