//! Lua scripts for operations that have to be atomic.
//!
//! [`Script::run`] adds a deadline to each script's arguments.

use std::{sync::LazyLock, time::Duration};

use crate::redis::Script;

/// The reply of [`ACQUIRE`] to the node that acquired the lease.
pub(super) const ACQUIRED: i64 = -10;
/// The reply of [`AWAIT`] if the lease has ended.
pub(super) const NO_LEASE: i64 = -2;

/// Acquires the lease, or adds this node to the waiting nodes. Idempotent.
///
/// Keys: the lease, the waiters. Arguments: a token, the TTL of the lease, this node, the TTL of
/// the waiters; times in milliseconds. Returns [`ACQUIRED`], or the remaining TTL of the lease.
pub(super) static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&["if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) \
         or redis.call('GET', KEYS[1]) == ARGV[1] then return -10 end \
         redis.call('SADD', KEYS[2], ARGV[3]) \
         redis.call('PEXPIRE', KEYS[2], ARGV[4]) \
         return redis.call('PTTL', KEYS[1])"])
});

/// Adds this node to the waiting nodes again, if a node still holds the lease.
///
/// Keys: the lease, the waiters. Arguments: this node, the TTL of the waiters. Returns the
/// remaining TTL of the lease, or [`NO_LEASE`].
pub(super) static AWAIT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&["local left = redis.call('PTTL', KEYS[1]) \
         if left > 0 then \
           redis.call('SADD', KEYS[2], ARGV[1]) \
           redis.call('PEXPIRE', KEYS[2], ARGV[2]) \
         end \
         return left"])
});

/// Renews the lease.
///
/// Key: the lease. Arguments: the token, the TTL. Returns 1, or 0 if another node holds the lease.
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&["if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
         return redis.call('PEXPIRE', KEYS[1], ARGV[2])"])
});

/// Ends the lease and notifies the waiters.
///
/// Keys: the lease, the waiters. Arguments: the token, the message, the prefix of a node's channel.
/// Returns the number of waiting nodes.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&["if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
         local nodes = redis.call('SMEMBERS', KEYS[2]) \
         redis.call('DEL', KEYS[1], KEYS[2]) \
         for _, node in ipairs(nodes) do redis.call('PUBLISH', ARGV[3] .. node, ARGV[2]) end \
         return #nodes"])
});

/// Stores an entry, unless the stored entry supersedes the new entry.
///
/// A stored response supersedes a new response if both have a fence from the same purge log and the
/// stored one was requested later. An index of variants that was written recently supersedes a new
/// response without `Vary`.
///
/// Key: the entry. Arguments: the entry, its TTL, the time for which an index supersedes a
/// response; times in milliseconds. Returns the first bytes of the replaced entry, or nothing if
/// nothing was stored. Offsets follow from `codec::ORDER_OFFSET`. The fourth byte marks encrypted
/// entries, which have the same offsets.
pub(super) static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&["local new = ARGV[1] \
         local old = redis.pcall('GETRANGE', KEYS[1], 0, 511) \
         if type(old) ~= 'string' then old = '' end \
         if #old >= 38 and #new >= 38 and string.byte(new, 14) == 1 \
           and string.sub(old, 1, 3) == string.sub(new, 1, 3) \
           and string.byte(old, 5) == string.byte(new, 5) then \
           local seq, asked = struct.unpack('<I8I8', string.sub(new, 23, 38)) \
           if string.byte(old, 14) == 0 then \
             local seen = struct.unpack('<I8', string.sub(old, 15, 22)) \
             if asked < seen + tonumber(ARGV[3]) then return false end \
           elseif string.sub(old, 15, 22) == string.sub(new, 15, 22) then \
             local known, since = struct.unpack('<I8I8', string.sub(old, 23, 38)) \
             if known > seq or (known == seq and since > asked) then return false end \
           end \
         end \
         redis.call('SET', KEYS[1], new, 'PX', ARGV[2]) \
         return old"])
});

/// Replaces an entry if it is unchanged.
///
/// Key: the entry. Arguments: the new entry, its TTL in milliseconds, the first 13 bytes of the old
/// entry. Returns 1, or 0 if the stored entry differs.
pub(super) static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&["local old = redis.pcall('GETRANGE', KEYS[1], 0, 12) \
         if type(old) ~= 'string' then old = '' end \
         if old ~= ARGV[3] then return 0 end \
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
         return 1"])
});

/// Converts a duration to a script argument: milliseconds, at least 1.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).max(1)
}
