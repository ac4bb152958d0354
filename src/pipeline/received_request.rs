//! A request as the plan sees it: its head, and the state of its content.

use std::sync::Arc;

use http::{HeaderMap, Method, Request, Version, request::Parts};
use http_body::Body;

use super::content::RequestContent;

/// The head of a request, and the state of its content.
pub(super) struct ReceivedRequest<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub version: Version,
    pub headers: &'a HeaderMap,
    pub content: ContentState<'a>,
}

/// The state of a request's content.
#[derive(Clone, Copy)]
pub(super) enum ContentState<'a> {
    /// The request has no content.
    Absent,
    /// The content is not read yet, and has at least this many bytes.
    Unread(u64),
    /// The content has been read, and is part of the key.
    Read(&'a Arc<RequestContent>),
}

impl<'a> ReceivedRequest<'a> {
    /// Returns a request whose content has not been read.
    pub(super) fn of<B: Body>(request: &'a Request<B>) -> Self {
        let content = if request.body().is_end_stream() {
            ContentState::Absent
        } else {
            ContentState::Unread(request.body().size_hint().lower())
        };
        Self {
            method: request.method(),
            path: request.uri().path(),
            query: request.uri().query(),
            version: request.version(),
            headers: request.headers(),
            content,
        }
    }

    /// Returns the same request with this content, which is part of the key.
    pub(super) fn with_content(self, content: &'a Arc<RequestContent>) -> Self {
        Self { content: ContentState::Read(content), ..self }
    }

    /// Returns a request with this content, which is part of the key. `None` stands for no content.
    pub(super) fn of_parts(request: &'a Parts, content: Option<&'a Arc<RequestContent>>) -> Self {
        let Parts { method, uri, version, headers, .. } = request;
        let content = content.map_or(ContentState::Absent, ContentState::Read);
        let (path, query) = (uri.path(), uri.query());
        Self { method, path, query, version: *version, headers, content }
    }
}

impl<'a> ContentState<'a> {
    /// Returns the content; `None` if it has not been read.
    pub(super) fn read(self) -> Option<&'a Arc<RequestContent>> {
        match self {
            Self::Read(content) => Some(content),
            Self::Absent | Self::Unread(_) => None,
        }
    }
}
