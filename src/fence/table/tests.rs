//! The table says what scanning all records would say, or something worse.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::{
    fence::{Mode, Source, Stamp},
    field::Timestamp,
};

const LOG: LogId = LogId(1);
const URL: &str = "example.com/a/b?c=1";
const NONE: Facets<'_> = Facets { user: None, route: None, version: None };

fn purge(mode: Mode, selectors: &[Selector]) -> Purge {
    Purge { mode, selectors: selectors.to_vec(), source: Source::Api, reason: None, warm: false }
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

fn subject<'a>(
    url: &'a str,
    tags: &'a [&'a str],
    facets: Facets<'a>,
) -> Subject<'a, impl Iterator<Item = &'a str> + Clone> {
    Subject { url: url.as_bytes(), tags: tags.iter().copied(), facets }
}

fn table() -> Table {
    with_capacity(usize::MAX)
}

fn with_capacity(capacity: usize) -> Table {
    let mut table = Table::new(capacity);
    table.begin(Fence { log: LOG, seq: 10 });
    table
}

impl Table {
    /// Applies a purge as the next record.
    fn purge(&mut self, mode: Mode, selectors: &[Selector]) {
        let seq = self.applied + 1;
        let at = Timestamp::from_millis(seq);
        self.apply(&Record { seq, at, purge: purge(mode, selectors) });
    }

    fn stamp(&self) -> Stamp {
        Stamp { fence: self.fence(), version: self.version(), began: 1 }
    }

    /// Judges a response to `URL` with the tag `t` that was asked for at `stamp`.
    fn verdict(&self, stamp: Stamp) -> Verdict {
        self.verdict_of(stamp, URL, &["t"])
    }

    fn verdict_of(&self, stamp: Stamp, url: &str, tags: &[&str]) -> Verdict {
        let subject = subject(url, tags, Facets::default());
        self.judge(stamp.fence, stamp.version, &subject)
    }
}

/// What became of a response to `URL` with the tag `t` after one hard purge.
fn after(selector: Selector) -> Verdict {
    let mut table = table();
    let stamp = table.stamp();
    table.purge(Mode::Hard, &[selector]);
    let verdict = table.verdict(stamp);
    let from_elsewhere = Stamp { version: 0, ..stamp };
    assert_eq!(table.verdict(from_elsewhere), verdict);
    assert_eq!(table.verdict(table.stamp()), Verdict::Alive, "asked for afterwards");
    verdict
}

#[test]
fn tags_select_by_exact_match() {
    assert_eq!(after(tag("t")), Verdict::Dead);
    for other in ["", "T", "tt", URL] {
        assert_eq!(after(tag(other)), Verdict::Alive, "{other}");
    }
}

#[test]
fn urls_select_with_their_host_and_without() {
    for this in [URL, "/a/b?c=1"] {
        assert_eq!(after(url(this)), Verdict::Dead, "{this}");
    }
    for other in ["t", "", "/", "/a/b", "/a/b?c=12", "example.com", "other.com/a/b?c=1", "/b?c=1"] {
        assert_eq!(after(url(other)), Verdict::Alive, "{other}");
    }
}

#[test]
fn prefixes_select_where_the_url_begins_with_them() {
    for this in ["", "ex", "example.com", "example.com/", "/", "/a", "/a/b?c", URL, "/a/b?c=1"] {
        assert_eq!(after(prefix(this)), Verdict::Dead, "{this}");
    }
    for other in ["t", "a", "xample", "com/a", "//", "/b", "/a/b?c=12", "example.com/a/b?c=12"] {
        assert_eq!(after(prefix(other)), Verdict::Alive, "{other}");
    }
}

#[test]
fn prefixes_too_long_to_be_told_apart_select_more() {
    let long = format!("/{}", "x".repeat(3000));
    let mut table = table();
    let stamp = table.stamp();
    table.purge(Mode::Hard, &[prefix(&long)]);
    assert_eq!(table.verdict_of(stamp, &format!("h{long}"), &[]), Verdict::Dead);
    assert_eq!(table.verdict_of(stamp, &format!("h{}", &long[..2000]), &[]), Verdict::Dead);
    assert_eq!(table.verdict_of(stamp, &format!("h{}", &long[..1000]), &[]), Verdict::Alive);
}

#[test]
fn everything_selects_whatever_there_is() {
    assert_eq!(after(Selector::Everything), Verdict::Dead);
    let mut table = table();
    let stamp = table.stamp();
    table.purge(Mode::Soft, &[Selector::Everything]);
    assert_eq!(table.verdict_of(stamp, "", &[]), Verdict::Soft);
    assert_eq!(table.verdict(table.stamp()), Verdict::Alive);
}

const MINE: Facets<'_> = Facets { user: Some("u"), route: Some("r"), version: Some("v") };

/// What became of a response to `URL` with the tag `t` and these facets after one hard purge.
fn among(facets: Facets<'_>, selector: &Selector) -> Verdict {
    let mut table = table();
    let stamp = table.stamp();
    table.purge(Mode::Hard, std::slice::from_ref(selector));
    let judge = |version| table.judge(stamp.fence, version, &subject(URL, &["t"], facets));
    let verdict = judge(stamp.version);
    assert_eq!(judge(0), verdict);
    assert_eq!(judge(table.version()), Verdict::Alive, "asked for afterwards");
    assert_eq!(selector.selects(&subject(URL, &["t"], facets)), verdict == Verdict::Dead);
    assert!(table.may_select(stamp.version, URL.as_bytes(), facets) || verdict == Verdict::Alive);
    verdict
}

#[test]
fn patterns_select_where_all_of_the_url_fits() {
    for this in ["*", "/a/*", "*c=1", "/*/b*", "example.com/*", "*.com/a/b?c=*", URL, "/a/b?c=1"] {
        assert_eq!(after(pattern(this)), Verdict::Dead, "{this}");
    }
    for other in ["", "/", "/a", "/a/b?c=", "a*", "/b*", "*c=", "example.org/*", "*/b"] {
        assert_eq!(after(pattern(other)), Verdict::Alive, "{other}");
    }
}

#[test]
fn users_routes_and_versions_select_what_is_theirs() {
    let (route, version) =
        (|it: &str| Selector::Route(it.into()), |it: &str| Selector::Version(it.into()));
    for this in [user("u"), route("r"), version("v")] {
        assert_eq!(among(MINE, &this), Verdict::Dead, "{this:?}");
        assert_eq!(among(NONE, &this), Verdict::Alive, "{this:?}");
    }
    for other in [user("r"), user(""), route("u"), version("r")] {
        assert_eq!(among(MINE, &other), Verdict::Alive, "{other:?}");
    }
}

#[test]
fn several_at_once_select_what_each_of_them_selects() {
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
        assert_eq!(among(MINE, &this), Verdict::Dead, "{this:?}");
    }
    for other in [
        all(&[tag("t"), user("x")]),
        all(&[tag("x"), user("u")]),
        all(&[user("u"), user("x")]),
        all(&[prefix("/b"), route()]),
        all(&[pattern("/b*"), user("u")]),
        all(&[tag("t"), tag("x")]),
    ] {
        assert_eq!(among(MINE, &other), Verdict::Alive, "{other:?}");
    }
    assert_eq!(among(NONE, &all(&[tag("t"), user("u")])), Verdict::Alive);
}

#[test]
fn a_purge_among_one_users_responses_holds_nobody_else_up() {
    let mut table = table();
    let since = table.version();
    table.purge(Mode::Hard, &[all(&[tag("any"), user("u")])]);
    assert!(table.may_select(since, URL.as_bytes(), MINE));
    assert!(!table.may_select(since, URL.as_bytes(), NONE));
}

#[test]
fn of_too_many_patterns_the_oldest_are_forgotten_and_with_them_all_that_is_older() {
    let mut table = table();
    let stamps: Vec<Stamp> = (0..1001)
        .map(|number| {
            let stamp = table.stamp();
            table.purge(Mode::Hard, &[pattern(&format!("/{number}/*"))]);
            stamp
        })
        .collect();
    assert_eq!(table.len(), 1000);
    assert_eq!(table.verdict(stamps[0]), Verdict::Dead);
    assert_eq!(table.verdict(stamps[1]), Verdict::Alive);
    assert_eq!(table.verdict_of(stamps[1], "h/1/x", &[]), Verdict::Dead);
    assert!(table.may_select(stamps[0].version, b"h/unrelated", NONE));
    table.purge(Mode::Hard, &[pattern("/1/*"), pattern("/new/*")]);
    assert_eq!(table.verdict(stamps[2]), Verdict::Dead, "purged once more, `/1/*` is young");
    assert_eq!(table.verdict(stamps[3]), Verdict::Alive);
}

#[test]
fn a_pending_pattern_is_never_forgotten() {
    let mut table = table();
    let before = table.stamp();
    let pending = table.apply_pending(&purge(Mode::Hard, &[pattern("/a/*")]));
    for number in 0..1100 {
        table.purge(Mode::Soft, &[pattern(&format!("/{number}/*"))]);
    }
    table.begin(Fence { log: LOG, seq: table.fence().seq });
    let now = Stamp { version: before.version, ..table.stamp() };
    assert_eq!(table.verdict(now), Verdict::Dead);
    assert_eq!(table.verdict_of(now, "h/5/x", &[]), Verdict::Alive, "below the floor");
    table.settle(pending);
    assert_eq!(table.verdict(now), Verdict::Alive);
}

#[test]
fn a_hard_purge_wins_over_a_soft_one_in_either_order() {
    for modes in [[Mode::Hard, Mode::Soft], [Mode::Soft, Mode::Hard]] {
        let mut table = table();
        let before = table.stamp();
        table.purge(modes[0], &[tag("t")]);
        let between = table.stamp();
        table.purge(modes[1], &[tag("t")]);
        assert_eq!(table.verdict(before), Verdict::Dead);
        let expected = if modes[1] == Mode::Soft { Verdict::Soft } else { Verdict::Dead };
        assert_eq!(table.verdict(between), expected);
    }
}

#[test]
fn a_boundary_selects_nothing_and_takes_a_place() {
    let mut table = table();
    let stamp = table.stamp();
    table.apply(&Record { seq: 11, at: Timestamp::from_millis(0), purge: Purge::boundary() });
    assert_eq!(table.fence().seq, 11);
    assert_eq!(table.verdict(stamp), Verdict::Alive);
}

#[test]
fn a_record_applied_again_changes_nothing() {
    let mut table = table();
    table.purge(Mode::Hard, &[tag("t")]);
    let (stamp, version) = (table.stamp(), table.version());
    let again = purge(Mode::Hard, &[tag("t"), Selector::Everything]);
    for seq in [0, 1, 10, 11] {
        let at = Timestamp::from_millis(seq);
        table.apply(&Record { seq, at, purge: again.clone() });
    }
    assert_eq!((table.fence(), table.version()), (stamp.fence, version));
    assert_eq!(table.verdict(stamp), Verdict::Alive);
}

#[test]
fn missing_records_make_dead_whatever_is_older() {
    let mut table = table();
    let older = table.stamp();
    let at = Timestamp::from_millis(0);
    table.apply(&Record { seq: 14, at, purge: purge(Mode::Hard, &[tag("else")]) });
    assert_eq!(table.verdict(older), Verdict::Dead);
    assert!(table.may_select(older.version, b"h/unrelated", NONE));
    let up_to_date_elsewhere = Stamp { fence: Fence { log: LOG, seq: 13 }, ..Stamp::default() };
    assert_eq!(table.verdict(up_to_date_elsewhere), Verdict::Alive);
    assert_eq!(table.verdict_of(up_to_date_elsewhere, URL, &["else"]), Verdict::Dead);
}

#[test]
fn another_log_makes_everything_dead_and_is_followed_from_its_fence_on() {
    let mut table = table();
    table.purge(Mode::Hard, &[tag("t")]);
    let stamp = table.stamp();
    table.begin(Fence { log: LogId(2), seq: 5 });
    assert_eq!(table.verdict(stamp), Verdict::Dead);
    assert!(table.may_select(stamp.version, b"h/unrelated", NONE));
    let stored = |seq| Stamp { fence: Fence { log: LogId(2), seq }, ..Stamp::default() };
    assert_eq!(table.verdict(stored(4)), Verdict::Dead);
    assert_eq!(table.verdict(stored(5)), Verdict::Alive);
    assert_eq!(table.len(), 0);
}

#[test]
fn a_log_that_became_shorter_never_revives_what_it_had() {
    let mut table = table();
    table.purge(Mode::Hard, &[tag("t")]);
    table.purge(Mode::Hard, &[tag("t")]);
    let stamps: Vec<Stamp> =
        (0..=12).map(|seq| Stamp { fence: Fence { log: LOG, seq }, ..Stamp::default() }).collect();
    table.begin(Fence { log: LOG, seq: 7 });
    for _ in 0..5 {
        assert!(stamps.iter().all(|stamp| table.verdict(*stamp) == Verdict::Dead));
        table.purge(Mode::Hard, &[tag("else"), Selector::Everything]);
    }
    table.purge(Mode::Hard, &[tag("else")]);
    assert_eq!(table.verdict(table.stamp()), Verdict::Alive);
}

#[test]
fn a_full_table_gives_up_the_oldest_and_what_it_selects_stays_dead() {
    let mut table = with_capacity(2);
    let stamps: Vec<Stamp> = ["a", "b", "a", "c"]
        .map(|name| {
            let stamp = table.stamp();
            table.purge(Mode::Hard, &[tag(name)]);
            stamp
        })
        .into();
    assert_eq!(table.len(), 2);
    assert!(stamps.iter().all(|stamp| table.verdict(*stamp) == Verdict::Alive));
    // `b` has given up its place, as the second record; `a` was purged once more and has not.
    let of_b = stamps.iter().map(|stamp| table.verdict_of(*stamp, URL, &["b"]));
    let expected = [Verdict::Dead, Verdict::Dead, Verdict::Alive, Verdict::Alive];
    assert_eq!(of_b.collect::<Vec<_>>(), expected);
    assert_eq!((table.forgotten(), table.floor()), (1, 10));
    assert!(table.may_select(stamps[1].version, b"h/unrelated", NONE));
    assert_eq!(table.verdict_of(stamps[2], URL, &["a"]), Verdict::Dead);
}

#[test]
fn a_pending_purge_spares_what_was_asked_for_after_it() {
    let mut table = table();
    let before = table.stamp();
    let _pending = table.apply_pending(&purge(Mode::Hard, &[url(URL)]));
    let after = table.stamp();
    assert_eq!(before.fence, after.fence);
    assert_eq!(table.verdict(before), Verdict::Dead);
    assert_eq!(table.verdict(after), Verdict::Alive);
    let from_elsewhere = Stamp { fence: Fence { log: LOG, seq: 99 }, ..Stamp::default() };
    assert_eq!(table.verdict(from_elsewhere), Verdict::Dead);
    assert_eq!(table.verdict_of(from_elsewhere, "h/unrelated", &[]), Verdict::Alive);
    assert!(table.may_select(before.version, URL.as_bytes(), NONE));
    assert!(!table.may_select(after.version, URL.as_bytes(), NONE));
}

#[test]
fn a_pending_purge_becomes_its_record() {
    let mut table = table();
    let before = table.stamp();
    let soft = purge(Mode::Soft, &[tag("t")]);
    let pending = table.apply_pending(&soft);
    let between = table.stamp();
    assert_eq!(table.verdict(before), Verdict::Soft);
    table.purge(Mode::Soft, &[tag("t")]);
    table.settle(pending);
    assert_eq!(table.verdict(before), Verdict::Soft);
    assert_eq!(table.verdict(between), Verdict::Soft, "its fence does not say that it is younger");
    let from_elsewhere = Stamp { version: 0, ..table.stamp() };
    assert_eq!(table.verdict(from_elsewhere), Verdict::Alive);
}

#[test]
fn a_pending_purge_outlives_a_log_and_an_equal_one() {
    let mut table = table();
    let first = table.apply_pending(&purge(Mode::Hard, &[tag("t"), prefix("/x")]));
    let second = table.apply_pending(&purge(Mode::Hard, &[tag("t"), tag("t")]));
    table.begin(Fence { log: LogId(2), seq: 0 });
    let from_elsewhere = Stamp { version: 0, ..table.stamp() };
    assert_eq!(table.verdict_of(from_elsewhere, "h/x/y", &[]), Verdict::Dead);
    table.settle(first);
    table.settle(first);
    assert_eq!(table.verdict_of(from_elsewhere, "h/x/y", &[]), Verdict::Alive);
    assert_eq!(table.verdict(from_elsewhere), Verdict::Dead);
    table.settle(second);
    assert_eq!(table.verdict(from_elsewhere), Verdict::Alive);
}

#[test]
fn before_its_tags_are_known_any_tag_may_select_a_response() {
    let mut table = table();
    let may_select = |change: &dyn Fn(&mut Table), table: &mut Table| {
        let since = table.version();
        change(table);
        assert!(!table.may_select(table.version(), URL.as_bytes(), NONE));
        table.may_select(since, URL.as_bytes(), NONE)
    };
    for related in [tag("else"), url("/a/b?c=1"), prefix("example.com/a"), Selector::Everything] {
        for mode in [Mode::Hard, Mode::Soft] {
            let change = |table: &mut Table| table.purge(mode, std::slice::from_ref(&related));
            assert!(may_select(&change, &mut table), "{related:?}");
        }
    }
    for unrelated in [url("/a"), prefix("example.com/b")] {
        let change = |table: &mut Table| table.purge(Mode::Hard, std::slice::from_ref(&unrelated));
        assert!(!may_select(&change, &mut table), "{unrelated:?}");
    }
}

/// What one step of a random history does.
#[derive(Debug, Clone)]
enum Step {
    /// Asks for a response; `true` if another process does.
    Ask(&'static str, Vec<&'static str>, Facets<'static>, bool),
    Purge(Purge),
    Pend(Purge),
    /// Writes one of the pending purges to the log.
    Settle(prop::sample::Index),
    Begin,
    /// Notes which responses are alive.
    Check,
}

/// A response as the table never sees it.
struct Asked {
    stamp: Stamp,
    checked: u64,
    is_foreign: bool,
    url: &'static str,
    tags: Vec<&'static str>,
    facets: Facets<'static>,
    /// How much of the history there was.
    at: usize,
    worst: Verdict,
}

/// A purge in the order in which purges came; without an identity it is a record.
struct Happened {
    purge: Purge,
    pending: Option<PendingId>,
}

/// A table beside all that ever happened.
struct History {
    table: Table,
    happened: Vec<Happened>,
    begun_at: usize,
    asked: Vec<Asked>,
}

impl History {
    fn take(&mut self, step: Step) {
        match step {
            Step::Ask(url, tags, facets, is_foreign) => self.ask((url, tags, facets), is_foreign),
            Step::Purge(purge) => self.append(purge),
            Step::Pend(purge) => {
                let pending = Some(self.table.apply_pending(&purge));
                self.happened.push(Happened { purge, pending });
            }
            Step::Settle(index) => self.settle(index),
            Step::Begin => {
                let log = LogId(self.table.log.0 + 1);
                self.table.begin(Fence { log, seq: 3 });
                self.begun_at = self.happened.len();
            }
            Step::Check => {
                for asked in &mut self.asked {
                    if asked.judge(&self.table) == Verdict::Alive {
                        asked.checked = self.table.version();
                    }
                }
            }
        }
    }

    fn ask(
        &mut self,
        (url, tags, facets): (&'static str, Vec<&'static str>, Facets<'static>),
        is_foreign: bool,
    ) {
        let stamp = self.table.stamp();
        let checked = if is_foreign { 0 } else { stamp.version };
        let (at, worst) = (self.happened.len(), Verdict::Alive);
        self.asked.push(Asked { stamp, checked, is_foreign, url, tags, facets, at, worst });
    }

    fn append(&mut self, purge: Purge) {
        let seq = self.table.applied + 1;
        let at = Timestamp::from_millis(seq);
        self.table.apply(&Record { seq, at, purge: purge.clone() });
        self.happened.push(Happened { purge, pending: None });
    }

    fn settle(&mut self, index: prop::sample::Index) {
        let pending: Vec<_> = self.happened.iter().filter_map(|it| it.pending).collect();
        if pending.is_empty() {
            return;
        }
        let id = *index.get(&pending);
        let place = self.happened.iter().position(|it| it.pending == Some(id)).unwrap();
        self.append(self.happened[place].purge.clone());
        self.table.settle(id);
        self.happened[place].purge.selectors.clear();
        self.happened[place].pending = None;
    }

    /// What scanning everything that happened says.
    fn truth(&self, asked: &Asked) -> Verdict {
        if asked.at < self.begun_at || asked.stamp.fence.log != self.table.log {
            return Verdict::Dead;
        }
        let later = self.happened.iter().enumerate().filter(|(place, it)| {
            *place >= asked.at || (asked.is_foreign && asked.checked == 0 && it.pending.is_some())
        });
        let verdicts = later.filter(|(_, it)| asked.is_selected(&it.purge)).map(|(_, it)| match it
            .purge
            .mode
        {
            Mode::Hard => Verdict::Dead,
            Mode::Soft => Verdict::Soft,
        });
        verdicts.max().unwrap_or(Verdict::Alive)
    }
}

impl Asked {
    fn judge(&self, table: &Table) -> Verdict {
        self.judge_since(table, self.checked)
    }

    fn judge_since(&self, table: &Table, checked: u64) -> Verdict {
        table.judge(self.stamp.fence, checked, &subject(self.url, &self.tags, self.facets))
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
                let is_like = |text: &str| is_like(pattern.as_bytes(), text.as_bytes());
                is_like(self.url) || is_like(path)
            }
            Selector::User(user) => self.facets.user == Some(user),
            Selector::Route(route) => self.facets.route == Some(route),
            Selector::Version(version) => self.facets.version == Some(version),
            Selector::Credential(_) => false,
            Selector::All(selectors) => selectors.iter().all(|it| self.is_selected_by(it)),
        }
    }
}

/// What a pattern means, by trying everything.
fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skipped| is_like(rest, &text[skipped..])),
        Some((byte, rest)) => text.first() == Some(byte) && is_like(rest, &text[1..]),
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

/// What facets may be.
const VALUES: [&str; 2] = ["a", "b"];

fn facets() -> impl Strategy<Value = Facets<'static>> {
    let value = || prop::option::of(select(VALUES.to_vec()));
    (value(), value(), value()).prop_map(|(user, route, version)| Facets { user, route, version })
}

fn purges() -> impl Strategy<Value = Purge> {
    (select(vec![Mode::Hard, Mode::Soft]), vec(selectors(), 0..3))
        .prop_map(|(mode, selectors)| purge(mode, &selectors))
}

fn steps() -> impl Strategy<Value = Step> {
    let tags = vec(select(TAGS.to_vec()), 0..3);
    prop_oneof![
        8 => (select(URLS.to_vec()), tags, facets(), any::<bool>())
            .prop_map(|(url, tags, facets, is_foreign)| Step::Ask(url, tags, facets, is_foreign)),
        8 => purges().prop_map(Step::Purge),
        4 => purges().prop_map(Step::Pend),
        3 => any::<prop::sample::Index>().prop_map(Step::Settle),
        1 => Just(Step::Begin),
        4 => Just(Step::Check),
    ]
}

/// Plays a history on a table of this capacity and holds every verdict against the truth.
fn play(steps: Vec<Step>, capacity: usize) {
    let table = Table::new(capacity);
    let mut history = History { table, happened: Vec::new(), begun_at: 0, asked: Vec::new() };
    for step in steps {
        history.take(step);
        for place in 0..history.asked.len() {
            let asked = &history.asked[place];
            let (verdict, truth) = (asked.judge(&history.table), history.truth(asked));
            if capacity == usize::MAX {
                assert_eq!(verdict, truth);
            }
            assert!(verdict >= truth && verdict >= asked.worst, "a purge was forgotten");
            let by_stamp = asked.judge_since(&history.table, asked.stamp.version);
            let (since, url) = (asked.stamp.version, asked.url.as_bytes());
            let may_select = history.table.may_select(since, url, asked.facets);
            assert!(by_stamp == Verdict::Alive || may_select);
            history.asked[place].worst = verdict;
        }
        assert!(history.table.len() <= capacity);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn with_room_for_all_it_says_what_scanning_all_records_says(steps in vec(steps(), 0..60)) {
        play(steps, usize::MAX);
    }

    #[test]
    fn with_little_room_it_never_says_better(steps in vec(steps(), 0..60), room in 0..5_usize) {
        play(steps, room);
    }
}
