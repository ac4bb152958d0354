//! Tests that the table agrees with a scan of all records, or selects more.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::{
    fence::{FenceStamp, PurgeMode, PurgeSource},
    field::Timestamp,
};

const LOG: LogId = LogId(1);
const URL: &str = "example.com/a/b?c=1";
const NONE: ResponseAttributes<'_> = ResponseAttributes { user: None, route: None, version: None };

fn purge(mode: PurgeMode, selectors: &[Selector]) -> Purge {
    Purge {
        mode,
        selectors: selectors.to_vec(),
        source: PurgeSource::Api,
        reason: None,
        warm: false,
    }
}

fn tag(tag: &str) -> Selector {
    Selector::Tag(tag.into())
}

fn url(url: &str) -> Selector {
    Selector::Url(url.into())
}

fn prefix(prefix: &str) -> Selector {
    Selector::Prefix(prefix.into())
}

fn pattern(pattern: &str) -> Selector {
    Selector::Pattern(pattern.into())
}

fn user(user: &str) -> Selector {
    Selector::User(user.into())
}

fn all(selectors: &[Selector]) -> Selector {
    Selector::All(selectors.into())
}

fn candidate<'a>(
    url: &'a str,
    tags: &'a [&'a str],
    attributes: ResponseAttributes<'a>,
) -> PurgeCandidate<'a, impl Iterator<Item = &'a str> + Clone> {
    PurgeCandidate { url: url.as_bytes(), tags: tags.iter().copied(), attributes }
}

fn table() -> PurgeTable {
    with_capacity(usize::MAX)
}

fn with_capacity(capacity: usize) -> PurgeTable {
    let mut table = PurgeTable::new(capacity);
    table.begin(Fence { log: LOG, seq: 10 });
    table
}

impl PurgeTable {
    /// Applies a purge as the next record.
    fn purge(&mut self, mode: PurgeMode, selectors: &[Selector]) {
        let seq = self.applied + 1;
        let at = Timestamp::from_millis(seq);
        self.apply(&PurgeRecord { seq, at, purge: purge(mode, selectors) });
    }

    fn stamp(&self) -> FenceStamp {
        FenceStamp { fence: self.fence(), version: self.version(), began: 1 }
    }

    /// Judges a response to `URL` with the tag `t` that was requested at `stamp`.
    fn verdict(&self, stamp: FenceStamp) -> PurgeVerdict {
        self.verdict_of(stamp, URL, &["t"])
    }

    fn verdict_of(&self, stamp: FenceStamp, url: &str, tags: &[&str]) -> PurgeVerdict {
        let candidate = candidate(url, tags, ResponseAttributes::default());
        self.judge(stamp.fence, stamp.version, &candidate)
    }
}

/// The verdict on a response to `URL` with the tag `t` after one hard purge.
fn after(selector: Selector) -> PurgeVerdict {
    let mut table = table();
    let stamp = table.stamp();
    table.purge(PurgeMode::Hard, &[selector]);
    let verdict = table.verdict(stamp);
    let from_elsewhere = FenceStamp { version: 0, ..stamp };
    assert_eq!(table.verdict(from_elsewhere), verdict);
    assert_eq!(table.verdict(table.stamp()), PurgeVerdict::Alive, "asked for afterwards");
    verdict
}

#[test]
fn tags_select_by_exact_match() {
    assert_eq!(after(tag("t")), PurgeVerdict::Dead);
    for other in ["", "T", "tt", URL] {
        assert_eq!(after(tag(other)), PurgeVerdict::Alive, "{other}");
    }
}

#[test]
fn urls_select_with_their_host_and_without() {
    for this in [URL, "/a/b?c=1"] {
        assert_eq!(after(url(this)), PurgeVerdict::Dead, "{this}");
    }
    for other in ["t", "", "/", "/a/b", "/a/b?c=12", "example.com", "other.com/a/b?c=1", "/b?c=1"] {
        assert_eq!(after(url(other)), PurgeVerdict::Alive, "{other}");
    }
}

#[test]
fn prefixes_match_the_start_of_the_url() {
    for this in ["", "ex", "example.com", "example.com/", "/", "/a", "/a/b?c", URL, "/a/b?c=1"] {
        assert_eq!(after(prefix(this)), PurgeVerdict::Dead, "{this}");
    }
    for other in ["t", "a", "xample", "com/a", "//", "/b", "/a/b?c=12", "example.com/a/b?c=12"] {
        assert_eq!(after(prefix(other)), PurgeVerdict::Alive, "{other}");
    }
}

#[test]
fn prefixes_too_long_to_be_told_apart_select_more() {
    let long = format!("/{}", "x".repeat(3000));
    let mut table = table();
    let stamp = table.stamp();
    table.purge(PurgeMode::Hard, &[prefix(&long)]);
    assert_eq!(table.verdict_of(stamp, &format!("h{long}"), &[]), PurgeVerdict::Dead);
    assert_eq!(table.verdict_of(stamp, &format!("h{}", &long[..2000]), &[]), PurgeVerdict::Dead);
    assert_eq!(table.verdict_of(stamp, &format!("h{}", &long[..1000]), &[]), PurgeVerdict::Alive);
}

#[test]
fn everything_selects_any_response() {
    assert_eq!(after(Selector::Everything), PurgeVerdict::Dead);
    let mut table = table();
    let stamp = table.stamp();
    table.purge(PurgeMode::Soft, &[Selector::Everything]);
    assert_eq!(table.verdict_of(stamp, "", &[]), PurgeVerdict::Soft);
    assert_eq!(table.verdict(table.stamp()), PurgeVerdict::Alive);
}

const MINE: ResponseAttributes<'_> =
    ResponseAttributes { user: Some("u"), route: Some("r"), version: Some("v") };

/// The verdict on a response to `URL` with the tag `t` and these attributes after one hard purge.
fn among(attributes: ResponseAttributes<'_>, selector: &Selector) -> PurgeVerdict {
    let mut table = table();
    let stamp = table.stamp();
    table.purge(PurgeMode::Hard, std::slice::from_ref(selector));
    let judge = |version| table.judge(stamp.fence, version, &candidate(URL, &["t"], attributes));
    let verdict = judge(stamp.version);
    assert_eq!(judge(0), verdict);
    assert_eq!(judge(table.version()), PurgeVerdict::Alive, "asked for afterwards");
    assert_eq!(
        selector.selects(&candidate(URL, &["t"], attributes)),
        verdict == PurgeVerdict::Dead
    );
    assert!(
        table.may_select(stamp.version, URL.as_bytes(), attributes)
            || verdict == PurgeVerdict::Alive
    );
    verdict
}

#[test]
fn patterns_match_the_whole_url() {
    for this in ["*", "/a/*", "*c=1", "/*/b*", "example.com/*", "*.com/a/b?c=*", URL, "/a/b?c=1"] {
        assert_eq!(after(pattern(this)), PurgeVerdict::Dead, "{this}");
    }
    for other in ["", "/", "/a", "/a/b?c=", "a*", "/b*", "*c=", "example.org/*", "*/b"] {
        assert_eq!(after(pattern(other)), PurgeVerdict::Alive, "{other}");
    }
}

#[test]
fn users_routes_and_versions_select_their_responses() {
    let (route, version) =
        (|it: &str| Selector::Route(it.into()), |it: &str| Selector::Version(it.into()));
    for this in [user("u"), route("r"), version("v")] {
        assert_eq!(among(MINE, &this), PurgeVerdict::Dead, "{this:?}");
        assert_eq!(among(NONE, &this), PurgeVerdict::Alive, "{this:?}");
    }
    for other in [user("r"), user(""), route("u"), version("r")] {
        assert_eq!(among(MINE, &other), PurgeVerdict::Alive, "{other:?}");
    }
}

#[test]
fn a_conjunction_selects_the_intersection() {
    let route = || Selector::Route("r".into());
    for this in [
        all(&[tag("t"), user("u")]),
        all(&[user("u"), route(), url("/a/b?c=1")]),
        all(&[prefix("/a"), route()]),
        all(&[pattern("/a*"), user("u")]),
        all(&[tag("t"), prefix("/a/")]),
        all(&[Selector::Everything, all(&[route()])]),
        all(&[]),
    ] {
        assert_eq!(among(MINE, &this), PurgeVerdict::Dead, "{this:?}");
    }
    for other in [
        all(&[tag("t"), user("x")]),
        all(&[tag("x"), user("u")]),
        all(&[user("u"), user("x")]),
        all(&[prefix("/b"), route()]),
        all(&[pattern("/b*"), user("u")]),
        all(&[tag("t"), tag("x")]),
    ] {
        assert_eq!(among(MINE, &other), PurgeVerdict::Alive, "{other:?}");
    }
    assert_eq!(among(NONE, &all(&[tag("t"), user("u")])), PurgeVerdict::Alive);
}

#[test]
fn a_purge_of_one_users_responses_affects_no_other_user() {
    let mut table = table();
    let since = table.version();
    table.purge(PurgeMode::Hard, &[all(&[tag("any"), user("u")])]);
    assert!(table.may_select(since, URL.as_bytes(), MINE));
    assert!(!table.may_select(since, URL.as_bytes(), NONE));
}

#[test]
fn evicting_a_pattern_invalidates_older_responses() {
    let mut table = table();
    let stamps: Vec<FenceStamp> = (0..1001)
        .map(|number| {
            let stamp = table.stamp();
            table.purge(PurgeMode::Hard, &[pattern(&format!("/{number}/*"))]);
            stamp
        })
        .collect();
    assert_eq!(table.len(), 1000);
    assert_eq!(table.verdict(stamps[0]), PurgeVerdict::Dead);
    assert_eq!(table.verdict(stamps[1]), PurgeVerdict::Alive);
    assert_eq!(table.verdict_of(stamps[1], "h/1/x", &[]), PurgeVerdict::Dead);
    assert!(table.may_select(stamps[0].version, b"h/unrelated", NONE));
    table.purge(PurgeMode::Hard, &[pattern("/1/*"), pattern("/new/*")]);
    assert_eq!(table.verdict(stamps[2]), PurgeVerdict::Dead, "purged once more, `/1/*` is young");
    assert_eq!(table.verdict(stamps[3]), PurgeVerdict::Alive);
}

#[test]
fn a_pending_pattern_is_never_forgotten() {
    let mut table = table();
    let before = table.stamp();
    let pending = table.apply_pending(&purge(PurgeMode::Hard, &[pattern("/a/*")]));
    for number in 0..1100 {
        table.purge(PurgeMode::Soft, &[pattern(&format!("/{number}/*"))]);
    }
    table.begin(Fence { log: LOG, seq: table.fence().seq });
    let now = FenceStamp { version: before.version, ..table.stamp() };
    assert_eq!(table.verdict(now), PurgeVerdict::Dead);
    assert_eq!(table.verdict_of(now, "h/5/x", &[]), PurgeVerdict::Alive, "below the low_watermark");
    table.remove_pending(pending);
    assert_eq!(table.verdict(now), PurgeVerdict::Alive);
}

#[test]
fn a_hard_purge_wins_over_a_soft_one_in_either_order() {
    for modes in [[PurgeMode::Hard, PurgeMode::Soft], [PurgeMode::Soft, PurgeMode::Hard]] {
        let mut table = table();
        let before = table.stamp();
        table.purge(modes[0], &[tag("t")]);
        let between = table.stamp();
        table.purge(modes[1], &[tag("t")]);
        assert_eq!(table.verdict(before), PurgeVerdict::Dead);
        let expected =
            if modes[1] == PurgeMode::Soft { PurgeVerdict::Soft } else { PurgeVerdict::Dead };
        assert_eq!(table.verdict(between), expected);
    }
}

#[test]
fn a_boundary_selects_nothing_and_takes_a_place() {
    let mut table = table();
    let stamp = table.stamp();
    table.apply(&PurgeRecord { seq: 11, at: Timestamp::from_millis(0), purge: Purge::boundary() });
    assert_eq!(table.fence().seq, 11);
    assert_eq!(table.verdict(stamp), PurgeVerdict::Alive);
}

#[test]
fn a_record_applied_again_changes_nothing() {
    let mut table = table();
    table.purge(PurgeMode::Hard, &[tag("t")]);
    let (stamp, version) = (table.stamp(), table.version());
    let again = purge(PurgeMode::Hard, &[tag("t"), Selector::Everything]);
    for seq in [0, 1, 10, 11] {
        let at = Timestamp::from_millis(seq);
        table.apply(&PurgeRecord { seq, at, purge: again.clone() });
    }
    assert_eq!((table.fence(), table.version()), (stamp.fence, version));
    assert_eq!(table.verdict(stamp), PurgeVerdict::Alive);
}

#[test]
fn missing_records_invalidate_older_responses() {
    let mut table = table();
    let older = table.stamp();
    let at = Timestamp::from_millis(0);
    table.apply(&PurgeRecord { seq: 14, at, purge: purge(PurgeMode::Hard, &[tag("else")]) });
    assert_eq!(table.verdict(older), PurgeVerdict::Dead);
    assert!(table.may_select(older.version, b"h/unrelated", NONE));
    let up_to_date_elsewhere =
        FenceStamp { fence: Fence { log: LOG, seq: 13 }, ..FenceStamp::default() };
    assert_eq!(table.verdict(up_to_date_elsewhere), PurgeVerdict::Alive);
    assert_eq!(table.verdict_of(up_to_date_elsewhere, URL, &["else"]), PurgeVerdict::Dead);
}

#[test]
fn another_log_makes_everything_dead_and_is_followed_from_its_fence_on() {
    let mut table = table();
    table.purge(PurgeMode::Hard, &[tag("t")]);
    let stamp = table.stamp();
    table.begin(Fence { log: LogId(2), seq: 5 });
    assert_eq!(table.verdict(stamp), PurgeVerdict::Dead);
    assert!(table.may_select(stamp.version, b"h/unrelated", NONE));
    let stored = |seq| FenceStamp { fence: Fence { log: LogId(2), seq }, ..FenceStamp::default() };
    assert_eq!(table.verdict(stored(4)), PurgeVerdict::Dead);
    assert_eq!(table.verdict(stored(5)), PurgeVerdict::Alive);
    assert_eq!(table.len(), 0);
}

#[test]
fn a_log_that_became_shorter_revives_no_response() {
    let mut table = table();
    table.purge(PurgeMode::Hard, &[tag("t")]);
    table.purge(PurgeMode::Hard, &[tag("t")]);
    let stamps: Vec<FenceStamp> = (0..=12)
        .map(|seq| FenceStamp { fence: Fence { log: LOG, seq }, ..FenceStamp::default() })
        .collect();
    table.begin(Fence { log: LOG, seq: 7 });
    for _ in 0..5 {
        assert!(stamps.iter().all(|stamp| table.verdict(*stamp) == PurgeVerdict::Dead));
        table.purge(PurgeMode::Hard, &[tag("else"), Selector::Everything]);
    }
    table.purge(PurgeMode::Hard, &[tag("else")]);
    assert_eq!(table.verdict(table.stamp()), PurgeVerdict::Alive);
}

#[test]
fn a_full_table_gives_up_the_oldest_and_what_it_selects_stays_dead() {
    let mut table = with_capacity(2);
    let stamps: Vec<FenceStamp> = ["a", "b", "a", "c"]
        .map(|name| {
            let stamp = table.stamp();
            table.purge(PurgeMode::Hard, &[tag(name)]);
            stamp
        })
        .into();
    assert_eq!(table.len(), 2);
    assert!(stamps.iter().all(|stamp| table.verdict(*stamp) == PurgeVerdict::Alive));
    // `b`, the second record, is evicted; `a` was purged again and is not.
    let of_b = stamps.iter().map(|stamp| table.verdict_of(*stamp, URL, &["b"]));
    let expected =
        [PurgeVerdict::Dead, PurgeVerdict::Dead, PurgeVerdict::Alive, PurgeVerdict::Alive];
    assert_eq!(of_b.collect::<Vec<_>>(), expected);
    assert_eq!((table.evicted(), table.low_watermark()), (1, 10));
    assert!(table.may_select(stamps[1].version, b"h/unrelated", NONE));
    assert_eq!(table.verdict_of(stamps[2], URL, &["a"]), PurgeVerdict::Dead);
}

#[test]
fn a_pending_purge_spares_responses_requested_after_it() {
    let mut table = table();
    let before = table.stamp();
    let _pending = table.apply_pending(&purge(PurgeMode::Hard, &[url(URL)]));
    let after = table.stamp();
    assert_eq!(before.fence, after.fence);
    assert_eq!(table.verdict(before), PurgeVerdict::Dead);
    assert_eq!(table.verdict(after), PurgeVerdict::Alive);
    let from_elsewhere = FenceStamp { fence: Fence { log: LOG, seq: 99 }, ..FenceStamp::default() };
    assert_eq!(table.verdict(from_elsewhere), PurgeVerdict::Dead);
    assert_eq!(table.verdict_of(from_elsewhere, "h/unrelated", &[]), PurgeVerdict::Alive);
    assert!(table.may_select(before.version, URL.as_bytes(), NONE));
    assert!(!table.may_select(after.version, URL.as_bytes(), NONE));
}

#[test]
fn a_pending_purge_becomes_its_record() {
    let mut table = table();
    let before = table.stamp();
    let soft = purge(PurgeMode::Soft, &[tag("t")]);
    let pending = table.apply_pending(&soft);
    let between = table.stamp();
    assert_eq!(table.verdict(before), PurgeVerdict::Soft);
    table.purge(PurgeMode::Soft, &[tag("t")]);
    table.remove_pending(pending);
    assert_eq!(table.verdict(before), PurgeVerdict::Soft);
    assert_eq!(
        table.verdict(between),
        PurgeVerdict::Soft,
        "its fence does not say that it is younger"
    );
    let from_elsewhere = FenceStamp { version: 0, ..table.stamp() };
    assert_eq!(table.verdict(from_elsewhere), PurgeVerdict::Alive);
}

#[test]
fn a_pending_purge_outlives_a_log_and_an_equal_one() {
    let mut table = table();
    let first = table.apply_pending(&purge(PurgeMode::Hard, &[tag("t"), prefix("/x")]));
    let second = table.apply_pending(&purge(PurgeMode::Hard, &[tag("t"), tag("t")]));
    table.begin(Fence { log: LogId(2), seq: 0 });
    let from_elsewhere = FenceStamp { version: 0, ..table.stamp() };
    assert_eq!(table.verdict_of(from_elsewhere, "h/x/y", &[]), PurgeVerdict::Dead);
    table.remove_pending(first);
    table.remove_pending(first);
    assert_eq!(table.verdict_of(from_elsewhere, "h/x/y", &[]), PurgeVerdict::Alive);
    assert_eq!(table.verdict(from_elsewhere), PurgeVerdict::Dead);
    table.remove_pending(second);
    assert_eq!(table.verdict(from_elsewhere), PurgeVerdict::Alive);
}

#[test]
fn before_its_tags_are_known_any_tag_may_select_a_response() {
    let mut table = table();
    let may_select = |change: &dyn Fn(&mut PurgeTable), table: &mut PurgeTable| {
        let since = table.version();
        change(table);
        assert!(!table.may_select(table.version(), URL.as_bytes(), NONE));
        table.may_select(since, URL.as_bytes(), NONE)
    };
    for related in [tag("else"), url("/a/b?c=1"), prefix("example.com/a"), Selector::Everything] {
        for mode in [PurgeMode::Hard, PurgeMode::Soft] {
            let change = |table: &mut PurgeTable| table.purge(mode, std::slice::from_ref(&related));
            assert!(may_select(&change, &mut table), "{related:?}");
        }
    }
    for unrelated in [url("/a"), prefix("example.com/b")] {
        let change =
            |table: &mut PurgeTable| table.purge(PurgeMode::Hard, std::slice::from_ref(&unrelated));
        assert!(!may_select(&change, &mut table), "{unrelated:?}");
    }
}

/// A step of a random history.
#[derive(Debug, Clone)]
enum HistoryStep {
    /// Requests a response; `true` if another process requests it.
    Fetch(&'static str, Vec<&'static str>, ResponseAttributes<'static>, bool),
    Purge(Purge),
    AddPending(Purge),
    /// Appends one of the pending purges to the log.
    RemovePending(prop::sample::Index),
    Begin,
    /// Marks all living responses as checked.
    Check,
}

/// A response that was fetched during the history.
struct FetchedResponse {
    stamp: FenceStamp,
    checked: u64,
    is_remote: bool,
    url: &'static str,
    tags: Vec<&'static str>,
    attributes: ResponseAttributes<'static>,
    /// Number of purges before the response was requested.
    at: usize,
    worst: PurgeVerdict,
}

/// A purge of the history. A purge without an id is a record.
struct PastPurge {
    purge: Purge,
    pending: Option<PendingPurgeId>,
}

/// A table, and the history applied to it.
struct History {
    table: PurgeTable,
    past: Vec<PastPurge>,
    begun_at: usize,
    fetched: Vec<FetchedResponse>,
}

impl History {
    fn apply_step(&mut self, step: HistoryStep) {
        match step {
            HistoryStep::Fetch(url, tags, attributes, is_remote) => {
                self.fetch((url, tags, attributes), is_remote);
            }
            HistoryStep::Purge(purge) => self.append(purge),
            HistoryStep::AddPending(purge) => {
                let pending = Some(self.table.apply_pending(&purge));
                self.past.push(PastPurge { purge, pending });
            }
            HistoryStep::RemovePending(index) => self.remove_pending(index),
            HistoryStep::Begin => {
                let log = LogId(self.table.log.0 + 1);
                self.table.begin(Fence { log, seq: 3 });
                self.begun_at = self.past.len();
            }
            HistoryStep::Check => {
                for fetched in &mut self.fetched {
                    if fetched.judge(&self.table) == PurgeVerdict::Alive {
                        fetched.checked = self.table.version();
                    }
                }
            }
        }
    }

    fn fetch(
        &mut self,
        (url, tags, attributes): (&'static str, Vec<&'static str>, ResponseAttributes<'static>),
        is_remote: bool,
    ) {
        let stamp = self.table.stamp();
        let checked = if is_remote { 0 } else { stamp.version };
        let (at, worst) = (self.past.len(), PurgeVerdict::Alive);
        self.fetched.push(FetchedResponse {
            stamp,
            checked,
            is_remote,
            url,
            tags,
            attributes,
            at,
            worst,
        });
    }

    fn append(&mut self, purge: Purge) {
        let seq = self.table.applied + 1;
        let at = Timestamp::from_millis(seq);
        self.table.apply(&PurgeRecord { seq, at, purge: purge.clone() });
        self.past.push(PastPurge { purge, pending: None });
    }

    fn remove_pending(&mut self, index: prop::sample::Index) {
        let pending: Vec<_> = self.past.iter().filter_map(|it| it.pending).collect();
        if pending.is_empty() {
            return;
        }
        let id = *index.get(&pending);
        let place = self.past.iter().position(|it| it.pending == Some(id)).unwrap();
        self.append(self.past[place].purge.clone());
        self.table.remove_pending(id);
        self.past[place].purge.selectors.clear();
        self.past[place].pending = None;
    }

    /// The verdict by a scan of the whole history.
    fn expected_verdict(&self, fetched: &FetchedResponse) -> PurgeVerdict {
        if fetched.at < self.begun_at || fetched.stamp.fence.log != self.table.log {
            return PurgeVerdict::Dead;
        }
        let later = self.past.iter().enumerate().filter(|(place, it)| {
            *place >= fetched.at
                || (fetched.is_remote && fetched.checked == 0 && it.pending.is_some())
        });
        let verdicts =
            later.filter(|(_, it)| fetched.is_selected(&it.purge)).map(|(_, it)| {
                match it.purge.mode {
                    PurgeMode::Hard => PurgeVerdict::Dead,
                    PurgeMode::Soft => PurgeVerdict::Soft,
                }
            });
        verdicts.max().unwrap_or(PurgeVerdict::Alive)
    }
}

impl FetchedResponse {
    fn judge(&self, table: &PurgeTable) -> PurgeVerdict {
        self.judge_since(table, self.checked)
    }

    fn judge_since(&self, table: &PurgeTable, checked: u64) -> PurgeVerdict {
        table.judge(self.stamp.fence, checked, &candidate(self.url, &self.tags, self.attributes))
    }

    fn is_selected(&self, purge: &Purge) -> bool {
        purge.selectors.iter().any(|selector| self.is_selected_by(selector))
    }

    fn is_selected_by(&self, selector: &Selector) -> bool {
        let path = &self.url[self.url.find('/').unwrap_or(self.url.len())..];
        match selector {
            Selector::Everything => true,
            Selector::Tag(tag) => self.tags.contains(&&**tag),
            Selector::Url(url) => [self.url, path].contains(&&**url),
            Selector::Prefix(prefix) => {
                self.url.starts_with(&**prefix) || path.starts_with(&**prefix)
            }
            Selector::Pattern(pattern) => {
                let matches_naively =
                    |text: &str| matches_naively(pattern.as_bytes(), text.as_bytes());
                matches_naively(self.url) || matches_naively(path)
            }
            Selector::User(user) => self.attributes.user == Some(user),
            Selector::Route(route) => self.attributes.route == Some(route),
            Selector::Version(version) => self.attributes.version == Some(version),
            Selector::Credential(_) => false,
            Selector::All(selectors) => selectors.iter().all(|it| self.is_selected_by(it)),
        }
    }
}

/// A reference implementation of pattern matching.
fn matches_naively(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => {
            (0..=text.len()).any(|skipped| matches_naively(rest, &text[skipped..]))
        }
        Some((byte, rest)) => text.first() == Some(byte) && matches_naively(rest, &text[1..]),
    }
}

const URLS: [&str; 5] = ["h/a", "h/a?q", "h/b/c", "g/a", "g/"];
const TAGS: [&str; 4] = ["a", "b", "/a", "h/a"];

fn selectors() -> impl Strategy<Value = Selector> {
    let some_url = select(vec!["h/a", "/a", "g/a", "/", "/b/c", "a"]);
    let some_prefix = select(vec!["h", "h/", "/b", "/", "/a?", "g/a", "", "a"]);
    let some_pattern = select(vec!["/a*", "h/*", "*/a", "*a*", "/*/c", "*", "/a", "g/*?*"]);
    let one = prop_oneof![
        8 => select(TAGS.to_vec()).prop_map(tag),
        8 => some_url.prop_map(url),
        6 => some_prefix.prop_map(prefix),
        3 => some_pattern.prop_map(pattern),
        3 => select(VALUES.to_vec()).prop_map(user),
        3 => select(VALUES.to_vec()).prop_map(|route| Selector::Route(route.into())),
        2 => select(VALUES.to_vec()).prop_map(|version| Selector::Version(version.into())),
        1 => Just(Selector::Everything),
    ];
    one.prop_recursive(2, 8, 3, |inner| vec(inner, 1..4).prop_map(|selectors| all(&selectors)))
}

/// The possible attribute values.
const VALUES: [&str; 2] = ["a", "b"];

fn attributes() -> impl Strategy<Value = ResponseAttributes<'static>> {
    let value = || prop::option::of(select(VALUES.to_vec()));
    (value(), value(), value()).prop_map(|(user, route, version)| ResponseAttributes {
        user,
        route,
        version,
    })
}

fn purges() -> impl Strategy<Value = Purge> {
    (select(vec![PurgeMode::Hard, PurgeMode::Soft]), vec(selectors(), 0..3))
        .prop_map(|(mode, selectors)| purge(mode, &selectors))
}

fn steps() -> impl Strategy<Value = HistoryStep> {
    let tags = vec(select(TAGS.to_vec()), 0..3);
    prop_oneof![
        8 => (select(URLS.to_vec()), tags, attributes(), any::<bool>())
            .prop_map(|(url, tags, attributes, is_remote)| HistoryStep::Fetch(url, tags, attributes, is_remote)),
        8 => purges().prop_map(HistoryStep::Purge),
        4 => purges().prop_map(HistoryStep::AddPending),
        3 => any::<prop::sample::Index>().prop_map(HistoryStep::RemovePending),
        1 => Just(HistoryStep::Begin),
        4 => Just(HistoryStep::Check),
    ]
}

/// Plays a history on a table of this capacity, and compares every verdict with the scan.
fn play(steps: Vec<HistoryStep>, capacity: usize) {
    let table = PurgeTable::new(capacity);
    let mut history = History { table, past: Vec::new(), begun_at: 0, fetched: Vec::new() };
    for step in steps {
        history.apply_step(step);
        for place in 0..history.fetched.len() {
            let fetched = &history.fetched[place];
            let (verdict, expected_verdict) =
                (fetched.judge(&history.table), history.expected_verdict(fetched));
            if capacity == usize::MAX {
                assert_eq!(verdict, expected_verdict);
            }
            assert!(verdict >= expected_verdict && verdict >= fetched.worst, "a purge was evicted");
            let by_stamp = fetched.judge_since(&history.table, fetched.stamp.version);
            let (since, url) = (fetched.stamp.version, fetched.url.as_bytes());
            let may_select = history.table.may_select(since, url, fetched.attributes);
            assert!(by_stamp == PurgeVerdict::Alive || may_select);
            history.fetched[place].worst = verdict;
        }
        assert!(history.table.len() <= capacity);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_large_table_agrees_with_a_scan_of_all_records(steps in vec(steps(), 0..60)) {
        play(steps, usize::MAX);
    }

    #[test]
    fn with_little_room_it_never_says_better(steps in vec(steps(), 0..60), room in 0..5_usize) {
        play(steps, room);
    }
}
