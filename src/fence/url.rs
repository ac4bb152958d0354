//! Parts of normalised URLs, as selectors match them.

/// Returns a URL without its host; `None` if it has no path.
pub(super) fn path_of(url: &[u8]) -> Option<&[u8]> {
    let start = url.iter().position(|byte| *byte == b'/')?;
    url.get(start..)
}

/// Returns a URL up to the end of its path, plus a slash; `None` if the path ends with a slash.
///
/// Normalised URLs have no trailing slash, but the prefix `/a/` selects `/a` as well.
pub(super) fn directory(url: &[u8]) -> Option<Vec<u8>> {
    let end = url.iter().position(|byte| *byte == b'?').unwrap_or(url.len());
    let path = url.get(..end).filter(|path| !path.is_empty() && path.last() != Some(&b'/'))?;
    Some([path, b"/"].concat())
}

/// Returns whether a URL has this prefix; the prefix `/a/` matches `/a` as well.
pub(super) fn has_prefix(url: &[u8], prefix: &[u8]) -> bool {
    url.starts_with(prefix) || directory(url).is_some_and(|directory| directory == prefix)
}

/// Returns the URL with a slash at the end of its path; `None` if the path already has one.
pub(super) fn with_trailing_slash(url: &[u8]) -> Option<Vec<u8>> {
    let mut with_trailing_slash = directory(url)?;
    with_trailing_slash.extend_from_slice(url.get(with_trailing_slash.len() - 1..)?);
    Some(with_trailing_slash)
}
