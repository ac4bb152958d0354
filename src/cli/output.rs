//! Standard output of short-lived commands.

use std::io::{ErrorKind, Write as _};

/// Prints to standard output. A closed reader, such as `head`, is not an error.
///
/// # Errors
/// Fails if the text cannot be written, for example because the disk is full.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut to = anstream::stdout().lock();
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
