//! The scripts that Redis runs: each one is a step that must not be seen half done.
//!
//! Each of them takes a deadline as well, see [`Script::run`].

use std::sync::LazyLock;

use crate::redis::Script;

/// What [`ACQUIRE`] answers to the node that fetches.
pub(super) const ACQUIRED: i64 = -10;
/// What [`AWAIT`] answers where nobody fetches any more.
pub(super) const NO_LEASE: i64 = -2;

/// Takes the lease, or joins those who wait for its end. Asked twice, it answers the same.
///
/// NamespaceKeys: the lease, the waiting. Arguments: a token, how long the lease lasts, this node, how long the list
/// of those who wait lasts; all times in milliseconds. Answers [`ACQUIRED`], or how long the lease still lasts.
pub(super) static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&["if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) \
         or redis.call('GET', KEYS[1]) == ARGV[1] then return -10 end \
         redis.call('SADD', KEYS[2], ARGV[3]) \
         redis.call('PEXPIRE', KEYS[2], ARGV[4]) \
         return redis.call('PTTL', KEYS[1])"])
});

/// Goes on waiting. NamespaceKeys: the lease, the waiting. Arguments: this node, how long the list lasts. Answers
/// how long the lease still lasts; [`NO_LEASE`] where it has ended.
pub(super) static AWAIT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&["local left = redis.call('PTTL', KEYS[1]) \
         if left > 0 then \
           redis.call('SADD', KEYS[2], ARGV[1]) \
           redis.call('PEXPIRE', KEYS[2], ARGV[2]) \
         end \
         return left"])
});

/// Makes the lease last longer. Key: the lease. Arguments: the token, how long. Answers 1, or 0 where it is
/// somebody else's by now.
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&["if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
         return redis.call('PEXPIRE', KEYS[1], ARGV[2])"])
});

/// Ends the lease and tells those who wait. NamespaceKeys: the lease, the waiting. Arguments: the token, the
/// message, what a node's channel begins with. Answers how many nodes waited.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&["if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
         local nodes = redis.call('SMEMBERS', KEYS[2]) \
         redis.call('DEL', KEYS[1], KEYS[2]) \
         for _, node in ipairs(nodes) do redis.call('PUBLISH', ARGV[3] .. node, ARGV[2]) end \
         return #nodes"])
});

/// Puts an entry, unless what is there supersedes it: a response of the same purge log that was asked for
/// later, or, where a response without `Vary` comes, an index of variants that was written lately.
///
/// Key: the entry. Arguments: the entry, how long it lasts, for how long an index counts; times in
/// milliseconds. Answers with the first bytes of what was replaced, and with nothing where nothing was
/// written. `codec::ORDER_OFFSET` tells the places; the fourth byte tells an encrypted entry from a plain one, and both
/// have them.
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

/// Replaces an entry if it is still what it was. Key: the entry. Arguments: the entry, how long it lasts in
/// milliseconds, the first 13 bytes of what was there. Answers 1, or 0 where something else is there now.
pub(super) static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&["local old = redis.pcall('GETRANGE', KEYS[1], 0, 12) \
         if type(old) ~= 'string' then old = '' end \
         if old ~= ARGV[3] then return 0 end \
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
         return 1"])
});
