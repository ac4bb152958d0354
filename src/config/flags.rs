//! Settings from the command line.

use super::{listen::ListenAddress, settings::AccessLogFormat};
use crate::{origin::ServerUrl, redis};

/// The settings from the command line, which override the file.
#[derive(Debug, Clone, Default)]
pub struct CliOverrides {
    /// Replaces `listen` unless empty.
    pub listen: Vec<ListenAddress>,
    /// Replaces `origin.urls` unless empty.
    pub origin: Vec<ServerUrl>,
    /// Replaces `admin.listen`, if set.
    pub admin: Option<ListenAddress>,
    /// Replaces `store.redis`, if set.
    pub redis: Option<redis::Settings>,
    /// Replaces `log.access`, if set.
    pub access_log: Option<AccessLogFormat>,
}
