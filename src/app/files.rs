//! The limit on open files, and the number of clients that it allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::LimitsConfig;

/// Descriptors reserved for the admin listener, Redis, logs and files.
const RESERVED_FILES: usize = 64;

/// Descriptors reserved for the admin listener alone.
pub(super) const ADMIN_RESERVE: usize = 8;

/// A quarter of all descriptors is reserved for origin connections, up to this number.
const MAX_ORIGIN_FILES: usize = 1024;

/// The highest limit to request. Some systems allow 2^30, which is never needed.
const MAX_FILES: u64 = 1 << 20;

/// The limits on client connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientLimits {
    /// Concurrent connections.
    pub connections: usize,
    /// Concurrent tunnels, each of which uses an origin connection as well.
    pub tunnels: usize,
}

/// Raises the soft limit on open files to the hard limit and returns it; `None` if unlimited.
pub(crate) fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(MAX_FILES).min(MAX_FILES);
    let Some(current) = limit.current.filter(|current| *current < wanted) else {
        return limit.current;
    };
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => Some(wanted),
        Err(error) => {
            tracing::warn!(%error, current, wanted, "could not raise the limit on open files");
            Some(current)
        }
    }
}

/// Returns the configured limits, lowered to the available descriptors. Logs a warning if lowered.
pub(super) fn for_clients(limits: &LimitsConfig) -> ClientLimits {
    let wanted = configured(limits);
    let Some(files) = getrlimit(Resource::Nofile).current else { return wanted };
    let clients = fit_to_files(wanted, usize::try_from(files).unwrap_or(usize::MAX));
    if clients != wanted {
        tracing::warn!(
            open_files = files,
            configured = wanted.connections,
            connections = clients.connections,
            tunnels = clients.tunnels,
            "the limit on open files allows fewer clients than `limits.connections`: raise it (`ulimit -n`, systemd's LimitNOFILE=), or lower `limits.connections`"
        );
    }
    clients
}

/// Returns the number of files for bodies: descriptors that clients, the origin and operators leave,
/// and at most a quarter of all.
pub(super) fn for_bodies(limits: &LimitsConfig) -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(MAX_FILES);
    spare_for_bodies(configured(limits), usize::try_from(files).unwrap_or(usize::MAX))
}

fn spare_for_bodies(wanted: ClientLimits, files: usize) -> usize {
    let clients = fit_to_files(wanted, files);
    let origins = (files / 4).min(MAX_ORIGIN_FILES);
    let used = clients.connections + clients.tunnels + origins + RESERVED_FILES;
    files.saturating_sub(used).min(files / 4)
}

fn configured(limits: &LimitsConfig) -> ClientLimits {
    let connections = limits.connections;
    let tunnels = limits.tunnels.unwrap_or(connections.div_ceil(2)).min(connections);
    ClientLimits { connections, tunnels }
}

/// Lowers limits to this number of descriptors.
fn fit_to_files(wanted: ClientLimits, files: usize) -> ClientLimits {
    let origins = (files / 4).min(MAX_ORIGIN_FILES);
    let spare = files.saturating_sub(RESERVED_FILES + origins).max(2);
    if wanted.connections.saturating_add(wanted.tunnels) <= spare {
        return wanted;
    }
    let connections = wanted.connections.min((spare - spare / 3).max(1));
    let tunnels = wanted.tunnels.min(spare - connections);
    // Unused tunnels leave descriptors for other connections.
    ClientLimits { connections: wanted.connections.min(spare - tunnels), tunnels }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(connections: usize, tunnels: usize, files: usize) -> (usize, usize) {
        let clients = fit_to_files(ClientLimits { connections, tunnels }, files);
        (clients.connections, clients.tunnels)
    }

    #[test]
    fn bodies_get_what_others_leave() {
        let spare = |connections, tunnels, files| {
            spare_for_bodies(ClientLimits { connections, tunnels }, files)
        };
        assert_eq!(spare(10_000, 5_000, 1 << 20), 1 << 18, "a quarter");
        assert_eq!(spare(10_000, 5_000, 20_000), 3912);
        assert_eq!(spare(10_000, 5_000, 1024), 0, "clients take all");
        assert_eq!(spare(100, 50, 1024), 256);
        assert_eq!(spare(400, 200, 1024), 104);
        assert_eq!(spare(1, 0, 10), 0);
    }

    #[test]
    fn clients_leave_files_for_origins_and_operators() {
        assert_eq!(fitted(10_000, 5_000, 1 << 20), (10_000, 5_000), "enough for all");
        assert_eq!(fitted(10_000, 5_000, 20_000), (10_000, 5_000));
        assert_eq!(fitted(10_000, 5_000, 1024), (470, 234));
        assert_eq!(fitted(10_000, 5_000, 256), (86, 42));
        assert_eq!(fitted(10_000, 10, 256), (118, 10));
        assert_eq!(fitted(20, 10, 256), (20, 10));
        assert_eq!(fitted(10_000, 5_000, 10), (2, 0), "there is always one");
        for files in 64..4096 {
            let (connections, tunnels) = fitted(10_000, 5_000, files);
            let used = connections + tunnels + (files / 4).min(MAX_ORIGIN_FILES) + RESERVED_FILES;
            assert!(used <= files.max(RESERVED_FILES + files / 4 + 2), "{files}");
        }
    }
}
