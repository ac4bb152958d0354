//! Standard output of commands that end.

use std::io::{ErrorKind, Write as _};

/// Prints a text to standard output. A reader that has gone, as `head` does, is no error.
///
/// # Errors
/// If the text cannot be written, to a full disk for instance.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut to = anstream::stdout().lock();
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
