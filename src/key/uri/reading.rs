//! Readings of a path: servers differ over decoding, backslashes, dot segments and more.
//!
//! A response is stored under the path exactly as it is forwarded. Decisions that must not depend
//! on the origin's reading (routes, `cache = false`, tags, purges) check all readings.

use std::{borrow::Cow, str};

use super::{byte_class, percent};

/// All readings of one path.
#[derive(Debug, Clone)]
pub enum PathReadings<'a> {
    /// Servers agree about the path, except for case and a trailing slash.
    Plain(Cow<'a, str>),
    /// Servers agree about the path, which is its own loosest reading.
    Loosest(Cow<'a, str>),
    /// Servers may disagree about the path.
    Ambiguous(Box<AmbiguousPath<'a>>),
}

/// The readings of a path with an encoding, a backslash, a semicolon, or an empty or dot segment.
#[derive(Debug, Clone)]
pub struct AmbiguousPath<'a> {
    sent: Cow<'a, str>,
    normal: Cow<'a, str>,
    once: String,
    twice: String,
    loosest: String,
    is_fully_decoded: bool,
}

/// How far a reading of a path is decoded. Text is compared with it in the same form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathForm {
    /// The path as sent, or in the normal form of RFC 3986 §6.2.2.
    Sent,
    /// The path, percent-decoded once.
    Once,
    /// The path, percent-decoded twice.
    Twice,
    /// The loosest reading, see [`PathReadings::loosest`].
    Loosest,
}

impl PathForm {
    /// All forms.
    pub const ALL: [Self; 4] = [Self::Sent, Self::Once, Self::Twice, Self::Loosest];
}

impl<'a> PathReadings<'a> {
    /// Computes the readings of a path.
    ///
    /// Takes one pass over an unambiguous path, otherwise about a microsecond.
    pub fn of(path: &'a str) -> Self {
        match plain(path) {
            Some(PlainPath::Loosest) => Self::Loosest(path.into()),
            Some(PlainPath::Folds) => Self::Plain(path.into()),
            None => Self::Ambiguous(Box::new(AmbiguousPath::of(path))),
        }
    }

    /// Returns the path as sent.
    pub fn sent(&self) -> &str {
        match self {
            Self::Plain(path) | Self::Loosest(path) => path,
            Self::Ambiguous(ambiguous) => &ambiguous.sent,
        }
    }

    /// Returns the same readings without borrows.
    pub fn into_owned(self) -> PathReadings<'static> {
        match self {
            Self::Plain(path) => PathReadings::Plain(path.into_owned().into()),
            Self::Loosest(path) => PathReadings::Loosest(path.into_owned().into()),
            Self::Ambiguous(ambiguous) => {
                let AmbiguousPath { sent, normal, once, twice, loosest, is_fully_decoded } =
                    *ambiguous;
                let (sent, normal) = (sent.into_owned().into(), normal.into_owned().into());
                let ambiguous =
                    AmbiguousPath { sent, normal, once, twice, loosest, is_fully_decoded };
                PathReadings::Ambiguous(Box::new(ambiguous))
            }
        }
    }

    /// Returns whether two rounds of decoding leave no encoding.
    pub fn are_fully_decoded(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Loosest(_) => true,
            Self::Ambiguous(ambiguous) => ambiguous.is_fully_decoded,
        }
    }

    /// Returns the loosest reading, in lower case.
    ///
    /// It is decoded twice, with `\` as `/`, and without empty and dot segments, `;parameters` and
    /// a trailing slash.
    pub fn loosest(&self) -> Cow<'_, str> {
        match self {
            Self::Loosest(path) => Cow::Borrowed(path),
            Self::Plain(path) => Cow::Owned(without_slash(path).to_ascii_lowercase()),
            Self::Ambiguous(ambiguous) => Cow::Borrowed(&ambiguous.loosest),
        }
    }

    /// Returns all readings with their forms; some may be equal.
    ///
    /// A path about which servers agree has no decoded readings.
    pub fn each(&self) -> impl Iterator<Item = (PathForm, Cow<'_, str>)> {
        let between = match self {
            Self::Plain(_) | Self::Loosest(_) => None,
            Self::Ambiguous(ambiguous) => Some([
                (PathForm::Sent, &*ambiguous.normal),
                (PathForm::Once, &*ambiguous.once),
                (PathForm::Twice, &*ambiguous.twice),
            ]),
        };
        let between = between.into_iter().flatten();
        let first = (PathForm::Sent, Cow::Borrowed(self.sent()));
        let last = std::iter::once_with(|| (PathForm::Loosest, self.loosest()));
        let between = between.map(|(form, path)| (form, Cow::Borrowed(path)));
        std::iter::once(first).chain(between).chain(last)
    }
}

impl<'a> AmbiguousPath<'a> {
    fn of(path: &'a str) -> Self {
        let once = percent::decoded(path.as_bytes());
        let twice = percent::decoded(&once);
        Self {
            sent: path.into(),
            normal: super::normal_path(path),
            loosest: loosest(&twice, PathExtent::OfPath),
            is_fully_decoded: !percent::has_encoding(&twice),
            once: String::from_utf8_lossy(&once).into_owned(),
            twice: String::from_utf8_lossy(&twice).into_owned(),
        }
    }
}

/// Returns a pattern's literal in `form`, to be compared with readings in the same form.
///
/// `literal` is in the normal form.
pub(crate) fn literal_in(form: PathForm, literal: &str) -> Cow<'_, str> {
    let decoded = |text: &[u8]| String::from_utf8_lossy(&percent::decoded(text)).into_owned();
    match form {
        PathForm::Sent => Cow::Borrowed(literal),
        PathForm::Once => Cow::Owned(decoded(literal.as_bytes())),
        PathForm::Twice => Cow::Owned(decoded(&percent::decoded(literal.as_bytes()))),
        PathForm::Loosest => PathReadings::of(literal).loosest().into_owned().into(),
    }
}

/// Returns the loosest reading of a path prefix.
///
/// Like [`PathReadings::loosest`], but keeps a trailing slash.
pub(crate) fn loosest_prefix(path: &str) -> String {
    let once = percent::decoded(path.as_bytes());
    loosest(&percent::decoded(&once), PathExtent::Open)
}

/// Whether a text is a complete path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PathExtent {
    OfPath,
    /// The text is a prefix, so a trailing slash is significant.
    Open,
}

fn loosest(decoded: &[u8], ending: PathExtent) -> String {
    let text = String::from_utf8_lossy(decoded).to_lowercase().replace('\\', "/");
    let Some(path) = text.strip_prefix('/') else {
        return if text.is_empty() { "/".to_owned() } else { text }; // `*` and other non-paths
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in path.split('/') {
        let name = segment.split(';').next().unwrap_or_default();
        ends_open = matches!(name, "" | "." | "..");
        match name {
            "" | "." => {}
            ".." => _ = kept.pop(),
            name => kept.push(name),
        }
    }
    let mut loosest = String::with_capacity(text.len());
    for segment in &kept {
        loosest.push('/');
        loosest.push_str(segment);
    }
    if loosest.is_empty() || (ending == PathExtent::Open && ends_open) {
        loosest.push('/');
    }
    loosest
}

/// The kinds of paths about which servers agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlainPath {
    /// The path is its own loosest reading.
    Loosest,
    /// Some servers treat the path as equal to a path that differs in case or a trailing slash.
    Folds,
}

/// Returns the kind of a path about which servers certainly agree; otherwise `None`. Takes one
/// pass.
fn plain(path: &str) -> Option<PlainPath> {
    let (mut before, mut all) = (0, 0);
    for byte in path.bytes() {
        let marks = byte_class::of_byte(byte);
        if before & byte_class::SLASH != 0 && marks & (byte_class::SLASH | byte_class::DOT) != 0 {
            return None;
        }
        all |= marks;
        before = marks;
    }
    if all & byte_class::SPECIAL != 0 || path.is_empty() {
        return None;
    }
    let folds = all & byte_class::UPPER != 0 || (before & byte_class::SLASH != 0 && path.len() > 1);
    Some(if folds { PlainPath::Folds } else { PlainPath::Loosest })
}

fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loosest_of(path: &str) -> String {
        PathReadings::of(path).loosest().into_owned()
    }

    #[test]
    fn the_loosest_reading_is_one_for_all_spellings() {
        for path in [
            "/account/me",
            "/Account/Me/",
            "//account/me",
            "/account%2fme",
            "/account%252fme",
            "/account;x/me",
            "/account/me;v=1",
            "/static/..%2faccount/me",
            "/static/%2e%2e/account/me",
            "/static\\..\\account\\me",
            "/static/..%5Caccount/me",
            "/%61ccount/./me/.",
            "/../account/me",
        ] {
            assert_eq!(loosest_of(path), "/account/me", "{path}");
        }
        for (path, loosest) in
            [("/", "/"), ("", "/"), ("//", "/"), ("/a/..", "/"), ("*", "*"), ("/É", "/é")]
        {
            assert_eq!(loosest_of(path), loosest, "{path}");
        }
    }

    #[test]
    fn a_plain_path_has_no_decoded_readings() {
        for path in ["/a/b.json", "/AAPL", "/a/", "/", "*", "/a+b,c=d:e@f~"] {
            assert!(!matches!(PathReadings::of(path), PathReadings::Ambiguous(_)), "{path}");
        }
        let forms: Vec<_> =
            PathReadings::of("/A").each().map(|(_, path)| path.into_owned()).collect();
        assert_eq!(forms, ["/A", "/a"]);
    }

    #[test]
    fn every_round_of_decoding_is_a_reading_of_its_own() {
        let readings = PathReadings::of("/a%2Fb%252Fc");
        let all: Vec<_> = readings.each().map(|(_, path)| path.into_owned()).collect();
        assert_eq!(all, ["/a%2Fb%252Fc", "/a%2Fb%252Fc", "/a/b%2Fc", "/a/b/c", "/a/b/c"]);
        assert!(readings.are_fully_decoded());
        assert!(!PathReadings::of("/a%25252Fb").are_fully_decoded());
        assert!(
            PathReadings::of("/100%25").are_fully_decoded()
                && PathReadings::of("/%25%zz").are_fully_decoded()
        );
    }

    #[test]
    fn the_beginning_of_a_path_keeps_its_slash() {
        for (path, loosest) in
            [("/Api/", "/api/"), ("/api//", "/api/"), ("/a%2", "/a%2"), ("", "/")]
        {
            assert_eq!(loosest_prefix(path), loosest, "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_is_decoded_has_the_same_loosest_reading(
            path in "(/|%2f|%5C|\\\\|;|\\.|A|a|%41|%2e|é){0,12}"
        ) {
            let path = format!("/{path}");
            let readings = PathReadings::of(&path);
            let once = readings.each().find(|(form, _)| *form == PathForm::Once);
            if let Some((_, once)) = once {
                prop_assert_eq!(loosest_of(&once), readings.loosest().into_owned());
            }
        }

        #[test]
        fn a_plain_path_is_what_the_long_way_finds(path in "/[a-zA-Z0-9/._-]{0,12}") {
            let ambiguous = AmbiguousPath::of(&path);
            let plain = PathReadings::of(&path);
            if !matches!(plain, PathReadings::Ambiguous(_)) {
                prop_assert_eq!(matches!(plain, PathReadings::Loosest(_)), ambiguous.loosest == path);
                prop_assert_eq!(&*plain.loosest(), &*ambiguous.loosest);
                prop_assert_eq!(&ambiguous.once, &path);
                prop_assert_eq!(&*ambiguous.normal, &path);
            }
        }
    }
}
